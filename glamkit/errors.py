"""The one kind of error glamkit raises for a person to read: a single sentence that says what to do.

In a notebook IPython shows that sentence alone, on the command line `cli.main` does.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def nearest(value: object, allowed: Iterable[object]) -> str:
    """A hint such as ``did you mean 'Pong'?``; without a near match, the allowed names themselves.

    Letter case, dashes and underscores are ignored when comparing, as those are what people mistype most.
    """
    names = [str(name) for name in allowed]
    plain = {_plain(name): name for name in names}
    close = get_close_matches(_plain(str(value)), plain, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(plain[name]) for name in close) + "?"
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    return f"allowed: {shown}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
