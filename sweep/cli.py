"""The command line, `sweep`.

Heavy libraries are imported by the commands that need them, so that `sweep --help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from sweep import ROOT
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.data.parallel import Mapper
    from sweep.service.launch import Outcome
    from sweep.spec import Plan
    from sweep.store.sweep_dir import SweepDir

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# A log or a pipe has no width of its own; 160 characters fit the tables without wrapping.
console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
complaints = Console(stderr=True)

GridName = Annotated[str, typer.Argument(help="A grid's name (see `sweep list grids`) or a YAML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a grid's value: key=value, e.g. recipe.epochs=3. Repeatable."),
]
Storage = Annotated[
    str,
    typer.Option(help="Where sweeps are stored: a folder, or a URL such as s3://bucket/path.", envvar="SWEEP_STORAGE"),
]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster: auto, or HOST:PORT. Default: start a local one.")
]
MaxFailures = Annotated[
    int, typer.Option(min=0, help="How many times this launch retries a failed trial, from its last checkpoint.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a folder with unusable pictures instead of leaving them out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Normalise(StrEnum):
    POSITION = "position"
    MAXIMUM = "maximum"
    NORM = "norm"
    NONE = "none"


class Listed(StrEnum):
    ARCHITECTURES = "architectures"
    INTERVENTIONS = "interventions"
    DATA = "data"
    RECIPES = "recipes"
    GRIDS = "grids"
    SWEEPS = "sweeps"


class Nmf(StrEnum):
    PER_NEURON = "per-neuron"
    JOINT = "joint"


def main() -> None:
    """Run the command line; a wrong input gives one line on standard error and exit code 2."""
    try:
        app()
    except (ValueError, ImportError) as error:  # the latter if a storage or a model needs an extra
        _complain(str(error))
        sys.exit(2)
    except Exception as error:
        from sweep.store.files import STORAGE_ERRORS
        from sweep.training.trial import summary

        if not isinstance(error, STORAGE_ERRORS):
            raise
        _complain(summary(error))
        sys.exit(1)


def _complain(said: str) -> None:
    complaints.print(f"sweep: {said}", style="red", highlight=False, markup=False, soft_wrap=True)


@app.command()
def launch(
    grid: GridName,
    settings: Settings = None,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what it costs, and change nothing.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --dry-run: time a few steps of each architecture for the estimate.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Train and analyse a grid. Run it again after an interruption, or with a larger grid to extend the sweep."""
    from sweep.data.index import watched_by
    from sweep.grid.expand import expand, require_steps
    from sweep.grid.load import load_grid
    from sweep.service import launch as service
    from sweep.service.cluster import RayCluster
    from sweep.service.remarks import remarks, tell
    from sweep.store.sweep_dir import SweepDir
    from sweep.terminal.progress import preparing, tell_source

    loaded = load_grid(grid, [*(settings or []), *(["data.unusable=refuse"] if strict else [])])
    if dry_run:
        with preparing(complaints, loaded.data.name, "read") as watch, watched_by(watch):
            expansion = expand(loaded)
        require_steps(expansion)
        tell_source(console, expansion.source)
        console.print(_plan_table(expansion.plans))
        tell(console, remarks(loaded, expansion.plans, address))
        _tell_estimate(SweepDir(absolute(storage) / loaded.name), expansion.plans, address, probe)
        return
    if probe:
        raise ValueError("--probe is for the estimate of --dry-run; add it, or leave --probe out")
    with _terminable():
        cluster = RayCluster(address=address, max_failures=max_failures)
        sweep, outcome = service.launch(loaded, absolute(storage), cluster, console)
    _conclude(sweep, outcome)


