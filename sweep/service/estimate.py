"""What a launch would train and what that would cost, before it is launched."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from sweep.results.compact import Survey, survey, trial_row
from sweep.results.cost import (
    Capacity,
    Cost,
    Price,
    Speed,
    checkpoint_bytes,
    cost_of,
    measured_speeds,
    trial_costs,
)
from sweep.results.tables import table_of
from sweep.service.cluster import bundle_of, capacity_of_cluster, connected, require_room
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.terminal.cost import estimate_table, planned_trials


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How many trials a grid has, and how many of them are new to its sweep, and finished there."""

    in_grid: int
    new: int
    finished: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a launch would do, or a resume, which plans nothing: the trials that it would run, and their cost.

    `kept_bytes` is the disk for the checkpoints of these trials, `passing_bytes` what the largest of them needs beyond
    that while it trains.
    """

    planned: Planned | None
    cost: Cost
    kept_bytes: int
    passing_bytes: int


def estimate(
    sweep: SweepDir,
    plans: Sequence[Plan],
    capacity: Capacity,
    prices: dict[str, Price],
    probed: Sequence[Speed] = (),
) -> Estimate:
    """Look at a sweep, which need not exist, as if plans had been added to it; changes nothing."""
    seen = survey(sweep)
    before = seen.tables["trials"]
    planned = {plan.trial_id: plan for plan in plans}
    unsettled = [(planned.get(plan.trial_id, plan), status) for plan, status in seen.unsettled]
    known = set(before["trial_id"])
    new = [plan for plan in plans if plan.trial_id not in known]
    fresh = [(plan, Status(status="excluded" if plan.excluded else "pending")) for plan in new]
    todo = [(plan, status) for plan, status in unsettled + fresh if status.status not in ("finished", "excluded")]
    settled = before[~before["trial_id"].isin({plan.trial_id for plan, _ in unsettled})]
    rows = table_of("trials", (trial_row(plan, status) for plan, status in unsettled + fresh))
    trials = pd.concat([frame for frame in (settled, rows) if len(frame)], ignore_index=True)
    speeds = [*measured_speeds(trials, seen.tables["epochs"]), *probed]
    finished = set(before.loc[before["status"] == "finished", "trial_id"])
    return Estimate(
        planned=Planned(in_grid=len(plans), new=len(new), finished=len(finished & planned.keys())),
        cost=cost_of(trial_costs(trials, speeds, prices), capacity),
        **_disk([plan for plan, _ in todo]),
    )


def estimate_run(
    seen: Survey, todo: Sequence[Plan], capacity: Capacity, prices: dict[str, Price], planned: Planned | None = None
) -> Estimate:
    """What it takes to run some trials of a sweep, whose plans are written."""
    trials, epochs = seen.tables["trials"], seen.tables["epochs"]
    wanted = {plan.trial_id for plan in todo}
    costs = trial_costs(trials, measured_speeds(trials, epochs), prices)
    cost = cost_of([trial for trial in costs if trial.trial_id in wanted], capacity)
    return Estimate(planned=planned, cost=cost, **_disk(todo))


def _disk(todo: Sequence[Plan]) -> dict[str, int]:
    """The bytes that the checkpoints of trials take, as an `Estimate` has them."""
    sizes = [checkpoint_bytes(plan.parameters, plan.spec.recipe.epochs if plan.images != 0 else 1) for plan in todo]
    return {
        "kept_bytes": sum(kept for kept, _ in sizes),
        "passing_bytes": max((passing for _, passing in sizes), default=0),
    }


def tell_estimate(console: Console, found: Estimate, priced: bool) -> None:
    """Print an estimate, of a dry run or at the beginning of one in earnest."""
    left, planned = found.cost.trials_left, found.planned
    trials = f"{left:,} to do" if planned is None else planned_trials(**asdict(planned), left=left)
    console.print(estimate_table(trials, found.cost, found.kept_bytes, found.passing_bytes, priced))


def capacity_at(address: str | None) -> Capacity:
    """What trials may occupy at a time: this machine, or the nodes that a cluster has now."""
    if address is not None:
        with connected(address):
            return capacity_of_cluster()
    import torch

    return Capacity(os.cpu_count() or 1, torch.cuda.device_count())


def probed_speeds(plans: Sequence[Plan], address: str | None) -> Iterator[Speed]:
    """Time a few steps of each architecture with its resources, as tasks of a Ray cluster, or of one started here.

    Raises:
        ValueError: a trial can't be timed, or no node can hold it.
    """
    chosen: dict[tuple[str, Resources], Plan] = {}
    for plan in plans:
        if plan.images != 0 and plan.resources is not None:
            chosen.setdefault((plan.spec.architecture, plan.resources), plan)
    with connected(address):
        require_room([resources for _, resources in chosen], address)
        for (architecture, resources), plan in chosen.items():
            images_per_s, device = _measured(plan, resources)
            yield Speed(
                architecture=architecture,
                images_per_s=images_per_s * resources.processes,  # each GPU is taken to be as fast as the one measured
                device=device,
                gpus=resources.gpus,
                data_key=plan.spec.data.key,
            )


def _measured(plan: Plan, resources: Resources) -> tuple[float, str]:
    """Images per second and device of a task that takes what one process of the trial takes."""
    import ray

    bundle = bundle_of(resources)
    others = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU")}
    task = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0), resources=others, max_retries=0)(_measure)
    try:
        found: tuple[float, str] = ray.get(task.remote(plan, str(Path.cwd())))
    except ray.exceptions.RayTaskError as error:
        raise ValueError(f"--probe: {error.cause}") from error
    return found


def _measure(plan: Plan, cwd: str) -> tuple[float, str]:
    """In a process of its own, which sees the GPUs that it reserves and the folder that relative paths mean."""
    with suppress(OSError):
        os.chdir(cwd)
    if plan.resources is None or not plan.resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from sweep.training.speed import measure

    return measure(plan)
