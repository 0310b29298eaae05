"""The tables follow the files; what is settled is read once; what is damaged is rewritten."""

import json
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from analysis.layers import analyze_checkpoint
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results import compact as tables
from sweep.results.clusters import update_clusters
from sweep.results.compact import (
    compact,
    compact_all,
    gather,
    measured_rows,
    mend,
    settled_trials,
    survey,
    unsettle,
)
from sweep.results.tables import COLUMNS, DamagedTableError, TableName, read_centres, read_table
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.training.trial import run_trial
from tests.sweep.conftest import TINY

PROBED = {"trial_id": "t", "step": 0, "layer": "map", "row_r2": 0.5, "column_r2": 0.25, "images": 16, "asked": 16}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with an untrained trial that is finished and analysed, and a baseline that is planned."""
    folder = tmp_path_factory.mktemp("storage")
    sweep = SweepDir(UPath(folder / "demo"))
    plans = expand(load_grid("demo", [*TINY, "interventions=[baseline, untrained]"])).plans
    sweep.add(plans)
    trial = sweep.trial(plans[1].trial_id)
    run_trial(trial, None, threads=1)
    for checkpoint in trial.unanalysed(plans[1]):
        analyze_checkpoint(checkpoint / "model.safetensors", trial.layers / checkpoint.name)
    return folder


@pytest.fixture
def done(storage: Path, tmp_path: Path) -> SweepDir:
    sweep = SweepDir(UPath(tmp_path / "demo"))
    sweep.path.fs.copy(str(storage / "demo"), str(tmp_path / "demo"), recursive=True)
    return sweep


def named(sweep: SweepDir, intervention: str) -> str:
    return next(trial.trial_id for trial in sweep.trials() if f"-{intervention}-" in trial.trial_id)


def test_a_finished_and_analysed_trial_is_settled_and_its_files_are_not_read_again(
    done: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled_trials(done) == set()
    compact_all(done)
    assert settled_trials(done) == {named(done, "untrained")}
    read: list[str] = []
    rows_of = tables._rows_of
    monkeypatch.setattr(tables, "_rows_of", lambda trial, *rest: read.append(trial.trial_id) or rows_of(trial, *rest))
    before = {name: read_table(done.path, name) for name in ("trials", "epochs", "layers", "neurons")}
    compact(done)
    assert read == [named(done, "baseline")]
    for name, table in before.items():
        pd.testing.assert_frame_equal(read_table(done.path, name), table)  # type: ignore[arg-type]


def test_a_finished_trial_whose_analysis_is_missing_is_not_settled(done: SweepDir) -> None:
    (done.trial(named(done, "untrained")).layers / "0" / "layers.json").unlink()
    compact(done)
    assert settled_trials(done) == set()


@pytest.mark.parametrize("name", ["trials", "layers", "neurons"])
@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_a_damaged_table_is_made_anew(done: SweepDir, name: str, harm: str) -> None:
    compact_all(done)
    file = done.path / "results" / f"{name}.parquet"
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.unlink()
    compact_all(done)
    assert file.read_bytes() == whole


def test_what_is_unsettled_is_read_from_its_files(done: SweepDir) -> None:
    compact_all(done)
    trial = named(done, "untrained")
    unsettle(done, {trial})
    assert settled_trials(done) == set()
    done.trial(trial).write_status(Status(status="failed", error="ValueError: no"))
    found = survey(done).tables["trials"].set_index("trial_id")["status"]
    assert found[trial] == "failed"


def test_a_trial_whose_folder_is_removed_leaves_the_tables(done: SweepDir) -> None:
    compact_all(done)
    trial = done.trial(named(done, "untrained"))
    trial.path.fs.rm(trial.path.path, recursive=True)
    compact_all(done)
    assert read_table(done.path, "trials")["intervention"].tolist() == ["baseline"]
    assert len(read_table(done.path, "neurons")) == 0


@pytest.mark.parametrize("name", ["trials", "layers", "neurons", "probes", "clusters"])
def test_mending_makes_damaged_tables_again_and_names_them(done: SweepDir, name: TableName) -> None:
    compact_all(done)
    (done.trial(named(done, "untrained")).path / "probe.json").write_text(json.dumps([PROBED]))
    gather(done, "probes")
    before = {table: read_table(done.path, table) for table in COLUMNS}
    done.table(name).write_bytes(b"no table")
    with pytest.raises(DamagedTableError, match=rf"{name}\.parquet is damaged .*`sweep \w+ .*demo` rewrites it"):
        read_table(done.path, name)
    assert mend(done) == [name]
    assert mend(done) == []
    for table, frame in before.items():
        pd.testing.assert_frame_equal(read_table(done.path, table), frame)


def test_a_flipped_byte_in_a_table_is_noticed(done: SweepDir) -> None:
    compact_all(done)
    file = done.table("layers")
    whole = bytearray(file.read_bytes())
    whole[50] ^= 1  # in the first page
    file.write_bytes(bytes(whole))
    with pytest.raises(DamagedTableError):
        read_table(done.path, "layers")


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[{}]", '[{"layer": 1}]', '[{"layer": "a", "neurons": "x"}]'])
def test_damaged_results_of_a_checkpoint_are_a_row_that_says_so(done: SweepDir, content: str) -> None:
    results = done.trial(named(done, "untrained")).layers / "0" / "layers.json"
    results.write_text(content)
    compact_all(done)
    (row,) = read_table(done.path, "layers").to_dict("records")
    assert row["error"] == f"{results} is damaged; `sweep analyze SWEEP` rewrites it"
    assert pd.isna(row["verdict"])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"layer": "map", "step": "x"}]'])
def test_a_damaged_probe_is_as_good_as_none(done: SweepDir, content: str) -> None:
    trial = done.trial(named(done, "untrained"))
    (trial.path / "probe.json").write_text(content)
    assert measured_rows(trial, "probes") == []
    gather(done, "probes")
    assert read_table(done.path, "probes").empty


@pytest.mark.parametrize("file", ["clusters.parquet", "centres.npz"])
def test_damaged_clusters_are_made_again(done: SweepDir, file: str) -> None:
    compact_all(done)
    assert update_clusters(done.path)
    assert not update_clusters(done.path)
    (done.path / "results" / file).write_bytes(b"PK no archive")
    assert update_clusters(done.path)
    assert not update_clusters(done.path)


def test_damaged_centres_are_told_with_their_cure(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "centres.npz").write_bytes(b"PK no archive")
    with pytest.raises(DamagedTableError, match=r"centres\.npz is damaged .*; `sweep report .*` rewrites it"):
        read_centres(UPath(tmp_path), 4)
