"""The kill test: runs that are killed at random moments, some of them during a save, and what became of them.

    python tests/programs/kills.py 200 --seed 1

A run is killed with SIGKILL one to three times and then goes on to its end. It counts as equal if nothing tells it from
a run that nobody disturbed: the last checkpoint, every stored step, the snapshots, and the log but for what the clock
says.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tiny_runs import same, short

from glamkit.config import Config
from glamkit.runs import files, status
from glamkit.training import checkpoint
from glamkit.training.trainer import Trainer

# A save every six steps makes saving a fair share of the run; the game is Atari's, whose emulator must come back too.
CONFIG = "trainer.env_steps=78 trainer.save_every=6 trainer.log_every=7 trainer.update_every=3 replay.capacity=64"
KINDS = {".npz": "while saving the replay", ".pt": "while saving the state", ".json": "while saving its manifest"}
QUIET = "between two saves"
WRITES = 3 * 78 // 6  # of a run: at each save one of each kind
MOST = 3  # kills of one run
PATIENCE = 120.0  # seconds for a run of seconds


class Kill(NamedTuple):
    """One kill: what the run was doing, and the step whose checkpoint was the newest then."""

    moment: str
    saved: int


def config() -> Config:
    return short(CONFIG)


def child(folder: Path, pipe: int) -> None:
    """Trains to the end, and says when it begins and ends to write a part of a checkpoint."""
    replace = files.replace

    def reported(path: Path, fill: Any) -> None:
        told = path.parent.name in ("replay", "checkpoint")  # other files are no part of one
        if told:
            os.write(pipe, b"(" + bytes([list(KINDS).index(path.suffix)]))
        replace(path, fill)
        if told:
            os.write(pipe, b")")

    files.replace = checkpoint.replace = reported  # type: ignore[attr-defined, assignment]
    trainer = Trainer(config(), folder)
    os.write(pipe, b"s")
    for _ in trainer:
        pass


def fork(folder: Path) -> tuple[int, int]:
    """Starts a run in a copy of this process, which has imported all that takes long; its id and what it says."""
    reader, pipe = os.pipe()
    pid = os.fork()
    if pid:
        os.close(pipe)
        return pid, reader
    code = 1
    try:
        os.close(reader)
        child(folder, pipe)
        code = 0
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Waits for a process; minus the signal that ended it, or its exit status."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run took more than {PATIENCE} s")


def kill(folder: Path, random: random.Random, seconds: float) -> Kill | None:
    """Starts or goes on with a run and kills it; None if it was done before that.

    Half of the kills are aimed at a random place of a random save.
    """
    pid, reader = fork(folder)
    heard = b""
    if random.random() < 0.5:
        wanted = random.randrange(1, WRITES + 1)
        while heard.count(b"(") < wanted and (news := os.read(reader, 2)):
            heard += news
        time.sleep(random.random() * 0.004)
    else:
        time.sleep(random.random() * seconds)
    os.kill(pid, signal.SIGKILL)
    ended = end(pid)
    while news := os.read(reader, 4096):
        heard += news
    os.close(reader)
    if ended == 0:
        return None
    assert ended == -signal.SIGKILL, (folder / "error.txt").read_text()
    writing = heard.count(b"(") > heard.count(b")")
    moment = KINDS[list(KINDS)[heard[heard.rindex(b"(") + 1]]] if writing else QUIET
    saved = max([0, *checkpoint.steps(folder / "checkpoint")])
    return Kill(moment if saved or writing else "before the first checkpoint", saved)


def finish(folder: Path) -> float:
    """Goes on with a run to its end; the seconds it took."""
    began = time.monotonic()
    pid, reader = fork(folder)
    ended = end(pid)
    os.close(reader)
    if ended:
        raise RuntimeError((folder / "error.txt").read_text())
    return time.monotonic() - began


def remains(folder: Path, capacity: int) -> dict[str, Any]:
    """All that a finished run has left, but for the clock's sayings and the log's length, which varies with them."""
    state = checkpoint.load(folder / "checkpoint") or {}
    state.pop("log_size")
    parts = {}
    for part in sorted((folder / "replay").glob("*.npz")):
        with np.load(part) as arrays:
            first = int(part.stem.split("-")[0])
            for row in range(len(arrays["actions"])):
                parts[first + row] = b"".join(arrays[name][row].tobytes() for name in sorted(arrays))
    newest = {step: parts[step] for step in sorted(parts)[-capacity:]}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log = [{key: value for key, value in line.items() if not key.startswith("time")} for line in lines]
    reported = status.read(folder / "status.json")
    kept = {path.name: path.read_bytes() for path in sorted((folder / "snapshots").iterdir())}
    return {
        "state": state,
        "steps": newest,
        "log": log,
        "status": (reported.state, reported.step, reported.saved),
        "snapshots": kept,
    }


def campaign(kills: int, seed: int, place: Path) -> Iterator[tuple[list[Kill], str]]:
    """Runs that are killed until there were so many kills: the kills of each, and in what it differs at the end."""
    luck, done = random.Random(seed), 0
    finish(place / "warm")
    seconds = finish(place / "unbroken")
    capacity = config().replay.capacity
    expected = remains(place / "unbroken", capacity)
    for number in range(10 * kills):
        folder, mine = place / f"run-{number}", list[Kill]()
        for _ in range(min(luck.randint(1, MOST), kills - done)):
            killed = kill(folder, luck, seconds)
            mine += [killed] if killed else []
        if not mine:
            continue
        done += len(mine)
        try:
            finish(folder)
            found = remains(folder, capacity)
            yield mine, ", ".join(name for name in expected if not same(expected[name], found[name]))
        except Exception as error:  # whatever it is, it is the test's finding
            yield mine, f"did not go on: {error}"
        if done >= kills:
            return


def table(results: list[tuple[list[Kill], str]]) -> str:
    """Kills by what they hit, and how many of the runs they hit went on and came out equal."""
    hit, resumed, equal = Counter[str](), Counter[str](), Counter[str]()
    for kills, difference in results:
        for moment, _ in kills:
            hit[moment] += 1
            resumed[moment] += not difference.startswith("did not go on")
            equal[moment] += not difference
    rows = [("killed", "kills", "resumed", "equal")]
    rows += [(moment, hit[moment], resumed[moment], equal[moment]) for moment in sorted(hit)]
    rows += [("in all", hit.total(), resumed.total(), equal.total())]
    return "\n".join(f"{name:28}{a:>8}{b:>10}{c:>8}" for name, a, b, c in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other run after this long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        began, results = time.monotonic(), []
        for result in campaign(given.kills, given.seed, Path(place)):
            results.append(result)
            if result[1]:
                sys.stdout.write(f"{result}\n")
            if time.monotonic() - began > given.seconds:
                break
    sys.stdout.write(table(results) + "\n")
    return 1 if any(difference for _, difference in results) else 0


if __name__ == "__main__":
    sys.exit(main())
