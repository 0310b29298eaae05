"""Make a grid or a data set of what is written, with the names that the registries know. This loads torch."""

from typing import Any

from pydantic import ValidationError

from sweep.data.build import Wanted
from sweep.data.registry import Source
from sweep.grid.document import apply, fill_presets, preset_names, read_document
from sweep.grid.expand import find_data, read_options
from sweep.grid.mistakes import explain
from sweep.grid.schema import Grid, GridData
from sweep.spec import DataSpec

_LARGEST_IMAGES = 224  # pixels; what all architectures but simplified_mini see


def load_grid(name_or_file: str, settings: list[str]) -> Grid:
    """Read a grid by name or from a YAML file, and apply `key=value` settings.

    Raises:
        ValueError: it is unknown, or a key or value in it is wrong; one line with the allowed ones and the nearest.
    """
    return as_grid(read_document(name_or_file, settings), name_or_file)


def as_grid(document: dict[str, Any], name_or_file: str) -> Grid:
    """The grid of a document that was read by this name.

    Raises:
        ValueError: a key or value in it is wrong; one line with the allowed ones and the nearest.
    """
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
    fill_presets(document)
    document["data"] |= {} if root is None else {"root": root}
    for setting in settings:
        apply(document["data"], setting)
    try:
        data = GridData.model_validate(document["data"])
    except ValidationError as error:
        raise ValueError(f"data set {name}: {explain(error, GridData)}") from error
    return data, f"data set {name}: in options: "
