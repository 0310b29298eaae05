"""Prepared sets: the same bytes wherever they are made, continued after a kill, found and fetched by grids."""

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from upath import UPath

from sweep.data import fetch as fetching
from sweep.data import index, shards
from sweep.data.build import Wanted
from sweep.data.fetch import DamagedFileError
from sweep.data.index import cache_folder
from sweep.data.make_sets import Made, prepare_here, prepare_to
from sweep.data.parallel import in_processes, in_threads
from sweep.data.pictures import examine, examine_square, open_picture
from sweep.data.place import UnreachableError
from sweep.data.prepare import StoppedError, _allow_open_files, fetch, is_placed, prepare, silent
from sweep.data.prepared import CacheError
from sweep.data.set_index import SetIndex, _digest
from sweep.grid.expand import expand
from sweep.grid.load import load_data, load_grid, read_wanted
from tests.command import run
from tests.sweep.data.pictures_on_disk import two_classes
from tests.sweep.data.test_pictures import GOOD, WRITERS

SETTINGS = ["image_size=16", "options.val_share=0.25"]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of five pictures, and one that is none; three pictures go into a shard."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SHARD_IMAGES", 3)
    root = two_classes(tmp_path / "source")
    (root / "a" / "bad.png").write_text("no picture")
    return root


def wanted(root: Path | str, *settings: str) -> Wanted:
    return read_wanted("folder", str(root), [*SETTINGS, *settings])


def made(root: Path | str, to: Path | str, *settings: str) -> Made:
    with in_threads() as mapped:
        return prepare_to(wanted(root, *settings), str(to), mapped)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("checked-")}


def test_a_set_is_shards_with_rows_and_an_index_of_them(source: Path, tmp_path: Path) -> None:
    done = made(source, tmp_path / "to")
    assert isinstance(done.folder, Path)
    shard_names = [f"images-0000{number}.npy" for number in range(4)]
    assert sorted(contents(done.folder)) == [*shard_names, "index.json", "train.npy", "val.npy"]
    lengths = [len(np.load(done.folder / name, mmap_mode="r")) for name in done.index.shards]
    assert lengths == [2, 3, 3, 2]  # of the first three pictures, one can't be decoded
    rows = {part: np.load(done.folder / f"{part}.npy") for part in ("train", "val")}
    assert sorted([*rows["train"][0], *rows["val"][0]]) == list(range(10))
    assert rows["val"].tolist() == [[0, 4, 5, 9], [0, 0, 1, 1]]
    index_of = json.loads((done.folder / "index.json").read_bytes())
    assert index_of["left_out"] == {"a/bad.png": "not a picture"}
    assert index_of["class_names"] == ["a", "b"]
    assert index_of["understood"] == done.source.understood
    images = prepare(done.index.spec, source).train_images
    stored = Image.open(source / "a" / "p1.png").resize((18, 18))
    assert np.array_equal(images[:1][0], np.asarray(stored).transpose(2, 0, 1))


def test_the_bytes_are_the_same_wherever_a_set_is_made(source: Path, tmp_path: Path) -> None:
    first = made(source, tmp_path / "to").folder
    with in_processes(2) as mapped:
        second = prepare_to(wanted(source), str(tmp_path / "by processes"), mapped).folder
    with in_threads() as mapped:
        third = prepare_here(wanted(source), mapped).folder
    assert contents(Path(str(first))) == contents(Path(str(second))) == contents(Path(str(third)))


@pytest.mark.parametrize("to", ["memory://bad", None])
def test_a_shard_of_bad_pictures_alone_is_no_file(source: Path, tmp_path: Path, to: str | None) -> None:
    for number in range(4):
        (source / "b" / f"q{number}.png").write_text("no picture")
    index = made(source, to or tmp_path / "to").index
    assert index.shards == [f"images-0000{number}.npy" for number in range(4)]
    assert len(index.left_out) == 5
    assert len(prepare(index.spec, to or tmp_path / "to").train_images) == 6


