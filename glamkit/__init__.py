"""The GLAM that anyone can run: ``for event in glamkit.Trainer(glamkit.preset("quick", game="Pong"), "runs/pong")``."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP's threads spin while they wait for each other. Beside a browser, spinning for long makes training many times
# slower, and not spinning twice as slow on a quiet machine. This is some 30 microseconds; torch reads it at its import.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# ruff: noqa: F401
if TYPE_CHECKING:  # for editors and mypy; `_HOMES` has the same names
    from glamkit import analysis, models, notebook, plotting, report, sweeps
    from glamkit.config import PRESETS, Config, preset
    from glamkit.envs import check_env, make_env
    from glamkit.errors import GlamkitError
    from glamkit.models import export_released, import_released
    from glamkit.runs import Run
    from glamkit.training import Event, Trainer, evaluate, open_run
    from glamkit.training.share import share

__version__ = "0.1.0"

# Where the public names live. A package is imported when a name of it is first used: so `import glamkit` is quick, and
# `glamkit doctor` runs even where torch itself is broken.
_HOMES = {
    "config": ["PRESETS", "Config", "preset"],
    "envs": ["check_env", "make_env"],
    "errors": ["GlamkitError"],
    "models": ["export_released", "import_released"],
    "runs": ["Run"],
    "training": ["Event", "Trainer", "evaluate", "open_run"],
    "training.share": ["share"],
}
_PACKAGES = ["analysis", "models", "notebook", "plotting", "report", "sweeps"]

__all__ = sorted(["__version__", *_PACKAGES, *(name for names in _HOMES.values() for name in names)])


def __getattr__(name: str) -> Any:
    """Imports the package of a public name when the name is first used."""
    if name in _PACKAGES:
        return importlib.import_module(f"glamkit.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"glamkit.{home}"), name)
    raise AttributeError(f"module 'glamkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return __all__
