"""The Atari 100k report: runs beside published methods, with intervals and everything that stands in the way.

glamkit report --published --json published.json
"""

from __future__ import annotations

import json
from pathlib import Path

from glamkit.errors import GlamkitError
from glamkit.report.report import REPEATS, published
from glamkit.runs.folder import replace_text


def published_json(path: Path, repeats: int | str = REPEATS) -> None:
    """Writes every shipped method's aggregates as JSON, see `report.published`.

    Raises:
        GlamkitError: the file cannot be written.
    """
    text = json.dumps(published(repeats), indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise GlamkitError(f"{str(path)!r} cannot be written: {error.strerror}.") from None
