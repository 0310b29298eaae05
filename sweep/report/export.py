"""A sweep's tables and pictures as files for other programs.

```
<folder>/tables/*.csv, *.parquet   the results tables, and what is made of them
         weights/<trial_id>/<layer>.png   all neurons of each layer at the newest checkpoint, by similarity
         centres/k04.png ... k19.png      the centres of the clusters
```
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from upath import UPath

from analysis.clusters import KS
from analysis.picture import neuron_tiles, png
from analysis.write import write_bytes
from sweep.results.contrasts import contrasts
from sweep.results.statistics import first_epochs, over_seeds, scored
from sweep.results.tables import COLUMNS, parquet, read_centres, read_reduced, read_table, records
from sweep.store.files import write_text

_COLUMNS, _SCALE = 32, 6


def export(sweep: UPath, folder: UPath) -> int:
    """Write a sweep's tables and pictures into a folder; returns the number of files written."""
    tables = {name: read_table(sweep, name) for name in COLUMNS}
    rows = scored(tables["trials"], tables["layers"])
    derived = {
        "over_seeds": over_seeds(rows),
        "contrasts": contrasts(rows),
        "first_epochs": first_epochs(tables["layers"]),
    }
    for name, table in (tables | derived).items():
        _write_table(folder / "tables", name, table)
    with ThreadPoolExecutor(8) as pool:
        weights = sum(pool.map(lambda row: _write_weights(sweep, folder / "weights", row), records(rows)))
    return 2 * len(tables | derived) + weights + _write_centres(sweep, folder / "centres")


def _write_table(folder: UPath, name: str, table: pd.DataFrame) -> None:
    write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_bytes(folder / f"{name}.parquet", parquet(table))


def _write_weights(sweep: UPath, folder: UPath, row: dict[str, object]) -> int:
    """The picture of one layer; returns the number of files written."""
    trial_id, layer = str(row["trial_id"]), str(row["layer"])
    reduced = read_reduced(sweep, trial_id, int(str(row["step"])), layer)
    if reduced is None:
        return 0
    picture = neuron_tiles(reduced.reduced, reduced.order, _COLUMNS, _SCALE)
    write_bytes(folder / trial_id / f"{layer}.png", png(picture))
    return 1


def _write_centres(sweep: UPath, folder: UPath) -> int:
    """The centres for each k in one row; returns the number of files written."""
    written = 0
    for k in KS:
        centres = read_centres(sweep, k)
        if centres is not None:
            shown = centres / np.maximum(centres.max(axis=(1, 2, 3), keepdims=True), 1e-9)
            write_bytes(folder / f"k{k:02}.png", png(neuron_tiles(shown, np.arange(k), k, 4 * _SCALE)))
            written += 1
    return written
