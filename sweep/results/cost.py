"""What a sweep has cost and will cost: GPU hours, CPU hours, time and money, from its tables and measured speeds.

A trial's speed is its own, else that of trials of its architecture: on its device, with as many GPUs and on its data if
there are such, else any. Without one, nothing is guessed. Only training counts, neither validation nor analysis.
Needs neither torch nor Ray.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from types import MappingProxyType
from typing import TypeVar

import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError
from upath import UPath

from sweep.results.tables import Row, plain_records
from sweep.spec import Frozen
from sweep.store.kept import epochs_to_keep
from sweep.store.strict_yaml import read_yaml

PRICES = "SWEEP_PRICES"
"""The environment variable that names a YAML file of prices. They are a matter of the account and the day, not of the
experiment, so they stand in no grid and apply to all sweeps, old ones too."""
_UNFINISHED = ("pending", "running", "failed")
_USED = (
    "trial_id", "architecture", "status", "gpus", "cpus", "epoch", "epochs", "images", "wall_s", "gpu_hours",
    "cpu_hours", "node_type", "device", "data_key",
)  # fmt: skip
_BYTES = 4  # of a weight in a checkpoint
_FULL = 2  # checkpoints that a running trial keeps to resume from, each with its momentum


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Training images per second of an architecture, as measured on a device with a number of GPUs."""

    architecture: str
    images_per_s: float
    device: str | None = None
    gpus: float | None = None
    data_key: str | None = None
    trial_id: str | None = None

    def tells_of(self, gpus: float | None) -> bool:
        """Whether a trial with that many GPUs can be as fast: a CPU says nothing of a GPU."""
        on_gpu = bool(self.gpus) if self.device is None else self.device != "CPU"
        return gpus is None or on_gpu == bool(gpus)


@dataclass(frozen=True)
class Capacity:
    """What trials can occupy at a time, on all nodes together."""

    cpus: float
    gpus: float

    def trials_at_a_time(self, cpus: float, gpus: float) -> int:
        """How many trials of one shape run beside each other."""
        by_cpus = self.cpus // max(cpus, 1)
        return int(min(by_cpus, self.gpus // gpus) if gpus else by_cpus)


class Price(Frozen):
    """What a node costs per hour, in any currency, and the GPUs and CPUs between which that is shared."""

    per_hour: float = Field(ge=0)
    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)

    def share(self, gpus: float, cpus: float) -> float:
        """The price per hour of what a trial occupies."""
        return self.per_hour * (gpus / self.gpus if self.gpus else cpus / self.cpus)


Number = TypeVar("Number", int, float)
_PRICES = TypeAdapter(dict[str, Price])


@dataclass(frozen=True, kw_only=True)
class TrialCost:
    """What one trial has cost and will cost; what isn't known is None.

    `images_left` are those it still trains on, counted from the end of its last epoch; `per_hour` is the price of what
    it occupies.
    """

    trial_id: str
    architecture: str
    status: str
    gpus: float | None
    cpus: int | None
    epochs_left: int
    images_left: int | None
    images_per_s: float | None
    hours_done: float
    gpu_hours_done: float | None
    cpu_hours_done: float | None
    per_hour: float | None

    @property
    def hours_left(self) -> float | None:
        if self.images_left is None or self.images_per_s is None:
            return 0.0 if self.images_left == 0 else None
        return self.images_left / self.images_per_s / 3600

    @property
    def gpu_hours_left(self) -> float | None:
        return _product(self.hours_left, self.gpus)

    @property
    def cpu_hours_left(self) -> float | None:
        """None left for a trial on GPUs, whose CPUs come with them."""
        return 0.0 if self.gpus else _product(self.hours_left, self.cpus)

    @property
    def money_done(self) -> float | None:
        return _product(self.hours_done, self.per_hour)

    @property
    def money_left(self) -> float | None:
        return _product(self.hours_left, self.per_hour)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a sweep's training has cost and will cost; what isn't known is None.

    `unmeasured` names the architectures of unfinished trials whose speed isn't known; `unsized` counts the unfinished
    trials of which it isn't known how many images they train on.
    """

    trials_left: int
    epochs_left: int
    images_left: int | None
    gpu_hours_done: float
    gpu_hours_left: float | None
    cpu_hours_done: float
    cpu_hours_left: float | None
    seconds_left: float | None
    money_done: float | None
    money_left: float | None
    unmeasured: tuple[str, ...]
    unsized: int


@dataclass(frozen=True)
class Budget:
    """What may be used up: hours of GPUs (of CPUs, for trials without), or money in the currency of the prices."""

    amount: float
    of_hours: bool

    @classmethod
    def parse(cls, said: str) -> "Budget":
        """Read `40h` or `250`.

        Raises:
            ValueError: it is neither.
        """
        number = said.strip().removesuffix("h")
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        if not 0 < amount < float("inf"):
            raise ValueError(f"--budget {said!r}: give hours, such as 40h, or money, such as 250")
        return cls(amount, said.strip().endswith("h"))

    def used(self, cost: Cost) -> float:
        """How much of what it counts a cost is.

        Raises:
            ValueError: it counts money, and there are no prices.
        """
        if self.of_hours:
            return cost.gpu_hours_done + cost.cpu_hours_done
        if cost.money_done is None:
            raise ValueError(f"a budget of money needs prices of all node types: name their file in {PRICES}")
        return cost.money_done

    def __str__(self) -> str:
        return f"{self.amount:g} hours" if self.of_hours else f"{self.amount:g}"


def read_prices() -> dict[str, Price]:
    """The prices of nodes by their types, from the file that `SWEEP_PRICES` names; none without it.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    file = os.environ.get(PRICES)
    if not file:
        return {}
    place = f"file of prices {file} ({PRICES})"
    try:
        return _PRICES.validate_python(read_yaml(UPath(file), place))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{place}: {where}: {first['msg']}; it maps node types to prices, such as g5.2xlarge: "
            "{per_hour: 1.2, gpus: 1}"
        ) from error


