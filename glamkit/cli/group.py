"""What the subcommands share: the group, an option, the examples in their help, and how a program is called."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from glamkit import __version__

FAILED = 1


class Commands(click.Group):
    """Subcommands in the order in which they are defined, from the first run to the tools."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="glamkit")
def glamkit() -> None:
    """GLAM for anyone: train a world model on a game, and look at what it imagines."""


settings = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting by its dotted name.")


def examples(*lines: str) -> str:
    """The end of a command's help: example lines that can be typed as they are."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def call(command: Sequence[str], folder: Path | None = None) -> int:
    """Runs a program in a folder to its end and returns its exit status.

    Ctrl+C reaches the program from the terminal as it reaches this one; SIGTERM is passed on. It may take its time to
    save; then KeyboardInterrupt is raised.
    """
    interrupted = False
    with subprocess.Popen(command, cwd=folder) as process:

        def end(*_: object) -> None:
            process.terminate()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, end)
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
        signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode
