"""Subcommands about several runs: sweep, ablate, report, compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glamkit.cli.group import examples, glamkit
from glamkit.errors import GlamkitError

if TYPE_CHECKING:
    from glamkit.report import Report


@glamkit.command(
    epilog=examples(
        'glamkit sweep --games "Pong Boxing" --seeds 1-3 --folder runs/study',
        "glamkit sweep study.yaml --dry-run",
        "glamkit sweep status runs/study",
    )
)
@click.argument("what", nargs=-1, metavar="[FILE | status FOLDER]")
@click.option("--games", help="Names with spaces between, or atari100k for its 26.")
@click.option("--seeds", help="Such as '1 2 3' or 1-5; 1 if left out.")
@click.option("--preset", help="What all runs share; quick if left out.")
@click.option("--env-steps", type=int, help="Agent steps of each run; the preset's if left out.")
@click.option("--overrides", help="More settings for all runs, as in 'trainer.warmup=300 ...'.")
@click.option("--variant", "variants", multiple=True, metavar="NAME:KEY=VALUE", help="Run with every game and seed.")
@click.option("--folder", help="Of run folders GAME/seedN or GAME/VARIANT-seedN; runs/sweep, or runs/FILE.")
@click.option("--workers", type=int, help="Runs at once; as many as cores or GPUs if left out.")
@click.option("--runs-per-gpu", default=1, show_default=True, help="Runs that share a GPU.")
@click.option("--retries", default=2, type=click.IntRange(0), show_default=True, help="Of a run that failed.")
@click.option("--engine", default="local", show_default=True, help="This machine, or ray for a cluster.")
@click.option("--address", default="auto", show_default=True, help="Of the Ray cluster, HOST:PORT.")
@click.option("--cpus", default=1, show_default=True, help="Cores of a run on the cluster.")
@click.option("--yes", is_flag=True, help="Agree to more than a day.")
@click.option("--dry-run", is_flag=True, help="Check and show what would be run, and stop.")
def sweep(what: Sequence[str], variants: Sequence[str], **options: Any) -> None:
    """Train games x seeds x variants side by side.

    The same line goes on after a stop; finished runs are left alone.
    """
    from glamkit.notebook import Live
    from glamkit.sweeps import Sweep
    from glamkit.sweeps import plan as planning

    if what[:1] == ("status",):
        if len(what) != 2:
            raise GlamkitError("sweep status takes one folder: glamkit sweep status runs/study.")
        click.echo(Sweep(what[1]).status())
        return
    if len(what) > 1:
        raise GlamkitError(f"sweep takes one file, not {len(what)}: {' '.join(what)}.")
    plan = planning.read_file(what[0]) if what else {}
    named = {key: options[key] for key in planning.KEYS if key != "variants" and options[key] is not None}
    plan |= named | {"overrides": planning.merged(plan.get("overrides"), options["overrides"])}
    if variants:
        plan["variants"] = variants
    batch = Sweep(planning.make(**plan))
    click.echo(batch)
    if options["dry_run"]:
        return
    engine = batch.engine(*(options[key] for key in ("engine", "workers", "runs_per_gpu", "address", "cpus")))
    with closing(Live(stream=sys.stderr)) as tell:
        cost = batch.cost(engine, options["yes"], tell)
    click.echo(cost)
    batch.run(engine, options["retries"])


@glamkit.command(epilog=examples('glamkit ablate --variants "modules acting" --seeds 1-3'))
@click.option("--game", default="glamkit/Catch-v0", show_default=True)
@click.option("--preset", default="learn", show_default=True)
@click.option("--env-steps", type=int, help="Agent steps of each run; the preset's if left out.")
@click.option("--variants", default="modules", show_default=True, help="Names with spaces between, or all.")
@click.option("--seeds", default="1-3", show_default=True, help="Such as '1 2 3' or 1-3.")
@click.option("--folder", default="runs/ablation", show_default=True)
@click.option("--overrides", default="", help="More settings for all runs, as in 'trainer.warmup=300 ...'.")
@click.option("--workers", type=int, help="Runs side by side; one per GPU or CPU core if left out.")
@click.option("--yes", is_flag=True, help="Agree to more than a day.")
@click.option("--show", is_flag=True, help="Run nothing, only show what there is.")
def ablate(workers: int | None, yes: bool, show: bool, **plan: Any) -> None:
    """Train variants of one preset.

    They differ in a choice at a time; their scores are drawn with intervals.
    """
    from glamkit.notebook import Live
    from glamkit.runs.files import make_folder, replace
    from glamkit.sweeps import Ablation

    study = Ablation(**plan)
    click.echo(study)
    if show and not study.folder.exists():
        raise GlamkitError(f"{study.folder} holds no runs yet; leave out --show to make them.")
    if not show:
        engine = study.engine(workers=workers)
        with closing(Live(stream=sys.stderr)) as tell:
            cost = study.cost(engine, yes, tell)
        click.echo(cost)
    try:
        if not show:
            study.run(engine)
    finally:  # where a run failed, others may be finished
        picture, png = study.folder / "ablation.png", study.figure().png()
        click.echo(study.table())
        make_folder(study.folder)
        replace(picture, lambda file: file.write(png))
        click.echo(f"Figure: {picture}")


@glamkit.command(
    epilog=examples("glamkit report runs/pong runs/boxing --output runs/report", "glamkit report --published")
)
@click.argument("runs", nargs=-1)
@click.option("--results", multiple=True, metavar="FILE", help="Result file of others (JSON).")
@click.option("--against", help="Published methods shown game by game, or all.")
@click.option("--repeats", help="Draws of the bootstrap; 2000 if left out.")
@click.option("--output", help="Folder for report.md and its figures.")
@click.option("--save", metavar="FOLDER", help="Write a score file there for each finished run, GAME-seedN.json.")
@click.option("--scores", is_flag=True, help="Only one table of scores, with standard errors and hours.")
@click.option("--published", is_flag=True, help="The published methods alone, without runs.")
def report(runs: Sequence[str], results: Sequence[str], output: str | None, save: str | None, **given: Any) -> None:
    """Compare finished runs with published methods.

    RUNS are run folders, folders that hold some, shared files, names of shipped runs, or score files of --save.
    """
    from glamkit.report import Report, page, score_table

    scores, published = given.pop("scores"), given.pop("published")
    if published == bool(runs or results):
        raise GlamkitError("name run folders or --results, or use --published without any.")
    if (save or scores) and not runs:
        raise GlamkitError("--save and --scores are of runs; name some.")
    made = Report(list(runs), list(results), **{key: value for key, value in given.items() if value is not None})
    if scores:
        table = score_table({**made.groups, **made.small})
        if table is None:
            raise GlamkitError("none of these runs counts; without --scores the reasons are shown.")
        click.echo(table, nl=False)
        if made.left_out:
            click.echo(
                f"Runs that do not count: {len(made.left_out)}; without --scores the reasons are shown.", err=True
            )
    elif not save:
        click.echo(page.markdown(made), nl=False)
    for path in page.write(made, Path(output)) if output else ():
        click.echo(path)
    if save:
        _save(made, save)


def _save(made: Report, folder: str) -> None:
    """Writes the score file of each run that can have one; the others are named with the reason in a GlamkitError."""
    from glamkit.report import save

    # A score file that was saved before stands beside its run, and does not count again.
    reasons = [f"{left.folder}: {left.reason}" for left in made.left_out if left.folder.is_dir()]
    for place in (result.run.folder for result in made.results if result.run.folder.is_dir()):
        try:
            click.echo(save(place, folder))
        except GlamkitError as error:
            reasons.append(str(error))
    if reasons:
        raise GlamkitError("No score file of:\n" + "\n".join(reasons))


@glamkit.command(epilog=examples("glamkit compare runs/pong-1 runs/pong-2"))
@click.argument("one", metavar="RUN_A")
@click.argument("other", metavar="RUN_B")
def compare(one: str, other: str) -> None:
    """Say in what two runs differ.

    And whether their scores do beyond the spread between seeds. RUN_A and RUN_B are run folders, shared files, or names
    of shipped runs.
    """
    from glamkit.report.compare import Comparison

    click.echo(Comparison(one, other))
