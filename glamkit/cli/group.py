"""What the subcommands share: the group, an option, a line of progress, and the examples in their help."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from glamkit import __version__

if TYPE_CHECKING:
    from glamkit.notebook import Live

FAILED = 1
# From the first run to the tools.
ORDER = ["train", "evaluate", "share", "lab", "notebook", "sweep", "ablate", "report", "compare"]
ORDER += ["benchmark", "parity", "doctor", "tensorboard"]


class Commands(click.Group):
    """Subcommands in the order of `ORDER`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of `ORDER`."""
        del ctx
        return sorted(self.commands, key=ORDER.index)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="glamkit")
def glamkit() -> None:
    """GLAM for anyone: train a world model on a game, and look at what it imagines."""


settings = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting by its dotted name.")


def examples(*lines: str) -> str:
    """The end of a command's help: example lines that can be typed as they are."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


@contextlib.contextmanager
def live(stream: TextIO | None = None) -> Iterator[Live]:
    """A line of progress on a stream, by default the standard output, that is ended however the work ends."""
    from glamkit.notebook import Live

    line = Live(stream=stream)
    try:
        yield line
    finally:
        line.end()


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
