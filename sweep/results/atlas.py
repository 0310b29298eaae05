"""The table of an atlas: a row for each network and scored layer, or for a network with the reason why it has none.

Needs neither torch nor Ray. `source` is a network's address, `name` what a reader calls it; `library` is timm,
torchvision or file, and `weights` trained, random or, of a file, missing. `pooling` is what gathers the last map for
the classifier, `padding` what surrounds the layer's map. `same_as` names the other sources with the same weights.
What is measured of a layer is as in a sweep's table `layers` (sweep.results.tables).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
from upath import UPath

from analysis.write import write_bytes
from sweep.results.tables import ReducedLayer, Row, parquet, plain_records, read_arrays, read_parquet
from sweep.results.verdicts import TOO_NOISY, told_verdict
from sweep.results.words import kind_of
from sweep.store.addresses import named
from sweep.store.atlas_dir import AtlasDir, Record

_SCORES = (
    "horizontal", "horizontal_low", "horizontal_high", "vertical", "vertical_low", "vertical_high",
    "null_horizontal_high", "null_vertical_high", "null_turned_mean", "null_turned_high", "reliability",
)  # fmt: skip
_NEURONS = ("neurons", "dead", "single_tap")
COLUMNS: dict[str, str] = {
    "source": "string", "library": "string", "name": "string", "weights": "string", "architecture": "string",
    "parameters": "Int64", "pooling": "string", "layer": "string", "position": "Int64", "kernel": "string",
    "padding": "string", "channels": "Int64", **dict.fromkeys(_NEURONS, "Int64"),
    **dict.fromkeys(_SCORES, "Float64"), "verdict": "string", "digest": "string", "same_as": "string",
    "error": "string",
}  # fmt: skip
VERDICTS = ("horizontal", "vertical", "none", TOO_NOISY)
"""As they are told and counted."""


def atlas_table(records: Iterable[Record], layers_of: Callable[[str], Mapping[str, Row]]) -> pd.DataFrame:
    """The table of records in their order; `layers_of` gives the results of a digest's layers by name."""
    known = list(records)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for record in known:
        if record.digest is not None:
            names[record.digest].append(record.source)
    rows = [row for record in known for row in _rows(record, names, layers_of)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def read_atlas(atlas: AtlasDir) -> pd.DataFrame:
    """The table as it was written last.

    Raises:
        DamagedTableError: it can't be read.
    """
    return read_parquet(atlas.table, COLUMNS, f"sweep atlas --name {atlas.path}")


def write_atlas(atlas: AtlasDir, table: pd.DataFrame) -> None:
    write_bytes(atlas.table, parquet(table))


def read_layer(atlas: UPath, digest: str, layer: str) -> ReducedLayer | None:
    """The reduced weights of a layer; None where they are missing or damaged."""
    return read_arrays(AtlasDir(atlas).network(digest), layer)


def distinct(table: pd.DataFrame, position: int = 1) -> pd.DataFrame:
    """The scored layers at a position, each weights' content once."""
    scored = table[(table["position"] == position) & table["verdict"].notna()]
    return scored.drop_duplicates("digest", ignore_index=True)


def told_verdicts(scored: pd.DataFrame) -> pd.Series:
    """The verdict of each scored layer in words."""
    told = [told_verdict(**row) for row in plain_records(scored[["verdict", "reliability"]])]
    return pd.Series(told, scored.index, dtype="string", name="verdict")


def verdicts_by(table: pd.DataFrame, column: str, position: int = 1) -> pd.DataFrame:
    """How many networks have which verdict at a position, for each value of a column; the most frequent value first.

    Layers that are too noisy to judge are counted as such, not as none.
    """
    found = distinct(table, position)
    counts = pd.crosstab(found[column].fillna("unknown"), told_verdicts(found)).reindex(
        columns=list(VERDICTS), fill_value=0
    )
    counts.insert(0, "networks", counts.sum(axis=1))
    counts = counts.sort_values("networks", ascending=False, kind="stable").reset_index()
    counts.columns.name = None
    return counts


def failures(table: pd.DataFrame) -> list[tuple[int, str, list[str]]]:
    """Kinds of errors, the most frequent first: how many networks have one, an example of it, and their sources."""
    failed = table[table["error"].notna()].drop_duplicates("source")
    kinds = failed["error"].map(kind_of)
    order = Counter(kinds).most_common()
    groups = [failed[kinds == kind] for kind, _ in order]
    return [(len(group), str(group["error"].iloc[0]), group["source"].tolist()) for group in groups]


def _rows(record: Record, names: Mapping[str, list[str]], layers_of: Callable[[str], Mapping[str, Row]]) -> list[Row]:
    facts: Row = {
        "source": record.source, **_told_by(record.source), "architecture": record.architecture,
        "parameters": record.parameters, "pooling": record.pooling, "digest": record.digest, "error": record.error,
    }  # fmt: skip
    if record.digest is None:
        return [facts]
    others = [name for name in names[record.digest] if name != record.source]
    facts["same_as"] = ", ".join(others) or None
    results = layers_of(record.digest)
    missing = {"error": "its analysis was interrupted; run the same command again"}
    return [facts | vars(layer) | _scores(results.get(layer.layer, missing)) for layer in record.layers]


def _scores(result: Mapping[str, object]) -> Row:
    return {name: result.get(name) for name in (*_NEURONS, *_SCORES, "verdict", "error")}


def _told_by(source: str) -> Row:
    """Library, name and weights, as the address tells them."""
    library = named(source)
    if library is None:
        return {"library": "file", "name": source.rpartition("/")[2], "weights": None}
    return {"library": library.library, "name": library.name or library.library, "weights": library.weights}
