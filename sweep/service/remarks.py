"""What a user should know about trials before they run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.results.words import count
from sweep.spec import Plan
from sweep.store.trial_dir import Status

if TYPE_CHECKING:
    from sweep.grid.schema import Grid, Resources


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

    elsewhere = address is not None or grid.resources.gpus > 0
    slow = sum(plan.spec.recipe.precision == "bf16" and plan.excluded is None for plan in plans)
    if elsewhere or not slow or bf16_is_native():
        return []
    own = [f"of.{name}.precision" for name, values in grid.recipe.of.items() if "precision" in values]
    cure = " ".join(f"--set recipe.{key}=float32" for key in ["precision", *own])
    return [
        f"{count(slow, 'trial')} in bf16, which this CPU has no instructions for: 2 to 8 times as slow as with {cure} "
        "(which gives other trial ids)"
    ]


def other_threads(todo: Sequence[tuple[Plan, Status]], resources: "Resources") -> list[str]:
    """What to say if trials started on CPUs continue with another number of threads."""
    if resources.gpus:
        return []
    before = [status.threads for _, status in todo if status.device == "CPU" and status.step > 0]
    others = sorted({threads for threads in before if threads is not None} - {resources.cpus})
    if not others:
        return []
    trials = sum(threads in others for threads in before)
    return [
        f"{count(trials, 'trial')} started with resources.cpus={' or '.join(map(str, others))} will continue with "
        f"{resources.cpus}: the results are valid, but not bit for bit an uninterrupted run's; for those, launch "
        f"with --set resources.cpus={others[0]}"
    ]
