"""The command ``glamkit``: train, evaluate, look, compare.

Each subcommand imports what it needs when it is called, so that the help appears at once. Exit status: 0 done,
1 failed, 2 not a command line of ours, 130 interrupted or stopped before the end.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from glamkit.cli import play, studies, machine  # isort: skip  # the help names commands in this order
from glamkit.cli.group import FAILED, glamkit
from glamkit.errors import INTERRUPTED, GlamkitError, StoppedError

__all__ = ["machine", "main", "play", "studies"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status; `arguments` are those of `sys.argv` if left out.

    An error that the user can correct is one sentence on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe on Windows may not know all letters of a table
    if not (sys.argv[1:] if arguments is None else arguments):
        arguments = ["--help"]
    try:
        # Where it is None, click takes sys.argv, and on Windows does what shells elsewhere do with "runs/*".
        glamkit.main(arguments, prog_name="glamkit", standalone_mode=False)
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except GlamkitError as error:
        click.echo(error, err=True)
        return INTERRUPTED if isinstance(error, StoppedError) else FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    return 0
