"""What a sweep costs, in words."""

from rich.markup import escape
from rich.table import Table

from sweep.results.cost import PRICES, Cost
from sweep.results.words import duration, size_in_words


def done_and_left(cost: Cost) -> str:
    """GPU hours, CPU hours of trials without GPUs, money where there are prices, and the time left if known."""
    kinds = {
        "GPU hours": (cost.gpu_hours_done, cost.gpu_hours_left),
        "CPU hours": (cost.cpu_hours_done, cost.cpu_hours_left),
    }
    said = [
        f"{name}: {_amount(done)} done, {_amount(left)} left"
        for name, (done, left) in kinds.items()
        if done or left != 0
    ]
    if cost.money_done or cost.money_left:
        said.append(f"money: {_amount(cost.money_done)} spent, {_amount(cost.money_left)} to spend")
    if cost.seconds_left:
        said.append(f"time left: {_about(cost.seconds_left)}")
    return "; ".join(said)


def estimate_table(trials: str, cost: Cost, kept_bytes: int, passing_bytes: int, priced: bool) -> Table:
    """What a launch would do and cost, a line each; what isn't known is unknown, with the cure."""
    kept, passing = size_in_words(kept_bytes), size_in_words(passing_bytes)
    rows = {
        "trials": trials,
        "epochs": f"{cost.epochs_left:,}",
        "images": "unknown" if cost.images_left is None else f"{cost.images_left:,}",
        "disk": f"{kept}, and up to {passing} more for each trial while it trains",
        "GPU hours": _amount(cost.gpu_hours_left),
        "CPU hours": f"{_amount(cost.cpu_hours_left)}, of trials without GPUs",
        "time": _about(cost.seconds_left),
        "money": _amount(cost.money_left) if priced else f"unknown; name a file of prices with {PRICES}",
    }
    if cost.unmeasured:
        rows["not measured"] = f"{', '.join(cost.unmeasured)}; `--dry-run --probe` times a few steps of each"
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, said in rows.items():
        table.add_row(name, escape(said))
    return table


def planned_trials(in_grid: int, new: int, finished: int, left: int) -> str:
    """How many trials a grid has, and what is to do in the whole sweep."""
    return f"{in_grid:,} in the grid: {new:,} new, {finished:,} finished; {left:,} to do in the sweep"


def _about(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"about {duration(seconds)}"


def _amount(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
