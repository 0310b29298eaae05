"""Whatever stands in a file that people or crashes may harm: a clear error or a correct recovery, never a traceback.

Each run tries 100 inputs a test, 600 in all (`FUZZ_EXAMPLES=1000 make test`: 6,000). Checkpoints are cut and flipped
in test_checkpoint.py (450 inputs).
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from analysis.write import RESULTS, write_bytes
from sweep.grid.load import load_grid
from sweep.grid.schema import Grid
from sweep.results.compact import layer_rows, measured_rows
from sweep.results.tables import (
    COLUMNS,
    DamagedTableError,
    read_clusters_array,
    read_newest,
    read_reduced,
    read_table,
    write_table,
)
from sweep.spec import Plan
from sweep.store import strict_yaml
from sweep.store.lease import STALE_S, _myself, holder
from sweep.store.requests import read_requests
from sweep.store.strict_yaml import parse_yaml
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import State

pytestmark = pytest.mark.slow

ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20) | st.dates(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
KEYS = ["name", "architectures", "interventions", "seeds", "seeds_of", "data", "recipe", "analysis", "resources", "new"]
INNER = ["name", "root", "options", "epochs", "batch_size", "lr", "seed", "cpus", "actors", "new", ""]
GOOD = yaml.safe_load((Path(__file__).parents[2] / "sweep" / "grids" / "smoke.yaml").read_text())
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, draw: Callable[..., Any]) -> bytes:
    """A file's content cut short, with a byte changed, or replaced."""
    how = draw(st.sampled_from(["cut", "flip", "bytes", "json"]))
    if how == "bytes":
        return draw(st.binary(max_size=100))
    if how == "json":
        return json.dumps(draw(ANY_VALUE.filter(lambda value: "date" not in repr(value)))).encode()
    where = draw(st.integers(0, len(content) - 1))
    if how == "cut":
        return content[:where]
    return content[:where] + bytes([content[where] ^ draw(st.integers(1, 255))]) + content[where + 1 :]


def load(folder: Path, content: bytes) -> Grid | str:
    """The grid of a file, or what is said of it."""
    file = folder / "grid.yaml"
    file.write_bytes(content)
    try:
        return load_grid(str(file), [])
    except ValueError as error:
        return str(error)


@quick
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_text_is_no_grid_and_is_told_so_in_one_line(tmp_path: Path, content: bytes) -> None:
    said = load(tmp_path, content)
    assert isinstance(said, str)
    assert "\n" not in said.strip()


@quick
@given(data=st.data())
def test_a_harmed_grid_file_is_a_grid_or_told_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    said = load(tmp_path, damaged(yaml.safe_dump(GOOD).encode(), data.draw))
    assert isinstance(said, Grid) or "\n" not in said.strip()


@quick
@given(text=st.text(alphabet=st.sampled_from("ab:-?[]{},&*!|>'\"%@#<. 01\n\t"), max_size=40))
def test_any_yaml_is_read_as_yaml_or_refused_in_one_line(text: str) -> None:
    try:
        value = parse_yaml(text, "it")
    except ValueError as error:
        assert "\n" not in str(error).strip()  # noqa: PT017
    else:
        assert repr(value) == repr(yaml.load(text, strict_yaml._LOADER))


@quick
@given(data=st.data())
def test_any_mutation_of_a_grid_is_a_grid_or_told_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    document = json.loads(json.dumps(GOOD))
    key = data.draw(st.sampled_from(KEYS) | st.text(max_size=5) | st.integers())
    if isinstance(document.get(key), dict) and data.draw(st.booleans()):
        document[key][data.draw(st.sampled_from(INNER))] = data.draw(ANY_VALUE)
    else:
        document[key] = data.draw(ANY_VALUE)
    said = load(tmp_path, yaml.safe_dump(document).encode())
    if isinstance(said, Grid):
        assert Grid.model_validate(said.model_dump(mode="json")) == said
    else:
        assert "\n" not in said.strip()


@quick
@given(data=st.data())
def test_a_harmed_status_is_a_status_or_pending(sweep: SweepDir, plan: Plan, data: st.DataObject) -> None:
    trial = sweep.trial(plan.trial_id)
    good = json.dumps({"status": "finished", "attempts": 3, "epoch": 12, "val_accuracy": 0.5, "error": None}).encode()
    write_bytes(trial.path / "status.json", damaged(good, data.draw))
    status = trial.status()
    assert status.status in get_args(State)
    assert isinstance(status.attempts, int)


@quick
@given(data=st.data())
def test_a_harmed_spec_is_what_it_was_or_refused(sweep: SweepDir, plan: Plan, data: st.DataObject) -> None:
    """Its id is a hash of the spec: no other spec can pass for it. The facts beside it may differ."""
    trial = sweep.trial(plan.trial_id)
    write_bytes(trial.spec_file, damaged(json.dumps(plan.to_json()).encode(), data.draw))
    try:
        found = trial.plan()
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found.spec == plan.spec


