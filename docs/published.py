"""Tables of published sweeps, docs/results/<name>.json, which benchmarks/publish.py writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any, get_args

from scipy import stats

from analysis.figure12 import figure12
from models.interventions import INTERVENTIONS, Flip
from sweep.results.contrasts import half_width
from sweep.results.statistics import DIRECTIONS
from sweep.results.words import decimal, mean_and_spread
from sweep.spec import USUAL_FLIP

RESULTS = Path(__file__).parent / "results"
NOT_RUN = "Not run yet."
_THEIRS = {"3b": "5b", "3a": "5a"}  # the article's layers, by those of `simplified_mini` in their place


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def published(name: str) -> dict[str, Any] | None:
    """What benchmarks/publish.py wrote of a sweep, or None.

    Raises:
        ValueError: its trials differ in more than intervention, flip and seed; means over them would mean nothing.
    """
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return None
    sweep: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key in ("architecture", "data", "recipe_key"):
        if len(values := {trial.get(key) for trial in sweep["trials"]}) > 1:
            raise ValueError(f"{file} mixes trials of several kinds ({key}: {values}); publish each by itself")
    return sweep


def results(name: str) -> str:
    """The published results of a sweep: one row for each intervention, layer and way of flipping, over its seeds."""
    sweep = published(name)
    if sweep is None:
        return NOT_RUN
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for trial in sweep["trials"]:
        for layer in trial["layers"]:
            key = trial["intervention"], layer["layer"], trial.get("flip") or USUAL_FLIP
            groups.setdefault(key, []).append(trial | layer)
    order = {key[:2]: place for place, key in reversed(list(enumerate(groups)))}  # a cell's ways beside each other
    told = len({flip for _, _, flip in groups}) > 1
    rows = [
        [
            f"`{intervention}`",
            *([f"`{flip}`"] if told else []),
            spread([row["val_accuracy"] for row in group]),
            layer.removeprefix("features.").removesuffix(".conv"),
            spread([row["horizontal"] for row in group]),
            spread([row["vertical"] for row in group]),
            verdicts(group),
            group[0]["expected"],
        ]
        for (intervention, layer, flip), group in sorted(
            groups.items(), key=lambda item: (order[item[0][:2]], item[0][2])
        )
    ]
    seeds = sorted({len(group) for group in groups.values()})
    table = markdown(
        [
            "intervention",
            *(["flip"] if told else []),
            "accuracy",
            "layer",
            "horizontal",
            "vertical",
            "verdict",
            "expected",
        ],
        rows,
    )
    several = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    over = "One seed" if several == "1" else f"Mean ± standard deviation over {several} seeds"
    took = f"{sweep['wall_s']:.0f} s in all" if sweep["wall_s"] else "time not measured as a whole"
    return f"{table}\n\n{over}; {took} on {sweep['machine']}, PyTorch {sweep['torch']}."


def differences(asked: str) -> str:
    """Differences between cells of a published sweep in its last conv, each with the 95 % interval of Welch's t.

    The first line of `asked` is the sweep's name, every other one `CELL - CELL`, each an intervention or, where the
    sweep has several ways of flipping, `intervention/flip`.

    Raises:
        ValueError: there is no such intervention or way of flipping.
    """
    name, *pairs = asked.split("\n")
    sweep = published(name)
    cells: dict[str, list[dict[str, Any]]] = {}
    for trial in sweep["trials"] if sweep else ():
        cell = f"{trial['intervention']}/{trial.get('flip') or USUAL_FLIP}"
        cells.setdefault(cell, []).append(trial["layers"][0])
    rows = []
    for pair in pairs:
        first, second = (cells.get(_cell(said), []) for said in pair.split(" - "))
        told = " minus ".join(f"`{cell}`" for cell in pair.split(" - "))
        if min(len(first), len(second)) < 2:
            rows.append([told, "not run yet", ""])
            continue
        apart = [_apart([row[way] for row in first], [row[way] for row in second]) for way in DIRECTIONS]
        rows.append([told, *apart])
    return markdown(["last conv", *DIRECTIONS], rows) if sweep else NOT_RUN


def _cell(said: str) -> str:
    intervention, _, flip = said.partition("/")
    if intervention not in INTERVENTIONS or flip not in ("", *get_args(Flip)):
        raise ValueError(f"there is no cell {said}")
    return f"{intervention}/{flip or USUAL_FLIP}"


def _apart(first: list[float], second: list[float]) -> str:
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    return f"{decimal(mean(first) - mean(second))} ± {decimal((interval.high - interval.low) / 2)}"


def pooled(groups: list[list[float]]) -> tuple[float, int]:
    """The standard deviation within groups, taken as equal in all, and its degrees of freedom."""
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(variance(group) * (len(group) - 1) for group in several)
    return ((squares / freedom) ** 0.5 if freedom else float("nan")), freedom


def seeds(names: str) -> str:
    """Every seed's score of the last conv in the direction of the baseline's or the rotated bands, a row for a cell.

    `names` are sweeps that differ in the machine alone. Of no_pooling and untrained, the larger score of both counts.
    """
    rows = []
    for sweep in filter(None, map(published, names.split(","))):
        cells: dict[str, dict[int, float]] = {}
        for trial in sweep["trials"]:
            last = trial["layers"][0]
            banded = {"baseline": "horizontal", "rotate90": "vertical"}.get(trial["intervention"])
            score = last[banded] if banded else max(last["horizontal"], last["vertical"])
            cells.setdefault(trial["intervention"], {})[trial["seed"]] = score
        for intervention, scores in cells.items():
            every = [scores[seed] for seed in sorted(scores)]
            worst = min(every) if intervention in ("baseline", "rotate90") else max(every)
            listed = " ".join(decimal(score) for score in every)
            rows.append([sweep["machine"], f"`{intervention}`", spread(every), decimal(worst), listed])
    return markdown(["machine", "intervention", "mean", "worst", "each seed, from 0"], rows) if rows else NOT_RUN


def findings(names: str) -> str:
    """The article's findings in the catalogue's order, each beside what sweeps found, by their names.

    The article's `unbanded` is the share of its network's neurons in that cluster of its figure 12.
    """
    unbanded = figure12().groupby(["intervention", "layer"])["unbanded"].mean()
    sweeps = {name: cells_of(name) for name in names.split(",")}
    rows: dict[tuple[str, str, str], list[str]] = {}
    agreeing = dict.fromkeys(sweeps, (0, 0))
    for number, (name, cells) in enumerate(sweeps.items()):
        deviation, freedom = pooled([cell.scores for cell in cells.values()])
        for key, cell in cells.items():
            half = float(half_width(deviation / len(cell.scores) ** 0.5, freedom)) if freedom else None
            rows.setdefault(key, [""] * len(sweeps))[number] = cell.in_words(half)
            right, all_ = agreeing[name]
            agreeing[name] = right + cell.agrees, all_ + 1
    table = markdown(
        ["intervention", "layer", "article", "unbanded", *sweeps],
        [
            [f"`{name}`", layer, finding, f"{unbanded[name, _THEIRS[layer]]:.0f} %", *said]
            for (name, layer, finding), said in rows.items()
        ],
    )
    told = "; ".join(f"{name}: {right} of {all_}" for name, (right, all_) in agreeing.items())
    return f"{table}\n\nFindings that agree with the article's: {told}."


@dataclass(frozen=True)
class Cell:
    """What a sweep found where the article has a finding: scores in that direction, and verdicts, over seeds."""

    finding: str
    scores: list[float]
    verdicts: list[str]

    @property
    def agrees(self) -> bool:
        return self.verdicts.count(self.finding) * 2 > len(self.verdicts)

    def in_words(self, half: float | None) -> str:
        """The mean with its interval, and the verdicts, bold where most differ from the article's."""
        interval = "" if half is None else f" ± {half:.2f}"
        told = verdicts([{"verdict": verdict} for verdict in self.verdicts])
        return f"{mean(self.scores) + 0.0:.2f}{interval} {told if self.agrees else f'**{told}**'}"


def cells_of(name: str) -> dict[tuple[str, str, str], Cell]:
    """A published sweep's cells by intervention, layer and finding, without those that the article doesn't speak of."""
    sweep = published(name)
    cells: dict[tuple[str, str, str], Cell] = {}
    for trial in sweep["trials"] if sweep else ():
        for layer in trial["layers"]:
            finding = layer["expected"]
            if finding in ("unknown", None) or trial["intervention"] == "untrained":
                continue
            key = trial["intervention"], layer["layer"].removeprefix("features.").removesuffix(".conv"), finding
            cell = cells.setdefault(key, Cell(finding, [], []))
            cell.scores.append(layer["vertical" if finding == "vertical" else "horizontal"])
            cell.verdicts.append(layer["verdict"])
    return cells


def spread(values: list[float]) -> str:
    return mean_and_spread(mean(values), stdev(values) if len(values) > 1 else None)


def verdicts(group: list[dict[str, Any]]) -> str:
    found = [row["verdict"] for row in group]
    counts = {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}
    if len(counts) == 1:
        return found[0]
    return ", ".join(f"{verdict} ({number} of {len(found)})" for verdict, number in counts.items())
