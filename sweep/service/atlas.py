"""Make an atlas complete: every network that its sources mean goes through Ray actors, one at a time in each.

What is there already is not done again; whatever is wrong with a network is a row with the reason.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pandas as pd
from rich.console import Console
from upath import UPath

from analysis.actors import Analysed, AnalysisPool, Analyst
from sweep.results.atlas import atlas_table, read_atlas, write_atlas
from sweep.results.tables import Row
from sweep.service.cluster import Patience, capacity_of_cluster, connected
from sweep.store.atlas_dir import AtlasDir, Layers, Listing, Record
from sweep.store.files import require_writable
from sweep.store.lease import hold
from sweep.terminal.atlas import Progress, networks_progress

_WRITE_EVERY_S = 30.0
_CPUS = 1.0  # that an actor reserves


class Charter(Analyst):
    """Opens and analyses one network after another; one at a time is in its memory."""

    def analyze(self, model_file: str, out_dir: str, layers: Any) -> list[Row]:
        from sweep.atlas.chart import Task, chart

        record = chart(AtlasDir(UPath(out_dir)), model_file, Task(**layers), self._device)
        return [{"record": record}]


def make_atlas(
    atlas: AtlasDir, sources: Sequence[str], last: int | None, actors: int | None, address: str | None, console: Console
) -> pd.DataFrame:
    """Add sources to an atlas and look at all its networks that have no results yet; returns its table.

    `actors` is how many work at a time; None: one for each CPU of the cluster.

    Raises:
        ValueError: a source means nothing, the storage can't be written, or another driver works on the atlas.
    """
    asked = atlas.extended(sources, last)
    require_writable(atlas.path.parent)
    with hold(atlas.path) as lease, connected(address) as logs:
        listing = _listed(atlas, asked.sources, sources)  # before they are recorded: a mistake would be one for ever
        atlas.ask(asked)
        task = {"last": asked.last, "run": uuid4().hex}
        count = min(len(listing.todo), actors or max(1, int(capacity_of_cluster().cpus // _CPUS)))
        run = _Run(atlas, listing, task, count, Patience(console.print, logs))
        networks, todo = len(listing.networks), len(listing.todo)
        with networks_progress(console, networks, networks - todo) as progress:
            try:
                run.work(progress, lease.require)
            finally:
                run.close()
        return read_atlas(atlas)


class _Run:
    """One run over networks; `close` keeps what is complete."""

    def __init__(
        self, atlas: AtlasDir, listing: Listing, task: Mapping[str, Any], actors: int, patience: Patience
    ) -> None:
        self._atlas, self._listing, self._patience = atlas, listing, patience
        self._pool = AnalysisPool(actors, _CPUS, 0.0, layers=dict(task), analyst=Charter)
        self._records = atlas.records()
        self._layers = atlas.analysed()
        self._written_at = time.monotonic()

    def work(self, progress: Progress, require: Callable[[], object]) -> None:
        """Look at networks until all are done."""
        for source in self._listing.todo:
            self._records.pop(source, None)
            self._pool.submit(source, str(self._atlas.path))
        while self._pool.pending:
            require()
            for done in self._pool.poll(timeout_s=1.0):
                progress(self._take(done))
            if self._pool.placed:
                self._patience.renew()
            else:
                self._patience.spend("no network could be looked at: an actor needs 1 CPU", {"CPU": _CPUS})
            if time.monotonic() - self._written_at > _WRITE_EVERY_S:
                self._write()

    def close(self) -> None:
        self._pool.close()
        self._write()

    def _take(self, done: Analysed) -> Record:
        """A network's record; one that an actor could not write is this driver's."""
        record = done.rows[0].get("record")
        if record is None:
            record = Record(source=done.model_file, error=done.rows[0]["error"])
            if not done.outage:
                self._atlas.write_record(record)
        self._records[record.source] = record
        return record

    def _write(self) -> None:
        known = [self._records[source] for source in self._listing.networks if source in self._records]
        write_atlas(self._atlas, atlas_table([*known, *self._listing.lost], self._layers_of))
        self._written_at = time.monotonic()

    def _layers_of(self, digest: str) -> Layers:
        if digest not in self._layers:
            layers = self._atlas.layers(digest)
            if layers is None:
                return {}
            self._layers[digest] = layers
        return self._layers[digest]


def _listed(atlas: AtlasDir, sources: Sequence[str], new: Sequence[str]) -> Listing:
    import ray

    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    try:
        return ray.get(look.remote(str(atlas.path), list(sources), list(new)))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _look(atlas: str, sources: list[str], new: list[str]) -> Listing:
    """In a process of its own: libraries load torch, which would stay in a driver's memory."""
    from sweep.atlas.sources import listing

    return listing(AtlasDir(UPath(atlas)), sources, new)