@quick
@given(data=st.data())
def test_a_harmed_list_of_launches_is_read_or_refused(sweep: SweepDir, data: st.DataObject) -> None:
    good = yaml.safe_dump({"schema": 1, "launches": [{"launched_at": "2026-01-01T00:00:00Z", "grid": GOOD}]})
    write_bytes(sweep.path / "sweep.yaml", damaged(good.encode(), data.draw))
    try:
        launches = sweep.launches()
    except ValueError as error:
        assert "sweep.yaml is damaged" in str(error)  # noqa: PT017
    else:
        assert all(isinstance(launch["grid"], dict) for launch in launches)


@quick
@given(data=st.data())
def test_a_harmed_lease_is_somebodys_or_nobodys(tmp_path: Path, data: st.DataObject) -> None:
    now = int(time.time())
    good = replace(_myself(), started_at=now, heartbeat_at=now)
    write_bytes(UPath(tmp_path) / "driver" / "1.json", damaged(json.dumps(vars(good)).encode(), data.draw))
    held = holder(UPath(tmp_path))
    assert held is None or (held.alive and held.age_s <= STALE_S)


TABLE = pd.DataFrame({"trial_id": ["a"], "step": [1], "layer": ["b"], "row_r2": [0.5], "column_r2": [None]})


@quick
@given(data=st.data())
def test_a_harmed_table_is_read_or_told_in_one_line_with_its_cure(tmp_path: Path, data: st.DataObject) -> None:
    write_table(UPath(tmp_path), "probes", TABLE)
    file = SweepDir(UPath(tmp_path)).table("probes")
    write_bytes(file, damaged(file.read_bytes(), data.draw))
    try:
        table = read_table(UPath(tmp_path), "probes")
    except DamagedTableError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert "rewrites it" in str(error)  # noqa: PT017
    else:
        assert list(table.columns) == list(COLUMNS["probes"])


@quick
@given(data=st.data())
def test_of_harmed_layers_the_newest_are_read_or_it_is_told(tmp_path: Path, data: st.DataObject) -> None:
    write_table(UPath(tmp_path), "layers", TABLE)
    file = SweepDir(UPath(tmp_path)).table("layers")
    write_bytes(file, damaged(file.read_bytes(), data.draw))
    try:
        newest, analysed = read_newest(UPath(tmp_path), list(COLUMNS["layers"]))
    except DamagedTableError as error:
        assert "rewrites it" in str(error)  # noqa: PT017
    else:
        assert list(newest.columns) == list(COLUMNS["layers"])
        assert len(analysed) <= len(TABLE)


@quick
@given(data=st.data())
def test_harmed_arrays_are_read_or_told(tmp_path: Path, data: st.DataObject) -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, fingerprint=np.array("abc"), order=np.arange(3))
    harmed = damaged(buffer.getvalue(), data.draw)
    write_bytes(SweepDir(UPath(tmp_path)).centres, harmed)
    write_bytes(UPath(tmp_path) / "trials" / "t" / "layers" / "0" / "a.npz", harmed)
    assert read_reduced(UPath(tmp_path), "t", 0, "a") is None
    with suppress(DamagedTableError):
        read_clusters_array(UPath(tmp_path), "fingerprint")


@quick
@given(data=st.data())
def test_harmed_results_become_rows_that_a_table_can_hold(sweep: SweepDir, plan: Plan, data: st.DataObject) -> None:
    trial = sweep.trial(plan.trial_id)
    good = [{"layer": "a", "position": 1, "neurons": 3, "horizontal": 0.5, "verdict": "none", "error": None}]
    content = data.draw(st.just(good) | st.lists(st.fixed_dictionaries({"layer": ANY_VALUE, "neurons": ANY_VALUE})))
    write_bytes(trial.layers / "0" / RESULTS, damaged(json.dumps(content, default=str).encode(), data.draw))
    write_bytes(trial.path / "probe.json", (trial.layers / "0" / RESULTS).read_bytes())
    for name, rows in (("layers", layer_rows(trial, plan)), ("probes", measured_rows(trial, "probes"))):
        frame = pd.DataFrame(rows, columns=list(COLUMNS[name])).astype(COLUMNS[name])  # type: ignore[index]
        pa.Table.from_pandas(frame)


@quick
@given(data=st.data())
def test_a_harmed_request_is_answered_or_told(tmp_path: Path, data: st.DataObject) -> None:
    good = json.dumps({"trial_id": "t", "start": "scratch", "requested_at": 1.0}).encode()
    write_bytes(UPath(tmp_path) / "requests" / "t.json", damaged(good, data.draw))
    found = read_requests(UPath(tmp_path))
    assert len(found.pending) + len(found.damaged) == 1
    assert all("\n" not in said for said in found.damaged)


@pytest.mark.parametrize(
    "content", [b"[" * 50_000, b"a: &a [*a]", b"a: !!python/object:os.system []", b"\xff\xfe", b"a: 1\n---\nb: 2"]
)
def test_dangerous_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    assert isinstance(load(tmp_path, content), str)
