"""A large sweep's layers are read without ever holding them all."""

import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from sweep.results import tables as module
from sweep.results.cells import newest
from sweep.results.tables import (
    COLUMNS,
    DamagedTableError,
    decoded,
    read_newest,
    read_table,
    table_of,
    write_table,
)
from sweep.store.sweep_dir import SweepDir

COLUMNS_READ = ("trial_id", "step", "layer", "position", "horizontal", "verdict", "reliability")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """Trials of one to four analysed checkpoints with three layers each, cut through by groups of five rows."""
    monkeypatch.setattr(module, "_ROW_GROUP", 5)
    draw = np.random.default_rng(0)
    rows = [
        {"trial_id": f"trial-{trial}", "step": 10 * step, "layer": layer, "position": position, "horizontal": score}
        for trial in range(8)
        for step in range(1 + trial % 4)
        for position, layer in enumerate(("3b", "3a", "2"), start=1)
        for score in [draw.random()]
    ]
    (tmp_path / "sweep" / "results").mkdir(parents=True)
    write_table(UPath(tmp_path / "sweep"), "layers", table_of("layers", rows))
    return UPath(tmp_path / "sweep")


def test_the_newest_rows_are_those_of_the_whole_table(sweep: UPath) -> None:
    found, analysed = read_newest(sweep, COLUMNS_READ)
    whole = read_table(sweep, "layers", COLUMNS_READ)
    pd.testing.assert_frame_equal(newest(found).reset_index(drop=True), newest(whole).reset_index(drop=True))
    assert len(found) == len(newest(whole))  # nothing older is left
    assert analysed.to_dict() == {f"trial-{trial}": 1 + trial % 4 for trial in range(8)}


def test_a_table_without_rows_or_without_a_column_has_no_newest(sweep: UPath) -> None:
    old = read_table(sweep, "layers").drop(columns="reliability")
    write_table(sweep, "layers", old)
    found, _ = read_newest(sweep, COLUMNS_READ)
    assert len(found) == 24
    assert found["reliability"].isna().all()
    write_table(sweep, "layers", old.iloc[:0])
    found, analysed = read_newest(sweep, COLUMNS_READ)
    assert (len(found), len(analysed)) == (0, 0)
    SweepDir(sweep).table("layers").unlink()
    found, analysed = read_newest(sweep, COLUMNS_READ)
    assert (list(found), len(found), len(analysed)) == (list(COLUMNS_READ), 0, 0)


def test_a_damaged_table_says_what_rewrites_it(sweep: UPath) -> None:
    file = SweepDir(sweep).table("layers")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(DamagedTableError, match="sweep resume"):
        read_newest(sweep, tuple(COLUMNS["layers"]))


def test_categorical_ids_are_the_same_ids(sweep: UPath) -> None:
    plain, categorical = (read_table(sweep, "layers", categorical=choice) for choice in (False, True))
    assert categorical["trial_id"].dtype == "category"
    assert plain["trial_id"].tolist() == categorical["trial_id"].tolist()


def test_arrays_are_decoded_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once make CPython 3.11 fail now and then."""
    file = BytesIO()
    np.savez(file, horizontal=np.arange(3), vertical=np.arange(3))
    load, inside = np.load, Semaphore(1)

    def alone(*args: Any, **kwargs: Any) -> Any:
        assert inside.acquire(blocking=False), "two threads decode at once"
        time.sleep(0.005)
        found = load(*args, **kwargs)
        inside.release()
        return found

    monkeypatch.setattr(np, "load", alone)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: decoded(file.getvalue(), ["vertical", "other"]), range(16)))
    assert all(arrays.keys() == {"vertical"} and arrays["vertical"].tolist() == [0, 1, 2] for arrays in found)
