"""What all tests share: shapes are checked while they run, and what this machine lacks is skipped with a reason."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: threads that wait asleep instead of spinning do not slow down those of other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import jaxtyping
import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from lab import Lab

    from glamkit.analysis.studio.player import Player
    from glamkit.training.load import LoadedRun

# A shell that starts this in the background has it, and every process it starts, ignore Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' models are tiny: a second thread would only wait for the first.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every machine and at every time, so that a test which fails for someone fails for all.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


class CheckOutsideCompilers(type(jaxtyping.config)):  # type: ignore[misc]
    """Lets torch.compile see the plain functions, since it cannot trace the checks."""

    @property
    def jaxtyping_disable(self) -> bool:
        return torch.compiler.is_compiling()

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, value: bool) -> None:
        del value


def shaped_modules() -> list[str]:
    """The modules that annotate shapes: those that import a type with a shape from `glamkit.types`, and that one."""
    names = re.compile(r"from glamkit\.types import .*\b(Float|Int|Shaped|UInt8)\b")
    paths = [path for path in sorted((ROOT / "glamkit").rglob("*.py")) if names.search(path.read_text())]
    return ["glamkit.types", *(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)]


# Only those modules are checked: elsewhere, wrong types are the user's, and glamkit's own sentences are what is tested.
if "glamkit" in sys.modules:
    raise RuntimeError("glamkit was imported before its shapes could be checked")
jaxtyping.config.__class__ = CheckOutsideCompilers
TOWER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int is a float, as type checkers say
jaxtyping.install_import_hook(shaped_modules(), TOWER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU or a browser where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and torch sees none here")
    if item.get_closest_marker("browser"):
        from lab import find_browser

        if not find_browser():
            pytest.skip("needs chromium on the PATH: apt-get install -y chromium")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab for all browser tests; each puts notebooks of its own names into its folder."""
    from lab import running_lab

    with running_lab(tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def page(lab: Lab) -> Iterator[Any]:
    """A page in chromium; whatever it asks of any other machine fails the test."""
    from lab import new_page

    with new_page(lab) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shared runs are unpacked anew: what another glamkit left in the user's cache must not pass for this one's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GLAMKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def catch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of Catch whose latents are probabilities, so that nothing is drawn."""
    from tiny_runs import finished, short

    config = short("world_model.latents=probabilities", game="glamkit/Catch-v0", env_steps=120)
    return finished(config, tmp_path_factory.mktemp("trained") / "catch").run.folder


@pytest.fixture(scope="module")
def run(catch_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """The run of `catch_folder`, opened; each file has a copy of its own, as dreams are saved into it."""
    from glamkit.training.load import open_run

    return open_run(shutil.copytree(catch_folder, tmp_path_factory.mktemp("own") / "catch"))


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What `Pace` and `Monitor` look at instead of the time."""
    from glamkit.analysis import monitor

    clock = Clock()
    monkeypatch.setattr(monitor.time, "perf_counter", clock)
    return clock


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run so short has not learnt what ends a game, and expects it everywhere."""
    monkeypatch.setattr("glamkit.analysis.studio.dream_tree.OVER", 2.0)


@pytest.fixture
def playing(run: LoadedRun) -> Iterator[Player]:
    """A player of a dream in `run`."""
    from glamkit.analysis.studio.player import Player
    from glamkit.analysis.studio.studio import Dream

    shown = Player(Dream(run, 40))
    yield shown
    shown.close()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
