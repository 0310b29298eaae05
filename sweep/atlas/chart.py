"""One network of an atlas: open it, name its weights by their content, analyse them unless that is done."""

import gc
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.layers import analyze_chosen
from analysis.readers.conv import Conv
from sweep.atlas.network import Network, open_network
from sweep.atlas.sources import file_version
from sweep.store.atlas_dir import AtlasDir, Record, ScoredLayer, failed


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with each network: how many `last` layers are scored. `run` tells a driver's run from others'."""

    last: int
    run: str


def chart(atlas: AtlasDir, address: str, task: Task, device: str = "cpu") -> Record:
    """Look at a network and write its record; whatever is wrong with it is the record's error.

    Raises:
        STORAGE_ERRORS: the storage of the atlas is unavailable.
    """
    try:
        record, chosen = _opened(address, task.last)
    except Exception as error:  # noqa: BLE001  # files and libraries raise anything
        record = failed(address, error)
    else:
        assert record.digest is not None
        if atlas.layers(record.digest) is None and atlas.claim(record.digest, address, task.run):
            analyze_chosen(chosen, atlas.network(record.digest), device)
        del chosen
    gc.collect()  # networks hold themselves by cycles; the next one must not come on top of this one
    atlas.write_record(record)
    return record


def _opened(address: str, last: int) -> tuple[Record, list[Conv]]:
    version = file_version(address)
    network = open_network(address)
    chosen = network.convs[:last]
    record = Record(
        source=address,
        architecture=network.architecture,
        pooling=network.pooling,
        parameters=network.parameters,
        version=version,
        digest=digest_of(network.convs),
        layers=[_facts(conv, position, network) for position, conv in enumerate(chosen, start=1)],
    )
    return record, chosen


def digest_of(convs: Sequence[Conv]) -> str:
    """A name for weights by their content: of all convs that can be scored, their names and order included."""
    whole = hashlib.sha256()
    for conv in convs:
        whole.update(f"{conv.layer} {conv.shape}\n".encode("utf-8", "surrogatepass"))
        whole.update(conv.read().detach().float().contiguous().numpy().tobytes())
    return whole.hexdigest()[:24]


def _facts(conv: Conv, position: int, network: Network) -> ScoredLayer:
    _, channels, rows, columns = conv.shape
    padding = network.padding.get(conv.layer, "unknown")
    return ScoredLayer(
        layer=conv.layer, position=position, kernel=f"{rows}x{columns}", channels=channels, padding=padding
    )
