"""Read a grid by name or from a file, apply settings to it, and check what can be checked without torch."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from upath import UPath

from sweep.grid.mistakes import explain
from sweep.grid.outline import Outline
from sweep.store.strict_yaml import parse_yaml, read_yaml

_LONGEST, _MOST_VALUES = 2**20, 101_000  # bytes and values of a grid file; 100,000 seeds take fewer


def grid_names() -> list[str]:
    """Names of the grids that come with the project."""
    return _yaml_names(files("sweep.grids"))


def preset_names(key: str) -> list[str]:
    """Names of the recipes or data that come with the project."""
    return _yaml_names(files("sweep.presets") / key)


def read_document(name_or_file: str, settings: list[str]) -> dict[str, Any]:
    """A grid's keys and values, with its presets filled in and `key=value` settings applied.

    Raises:
        ValueError: there is no such grid, its outline is wrong, or it makes too many trials; one line.
    """
    document = _written(name_or_file)
    fill_presets(document)
    for setting in settings:
        apply(document, setting)
        fill_presets(document)
    try:
        Outline.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"grid {name_or_file}: {explain(error, Outline)}") from error
    return document


def fill_presets(document: dict[str, Any]) -> None:
    """Replace the name of a shipped recipe or data set by its content."""
    for key in ("recipe", "data"):
        name = document.get(key)
        if isinstance(name, str):
            _require_known(key, name, preset_names(key))
            document[key] = _shipped("sweep.presets", key, f"{name}.yaml")


def apply(document: dict[str, Any], setting: str) -> None:
    """Apply one `a.b=value` setting to a document; the value is read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {setting!r} must look like recipe.epochs=3")
    value = parse_yaml(text, f"--set {setting!r}: the value")
    *parents, last = key.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
        if not isinstance(document, dict):
            raise ValueError(f"--set {setting!r}: {parent!r} has no keys below it")
    document[last] = value


def _yaml_names(folder: Traversable) -> list[str]:
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def _written(name_or_file: str) -> dict[str, Any]:
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file).expanduser()
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"grid file {path} is neither a file nor a folder")
        document = read_yaml(UPath(path), f"grid file {path}", _LONGEST, _MOST_VALUES)
    elif name_or_file not in grid_names() and Path(name_or_file).is_file():
        raise ValueError(f"{name_or_file} is a file, but a grid file must end in .yaml or .yml; rename it")
    else:
        _require_known("grid", name_or_file, grid_names())
        document = _shipped("sweep.grids", f"{name_or_file}.yaml")
    if not isinstance(document, dict):
        raise ValueError(f"grid {name_or_file} must be a mapping of keys to values")
    return document


def _shipped(package: str, *parts: str) -> Any:
    """A YAML file that comes with the project."""
    return parse_yaml(files(package).joinpath(*parts).read_text(encoding="utf-8"), "/".join(parts))


def _require_known(kind: str, name: str, allowed: list[str]) -> None:
    if name not in allowed:
        from models.names import require_known  # with it comes torch

        require_known(kind, name, allowed)
