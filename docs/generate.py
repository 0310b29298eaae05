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
from typing import Any

import commands
import rooms
from published import differences, findings, markdown, results, seeds

from sweep.grid import catalogue, registries

DOCS = Path(__file__).parent
FILES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def listed(what: str) -> str:
    """A table of `sweep list`."""
    header, rows = registries.ROWS[what]()
    return markdown(header, [[f"`{row[0]}`", *row[1:]] for row in rows])


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


def generated(name: str) -> str:
    kind, _, argument = name.partition(" ")
    kinds = {
        "list": listed,
        "results": results,
        "differences": differences,
        "seeds": seeds,
        "measured": measured,
        "findings": findings,
    }
    return kinds[kind](argument)


def updated(text: str) -> str:
    """A document with its generated parts as they should be now."""
    pattern = re.compile(
        r"<!-- ((?:list|results|seeds|measured|findings) \S+|differences [^>]+?) -->\n.*?<!-- end -->", re.DOTALL
    )
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
