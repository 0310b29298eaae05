"""The directory of an atlas: trained networks from anywhere, and what their layers show. Knows neither torch nor Ray.

```
<storage>/<atlas>/atlas.json             what was asked for
                  driver/<n>.json        who works on it (sweep.store.lease)
                  sources/<hash>.json    a network by its address: what it is like, or why it isn't there
                  networks/<digest>/     what was found in weights of this content, once for all sources that have them:
                                         claim.json, layers.json and each layer's reduced weights
                  results/atlas.parquet  a row for each source and layer (sweep.results.atlas)
```
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter
from upath import UPath

from analysis.write import RESULTS, read_bytes
from sweep.store.files import absolute, children, create_json, read_json, write_json
from sweep.store.sweep_dir import is_sweep

Layers = dict[str, dict[str, Any]]
"""Rows of `layers.json` by the names of their layers."""
LAST = 3
"""How many of a network's last layers are scored unless told otherwise."""
_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an atlas holds: its sources as they were named, and how many last layers of each network are scored."""

    sources: list[str] = field(default_factory=list)
    last: int = LAST


@dataclass(frozen=True, kw_only=True)
class ScoredLayer:
    """A conv that is scored, the last one at position 1: rows and columns of its kernel, and how it pads its map."""

    layer: str
    position: int
    kernel: str
    channels: int
    padding: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A network: `digest` names its weights' content, `version` changes with its file, `error` says why it has none."""

    source: str
    architecture: str | None = None
    pooling: str = "unknown"
    parameters: int | None = None
    version: str | None = None
    digest: str | None = None
    layers: list[ScoredLayer] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The networks that sources mean: `todo` have no results yet; `lost` sources mean nothing any more."""

    networks: list[str]
    todo: list[str]
    lost: list[Record]


_ASKED, _RECORD = TypeAdapter(Asked), TypeAdapter(Record)


@dataclass(frozen=True)
class AtlasDir:
    """Paths and records of one atlas."""

    path: UPath

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def file(self) -> UPath:
        """What was asked for; a folder with this file is an atlas."""
        return self.path / "atlas.json"

    @property
    def table(self) -> UPath:
        return self.path / "results" / "atlas.parquet"

    def network(self, digest: str) -> UPath:
        """The results of weights with this content."""
        return self.path / "networks" / digest

    def asked(self) -> Asked:
        """What was asked for so far; nothing, if this is no atlas yet.

        Raises:
            ValueError: its file is damaged.
        """
        if not self.file.exists():
            return Asked()
        try:
            return _ASKED.validate_python(json.loads(read_bytes(self.file)))
        except (ValueError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{self.file} is damaged ({said[:200]}); remove it and name all sources again") from error

    def extended(self, sources: Sequence[str], last: int | None) -> Asked:
        """What was asked for so far, and these sources.

        Raises:
            ValueError: that is nothing, or the atlas was begun with another number of last layers.
        """
        before = self.asked()
        if before.sources and last not in (None, before.last):
            raise ValueError(
                f"atlas {self.name} scores the last {before.last} layers; leave --last out, or give another --name"
            )
        count = before.last if before.sources or last is None else last
        asked = Asked(sources=list(dict.fromkeys([*before.sources, *sources])), last=count)
        if not asked.sources:
            raise ValueError(f"atlas {self.name} is empty; name libraries, files or folders: sweep atlas timm FILE")
        return asked

    def ask(self, asked: Asked) -> None:
        """Record what is asked for."""
        if asked != self.asked():
            write_json(self.file, asdict(asked))

    def write_record(self, record: Record) -> None:
        write_json(self.path / "sources" / _file_of(record.source), asdict(record))

    def records(self) -> dict[str, Record]:
        """All networks looked at so far, by source; a damaged record reads as none, and is made anew."""
        folder = self.path / "sources"
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda name: _record_in(folder / name), children(folder))
        return {record.source: record for record in found if record is not None}

    def layers(self, digest: str) -> Layers | None:
        """What was found in weights of this content; None if nothing was yet, or if the file is damaged."""
        rows = _json_in(self.network(digest) / RESULTS)
        whole = isinstance(rows, list) and all(
            isinstance(row, dict) and isinstance(row.get("layer"), str) and "error" in row for row in rows
        )
        return {row["layer"]: row for row in rows} if whole else None

    def analysed(self) -> dict[str, Layers]:
        """What was found in all weights so far, by their digests."""
        digests = children(self.path / "networks")
        with ThreadPoolExecutor(_THREADS) as pool:
            found = zip(digests, pool.map(self.layers, digests), strict=True)
            return {digest: layers for digest, layers in found if layers is not None}

    def claim(self, digest: str, source: str, run: str) -> bool:
        """Whether weights are this source's to analyse: the first one's of a run that finds them without results."""
        file, mine = self.network(digest) / "claim.json", {"run": run, "source": source}
        try:
            create_json(file, mine)
        except FileExistsError:
            there = _json_in(file)
            if isinstance(there, dict) and there.get("run") == run:
                return bool(there.get("source") == source)
            write_json(file, mine)  # its run was interrupted
        return True


def _file_of(source: str) -> str:
    return f"{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"


def failed(source: str, error: Exception) -> Record:
    """The record of what can't be scored."""
    return Record(source=source, error=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _json_in(file: UPath) -> Any:
    """The content of a JSON file; None where it is missing or damaged."""
    try:
        return read_json(file)
    except (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _record_in(file: UPath) -> Record | None:
    try:
        return _RECORD.validate_python(_json_in(file))
    except ValueError:
        return None


def is_atlas(path: UPath) -> bool:
    """Whether a folder holds an atlas."""
    return AtlasDir(path).file.exists()


def atlas_names(storage: UPath) -> list[str]:
    """Names of the atlases in a storage, sorted; empty if the storage does not exist."""
    return [name for name in children(storage) if is_atlas(storage / name)]


def open_atlas(name_or_path: str, storage: str) -> AtlasDir:
    """The atlas of a name in a storage, or at a path, whether it is there yet or not.

    Raises:
        ValueError: a sweep is there.
    """
    path = absolute(UPath(name_or_path) if "/" in name_or_path else absolute(storage) / name_or_path)
    if is_sweep(path):
        raise ValueError(f"{path} is a sweep; give the atlas another --name")
    return AtlasDir(path)
