"""What a user should know about trials before they run."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.results.words import count
from sweep.spec import Plan
from sweep.store.trial_dir import Status

if TYPE_CHECKING:
    from sweep.grid.schema import Grid
    from sweep.grid.settings import TrialResources


def tell(console: Console, remarks: Sequence[str]) -> None:
    """Print remarks that need attention."""
    for remark in remarks:
        console.print(remark, style="yellow", highlight=False, markup=False, soft_wrap=True)


def remarks(grid: "Grid", plans: Sequence[Plan], address: str | None) -> list[str]:
    """What a user should know about a grid's trials before they run: values of one architecture, a slow precision."""
    own = [
        f"{name} is trained with {', '.join(f'{key} {value}' for key, value in grid.recipe.of[name].items())}, "
        "which overrides the recipe (recipe.of)"
        for name in grid.architectures
        if name in grid.recipe.of
    ]
    return own + slow_precision(grid, plans, address)


def slow_precision(grid: "Grid", plans: Sequence[Plan], address: str | None) -> list[str]:
    """What to say if trials would run in bf16 on this machine's CPU, which has no instructions for it."""
    from sweep.training.machine import bf16_is_native

    on_cpus = [plan for plan in plans if not grid.resources.of_plan(plan).gpus and plan.excluded is None]
    slow = sum(plan.spec.recipe.precision == "bf16" for plan in on_cpus)
    if address is not None or not slow or bf16_is_native():
        return []
    own = [f"of.{name}.precision" for name, values in grid.recipe.of.items() if "precision" in values]
    cure = " ".join(f"--set recipe.{key}=float32" for key in ["precision", *own])
    return [
        f"{count(slow, 'trial')} in bf16, which this CPU has no instructions for: 2 to 8 times as slow as with {cure} "
        "(which gives other trial ids)"
    ]


def other_threads(todo: Sequence[tuple[Plan, Status]], resources: "TrialResources") -> list[str]:
    """What to say if trials started on CPUs continue with another number of threads; one line for each change.

    `resources` are those of trials that were planned without their own.
    """
    changes = Counter(
        (status.threads, taken.cpus)
        for plan, status in todo
        if status.device == "CPU" and status.step > 0 and status.threads is not None
        if not (taken := resources.of_plan(plan)).gpus and taken.cpus != status.threads
    )
    return [
        f"{count(trials, 'trial')} started with resources.cpus={before} will continue with {now}: the results are "
        f"valid, but not bit for bit an uninterrupted run's; for those, launch with --set resources.cpus={before}"
        for (before, now), trials in sorted(changes.items())
    ]
