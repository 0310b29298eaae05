"""One truth about a sweep: counts, cells, failures, progress, what a reader filters."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from sweep.results.state import Filters, State, glance, read_state
from sweep.results.tables import DamagedTableError, read_table, write_table
from sweep.store.sweep_dir import SweepDir
from tests.dashboard.synthetic import trial_id, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    write_sweep(tmp_path / "one")
    return SweepDir(UPath(tmp_path / "one"))


def with_failures(sweep: SweepDir, *errors: str) -> State:
    """The sweep with one failed trial more for each error."""
    trials = read_table(sweep.path, "trials")
    failed = trials[trials["status"] == "failed"]
    more = [failed.assign(trial_id=f"more-{n}", error=error, host=f"h{n}") for n, error in enumerate(errors)]
    write_table(sweep.path, "trials", pd.concat([trials, *more], ignore_index=True))
    return read_state(sweep)


def test_counts_cells_and_agreement_tell_of_the_same_trials(sweep: SweepDir) -> None:
    state = read_state(sweep)
    assert state.counts == {"finished": 3, "running": 1, "pending": 1, "failed": 1, "excluded": 1}
    grid = state.cells().set_index("intervention")
    assert grid["outcome"].to_dict()["rotate90"] == "vertical"
    assert grid.loc["baseline", "seeds"] == 2
    assert state.positions == [1, 2]
    assert set(state.cells(2)["intervention"]) == set(grid.index)
    assert str(state.agreement) == "4 of 4 as expected"  # two cells, two layers each


def test_without_a_driver_nothing_runs(sweep: SweepDir) -> None:
    for file in sweep.driver.iterdir():
        file.unlink()
    state = read_state(sweep)
    assert state.counts["running"] == 0
    assert state.progress.nodes == ()


def test_failures_are_grouped_by_what_they_share_the_most_frequent_first(sweep: SweepDir) -> None:
    out = "MemoryError: out of memory at step"
    state = with_failures(sweep, f"{out} 3", f"{out} 4", f"{out} 99")
    assert [failures.title for failures in state.failures] == ["MemoryError x 3", "DivergedError"]
    assert state.failures[0].trial_ids == ("more-0", "more-1", "more-2")
    assert state.failures[0].hosts == ("h0", "h1", "h2")


def test_the_reader_sees_what_needs_attention_first(sweep: SweepDir) -> None:
    state = with_failures(sweep, "MemoryError: [100%] of a|b")
    assert state.chosen(Filters())["status"].tolist()[:4] == ["failed", "failed", "running", "pending"]
    assert len(state.chosen(Filters())) == len(state.trials)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(status=["failed"]), {"x_pool"}),
        (Filters(intervention=["rotate90", "untrained"]), {"rotate90", "untrained"}),
        (Filters(verdict=["horizontal"]), {"baseline", "no_pooling"}),
        (Filters(verdict=["horizontal"], status=["finished"]), {"baseline"}),
        (Filters(architecture=["other"]), set()),
        (Filters(search="LOSS was not"), {"x_pool"}),
        (Filters(search="node-3"), {"baseline", "rotate90", "no_pooling", "x_pool", "untrained", "coord_conv"}),
        (Filters(search=".*"), set()),
        (Filters(search="two convolutions"), {"coord_conv"}),
    ],
)
def test_filters(sweep: SweepDir, filters: Filters, found: set[str]) -> None:
    assert set(read_state(sweep).chosen(filters)["intervention"]) == found


def test_a_finished_trial_whose_last_conv_disagrees_is_unexpected(sweep: SweepDir) -> None:
    layers = read_table(sweep.path, "layers")
    mine = (layers["trial_id"] == trial_id("baseline", 1)) & (layers["step"] == 20) & (layers["position"] == 1)
    layers.loc[mine, "verdict"] = "none"
    write_table(sweep.path, "layers", layers)
    state = read_state(sweep)
    assert state.chosen(Filters(unexpected=True))["trial_id"].tolist() == [trial_id("baseline", 1)]
    assert state.trials.set_index("trial_id").loc[trial_id("no_pooling", 0), "unexpected"] == False  # noqa: E712


def test_progress_counts_epochs_nodes_and_waiting_analyses(sweep: SweepDir) -> None:
    progress = read_state(sweep).progress
    assert (progress.trials_done, progress.trials) == (3, 6)
    assert (progress.epochs_done, progress.epochs) == (12, 12)
    assert [(node.host, node.trials) for node in progress.nodes] == [("node-3", 1)]
    assert progress.analyses_waiting == 0  # what has not finished an epoch has no checkpoint
    layers = read_table(sweep.path, "layers")
    ours = (layers["trial_id"] == trial_id("baseline", 0)) & (layers["step"] > 0)
    write_table(sweep.path, "layers", layers[~ours])
    assert read_state(sweep).progress.analyses_waiting == 2


def test_the_version_changes_with_a_table_and_with_the_driver(sweep: SweepDir) -> None:
    before = read_state(sweep).version
    assert glance(sweep)[0] == before
    write_table(sweep.path, "epochs", read_table(sweep.path, "epochs").iloc[:-1])
    changed = glance(sweep)[0]
    assert changed != before
    (sweep.driver / "1.json").unlink()
    assert glance(sweep)[0] not in (before, changed)


def test_a_damaged_table_is_told_or_where_asked_made_up_for_from_the_trials(sweep: SweepDir) -> None:
    sweep.table("layers").write_bytes(b"PAR1 not a table PAR1")
    with pytest.raises(DamagedTableError, match=r"layers.parquet is damaged .*sweep resume"):
        read_state(sweep)
    assert read_state(sweep, surveyed=True).trials.empty  # this sweep's trials have no files


def test_a_missing_table_reads_as_empty_or_from_the_trials(sweep: SweepDir) -> None:
    sweep.table("trials").unlink()
    assert read_state(sweep).trials.empty
    assert read_state(sweep).failures == []
    assert read_state(sweep).progress.epochs == 0


def test_one_trials_rows_are_read_alone(sweep: SweepDir) -> None:
    layers = read_table(sweep.path, "layers")
    mine = read_table(sweep.path, "layers", ("step", "horizontal"), trial_id("rotate90", 0))
    expected = layers.loc[layers["trial_id"] == trial_id("rotate90", 0), ["step", "horizontal"]]
    pd.testing.assert_frame_equal(mine, expected.reset_index(drop=True))
    assert read_table(sweep.path, "layers", trial_id="none").empty


def test_the_state_needs_neither_torch_nor_ray() -> None:
    code = "import sweep.results.state, sys; print({'torch', 'ray'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
