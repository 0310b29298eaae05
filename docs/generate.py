"""Write what is generated from code and measurements: python docs/generate.py [--check]

- parts of README.md and docs/*.md between `<!-- name -->` and `<!-- end -->`, from the registries and from
  docs/results/*.json, which the commands under benchmarks/ wrote;
- sweep/grid/catalogue.json, from which `sweep list` reads;
- docs/architecture.svg, the import graph;
- docs/cli.md, from the commands.
"""

import json
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import commands
import rooms

from sweep.grid import catalogue, registries

DOCS = Path(__file__).parent
FILES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def listed(what: str) -> str:
    """A table of `sweep list`."""
    header, rows = registries.ROWS[what]()
    return markdown(header, [[f"`{row[0]}`", *row[1:]] for row in rows])


def results(name: str) -> str:
    """The published results of a sweep: one row for each intervention, layer and way of flipping, over its seeds."""
    sweep: dict[str, Any] = json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for trial in sweep["trials"]:
        for layer in trial["layers"]:
            key = trial["intervention"], layer["layer"], trial.get("flip", "")
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
        for (intervention, layer, flip), group in sorted(groups.items(), key=lambda item: order[item[0][:2]])
    ]
    seeds = len({trial["seed"] for trial in sweep["trials"]})
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
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    took = f"{sweep['wall_s']:.0f} s in all" if sweep["wall_s"] else "time not measured as a whole"
    return f"{table}\n\n{over}; {took} on {sweep['machine']}, PyTorch {sweep['torch']}."


def measured(name: str) -> str:
    """The rows that a benchmark wrote."""
    file = DOCS / "results" / f"{name}.json"
    if not file.exists():
        return "Not measured yet."
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "rows" in facts:
        header = list(facts["rows"][0])
        table = markdown(header, [[str(row[key]) for key in header] for row in facts["rows"]])
        return f"{table}\n\n{facts['remark']}" if "remark" in facts else table
    ways = {name: value for name, value in facts.items() if isinstance(value, dict)}
    header = ["", *next(iter(ways.values()))]
    rows = [[name.replace("_", " "), *(str(value) for value in values.values())] for name, values in ways.items()]
    return f"{markdown(header, rows)}\n\nOverhead: {facts['overhead']:+.1%}."


def spread(values: list[float]) -> str:
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{round(mean(values), 2) + 0.0:.2f}{deviation}"  # no minus before zero


def verdicts(group: list[dict[str, Any]]) -> str:
    found = [row["verdict"] for row in group]
    counts = {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}
    if len(counts) == 1:
        return found[0]
    return ", ".join(f"{verdict} ({number} of {len(found)})" for verdict, number in counts.items())


def generated(name: str) -> str:
    kind, _, argument = name.partition(" ")
    return {"list": listed, "results": results, "measured": measured}[kind](argument)


def updated(text: str) -> str:
    """A document with its generated parts as they should be now."""
    pattern = re.compile(r"<!-- ((?:list|results|measured) \S+) -->\n.*?<!-- end -->", re.DOTALL)
    return pattern.sub(lambda match: f"<!-- {match[1]} -->\n{generated(match[1])}\n<!-- end -->", text)


def expected() -> dict[Path, str]:
    """Every file with generated content, and what it should hold."""
    documents = {file: updated(file.read_text(encoding="utf-8")) for file in FILES}
    made = {catalogue.FILE: catalogue.written(), rooms.PICTURE: rooms.svg(), commands.PAGE: commands.page()}
    return documents | made


def main() -> int:
    stale = {file: text for file, text in expected().items() if not file.exists() or file.read_text("utf-8") != text}
    if "--check" in sys.argv:
        for file in stale:
            print(f"{file.name} is stale; run: make docs")
        return 1 if stale else 0
    for file, text in stale.items():
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
