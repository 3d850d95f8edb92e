"""Subcommands around one run: train, evaluate, and the notebooks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from glamkit.cli.group import call, examples, glamkit, settings
from glamkit.errors import GlamkitError, nearest


@glamkit.command(epilog=examples("glamkit train Pong --preset quick --seed 1"))
@click.argument("game")
@click.option("--preset", "name", default="quick", show_default=True, help="quick, laptop, learn, atari100k or debug.")
@click.option("--seed", type=int, help="Everything random derives from it; 1 if left out.")
@click.option("--env-steps", type=int, help="Agent steps; the preset's if left out.")
@click.option("--run-dir", help="The run's folder; runs/GAME-PRESET-seedN if left out.")
@click.option("--no-resume", is_flag=True, help="Refuse a folder that already holds a run.")
@settings
def train(game: str, name: str, run_dir: str | None, no_resume: bool, sets: Sequence[str], **given: int | None) -> None:
    """Train on a game, then evaluate.

    It leaves a run folder, as notebook 02 does; the same line goes on after a stop.
    """
    from glamkit.analysis import Monitor, overview
    from glamkit.config import game_folder, preset
    from glamkit.notebook import Live
    from glamkit.training import Trainer, evaluation

    config = preset(name, " ".join(sets), game=game, **given)
    place = run_dir or f"runs/{game_folder(game).lower()}-{name}-seed{config.trainer.seed}"
    trainer = Trainer(config, place, resume=not no_resume)
    click.echo(overview(trainer))
    with Monitor(trainer) as monitor:
        for event in trainer:
            monitor.show(event)
    with closing(Live()) as tell:
        report = evaluation.final(trainer, tell)
    click.echo(evaluation.in_words(report))
    click.echo(f"The run is in {trainer.run.folder}. Look inside: glamkit lab, then 03_imagine with that run_dir.")


@glamkit.command(epilog=examples("glamkit evaluate runs/pong --episodes 100 --sticky off"))
@click.argument("run")
@click.option("--checkpoint", help="Agent step it was saved at; the newest if left out.")
@click.option("--episodes", help="How many.")
@click.option("--games", help="How many side by side.")
@click.option("--actions", type=click.Choice(["sampled", "greedy"]), help="Draw from the policy, or its likeliest.")
@click.option("--sticky", type=click.Choice(["on", "off"]), help="Repeat the last action with probability 0.25.")
@click.option("--no-ops", help="Up to so many idle frames at the start of an episode; others use 30.")
@click.option("--episode-steps", help="Agent steps after which an episode is cut.")
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of games and actions.")
@click.option("--no-videos", is_flag=True, help="Only numbers.")
@click.option("--save", metavar="FILE", help="Write a score file too, which glamkit report reads.")
def evaluate(run: str, checkpoint: str | None, seed: int, no_videos: bool, save: str | None, **given: Any) -> None:
    """Play episodes with a trained agent.

    The score is saved with its protocol.

    Options that are left out are as in the run's own settings.
    """
    from glamkit.notebook import Live
    from glamkit.report import score_files
    from glamkit.training import evaluation

    actions, device = given.pop("actions"), given.pop("device")
    changes = {f"evaluation.{key}": value for key, value in given.items() if value is not None}
    changes |= {"evaluation.sampled": actions == "sampled"} if actions else {}
    changes |= {"runtime.device": device} if device else {}
    loaded = evaluation.opened(run, checkpoint, changes)  # type: ignore[arg-type]
    if save:
        score_files.place_of(loaded.run, save, loaded.step)
    with closing(Live(stream=sys.stderr)) as tell:
        report, path = evaluation.evaluate_run(loaded, seed, not no_videos, tell)
    click.echo(f"{evaluation.in_words(report)}\n{path}")
    if save:
        click.echo(score_files.save(loaded.run.folder, save, report))


@glamkit.command(epilog=examples("glamkit share runs/pong pong.glam", "glamkit share runs/pong --hub ann/pong"))
@click.argument("run")
@click.argument("file", required=False, default="")
@click.option("--steps", default="300", show_default=True, help="Stored steps that travel with it.")
@click.option("--hub", metavar="OWNER/NAME", help="Put it on the Hugging Face hub instead.")
def share(run: str, file: str, steps: str, hub: str | None) -> None:
    """Write a run as one file to give away.

    Everything that looks into run folders opens such a file too; hub:OWNER/NAME opens one on the hub.
    """
    from glamkit.training import share as sharing

    if hub and file:
        raise GlamkitError("name a file or --hub, not both.")
    place = sharing.upload(run, hub, steps) if hub else sharing.share(run, file, steps)  # type: ignore[arg-type]
    click.echo(place)


@glamkit.command(
    context_settings={"ignore_unknown_options": True}, epilog=examples("glamkit lab notebooks --no-browser")
)
@click.argument("folder", required=False)
@click.argument("jupyter", nargs=-1, type=click.UNPROCESSED)
@click.option("--copy-only", is_flag=True, help="Copy the notebooks and stop.")
def lab(folder: str | None, jupyter: Sequence[str], copy_only: bool) -> None:
    """Open the notebooks in JupyterLab.

    They are copied to FOLDER if it is given, never over your changes; an installed package copies them to ./notebooks.

    What follows FOLDER goes to JupyterLab.
    """
    from glamkit import notebook
    from glamkit.cli import notebooks

    if folder and folder.startswith("-"):  # an option of JupyterLab's, and no folder before it
        jupyter, folder = (folder, *jupyter), None
    place = notebooks.place(folder)
    click.echo(f"The notebooks are in {place}. Those that were there before are as they were.")
    if not copy_only:
        notebook.require("jupyterlab")
        sys.exit(call([sys.executable, "-m", "jupyterlab", *jupyter], place))


@glamkit.command("notebook", epilog=examples("glamkit notebook 02_train -p game Boxing -p run_dir runs/boxing"))
@click.argument("name")
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="KEY VALUE", help="A parameter of the notebook.")
@click.option("--output", help="If left out: beside the run that -p names, or in runs/notebooks.")
def run_notebook(name: str, parameters: Sequence[tuple[str, str]], output: str | None) -> None:
    """Execute a notebook in batch.

    Papermill runs it; NAME is such as 02_train.
    """
    from glamkit import notebook
    from glamkit.cli import notebooks

    notebook.require("papermill")
    import papermill

    source, given = notebooks.find(name), dict(parameters)
    known = papermill.inspect_notebook(str(source))
    for key in given:
        if key not in known:
            raise GlamkitError(f"unknown parameter {key!r}; {nearest(key, known)}")
    target = notebooks.output(source, given.get("run_dir", ""), output)
    command = [sys.executable, "-m", "papermill", str(source), str(target), "--log-output"]
    status = call([*command, *(part for key, value in given.items() for part in ("-p", key, value))])
    if status:
        raise GlamkitError(f"the notebook did not run to its end; what it showed is in {target}.")
    click.echo(f"The executed notebook is {target}.")
