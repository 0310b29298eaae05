"""Prepared data: checked on first use and made again when wrong, and a full disk is one line, not a dead process."""

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from click import Command, Context
from pydantic import BaseModel
from rich.console import Console

from sweep import cli
from sweep.data import index, prepared
from sweep.data.arrays import Arrays, Batch
from sweep.data.prepare import prepare
from sweep.data.prepared import CacheError, write_array
from sweep.data.registry import DATASETS, Dataset, Source
from sweep.data.set_index import SetIndex
from sweep.grid.expand import expand
from sweep.grid.load import load_data, load_grid
from sweep.spec import DataSpec
from tests.sweep.data.pictures_on_disk import two_classes

OTHER = DataSpec(name="folder", image_size=16, num_classes=2, options={}, fingerprint=None)


class Made(NamedTuple):
    spec: DataSpec
    root: Path
    folder: Path
    images: torch.Tensor


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    root = two_classes(tmp_path / "set")
    spec = load_data("folder", str(root), ["image_size=16"])[1]
    images = prepare(spec, root).train_images[:]
    return Made(spec, root, tmp_path / "cache" / spec.key, images)


def in_place(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's bytes and leave its time as it was."""
    info = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


SHARD, INDEX = "images-00000.npy", "index.json"
DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": lambda folder: in_place(folder / SHARD, lambda data: data[:500]),
    "zeroed": lambda folder: in_place(folder / SHARD, lambda data: bytes(len(data))),
    "one bit": lambda folder: in_place(folder / SHARD, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "labels": lambda folder: in_place(folder / "train.npy", lambda data: data[:-8] + bytes(8)),
    "missing": lambda folder: (folder / "val.npy").unlink(),
    "no index": lambda folder: (folder / INDEX).unlink(),
    "zeroed index": lambda folder: in_place(folder / INDEX, lambda data: bytes(len(data))),
    "other index": lambda folder: in_place(folder / INDEX, lambda data: data[-2:]),
    "changed index": lambda folder: in_place(folder / INDEX, lambda data: data.replace(b'"train": 8', b'"train": 7')),
    "index of another set": lambda folder: in_place(
        folder / INDEX, lambda data: replace(SetIndex.from_bytes(data, folder), spec=OTHER).to_bytes()
    ),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()] and None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_data_is_made_again_and_told(made: Made, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(prepare(made.spec, made.root).train_images[:], made.images)
    assert caplog.messages == []
    DAMAGE[damage](made.folder)
    assert torch.equal(prepare(made.spec, made.root).train_images[:], made.images)
    (said,) = caplog.messages
    assert str(made.folder) in said
    assert "is damaged" in said
    assert sorted(path.name for path in made.folder.parent.iterdir()) == [
        made.spec.key, f"{made.spec.key}.lock", "pictures",
    ]  # fmt: skip


def test_damaged_data_without_its_pictures_is_not_used(made: Made) -> None:
    assert torch.equal(prepare(made.spec, Path("/gone")).train_images[:], made.images)
    DAMAGE["cut"](made.folder)
    with pytest.raises(ValueError, match="is not a folder"):
        prepare(made.spec, Path("/gone"))


def test_what_a_node_has_checked_it_does_not_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_RACY_NS", -(10**12))  # as if the files were not written just now
    read: list[Path] = []
    monkeypatch.setattr("sweep.data.prepare.flaw", lambda folder: read.append(folder) or prepared.flaw(folder))
    monkeypatch.setattr(prepared, "_boot", lambda: "another boot")
    for _ in range(3):
        prepare(made.spec, made.root)
    assert read == [made.folder]
    monkeypatch.setattr(prepared, "_boot", lambda: "the next boot")
    prepare(made.spec, made.root)
    prepare(made.spec, made.root)
    assert read == [made.folder] * 2


def test_an_array_is_written_as_numpy_writes_it(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int64).reshape(4, 6)
    write_array(tmp_path / "a.npy", array.shape, array.dtype, [array[:3], array[3:]])
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    digest = write_array(tmp_path / "fewer.npy", (9000, 6), array.dtype, [array[:3], array[3:]])
    assert (tmp_path / "fewer.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "b.npy").read_bytes()).hexdigest()
    write_array(tmp_path / "none.npy", (0, 3), array.dtype, [np.empty((0, 3), np.int64)])
    assert np.load(tmp_path / "none.npy").shape == (0, 3)


def test_space_is_checked_before_anything_is_decoded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    DAMAGE["empty"](made.folder)
    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(prepared.shutil, "disk_usage", Mock(return_value=Mock(free=1000)))
    with pytest.raises(CacheError, match=r"the disk of .*cache is full \(0.0 MiB needed, 0.0 MiB free\); free space"):
        prepare(made.spec, made.root, lambda *said: told.append(said))
    assert told == []
    assert not made.folder.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_runs_out_meanwhile_leaves_nothing(made: Made, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    DAMAGE["empty"](made.folder)

    def none_left(descriptor: int, start: int, size: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(prepared.os, "posix_fallocate", none_left)
    with pytest.raises(CacheError, match=f"is full .{os.strerror(code)}.; free space, or set SWEEP_CACHE"):
        prepare(made.spec, made.root)
    assert sorted(path.name for path in made.folder.parent.iterdir()) == [f"{made.spec.key}.lock", "pictures"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("reserved", [True, False])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path, reserved: bool) -> None:
    """On a file system of 600 KiB, also where space can't be reserved."""
    program = (
        "import sys, os, errno, numpy as np; from pathlib import Path\n"
        f"{'' if reserved else 'del os.posix_fallocate'}\n"
        "from sweep.data.prepared import write_array\n"
        "part = np.zeros((100_000, 1), np.uint8)\n"
        "try: write_array(Path(sys.argv[1]) / 'a.npy', (1_000_000, 1), part.dtype, iter([part] * 10))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    script = f'mount -t tmpfs -o size=600k tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, program], capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("may not mount a file system")
    assert (done.returncode, done.stdout) == (0, "ENOSPC\n"), done.stderr


class Loose(BaseModel):
    """Options of somebody's new data set, who did not think of unknown keys."""

    images: int = 4


class Nested(BaseModel):
    loose: Loose = Loose()


def inspect_few(options: BaseModel, root: Path | None) -> Source:
    return Source(num_classes=2)


def make_few(options: BaseModel, image_size: int, seed: int, root: Path | None) -> Arrays:
    images, labels = np.zeros((4, 3, image_size, image_size), np.uint8), np.arange(4) % 2
    return Arrays(
        train_images=images, train_labels=labels, val_images=images, val_labels=labels, class_names=["a", "b"]
    )


def unchanged(options: BaseModel, batch: Batch, generator: torch.Generator) -> Batch:
    return batch


def test_a_misspelt_option_of_a_new_data_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (Loose, Nested):
        new = Dataset(
            what="two classes of noise", options=options, inspect=inspect_few, make=make_few, augment=unchanged,
            level_zero=128.0, level_unit=42.0, source="ours",
        )  # fmt: skip
        monkeypatch.setitem(DATASETS, options.__name__, new)
    assert len(prepare(load_data("Loose", None, ["options.images=5"])[1], None).train_images) == 4
    for name, key in (("Loose", "imagse"), ("Nested", "loose.imagse")):
        with pytest.raises(ValueError, match=f"unknown key '{key}'; did you mean 'images'"):
            expand(load_grid("demo", [f"data={{name: {name}}}", f"data.options.{key}=5"]))
    with pytest.raises(ValueError, match="unknown key 'size'; did you mean 'flip'"):
        load_data("cifar10", None, ["options.size=5"])
    plans = expand(load_grid("demo", ["data={name: Loose}", "interventions=[baseline, no_flip]"])).plans
    assert [plan.excluded for plan in plans] == [None, "the data set Loose has no option flip"]


def test_an_intervention_that_flips_is_no_cell_of_data_that_flip_otherwise() -> None:
    """It would be trained as with the usual flips, and counted as what it is not."""
    settings = ["interventions=[baseline, rotate90_then_flip]", "data.options.flip=none"]
    plans = expand(load_grid("demo", settings)).plans
    assert [plan.excluded for plan in plans] == [
        None,
        "rotate90_then_flip flips top_bottom whatever data.options.flip is, here none",
    ]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> tuple[StringIO, StringIO]:
    """What the command line prints, and what it complains of."""
    streams = StringIO(), StringIO()
    monkeypatch.setattr(cli.consoles, "output", Console(file=streams[0], width=160))
    monkeypatch.setattr(cli.consoles, "complaints", Console(file=streams[1], width=160))
    return streams


def test_preparing_a_damaged_set_again_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    root = two_classes(tmp_path / "set")
    cli.prepare("folder", str(root), ["image_size=16"])
    assert caplog.messages == []
    (shard,) = (tmp_path / "cache").glob("*/images-00000.npy")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:500])
    cli.prepare("folder", str(root), ["image_size=16"])
    assert "is damaged (images-00000.npy is not what was written); preparing it again" in caplog.text
    assert shard.read_bytes() == whole


def test_the_command_line_says_what_it_took_a_folder_for(tmp_path: Path, printed: tuple[StringIO, StringIO]) -> None:
    root = two_classes(tmp_path / "set")
    (root / "a" / "bad\x1b[31m.png").write_bytes(b"no")
    cli.launch(
        Context(Command("launch")),
        "demo",
        [f"data={{name: folder, root: {root}}}", "recipe.batch_size=4"],
        dry_run=True,
    )
    dry = printed[0].getvalue()
    assert dry.startswith("2 classes: a, b; no split of its own")
    assert "left out 1 of 11 pictures: a/bad\\x1b[31m.png (not a picture)" in dry
    with pytest.raises(ValueError, match=r"1 picture can't be used: a/bad\\x1b\[31m.png \(not a picture\)"):
        cli.prepare("folder", str(root), ["image_size=16"], strict=True)
    cli.prepare("folder", str(root), ["image_size=16"])
    assert printed[0].getvalue().removeprefix(dry).startswith("2 classes: a, b; no split of its own")
    assert printed[1].getvalue().startswith("left out 1 of 11 pictures")


def test_a_strict_launch_refuses_at_planning_and_records_nothing(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "set")
    (root / "a" / "empty.png").touch()
    data = f"data={{name: folder, root: {root}}}"
    with pytest.raises(ValueError, match=r"1 picture can't be used: a/empty.png \(an empty file\)"):
        cli.launch(Context(Command("launch")), "demo", [data], storage=str(tmp_path / "runs"), strict=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_cache_that_is_read_only_serves_what_it_holds(made: Made, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(lock: object, timeout: float) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("sweep.data.room.FileLock.acquire", refuse)
    assert torch.equal(prepare(made.spec, made.root).train_images[:], made.images)
    DAMAGE["cut"](made.folder)
    cure = "set SWEEP_CACHE to a writable folder"
    with pytest.raises(CacheError, match=f"can't write to .*cache: {os.strerror(code)}; {cure}"):
        prepare(made.spec, made.root)
