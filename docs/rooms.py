"""Draw which room of the code imports which: docs/architecture.svg, from the import graph and pyproject.toml.

Each layer of the import rules is a floor. An arrow that a longer path implies is left out.
"""

import itertools
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
ROOMS = {
    "dashboard": (0.0, "pages in the browser"),
    "sweep.cli": (1.5, "the command line"),
    "sweep.service": (1.5, "all that knows Ray"),
    "sweep.report": (1.0, "one HTML file"),
    "sweep.terminal": (2.0, "what a terminal shows"),
    "sweep.atlas": (3.5, "other people's networks"),
    "sweep.results": (0.5, "files to tables to numbers"),
    "sweep.training": (1.5, "one trial, without Ray"),
    "sweep.grid": (2.5, "what a researcher writes"),
    "sweep.store": (1.0, "what lasts"),
    "sweep.data": (2.0, "images"),
    "sweep.spec": (1.5, "a trial and its id"),
    "analysis": (0.5, "weights to scores"),
    "models": (3.2, "networks"),
}
"""Column and job of each room; a column is chosen so that no arrow runs through a box."""
_COLUMN, _FLOOR, _WIDTH, _HEIGHT = 200, 84, 156, 44  # pixels: from column to column, from floor to floor, a box
_MARGIN = 20


def floors() -> list[list[str]]:
    """The rooms, floor by floor from the top, as the import rules name them."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["type"] == "layers")
    return [[room.strip("() ") for room in layer.replace("|", ":").split(":")] for layer in layers]


def arrows(rooms: list[str]) -> set[tuple[str, str]]:
    """Which room imports which directly.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    graph = grimp.build_graph(*dict.fromkeys(room.partition(".")[0] for room in rooms), cache_dir=None)
    found = {
        (importer, imported)
        for importer, imported in itertools.permutations(rooms, 2)
        if graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
    }
    circles = [room for room in rooms if room in _reached(found, room)]
    if circles:
        raise ValueError(f"{' and '.join(circles)} import each other in a circle; break it")
    return found


def bare(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that no longer path implies: the transitive reduction."""
    return {
        (importer, imported)
        for importer, imported in found
        if not any(imported in _reached(found, via) for start, via in found if start == importer and via != imported)
    }


def _reached(found: set[tuple[str, str]], room: str) -> set[str]:
    """All rooms that a room imports, itself or through others."""
    reached: set[str] = set()
    todo = [room]
    while todo:
        nearest = {imported for importer, imported in found if importer == todo[-1]} - reached
        todo.pop()
        reached |= nearest
        todo += sorted(nearest)
    return reached


def svg() -> str:
    """The picture."""
    levels = floors()
    level_of = {room: row for row, level in enumerate(levels) for room in level}
    drawn = sorted(bare(arrows(list(level_of))))
    width = round(max(column for column, _ in ROOMS.values()) * _COLUMN) + _WIDTH + 2 * _MARGIN
    height = (len(levels) - 1) * _FLOOR + _HEIGHT + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13" text-anchor="middle">',
        "<title>Who imports whom</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(_arrow(level_of, importer, imported) for importer, imported in drawn),
        *(_box(level_of, room) for room in level_of),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(level_of: dict[str, int], room: str) -> str:
    x, y = _top(level_of, room)
    return (
        f'<rect x="{x - _WIDTH // 2}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#eef4fa" '
        f'stroke="#0072b2"/><text x="{x}" y="{y + 19}" font-weight="bold">{room}</text>'
        f'<text x="{x}" y="{y + 35}" font-size="11" fill="#444">{ROOMS[room][1]}</text>'
    )


def _arrow(level_of: dict[str, int], importer: str, imported: str) -> str:
    """Straight to the next floor; past other floors down the column of the room that it leads to."""
    x, y = _top(level_of, importer)
    to_x, to_y = _top(level_of, imported)
    y += _HEIGHT
    turn = f"V{y + 14} H{to_x} " if level_of[imported] - level_of[importer] > 1 else ""
    return f'<path d="M{x} {y} {turn}L{to_x} {to_y}" stroke="#555" fill="none" marker-end="url(#tip)"/>'


def _top(level_of: dict[str, int], room: str) -> tuple[int, int]:
    """The middle of a box's upper edge."""
    return _MARGIN + _WIDTH // 2 + round(ROOMS[room][0] * _COLUMN), _MARGIN + level_of[room] * _FLOOR