def stop_after(number: int) -> Callable[[int, int, str], None]:
    """A report that ends the process, as Ctrl-C does, once so many pictures are stored."""

    def report(done: int, total: int, unit: str) -> None:
        if done >= number:
            raise KeyboardInterrupt

    return report


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of pictures as they are decoded; files written just now count as settled."""
    names: list[str] = []

    def examined(data: bytes, name: str, square: np.ndarray) -> Any:
        names.append(name)
        return examine_square(data, name, square)

    monkeypatch.setattr(index, "_RACY_NS", -(10**12))
    monkeypatch.setattr(shards, "examine_square", examined)
    monkeypatch.setattr("sweep.data.parallel._cores", lambda: 1)
    return names


@pytest.mark.parametrize("here", [True, False])
def test_what_a_killed_run_has_finished_is_kept(source: Path, tmp_path: Path, decoded: list[str], here: bool) -> None:
    def make(report: Callable[[int, int, str], None] = silent) -> Made:
        with in_threads() as mapped:
            if here:
                return prepare_here(wanted(source), mapped, report)
            return prepare_to(wanted(source), str(tmp_path / "to"), mapped, report)

    with pytest.raises(KeyboardInterrupt):
        make(stop_after(6))
    decoded.clear()
    done = make()
    assert {"b/p3.png", "b/p4.png"} <= set(decoded) <= {f"b/p{number}.png" for number in range(5)}
    assert contents(Path(str(done.folder))) == contents(Path(str(made(source, tmp_path / "anew").folder)))


def test_a_finished_shard_that_was_damaged_is_made_again(source: Path, tmp_path: Path, decoded: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), in_threads() as mapped:
        prepare_to(wanted(source), str(tmp_path / "to"), mapped, stop_after(3))
    (shard,) = (tmp_path / "to").glob("*/images-00000.npy")
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    decoded.clear()
    made(source, tmp_path / "to")
    assert {"a/bad.png", "a/p0.png", "a/p1.png"} <= set(decoded)


def test_nothing_is_read_again_after_a_set_was_made(
    source: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(source, tmp_path / "to")
    assert len(decoded) == 11
    monkeypatch.setattr(index, "examine", decoded.append)
    assert made(source, tmp_path / "to").index == first.index
    assert load_data("folder", str(source), SETTINGS)[1] == first.index.spec
    assert len(decoded) == 11


def test_strict_stops_at_the_first_shard_with_a_bad_picture(source: Path, tmp_path: Path, decoded: list[str]) -> None:
    with pytest.raises(ValueError, match=r"1 picture can't be used: a/bad.png \(not a picture\)"):
        made(source, tmp_path / "to", "unusable=refuse")
    assert len(decoded) < 11
    assert not list((tmp_path / "to").glob("*/index.json"))


def test_pictures_decoded_once_are_judged_as_when_they_are_examined(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    for number, data in enumerate(GOOD):
        (tmp_path / f"good{number}.bin").write_bytes(data)
    Image.new("RGB", (300, 200), (9, 90, 200)).save(tmp_path / "flat.jpg")
    checks = np.indices((320, 320)).sum(axis=0).astype(np.uint8) % 2 * 4 + 100  # flat at an eighth of its size
    Image.fromarray(checks).save(tmp_path / "checks.jpg", quality=95)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "checks.jpg").read_bytes()[:3000])
    for path in tmp_path.iterdir():
        square = np.full((3, 20, 20), 7, dtype=np.uint8)
        seen = examine_square(path.read_bytes(), path.name, square)
        assert seen == examine(path), path.name
        if seen.unusable is None:
            fitted = ImageOps.fit(open_picture(path, 40), (20, 20))
            assert np.array_equal(square, np.asarray(fitted).transpose(2, 0, 1))


def test_a_grid_finds_a_set_by_what_it_asks_for_and_reads_no_picture(source: Path, tmp_path: Path) -> None:
    settings = ["data={name: folder, options: {val_share: 0.25}}", "architectures=[simplified_mini, simplified]"]
    settings += ["interventions=[baseline]"]
    by_pictures = [plan.trial_id for plan in expand(load_grid("demo", [*settings, f"data.root={source}"])).plans]
    top = tmp_path / "sets"
    for size in (56, 224):
        made(source, top, f"image_size={size}")
    source.rename(tmp_path / "gone")
    expansion = expand(load_grid("demo", [*settings, f"data.root={top}"]))
    assert [plan.trial_id for plan in expansion.plans] == by_pictures
    assert {Path(str(plan.root)).parent for plan in expansion.plans} == {top}
    assert expansion.source.left_out == {"a/bad.png": "not a picture"}
    assert "left out 1 of 11 pictures: a/bad.png (not a picture)" in expansion.source.remarks
    one = str(expansion.plans[0].root)
    assert load_data("folder", one, ["image_size=56", "options.val_share=0.25"])[1] == expansion.plans[0].spec.data
    with pytest.raises(ValueError, match="1 picture can't be used"):
        expand(load_grid("demo", [*settings, f"data.root={top}", "data.unusable=refuse"]))
    with pytest.raises(ValueError, match=r"no prepared set of folder at 64 pixels.* it holds: folder at 224 pixels"):
        load_data("folder", str(top), ["image_size=64", "options.val_share=0.25"])


@pytest.fixture
def prepared(source: Path, tmp_path: Path) -> Made:
    return made(source, tmp_path / "sets")


def test_a_set_is_fetched_and_is_what_the_pictures_would_give(prepared: Made, source: Path, tmp_path: Path) -> None:
    spec, told = prepared.index.spec, []
    assert not is_placed(spec)
    data = prepare(spec, tmp_path / "sets", lambda *said: told.append(said))
    size = prepared.index.size
    assert told[-1] == (size, size, "bytes")
    assert contents(cache_folder() / spec.key) == contents(Path(str(prepared.folder)))
    assert not (cache_folder() / f".{spec.key}-unfinished").exists()
    images = [data.train_images[:], data.val_images[:]]
    (cache_folder() / spec.key / "val.npy").unlink()
    again = prepare(spec, source)
    assert torch.equal(images[0], again.train_images[:])
    assert torch.equal(images[1], again.val_images[:])
    assert torch.equal(data.train_labels, again.train_labels)


def test_a_set_of_other_pictures_is_refused(prepared: Made) -> None:
    spec = prepared.index.spec.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(ValueError, match="prepared from other pictures; launch again"):
        prepare(spec, str(prepared.folder))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files as they are fetched, a part at a time."""
    names: list[str] = []
    original = fetching._range

    def ranged(path: Path | UPath, start: int, stop: int) -> bytes:
        names.append(path.name)
        return original(path, start, stop)

    monkeypatch.setattr(fetching, "_range", ranged)
    return names