@app.command()
def submit(
    grid: GridName,
    cluster: Annotated[str, typer.Option(help="The cluster's job server.", envvar="RAY_API_SERVER_ADDRESS")],
    settings: Settings = None,
    storage: Annotated[
        str, typer.Option(help="A URL or an absolute path that all nodes can reach.", envvar="SWEEP_STORAGE")
    ] = "",
    max_failures: MaxFailures = 3,
    wait: Annotated[bool, typer.Option(help="Follow the job's output until it ends.")] = True,
) -> None:
    """Launch a grid as a job of a remote Ray cluster; Ctrl-C leaves the job running."""
    from sweep.grid.load import load_grid
    from sweep.service import submit as jobs

    job = jobs.submit(load_grid(grid, settings or []), cluster, storage, max_failures)
    console.print(f"job {job.id} on {cluster}; to stop it: {job.stop_command}", highlight=False, soft_wrap=True)
    if not wait:
        return
    try:
        for said in job.output():
            print(said, end="", flush=True)
    except KeyboardInterrupt:
        complaints.print(f"the job continues; to follow it: {job.logs_command}", style="yellow", highlight=False)
        raise typer.Exit(130) from None
    raise typer.Exit(job.exit_code())


@app.command()
def resume(
    sweep: Annotated[str, typer.Argument(help="A sweep's name or path.")],
    only: Annotated[list[str] | None, typer.Option(help="`failed`, or a trial id (may contain *). Repeatable.")] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from scratch; earlier work is kept under attempts/.")
    ] = False,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
) -> None:
    """Run all unfinished trials of a sweep from their last valid checkpoints."""
    from sweep.service import launch as service
    from sweep.service.choice import choose
    from sweep.service.cluster import RayCluster
    from sweep.store.sweep_dir import open_sweep

    opened = open_sweep(sweep, absolute(storage))
    choice = choose(opened, only or [], "scratch" if from_scratch else "checkpoint")
    with _terminable():
        cluster = RayCluster(address=address, max_failures=max_failures)
        outcome = service.resume(opened, console, cluster, choice)
    _conclude(opened, outcome)


@app.command()
def status(
    sweep: Annotated[str, typer.Argument(help="A sweep's name or path.")],
    storage: Storage = "runs",
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every 5 seconds.")] = False,
) -> None:
    """Show the state of a sweep."""
    from sweep.store.sweep_dir import open_sweep
    from sweep.terminal import show

    opened = open_sweep(sweep, absolute(storage))
    while True:
        if as_json:
            print(json.dumps(show.sweep_json(opened), indent=1))
        else:
            console.print(show.sweep_table(opened))
        if not watch:
            return
        time.sleep(5)  # the watcher's own pace; nothing waits for it


