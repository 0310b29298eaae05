"""SWEEP_CACHE_LIMIT: the least recently used sets that nobody has open make room for a new one."""

import os
from pathlib import Path

import pytest

from sweep.data import room
from sweep.data.prepare import PreparedData, prepare
from sweep.data.prepared import CacheError, last_use
from sweep.data.room import cache_limit
from sweep.grid.load import load_data

SIZE = 3 * 3 * 64**2  # bytes of the images of a set below, which come with 1 to 2 KB of rows, index and note


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds two of the sets below, not three."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_CACHE_LIMIT", str(5 * SIZE // 2))
    return tmp_path / "cache"


def opened(seed: int, size: int = 64) -> PreparedData:
    settings = [f"image_size={size}", f"seed={seed}", "options={train_images: 2, val_images: 1}"]
    return prepare(load_data("scenes", None, settings)[1], None)


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_dir() and path.name.startswith("scenes")}


def used(cache: Path, data: PreparedData, at: float) -> None:
    """Pretend that a set was last used at a time."""
    for path in (cache / data.spec.key).iterdir():
        if not path.name.endswith(".npy"):
            os.utime(path, (at, at))
    assert last_use(cache / data.spec.key) == at


def test_the_least_recently_used_set_makes_room(cache: Path) -> None:
    keys = []
    for seed in range(2):
        data = opened(seed)
        used(cache, data, 1e9 - seed)  # the second one is the older
        keys.append(data.spec.key)
        del data
    third = opened(2)
    assert folders(cache) == {keys[0], third.spec.key}


def test_to_open_a_set_is_to_use_it(cache: Path) -> None:
    first = opened(0)
    used(cache, first, 1e9)
    assert last_use(cache / opened(0).spec.key) > 1e9


def test_a_set_that_somebody_has_open_stays(cache: Path) -> None:
    first = opened(0)
    used(cache, first, 1e9)
    second = opened(1).spec.key
    third = opened(2)
    assert folders(cache) == {first.spec.key, third.spec.key}
    assert second not in folders(cache)
    with pytest.raises(CacheError, match=r"doesn't fit into .*: SWEEP_CACHE_LIMIT is 9.2e-05 GB, and what is in use"):
        opened(3)
    assert folders(cache) == {first.spec.key, third.spec.key}
    assert first.train_images[:].shape == (2, 3, 64, 64)


def test_sets_of_the_earlier_format_go_first(cache: Path) -> None:
    first = opened(0).spec.key
    former = cache / "scenes-64-000000000000"
    former.mkdir()
    (former / "prepared.json").write_text("{}")
    (former / "train_images.npy").write_bytes(bytes(SIZE))
    assert folders(cache) == {first, former.name}
    assert {first, opened(1).spec.key} == folders(cache)


def test_a_set_larger_than_the_limit_is_one_line_and_removes_nothing(cache: Path) -> None:
    first = opened(0).spec.key
    with pytest.raises(CacheError, match="doesn't fit") as error:
        opened(0, size=128)
    assert "\n" not in str(error.value)
    assert folders(cache) == {first}


def test_without_a_limit_nothing_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_CACHE_LIMIT")
    assert len({opened(seed).spec.key for seed in range(4)} & folders(cache)) == 4


def test_what_others_are_writing_counts_and_what_killed_ones_left_goes(cache: Path) -> None:
    first = opened(0).spec.key
    left = cache / ".scenes-64-ffffffffffff-unfinished"
    left.mkdir()
    (left / room.RESERVED).write_text(str(SIZE))
    with room.working_alone(cache / "scenes-64-ffffffffffff"):
        second = opened(1).spec.key
        assert folders(cache) == {second}
        assert left.exists()
    opened(2)
    assert not left.exists()
    assert first not in folders(cache)


@pytest.mark.parametrize(
    ("said", "limit"),
    [("300GB", 300 * 10**9), ("1.5 TB", 15 * 10**11), ("64MiB", 2**26), ("1000", 1000), ("10k", 10**4), ("", None)],
)
def test_a_limit_is_a_size(monkeypatch: pytest.MonkeyPatch, said: str, limit: int | None) -> None:
    monkeypatch.setenv("SWEEP_CACHE_LIMIT", said)
    assert cache_limit() == limit


@pytest.mark.parametrize("said", ["much", "3 apples", "-1", "1..5GB"])
def test_what_is_no_size_is_said(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("SWEEP_CACHE_LIMIT", said)
    with pytest.raises(ValueError, match="is no size; give bytes, or such as 300GB"):
        cache_limit()