def measured_speeds(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[Speed]:
    """The speed of each trial that has trained an epoch: the median over its epochs.

    Rows of older versions have no images per second; theirs follow from the images of an epoch and the seconds it took.
    """
    rows = epochs.loc[epochs["epoch"] > 0, ["trial_id", "images_per_s"]]
    rows = pd.concat([rows.dropna(), _older_speeds(trials, epochs)])
    speeds = rows[rows["images_per_s"] > 0].groupby("trial_id", sort=False)["images_per_s"].median()
    facts = trials[["trial_id", "architecture", "device", "gpus", "data_key"]]
    return [Speed(**row) for row in plain_records(facts.merge(speeds.astype(float).reset_index(), on="trial_id"))]


def _older_speeds(trials: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    rows = epochs.loc[(epochs["epoch"] > 0) & epochs["images_per_s"].isna(), ["trial_id", "epoch", "wall_s"]]
    if rows.empty:
        return rows[["trial_id"]].assign(images_per_s=[])
    rows = rows.merge(trials[["trial_id", "images", "epochs"]], on="trial_id")
    before = epochs.loc[epochs["trial_id"].isin(rows["trial_id"]), ["trial_id", "epoch", "wall_s"]]
    before = before.assign(epoch=before["epoch"] + 1)
    rows = rows.merge(before, on=["trial_id", "epoch"], how="left", suffixes=("", "_before"))
    seconds = (rows["wall_s"] - rows["wall_s_before"]).where(lambda taken: taken > 0)
    return rows[["trial_id"]].assign(images_per_s=rows["images"] / rows["epochs"] / seconds)


def trial_costs(
    trials: pd.DataFrame, speeds: Sequence[Speed], prices: Mapping[str, Price] = MappingProxyType({})
) -> list[TrialCost]:
    """What each trial of the table `trials` has cost and will cost."""
    rows = plain_records(trials[list(_USED)])
    left = [_images_left(row) for row in rows]
    groups = _groups(speeds)
    own = {speed.trial_id: speed for speed in speeds}
    used = _used_types(rows, prices)
    return [
        TrialCost(
            trial_id=row["trial_id"],
            architecture=row["architecture"],
            status=row["status"],
            gpus=row["gpus"],
            cpus=row["cpus"],
            epochs_left=row["epochs"] - row["epoch"] if images != 0 else 0,
            images_left=images,
            images_per_s=_speed_of(row, own.get(row["trial_id"]), groups),
            hours_done=(row["wall_s"] or 0.0) / 3600,
            gpu_hours_done=row["gpu_hours"],
            cpu_hours_done=row["cpu_hours"],
            per_hour=_per_hour(row, used, prices),
        )
        for row, images in zip(rows, left, strict=True)
    ]


def cost_of(trials: Sequence[TrialCost], capacity: Capacity | None = None) -> Cost:
    """What a sweep has cost and will cost; without a capacity, as much runs at a time as runs now."""
    left = [trial for trial in trials if trial.status in _UNFINISHED]
    running = [trial for trial in left if trial.status == "running"]
    if capacity is None and running:
        capacity = Capacity(sum(trial.cpus or 1 for trial in running), sum(trial.gpus or 0 for trial in running))
    return Cost(
        trials_left=len(left),
        epochs_left=sum(trial.epochs_left for trial in left),
        images_left=_total(trial.images_left for trial in left),
        gpu_hours_done=sum(trial.gpu_hours_done or 0.0 for trial in trials),
        gpu_hours_left=_total(trial.gpu_hours_left for trial in left),
        cpu_hours_done=sum(trial.cpu_hours_done or 0.0 for trial in trials),
        cpu_hours_left=_total(trial.cpu_hours_left for trial in left),
        seconds_left=_seconds_left(left, capacity),
        money_done=_total(trial.money_done for trial in trials if trial.hours_done),
        money_left=_total(trial.money_left for trial in left),
        unmeasured=tuple(sorted({t.architecture for t in left if t.images_left and t.images_per_s is None})),
        unsized=sum(trial.images_left is None for trial in left),
    )


def checkpoint_bytes(parameters: int, epochs: int) -> tuple[int, int]:
    """The disk that a trial's checkpoints take: in the end, and beyond that while it trains."""
    weights = parameters * _BYTES
    return weights * len(epochs_to_keep(epochs)), _FULL * 2 * weights


def _images_left(row: Row) -> int | None:
    """Epochs are taken as equally long; where batch sizes change, they differ by less than a batch."""
    if row["status"] not in _UNFINISHED or row["images"] == 0:
        return 0
    return None if row["images"] is None else round(row["images"] * (1 - row["epoch"] / row["epochs"]))


def _groups(speeds: Sequence[Speed]) -> dict[str, list[Speed]]:
    """For each architecture the median speed of each combination of device, number of GPUs and data."""
    alike: dict[tuple[str, str | None, float | None, str | None], list[Speed]] = {}
    for speed in speeds:
        alike.setdefault((speed.architecture, speed.device, speed.gpus, speed.data_key), []).append(speed)
    groups: dict[str, list[Speed]] = {}
    for (architecture, *_), group in alike.items():
        middle = replace(group[0], images_per_s=median(speed.images_per_s for speed in group), trial_id=None)
        groups.setdefault(architecture, []).append(middle)
    return groups


def _speed_of(row: Row, own: Speed | None, groups: Mapping[str, Sequence[Speed]]) -> float | None:
    """A trial's own speed, else that of the group that is most like it."""

    def likeness(speed: Speed) -> tuple[bool, bool, bool]:
        return speed.device == row["device"], speed.gpus == row["gpus"], speed.data_key == row["data_key"]

    if own is not None and own.tells_of(row["gpus"]):
        return own.images_per_s
    telling = [speed for speed in groups.get(row["architecture"], ()) if speed.tells_of(row["gpus"])]
    most = max(map(likeness, telling), default=None)
    alike = [speed.images_per_s for speed in telling if likeness(speed) == most]
    return median(alike) if alike else None


def _used_types(rows: Sequence[Row], prices: Mapping[str, Price]) -> dict[bool, set[str]]:
    """The priced types of nodes that trials without and with GPUs have run on."""
    on = {(bool(row["gpus"]), row["node_type"]) for row in rows}
    return {gpus: {name for with_gpus, name in on if with_gpus == gpus and name in prices} for gpus in (False, True)}


def _per_hour(row: Row, used: Mapping[bool, set[str]], prices: Mapping[str, Price]) -> float | None:
    """The price of what a trial occupies, on its node's type, else on the only one that it can be."""
    if row["gpus"] is None or row["cpus"] is None:
        return None
    fitting = {name for name, price in prices.items() if bool(price.gpus) == bool(row["gpus"])}
    likely = [row["node_type"]] if row["node_type"] else list(used[bool(row["gpus"])] or fitting)
    price = prices.get(likely[0]) if len(likely) == 1 else None
    return None if price is None else price.share(row["gpus"], row["cpus"])


def _seconds_left(left: Sequence[TrialCost], capacity: Capacity | None) -> float | None:
    """Each shape of trial fills the cluster in turn; no sweep ends before its longest trial."""
    if not left:
        return 0.0
    if capacity is None:
        return None
    at_a_time = [capacity.trials_at_a_time(trial.cpus or 1, trial.gpus or 0) for trial in left]
    hours = [trial.hours_left for trial in left]
    if 0 in at_a_time or None in hours:
        return None
    known = [hour for hour in hours if hour is not None]
    return 3600 * max(*known, sum(hour / number for hour, number in zip(known, at_a_time, strict=True)))


def _product(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first * second


def _total(values: Iterable[Number | None]) -> Number | None:
    """The sum, or None if a value isn't known."""
    every = list(values)
    known = [value for value in every if value is not None]
    return sum(known) if len(known) == len(every) else None
