"""`sweep list`: entries within the terminal's width, sweeps from their tables, and no heavy imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from sweep.grid import catalogue, registries
from sweep.store.lease import hold
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.listing import entries, sweep_rows, sweeps
from tests.command import document, run
from tests.dashboard.synthetic import write_sweep

KINDS = ["architectures", "interventions", "data", "recipes", "grids"]
WORDS = st.lists(st.text("abcde", min_size=1, max_size=12), min_size=1, max_size=30).map(" ".join)


@pytest.mark.parametrize("what", KINDS)
def test_no_line_is_wider_than_a_terminal_and_no_word_is_cut(what: str) -> None:
    header, rows = catalogue.rows(what)
    lines = entries(header, rows, 80).plain.splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for row in rows for value in row for word in value.split()}
    assert words <= {word for line in lines for word in line.split()}
    assert all(any(line.startswith(f"{row[0]}  ") for line in lines) for row in rows)


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=20), WORDS, WORDS), max_size=5), st.integers(50, 200))
def test_entries_say_everything_within_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = entries(["name", "what it is", "source"], [list(row) for row in rows], width).plain.splitlines()
    assert all(len(line) <= width for line in lines)
    said = " ".join(" ".join(lines).split())
    assert said == " ".join(f"{name} {what} source: {source}" for name, what, source in rows)


def test_sweeps_are_counted_by_state(tmp_path: Path) -> None:
    write_sweep(tmp_path / "first")
    (tmp_path / "first" / "sweep.yaml").write_text(
        "launches: [{launched_at: '2026-01-02T03:04:05Z', grid: {}}, {launched_at: '2026-01-03T03:04:05Z', grid: {}}]"
    )
    header, ((name, trials, launched, driver, size),) = sweep_rows(sweeps(UPath(tmp_path)))
    assert (name, trials) == ("first", "1 excluded, 1 failed, 3 finished, 1 pending, 1 running")
    assert launched.startswith("2026-01-03T03:04:05Z, ")
    assert launched.endswith(" days ago")
    assert (driver, size) == ("process 1 on node-1", "")
    said = " ".join(entries(header, [[name, trials, launched, driver, size]], 160).plain.split())
    assert said.endswith("driver: process 1 on node-1"), "no size, and nothing is said of it"


def test_who_works_on_a_sweep_and_how_large_it_is(tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path / "mine"))
    sweep.record_launch({"name": "mine"})
    (tmp_path / "mine" / "trials" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "trials" / "a" / "weights").write_bytes(bytes(3_000_000))
    with hold(sweep.path):
        (found,) = document("list", "sweeps", "--storage", str(tmp_path), "--sizes")
    assert (found["sweep"], found["driver"]["pid"], found["launches"]) == ("mine", os.getpid(), 1)
    assert 3_000_000 < found["size"] < 3_010_000
    (found,) = document("list", "sweeps", "--storage", str(tmp_path))
    assert (found["driver"], found["size"]) == (None, None)
    assert "size: 3.0 MB" in run("list", "sweeps", "--storage", str(tmp_path), "--sizes")
    assert "--sizes is for" in run("list", "grids", "--sizes", code=2)


def test_a_sweep_without_results_and_a_damaged_one_hide_no_other(tmp_path: Path) -> None:
    for name in ("damaged", "fresh", "whole"):
        write_sweep(tmp_path / name)
    (tmp_path / "damaged" / "sweep.yaml").write_text("launches: [")
    (tmp_path / "damaged" / "results" / "trials.parquet").write_bytes(b"PAR1")
    (tmp_path / "fresh" / "results" / "trials.parquet").unlink()
    rows = {name: rest for name, *rest in sweep_rows(sweeps(UPath(tmp_path)))[1]}
    assert list(rows) == ["damaged", "fresh", "whole"]
    assert "damaged" in rows["damaged"][0]
    assert "damaged" in rows["damaged"][1]
    assert rows["fresh"][0] == "no results yet"
    assert "3 finished" in rows["whole"][0]


@pytest.mark.slow
def test_listing_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = """
import sys
from sweep.cli import app
for what in sys.argv[2:]:
    app(["list", what, "--storage", sys.argv[1]], standalone_mode=False)
    if loaded := {"torch", "ray"} & set(sys.modules):
        sys.exit(f"{what} loads {', '.join(loaded)}")
"""
    write_sweep(tmp_path / "first")
    line = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), *KINDS, "sweeps"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "first" in done.stdout


def test_a_catalogue_that_does_not_fit_its_sources_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (["recipe", "what it is"], [["new", "made just now"]])
    monkeypatch.setitem(registries.ROWS, "recipes", lambda: made)
    assert catalogue.rows("recipes") != made
    for text in (catalogue.FILE.read_text().replace('"sha256": "', '"sha256": "0'), "<<<<<<< ours", "{}"):
        (tmp_path / "catalogue.json").write_text(text)
        monkeypatch.setattr(catalogue, "FILE", tmp_path / "catalogue.json")
        assert catalogue.rows("recipes") == made
    monkeypatch.setattr(catalogue, "FILE", tmp_path / "none.json")
    assert catalogue.rows("recipes") == made


@pytest.mark.parametrize("file", ["models/interventions.py", "sweep/data/registry.py", "sweep/presets/recipe/new.yaml"])
def test_a_change_of_any_source_changes_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    before = catalogue.sources_hash()
    found = dict(catalogue.sources())
    changed = tmp_path / "changed"
    changed.write_bytes(found[file].read_bytes() + b"#" if file in found else b"epochs: 1")
    monkeypatch.setattr(catalogue, "sources", lambda: iter((found | {file: changed}).items()))
    assert catalogue.sources_hash() != before