@app.command()
def analyze(
    target: Annotated[str, typer.Argument(help="A checkpoint (.safetensors, .pt, .pth, .ckpt, .onnx) or a sweep.")],
    layer: Annotated[list[str] | None, typer.Option(help="Only this layer. Repeatable.")] = None,
    nmf: Annotated[
        Nmf, typer.Option(help="One factorisation per neuron, or one for all neurons of a layer.")
    ] = Nmf.PER_NEURON,
    figure: Annotated[Path | None, typer.Option(help="Draw the weights into this PNG, one row per layer.")] = None,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Score the spatial convolutions of any checkpoint, or of all checkpoints of a sweep again."""
    from analysis.layers import analyze_convs, best_device, chosen_convs
    from analysis.readers.convs import is_checkpoint
    from sweep.service import launch as service
    from sweep.service.cluster import RayCluster
    from sweep.store.sweep_dir import open_sweep
    from sweep.terminal import show

    if is_checkpoint(target) or UPath(target).is_file():
        convs = chosen_convs(target, layer)
        results = []
        with show.layer_progress(complaints, len(convs)) as advance:
            for result in analyze_convs(convs, nmf.value, best_device()):
                results.append(result)
                advance(result.layer)
        if as_json:
            print(json.dumps(show.layer_results_json(results), indent=1))
        else:
            console.print(show.layer_results_table(results))
        if figure is not None:
            show.draw_layers(results, figure)
        return
    opened = open_sweep(target, absolute(storage))
    if layer or figure is not None or nmf is not Nmf.PER_NEURON:
        raise ValueError(
            "--layer, --nmf and --figure apply to a checkpoint file; a sweep takes its settings from its grid"
        )
    with _terminable():
        outcome = service.analyse_again(opened, console, RayCluster())
    _conclude(opened, outcome)


@app.command()
def dashboard(
    storage: Annotated[str, typer.Argument(help="A folder of sweeps, or one sweep's folder.")] = "runs",
    port: Annotated[int | None, typer.Option(help="Default: 8501.")] = None,
) -> None:
    """Open the dashboard on this machine."""
    serve = str(ROOT / "dashboard" / "serve.py")
    command = [sys.executable, "-P", serve, storage, *([] if port is None else [str(port)])]
    os.execv(command[0], command)  # replaces this process, so that what stops it stops the server


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, sent by `ray job stop` and by machines that shut down, acts like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    except KeyboardInterrupt:  # outside Tune's loop, which handles it itself; nothing is half-written
        complaints.print("stopped; run the same command again to continue", style="yellow")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _plan_table(plans: list[Plan]) -> Table:
    table = Table(title=f"{len(plans)} trials", title_justify="left")
    for column in ("trial", "parameters", "expected", "remark"):
        table.add_column(column, overflow="fold")
    for plan in plans:
        remark = f"excluded: {plan.excluded}" if plan.excluded else ""
        table.add_row(plan.trial_id, f"{plan.parameters:,}", ", ".join(plan.expected), remark)
    return table


def _tell_estimate(sweep: SweepDir, plans: list[Plan], address: str | None, probe: bool) -> None:
    """Print what a launch would train and what that would cost."""
    from sweep.results.cost import read_prices
    from sweep.results.words import count
    from sweep.service.estimate import capacity_at, estimate, probed_speeds
    from sweep.terminal.cost import estimate_lines

    prices = read_prices()
    speeds = []
    for speed in probed_speeds(plans, address) if probe else ():
        speeds.append(speed)
        measured = f"{speed.architecture}: {speed.images_per_s:,.0f} images per second, {speed.device}"
        console.print(measured, highlight=False, markup=False)
    found = estimate(sweep, plans, capacity_at(address), prices, speeds)
    trials = (
        f"{count(found.in_grid, 'trial')} in the grid, {found.new} of them new and {found.finished} finished; "
        f"{found.cost.trials_left} to do in the sweep"
    )
    for line in estimate_lines(trials, found.cost, found.kept_bytes, found.passing_bytes, bool(prices)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _conclude(sweep: SweepDir, outcome: Outcome) -> None:
    """Print the results and where they are; exit with the outcome's code."""
    from sweep.results.words import count
    from sweep.terminal import show

    console.print(show.sweep_table(sweep))
    picture = show.draw_sweep(sweep)
    if picture is not None:
        console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    if outcome.exit_code:
        failed = f"{count(outcome.failed, 'trial')} failed" if outcome.failed else ""
        lost = f"{count(outcome.lost_analyses, 'analysis')} could not be recorded" if outcome.lost_analyses else ""
        said = ", ".join(filter(None, (failed, lost))) if outcome.complete else "stopped"
        console.print(
            f"{said}; continue with: sweep resume {sweep.path}", style="yellow", highlight=False, soft_wrap=True
        )
    raise typer.Exit(outcome.exit_code)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="A data set's name, e.g. imagenet.")],
    source: Annotated[str | None, typer.Argument(help="The folder or URL to read it from.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value as under a grid's `data`, e.g. image_size=224. Repeatable."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="A folder or URL for other machines; default: this machine's cache."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Decode on this Ray cluster: auto, or HOST:PORT. All its nodes need SOURCE and --to."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or tasks at a time on a cluster; default: all cores.")
    ] = None,
    strict: Strict = False,
) -> None:
    """Decode a data set once into files that all trials share; run it again after an interruption.

    A launch does this by itself on each machine. With --to, a grid's `data.root` may then be that folder or URL.
    """
    from sweep.data.make_sets import prepare_here, prepare_to
    from sweep.grid.load import read_wanted
    from sweep.terminal.progress import preparing, tell_remarks, tell_understood

    wanted = read_wanted(dataset, source, [*(settings or []), *(["unusable=refuse"] if strict else [])])
    with (
        _terminable(),
        preparing(complaints, dataset, image_bytes=wanted.image_bytes) as report,
        _mapper(address, to, workers) as mapped,
    ):
        made = prepare_here(wanted, mapped, report) if to is None else prepare_to(wanted, to, mapped, report)
    tell_understood(console, made.source)
    spec = made.index.spec
    pictures = f"{made.index.train_images:,} training and {made.index.val_images:,} validation images"
    console.print(f"{pictures} of {spec.num_classes:,} classes, {spec.image_size} pixels", highlight=False)
    console.print(str(made.folder), highlight=False, soft_wrap=True)
    tell_remarks(complaints, made.source)  # last, where a bar can't hide it