def test_a_fetch_that_was_stopped_goes_on_where_it_was(
    prepared: Made, monkeypatch: pytest.MonkeyPatch, requests: list[str]
) -> None:
    monkeypatch.setattr(fetching, "_FILES", 1)
    looks: Iterator[bool] = iter([False, False, False, True])
    with pytest.raises(StoppedError):
        fetch(prepared.index.spec, str(prepared.folder), stop=lambda: next(looks))
    unfinished = cache_folder() / f".{prepared.index.spec.key}-unfinished"
    there = {path.name for path in unfinished.glob("*.npy")}
    assert there
    requests.clear()
    fetch(prepared.index.spec, str(prepared.folder))
    assert sorted(requests) == sorted(set(prepared.index.files) - there)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_flipped_bit_is_fetched_again_and_then_named(prepared: Made, requests: list[str]) -> None:
    folder = Path(str(prepared.folder))
    flip(folder / "images-00002.npy")
    with pytest.raises(DamagedFileError, match=r"images-00002.npy is not what its index says"):
        prepare(prepared.index.spec, folder)
    assert requests.count("images-00002.npy") == 2
    assert [path.name for path in cache_folder().iterdir() if path.is_dir()] == ["pictures"]


def test_a_bit_flipped_on_the_way_is_mended(prepared: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    original, left = fetching._range, ["images-00001.npy"]

    def flipped_once(path: Path | UPath, start: int, stop: int) -> bytes:
        data = original(path, start, stop)
        if path.name in left:
            left.remove(path.name)
            return bytes([data[0] ^ 1]) + data[1:]
        return data

    monkeypatch.setattr(fetching, "_range", flipped_once)
    prepare(prepared.index.spec, str(prepared.folder))
    assert left == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_while_fetching_is_one_line_and_leaves_nothing(
    prepared: Made, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def none_left(descriptor: int, start: int, size: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fetching.os, "posix_fallocate", none_left)
    with pytest.raises(CacheError, match=f"is full .{os.strerror(code)}.; free space, or set SWEEP_CACHE"):
        prepare(prepared.index.spec, str(prepared.folder))
    assert [path.name for path in cache_folder().iterdir() if path.is_dir()] == ["pictures"]


def test_making_a_set_stops_between_shards_and_goes_on(source: Path, decoded: list[str]) -> None:
    spec = load_data("folder", str(source), SETTINGS)[1]
    looks = iter([False, False, True])
    with pytest.raises(StoppedError):
        fetch(spec, str(source), stop=lambda: next(looks))
    decoded.clear()
    fetch(spec, str(source))
    assert {"b/p3.png", "b/p4.png"} <= set(decoded) <= {f"b/p{number}.png" for number in range(5)}
    assert is_placed(spec)


def test_a_process_may_open_all_shards_of_a_large_set() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
        _allow_open_files(30)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600
        _allow_open_files(1000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
        with pytest.raises(OSError, match="raise that with `ulimit -Hn`"):
            _allow_open_files(2**40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_is_missing_from_a_set_is_named(prepared: Made) -> None:
    Path(str(prepared.folder)).joinpath("images-00003.npy").unlink()
    with pytest.raises(DamagedFileError, match=r"images-00003.npy is missing, though its index"):
        prepare(prepared.index.spec, str(prepared.folder))


WRONG: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another version": (
        lambda data: data.replace(b'"format": 1', b'"format": 9'),
        "another version .format 9, this one",
    ),
    "a changed number": (lambda data: data.replace(b'"train": 6', b'"train": 5'), "index.json is damaged; prepare"),
    "cut": (lambda data: data[:100], "index.json is damaged; prepare the set again"),
    "no mapping": (lambda _: b"[1]", "index.json is damaged; prepare the set again"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_index_is_one_line_at_planning(prepared: Made, tmp_path: Path, how: str) -> None:
    change, complaint = WRONG[how]
    file = Path(str(prepared.folder)) / "index.json"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=complaint):
        load_data("folder", str(tmp_path / "sets"), SETTINGS)
    said = run("launch", "demo", "--set", f"data={{name: folder, root: {file.parent}}}", "--dry-run", code=2)
    assert len(said.strip().splitlines()) == 1


def test_a_damaged_neighbour_does_not_matter(prepared: Made, tmp_path: Path) -> None:
    other = Path(str(made(tmp_path / "source", tmp_path / "sets", "image_size=24").folder))
    (other / "index.json").write_bytes(b"{}")
    assert load_data("folder", str(tmp_path / "sets"), SETTINGS)[1] == prepared.index.spec


def test_an_index_names_no_file_elsewhere(prepared: Made) -> None:
    values = json.loads(prepared.index.to_bytes())
    del values["sha256"]
    values["files"]["../train.npy"] = values["files"].pop("train.npy")
    data = json.dumps(values | {"sha256": _digest(values)}).encode()
    with pytest.raises(ValueError, match="is damaged"):
        SetIndex.from_bytes(data, Path("index.json"))


def test_a_folder_of_an_earlier_version_is_prepared_again_without_a_word(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_data("folder", str(source), SETTINGS)[1]
    folder = cache_folder() / spec.key
    folder.mkdir(parents=True)
    (folder / "prepared.json").write_text('{"sha256": {}}')
    (folder / "train_images.npy").write_bytes(b"")
    prepare(spec, source)
    assert caplog.messages == []
    assert not (folder / "prepared.json").exists()


@pytest.fixture
def memory(source: Path) -> Iterator[str]:
    """The source at a URL."""
    top = UPath("memory://pictures/birds")
    for path in source.rglob("*.png"):
        (top / str(path.relative_to(source))).write_bytes(path.read_bytes())
    yield str(top)
    top.fs.rm("/", recursive=True)


def test_pictures_at_a_url_make_the_same_set(source: Path, memory: str, tmp_path: Path, decoded: list[str]) -> None:
    first, second = made(source, tmp_path / "a"), made(memory, tmp_path / "b")
    assert contents(Path(str(first.folder))) == contents(Path(str(second.folder)))
    assert len(decoded) == 22


def test_sets_at_a_url_are_found_and_fetched(source: Path, memory: str, decoded: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), in_threads() as mapped:
        prepare_to(wanted(memory), "memory://sets", mapped, stop_after(3))
    decoded.clear()
    done = made(memory, "memory://sets")
    assert {"b/p3.png", "b/p4.png"} <= set(decoded) <= {f"b/p{number}.png" for number in range(5)} | {"a/p4.png"}
    assert done.index.spec == load_data("folder", "memory://sets", SETTINGS)[1]
    assert done.index.spec == load_data("folder", str(source), SETTINGS)[1]
    assert len(prepare(done.index.spec, "memory://sets").train_images) == 6
    assert not [name for name in UPath("memory://sets").fs.find("/sets") if name.endswith("0.json")]


def test_crops_and_scenes_are_prepared_for_others_too(memory: str, source: Path, tmp_path: Path) -> None:
    few = ["image_size=16", "options={train_images: 20, val_images: 10}"]
    crops = read_wanted("crops", memory, few)
    with in_threads() as mapped:
        done = prepare_to(crops, str(tmp_path / "sets"), mapped)
        scenes = prepare_to(read_wanted("scenes", None, few), str(tmp_path / "sets"), mapped)
    assert done.index.spec == load_data("crops", str(source), few)[1]
    assert load_data("scenes", str(tmp_path / "sets"), few)[1] == scenes.index.spec == load_data("scenes", None, few)[1]
    fetched = prepare(done.index.spec, tmp_path / "sets").train_images[:]
    Path(cache_folder() / done.index.spec.key / "index.json").unlink()
    assert torch.equal(prepare(done.index.spec, source).train_images[:], fetched)


def test_a_url_that_holds_nothing_or_that_nobody_knows_is_one_line(source: Path) -> None:
    for root, complaint in (
        ("memory://nothing", "memory://nothing/? holds no prepared set of folder at 16 pixels"),
        ("nonsense://x", "can't read nonsense://x"),
    ):
        with pytest.raises(ValueError, match=complaint) as error:
            load_data("folder", root, SETTINGS)
        assert "\n" not in str(error.value)


def test_an_outage_while_fetching_is_no_fault_of_the_cache(prepared: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path | UPath, start: int, stop: int) -> bytes:
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(fetching, "_range", refuse)
    with pytest.raises(UnreachableError, match=r"can't read .*: reset by peer"):
        prepare(prepared.index.spec, str(prepared.folder))
