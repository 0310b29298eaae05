"""What a grid can name, read from a catalogue shipped with the package, so that `sweep list` needs no torch.

`make docs` writes catalogue.json. It holds the hash of the sources it was made from; if they have changed since, the
rows come from the registries themselves.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

Rows = tuple[list[str], list[list[str]]]
"""A header and rows of text, the name first."""
FILE = Path(__file__).with_name("catalogue.json")


def rows(what: str) -> Rows:
    """Everything of one kind that a grid can name: `architectures`, `interventions`, `data`, `recipes` or `grids`."""
    shipped = _shipped()
    if shipped is None:
        from sweep.grid import registries  # loads torch

        return registries.ROWS[what]()
    header, listed = shipped[what]
    return header, listed


def written() -> str:
    """The text of catalogue.json for the current registries."""
    from sweep.grid import registries

    listed = {what: make() for what, make in registries.ROWS.items()}
    return json.dumps({"sha256": sources_hash(), "rows": listed}, indent=1, ensure_ascii=False) + "\n"


def sources_hash() -> str:
    """Equal for equal sources: names and bytes of all files that the rows are made from."""
    digest = hashlib.sha256()
    for name, file in sorted(sources()):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def sources() -> Iterator[tuple[str, Path]]:
    """The files that the rows are made from, each with its name in the project."""
    sweep = Path(__file__).parents[1]
    # find_spec, unlike an import, doesn't run models/__init__.py, which loads torch.
    found = find_spec("models")
    assert found is not None
    assert found.submodule_search_locations is not None
    models = Path(found.submodule_search_locations[0])
    patterns = {
        models: ["*.py"],
        sweep: ["data/*.py", "grid/document.py", "grid/registries.py", "grids/*.yaml", "presets/*/*.yaml"],
    }
    for folder, globs in patterns.items():
        for pattern in globs:
            for file in folder.glob(pattern):
                yield f"{folder.name}/{file.relative_to(folder).as_posix()}", file


def _shipped() -> dict[str, Rows] | None:
    """The catalogue's rows; None unless it was made from the current sources."""
    try:
        catalogue = json.loads(FILE.read_text(encoding="utf-8"))
        return catalogue["rows"] if catalogue["sha256"] == sources_hash() else None
    except (FileNotFoundError, KeyError, ValueError):  # not written yet, or with merge markers in it
        return None
