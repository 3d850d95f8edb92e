"""status.json: where a run is and why it does not go on. One that is ``running`` with nobody at work was killed."""

from __future__ import annotations

import json
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_type_hints

from glamkit.errors import GlamkitError
from glamkit.runs.files import read_json, replace_text

FORMAT = 1
STATES = ("running", "stopped", "done", "failed")
logger = logging.getLogger(__name__)


class Status(NamedTuple):
    """One state of a run."""

    state: str  # one of STATES
    step: int  # agent steps made when this was written
    saved: int  # of which the newest checkpoint holds so many
    reason: str  # why it stopped or failed; empty otherwise
    host: str
    pid: int
    time: str  # UTC, ISO 8601


def write(path: Path, state: str, step: int, saved: int, reason: str = "") -> None:
    """Writes it at once or not at all; a full disk is only reported, since it fails the next checkpoint anyway."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = Status(state, step, saved, reason, socket.gethostname(), os.getpid(), now)
    try:
        replace_text(path, json.dumps({"format": FORMAT, **status._asdict()}, indent=1))
    except GlamkitError as error:
        logger.warning("%s", error)


def read(path: Path) -> Status:
    """The status in a run folder."""
    data, kinds = read_json(path), get_type_hints(Status)
    known = isinstance(data, dict) and data.get("state") in STATES
    if not known or any(type(data.get(name)) is not kind for name, kind in kinds.items()):
        raise GlamkitError(f"{path} is not the status of a glamkit run, damaged, or that of a newer glamkit.")
    return Status(**{name: data[name] for name in kinds})
