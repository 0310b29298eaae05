"""Read a grid or a data set by name or from a file, and apply settings to it."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from upath import UPath

from models.names import require_known
from sweep.data.build import Wanted
from sweep.data.registry import Source
from sweep.grid.expand import find_data, read_options
from sweep.grid.schema import Grid, GridData, explain
from sweep.spec import DataSpec
from sweep.store.strict_yaml import parse_yaml, read_yaml

_LONGEST = 2**20  # bytes of a grid file; 100,000 seeds take fewer
_LARGEST_IMAGES = 224  # pixels; what all architectures but simplified_mini see


def grid_names() -> list[str]:
    """Names of the grids that come with the project."""
    return _yaml_names(files("sweep.grids"))


def preset_names(key: str) -> list[str]:
    """Names of the recipes or data that come with the project."""
    return _yaml_names(files("sweep.presets") / key)


def load_grid(name_or_file: str, settings: list[str]) -> Grid:
    """Read a grid by name or from a YAML file, and apply `key=value` settings.

    Raises:
        ValueError: it is unknown, or a key or value in it is wrong; one line with the allowed ones and the nearest.
    """
    document = _read_document(name_or_file)
    _fill_presets(document)
    for setting in settings:
        _apply(document, setting)
        _fill_presets(document)
    try:
        return Grid.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"grid {name_or_file}: {explain(error, Grid)}") from error


def load_data(name: str, root: str | None, settings: list[str]) -> tuple[GridData, DataSpec, Source]:
    """A data set by itself, with settings such as `image_size=224` or `options.val_share=0.2`.

    Returns what was asked for, what a trial sees of it, and what was found where its images come from.

    Raises:
        ValueError: a name or a value is wrong, or the folder does not hold such a data set.
    """
    data, where = _read_data(name, root, settings)
    spec, _, source = find_data(data, where).at(data.image_size or _LARGEST_IMAGES)
    return data, spec, source


def read_wanted(name: str, root: str | None, settings: list[str]) -> Wanted:
    """A data set by itself, as `load_data` reads it, to be prepared; nothing is read yet of where it comes from.

    Raises:
        ValueError: a name or a value is wrong.
    """
    data, where = _read_data(name, root, settings)
    return Wanted(
        name=data.name,
        image_size=data.image_size or _LARGEST_IMAGES,
        seed=data.seed,
        options=read_options(data, where).model_dump(mode="json"),
        root=data.location,
        strict=data.unusable == "refuse",
    )


def _read_data(name: str, root: str | None, settings: list[str]) -> tuple[GridData, str]:
    """What was asked for, and how a message about its options begins."""
    document: dict[str, Any] = {"data": name if name in preset_names("data") else {"name": name}}
    _fill_presets(document)
    document["data"] |= {} if root is None else {"root": root}
    for setting in settings:
        _apply(document["data"], setting)
    try:
        data = GridData.model_validate(document["data"])
    except ValidationError as error:
        raise ValueError(f"data set {name}: {explain(error, GridData)}") from error
    return data, f"data set {name}: in options: "


def _yaml_names(folder: Traversable) -> list[str]:
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def _read_document(name_or_file: str) -> dict[str, Any]:
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file).expanduser()
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"grid file {path} is neither a file nor a folder")
        document = read_yaml(UPath(path), f"grid file {path}", _LONGEST)
    elif name_or_file not in grid_names() and Path(name_or_file).is_file():
        raise ValueError(f"{name_or_file} is a file, but a grid file must end in .yaml or .yml; rename it")
    else:
        require_known("grid", name_or_file, grid_names())
        document = _shipped("sweep.grids", f"{name_or_file}.yaml")
    if not isinstance(document, dict):
        raise ValueError(f"grid {name_or_file} must be a mapping of keys to values")
    return document


def _fill_presets(document: dict[str, Any]) -> None:
    """Replace the name of a shipped recipe or data set by its content."""
    for key in ("recipe", "data"):
        name = document.get(key)
        if isinstance(name, str):
            require_known(key, name, preset_names(key))
            document[key] = _shipped("sweep.presets", key, f"{name}.yaml")


def _shipped(package: str, *parts: str) -> Any:
    """A YAML file that comes with the project."""
    return parse_yaml(files(package).joinpath(*parts).read_text(encoding="utf-8"), "/".join(parts))


def _apply(document: dict[str, Any], setting: str) -> None:
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
