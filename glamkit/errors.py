"""The one kind of error glamkit raises for a person to read: a single sentence that says what to do.

In a notebook IPython shows that sentence alone, on the command line `cli.main` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches

INTERRUPTED = 130  # exit status of what was stopped before its end
DISTRIBUTION = "glamkit-rl"  # its name for pip; another project has `glamkit` there


class GlamkitError(Exception):
    """Something the user can mend; the message is one sentence naming the value and what is allowed."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it: the sentence alone; the code it came from does not help who can mend it."""
        return [f"{type(self).__name__}: {self}"]


class StoppedError(GlamkitError):
    """Work that was stopped before its end; the message says what is saved. It is no failure."""


def install(extra: str) -> str:
    """The command that adds one of the package's extras, for whoever lacks it."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def reason(error: BaseException) -> str:
    """What an error says, in one line without its full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return (lines[0] if lines else type(error).__name__).strip().rstrip(".")


def plain(name: str) -> str:
    """A name without letter case, dashes, underscores and spaces, which people mistype most."""
    return re.sub("[-_ ]", "", name.lower())


def nearest(value: object, allowed: Iterable[object], key: Callable[[str], str] = plain) -> str:
    """A hint such as ``did you mean 'Pong'?``; without a near match, the allowed names. They are compared by `key`."""
    names = [str(name) for name in allowed]
    known, given = {key(name): name for name in names}, key(str(value))
    close = [given] if given in known else get_close_matches(given, known)
    if close:
        return "did you mean " + " or ".join(repr(known[name]) for name in close) + "?"
    return f"allowed: {', '.join(names[:30])}{', ...' * (len(names) > 30)}"