def _mapper(address: str | None, to: str | None, workers: int | None) -> AbstractContextManager[Mapper]:
    """Where shards are made: in processes of this machine, or in tasks of a Ray cluster."""
    if address is None:
        from sweep.data.parallel import in_processes

        return in_processes(workers)
    from sweep.service.preparing import in_tasks

    if to is None:
        raise ValueError("--address needs --to, a URL or a folder that all nodes share")
    return in_tasks(address, workers)


@app.command()
def probe(
    sweep: Annotated[str, typer.Argument(help="A sweep's name or path.")],
    images: Annotated[int, typer.Option(min=5, help="Validation images per trial.")] = 256,
    storage: Storage = "runs",
) -> None:
    """Measure how well a linear model reads absolute position from each trial's last maps."""
    from rich.progress import track

    from sweep.results.position import probe_sweep
    from sweep.store.sweep_dir import open_sweep

    opened = open_sweep(sweep, absolute(storage))
    trials = len(opened.trials())
    outcomes = list(track(probe_sweep(opened, images), "probing", total=trials, console=complaints, transient=True))
    for outcome, number in Counter(done.outcome for done in outcomes if not done.failed).items():
        console.print(f"{number} of {trials} trials: {outcome}", highlight=False)
    failed = [done for done in outcomes if done.failed]
    for done in failed:
        console.print(f"{done.trial_id}: {done.outcome}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def report(
    sweep: Annotated[str, typer.Argument(help="A sweep's name or path.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The HTML file to write.")] = "report.html",
    export: Annotated[str | None, typer.Option(help="A folder for all tables (CSV, Parquet) and pictures.")] = None,
    normalise: Annotated[
        Normalise, typer.Option(help="What the clusters' weights are divided by.")
    ] = Normalise.POSITION,
    kernel: Annotated[int, typer.Option(min=2, help="Kernel size of the layers to cluster.")] = 5,
    storage: Storage = "runs",
) -> None:
    """Write one self-contained HTML file about a sweep, finished or not."""
    from sweep.report.export import export as write_export
    from sweep.report.page import write_report
    from sweep.results.clusters import update_clusters
    from sweep.results.compact import compact_all, mend
    from sweep.store.lease import BusyError, hold
    from sweep.store.sweep_dir import open_sweep

    opened = open_sweep(sweep, absolute(storage))
    with complaints.status("reading the sweep, clustering its neurons"):
        with suppress(BusyError), hold(opened.path):  # while a driver works, its tables are new enough
            mend(opened)
            compact_all(opened)
        update_clusters(opened.path, (kernel, kernel), normalise.value)
        write_report(opened.path, UPath(output))
    console.print(f"report: {output}", highlight=False, soft_wrap=True)
    if export is not None:
        files = write_export(opened.path, UPath(export))
        console.print(f"{files} files in {export}", highlight=False, soft_wrap=True)


@app.command("list")
def list_names(what: Listed, storage: Storage = "runs") -> None:
    """List what a grid can name, or the sweeps of a storage."""
    from sweep.grid import catalogue
    from sweep.terminal import listing

    header, rows = listing.sweeps(absolute(storage)) if what is Listed.SWEEPS else catalogue.rows(what)
    if not rows:
        complaints.print(f"there are no sweeps in {storage}", style="yellow", highlight=False, soft_wrap=True)
        return
    console.print(listing.entries(header, rows, console.width), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
