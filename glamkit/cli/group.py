"""What the subcommands share: the group, its hints, its exit status and the examples in its help."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from glamkit import __version__
from glamkit.errors import GlamkitError, StoppedError

if TYPE_CHECKING:
    from glamkit.notebook import Live

FAILED, WRONG = 1, 2
# From the first run to the tools.
ORDER = ["train", "evaluate", "share", "lab", "notebook", "sweep", "ablate", "report", "compare"]
ORDER += ["benchmark", "parity", "doctor", "tensorboard"]


class Once(click.Command):
    """A command that refuses an option given twice, where click would take the last."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses as click does.

        Raises:
            UsageError: an option that takes one value is given twice.
        """
        for option in self.params:
            if isinstance(option, click.Option) and not option.multiple and not option.is_flag:
                names = [name for name in option.opts if name.startswith("--")]
                if sum(arg.split("=")[0] in names for arg in args) > 1:
                    raise click.UsageError(f"{names[0]} is given twice; keep one.")
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """Subcommands in the order of `ORDER`."""

    command_class = Once

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of `ORDER`."""
        del ctx
        return sorted(self.commands, key=ORDER.index)


class FailedError(Exception):
    """Work that had begun and failed; the message is a sentence."""


def call(command: Sequence[str], folder: Path | None = None) -> int:
    """Runs a program to its end and returns its exit status; its folder is the current one if none is given.

    Ctrl+C reaches the program from the terminal as it reaches this one, and it may take its time to save.

    Raises:
        KeyboardInterrupt: Ctrl+C was pressed; the program has ended by then.
    """
    interrupted = False
    with subprocess.Popen(command, cwd=folder) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode


@contextlib.contextmanager
def work() -> Iterator[None]:
    """Context for the work after all input is checked.

    Raises:
        FailedError: a GlamkitError was raised inside: the exit status is then 1, not 2. A StoppedError stays one.
    """
    try:
        yield
    except StoppedError:
        raise
    except GlamkitError as error:
        raise FailedError(str(error)) from None


def examples(*lines: str) -> str:
    """The end of a command's help: example lines that can be typed as they are."""
    return "\b\n" + "\n".join([f"Example{'s' * (len(lines) > 1)}:", *(f"  {line}" for line in lines)])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="glamkit")
def glamkit() -> None:
    """GLAM for anyone: train a world model on a game, and look at what it imagines."""


@contextlib.contextmanager
def live(stream: TextIO | None = None) -> Iterator[Live]:
    """A line of progress on a stream, by default the standard output, that is ended however the work ends."""
    from glamkit.notebook import Live

    line = Live(stream=stream)
    try:
        yield line
    finally:
        line.end()
