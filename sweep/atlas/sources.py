"""What a user names: libraries, networks of libraries, files and folders; and the single networks that these are."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from upath import UPath

from analysis.readers.kinds import ENDINGS
from models import libraries
from sweep.store.addresses import named
from sweep.store.atlas_dir import AtlasDir, Listing, Record, failed
from sweep.store.files import STORAGE_ERRORS, files_below, version_of

_TRAINING = "training.safetensors"  # what the trials of this project continue from, beside their weights
_SHARD = "-of-0"


def listing(atlas: AtlasDir, sources: Sequence[str], new: Collection[str]) -> Listing:
    """The networks that an atlas's sources mean, each once, in their order.

    `new` are the sources that are named in this call; the others are remembered.

    Raises:
        ValueError: a new source means nothing.
    """
    found: dict[str, None] = {}
    lost = []
    for source in sources:
        try:
            found |= dict.fromkeys(addresses(source))
        except Exception as error:
            if source in new:
                raise
            lost.append(failed(source, error))  # folders are emptied and libraries change: the others must go on
    return Listing(networks=list(found), todo=unfinished(atlas, list(found)), lost=lost)


def addresses(source: str) -> list[str]:
    """The networks that a source means.

    Raises:
        ValueError: a library has no such network, or a folder no checkpoint.
    """
    library = named(source)
    if library is not None:
        names = libraries.names(library.library, library.name, library.trained)
        return [str(replace(library, name=name)) for name in names]
    path = UPath(source)
    if not path.is_dir():
        return [source]
    if (path / "sweep.yaml").exists():
        raise ValueError(f"{source} is a sweep; `sweep analyze {source}` analyses its checkpoints")
    files = [str(path / name) for name in sorted(files_below(path)) if _may_be_one(name)]
    if not files:
        raise ValueError(f"{source} holds no checkpoint that can be read: no file ends in {', '.join(ENDINGS)}")
    return files


def unfinished(atlas: AtlasDir, wanted: Sequence[str]) -> list[str]:
    """The networks that an atlas has no results of, or whose files have changed since."""
    records, analysed = atlas.records(), atlas.analysed()
    return [address for address in wanted if not _is_done(records.get(address), analysed)]


def _is_done(record: Record | None, analysed: Collection[str]) -> bool:
    if record is None or record.error is not None or record.digest not in analysed:
        return False
    try:
        return record.version == file_version(record.source)
    except STORAGE_ERRORS:
        return False  # its row will say why


def file_version(address: str) -> str | None:
    """What changes when a file is written; None for networks of libraries, and where there is no file."""
    return version_of(UPath(address)) if named(address) is None else None


def _may_be_one(name: str) -> bool:
    *folders, file = name.split("/")
    if any(part.startswith(".") for part in (*folders, file)):
        return False
    return file.lower().endswith(ENDINGS) and file != _TRAINING and _SHARD not in file
