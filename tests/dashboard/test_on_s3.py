"""The dashboard of a storage on S3: how often it asks."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard.serve import APP
from sweep.results.state import glance
from sweep.store.sweep_dir import SweepDir
from tests.counting import CountedS3, counted_s3
from tests.dashboard.synthetic import write_sweep

LOOK = 4
"""The most requests of a look for news, every few seconds."""


@pytest.fixture
def server(object_store: int, tmp_path: Path) -> Iterator[CountedS3]:
    """A storage with one sweep, asked nothing yet."""
    write_sweep(tmp_path / "demo")
    with counted_s3(object_store) as running:
        bucket = UPath("s3://dashboard")
        bucket.mkdir(exist_ok=True)
        bucket.fs.put(str(tmp_path / "demo"), "dashboard/runs/demo", recursive=True)
        running.requests.clear()
        yield running


def test_a_look_for_news_takes_few_requests(server: CountedS3) -> None:
    sweep = SweepDir(UPath("s3://dashboard/runs/demo"))
    version, driver = glance(sweep)
    assert driver is not None
    assert len(dict(version.tables)) == 4
    assert len(server.requests) <= LOOK, server.requests


def test_a_page_reads_each_file_once(server: CountedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "s3://dashboard/runs"])
    page = AppTest.from_file(str(APP), default_timeout=120).run()
    assert not page.exception
    read = [request.key for request in server.requests if request.method == "GET" and ".parquet" in request.key]
    assert sorted(key.rpartition("/")[2] for key in read) == ["epochs.parquet", "layers.parquet", "trials.parquet"]
    server.requests.clear()
    page.run()
    assert [request for request in server.requests if ".parquet" in request.key or ".npz" in request.key] == []
