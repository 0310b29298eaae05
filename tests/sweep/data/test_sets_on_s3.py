"""Prepared sets on S3, as moto serves it on this machine: made, found, and fetched once by all processes of a node."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from sweep.data import shards
from sweep.data.make_sets import Made, prepare_to
from sweep.data.parallel import in_threads
from sweep.data.prepare import prepare
from sweep.grid.load import load_data, read_wanted
from tests.command import run
from tests.sweep.data.pictures_on_disk import two_classes

moto = pytest.importorskip("moto.server", reason="moto[server] is a development extra")
pytest.importorskip("s3fs", reason="s3fs comes with the extra `cluster`")

FETCH = """
import json, sys
from pathlib import Path
from sweep.data.prepare import prepare
from sweep.spec import DataSpec
spec = DataSpec.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(len(prepare(spec, sys.argv[2]).train_images))
"""
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Gets:
    """Counts what is read of moto's S3, by key."""

    def __init__(self, application: Application) -> None:
        self.counts: Counter[str] = Counter()
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and "list-type" not in environ["QUERY_STRING"]:
            with self._lock:
                self.counts[environ["PATH_INFO"].rsplit("/", 1)[-1]] += 1
        return self._application(environ, start_response)


@pytest.fixture(scope="module")
def gets(object_store: int) -> Iterator[Gets]:
    """The store; its bucket `sets` is empty."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=object_store, verbose=False)
    server.start()
    counting = Gets(server._server.app)
    server._server.app = counting
    UPath("s3://sets").mkdir()
    yield counting
    server.stop()


@pytest.fixture
def prepared(gets: Gets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Ten pictures in five shards."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SHARD_IMAGES", 2)
    root = two_classes(tmp_path / "source")
    with in_threads() as mapped:
        made = prepare_to(read_wanted("folder", str(root), ["image_size=16"]), "s3://sets/lr=[1]", mapped)
    gets.counts.clear()
    return made


def test_a_set_on_s3_is_found_and_fetched(prepared: Made, tmp_path: Path) -> None:
    spec = load_data("folder", "s3://sets/lr=[1]", ["image_size=16"])[1]
    assert spec == load_data("folder", str(tmp_path / "source"), ["image_size=16"])[1]
    assert sorted(path.name for path in UPath(str(prepared.folder)).iterdir()) == sorted(
        ["index.json", *prepared.index.files]
    )
    assert len(prepare(spec, "s3://sets/lr=[1]").train_images) == 8
    line = "data={name: folder, image_size: 16, root: 's3://sets/lr=[1]'}"
    settings = ["--set", line, "--set", "data.image_size=16", "--set", "recipe.batch_size=8"]
    assert "2 classes: a, b" in run("launch", "demo", *settings, "--dry-run")


@pytest.mark.slow
def test_three_processes_of_a_node_fetch_each_shard_once(prepared: Made, gets: Gets) -> None:
    arguments = [sys.executable, "-c", FETCH, prepared.index.spec.model_dump_json(), str(prepared.folder)]
    processes = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["8\n"] * 3
    assert {name: gets.counts[name] for name in prepared.index.files} == dict.fromkeys(prepared.index.files, 1)


def test_an_unreachable_bucket_and_missing_credentials_are_one_line(
    prepared: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("launch", "demo", "--set", "data={name: folder, root: 's3://nobodys/x'}", "--dry-run", code=2)
    assert "s3://nobodys/x" in said
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    UPath("s3://sets").fs.clear_instance_cache()
    bare = run("launch", "demo", "--set", "data={name: folder, root: 's3://sets/x'}", "--dry-run", code=2)
    UPath("s3://sets").fs.clear_instance_cache()
    assert "check the credentials" in bare
    for text in (said, bare):
        assert len(text.strip().splitlines()) == 1
