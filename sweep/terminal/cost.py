"""What a sweep costs, in words."""

from sweep.results.cost import PRICES, Cost
from sweep.results.words import count, duration


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


def estimate_lines(trials: str, cost: Cost, kept_bytes: int, passing_bytes: int, priced: bool) -> list[str]:
    """What a launch would do and cost, a line each; what isn't known is unknown, with the cure."""
    images = "an unknown number of" if cost.images_left is None else f"{cost.images_left:,}"
    lines = [
        trials,
        f"{count(cost.epochs_left, 'epoch')}, {images} training images",
        f"checkpoints: {_size(kept_bytes)}, and while it trains up to {_size(passing_bytes)} more for each trial",
        f"GPU hours: {_amount(cost.gpu_hours_left)}, CPU hours of trials without GPUs: {_amount(cost.cpu_hours_left)}",
        f"time: {_about(cost.seconds_left)}",
        f"money: {_amount(cost.money_left)}" if priced else f"money: unknown; name a file of prices with {PRICES}",
    ]
    if cost.unmeasured:
        lines.append(f"not measured yet: {', '.join(cost.unmeasured)}; --probe times a few steps of each")
    return lines


def _about(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"about {duration(seconds)}"


def _amount(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(number: int) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 1000:.1f} kB"
