"""Anybody's class folders: links, splits, files that can't be used; what is fingerprinted is what is read."""

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.data import index, pictures
from sweep.data.folders import ClassFolders, FolderOptions, _held_out, scan_classes
from sweep.data.prepare import prepare
from sweep.data.registry import DATASETS
from sweep.grid.expand import expand
from sweep.grid.load import load_data, load_grid
from tests.sweep.data.pictures_on_disk import fill, noise, two_classes, vast


def scan(root: Path) -> ClassFolders:
    return scan_classes(root, "folder", None)


def names(found: ClassFolders) -> list[str]:
    return [item.name for item in found.train + (found.val or [])]


def linked(store: Path, root: Path) -> Path:
    root.mkdir()
    for folder in store.iterdir():
        (root / folder.name).symlink_to(folder)
    return root


def test_the_fingerprint_is_that_of_names_and_contents(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "set", 2)
    digest = hashlib.sha256()
    for name in ("a/p0.png", "a/p1.png", "b/p0.png", "b/p1.png"):
        digest.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    assert scan(root).fingerprint == digest.hexdigest()


def test_links_to_folders_are_read_and_fingerprinted_like_folders(tmp_path: Path) -> None:
    first = two_classes(tmp_path / "first")
    second = tmp_path / "second"
    for offset, name in ((500, "a"), (600, "b")):
        fill(second / name, 5, seed=offset)
    links = [linked(first, tmp_path / "links1"), linked(second, tmp_path / "links2")]
    assert scan(links[0]).fingerprint == scan(first).fingerprint != scan(links[1]).fingerprint
    specs = [load_data("folder", str(link), ["image_size=16"])[1] for link in links]
    images = [prepare(spec, link).train_images for spec, link in zip(specs, links, strict=True)]
    assert not (images[0][:] == images[1][:]).all()
    before = scan(links[0]).fingerprint
    noise(9).save(first / "a" / "new.png")
    assert scan(links[0]).fingerprint != before


def test_links_to_files_and_within_folders_are_read_and_loops_are_named(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "set", 3)
    store = fill(tmp_path / "store", 2, seed=900)
    (root / "a" / "more").symlink_to(store)
    (root / "a" / "one.png").symlink_to(store / "p0.png")
    (root / "a" / "loop").symlink_to(root / "a")
    (store / "up").symlink_to(root)
    (root / "b" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "b" / "itself").symlink_to("itself")
    found = scan(root)
    assert [name for name in names(found) if name.startswith("a/")] == [
        "a/more/p0.png", "a/more/p1.png", "a/one.png", "a/p0.png", "a/p1.png", "a/p2.png",
    ]  # fmt: skip
    assert found.left_out == {
        "a/loop": "a link to a folder that contains it",
        "a/more/up": "a link to a folder that contains it",
        "b/gone.png": "a broken link",
        "b/itself": "a broken link",
    }


def test_exchanged_pictures_of_one_size_change_the_fingerprint_and_are_told(tmp_path: Path) -> None:
    for name, level in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / name / f"{number}.png", compress_level=0)
    first, second = tmp_path / "a" / "0.png", tmp_path / "b" / "0.png"
    assert first.stat().st_size == second.stat().st_size
    before = scan(tmp_path)
    content = first.read_bytes(), second.read_bytes()
    for path, data, kept in ((first, content[1], first.stat()), (second, content[0], second.stat())):
        path.write_bytes(data)
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # as rsync and tar leave them
    after = scan(tmp_path)
    assert after.fingerprint != before.fingerprint
    assert after.remarks == ["changed since they were last read, so trials get new ids: a/0.png, b/0.png"]
    assert scan(tmp_path).remarks == []


def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count files that were written just now as old enough to be remembered."""
    monkeypatch.setattr(index, "_RACY_NS", -(10**12))


def test_a_file_is_read_once_and_again_when_its_stamp_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch)
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    root = two_classes(tmp_path / "set", 3)
    read: list[str] = []
    monkeypatch.setattr(index, "examine", lambda path: read.append(path.name) or pictures.examine(path))
    first = scan(root).fingerprint
    assert len(read) == 6
    assert scan(root).fingerprint == first
    assert len(read) == 6
    noise(77).save(root / "b" / "p2.png")
    assert scan(root).fingerprint != first
    assert read[6:] == ["p2.png"]
    (table,) = (tmp_path / "cache" / "pictures").iterdir()
    table.write_bytes(table.read_bytes()[:-20])  # damaged: it is only a memory
    scan(root)
    assert len(read) == 13


def test_files_written_just_now_are_not_trusted_to_stay(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    stamp = index.stamp_of(tmp_path / "a")
    written_ns = (tmp_path / "a").stat().st_ctime_ns
    assert not index.is_settled(stamp, written_ns + 10**9)
    assert index.is_settled(stamp, written_ns + 3 * 10**9)


def test_sweeps_planned_by_names_and_sizes_can_still_be_resumed(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "set")
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.png")):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
    spec = load_data("folder", str(root), ["image_size=16"])[1].model_copy(update={"fingerprint": digest.hexdigest()})
    images = prepare(spec, root).train_images
    assert (len(images), images.side) == (8, (18, 18))
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(root / "a" / "p0.png")  # it would be read otherwise now
    assert scan(root).former_fingerprint is None


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"), ("Train", "Val"), ("TRAIN", "VALID"), ("training", "validation"), ("Training", "Testing"),
        ("train", "test"), ("trainset", "valset"), ("train2017", "val2017"), ("training_set", "test_set"),
        ("imagenet-train", "imagenet-val"), ("seg_train", "seg_test"),
    ],
)  # fmt: skip
def test_a_split_is_taken_as_one_however_it_is_spelt(tmp_path: Path, train: str, val: str) -> None:
    plain = tmp_path / "plain"
    for part, given in (("train", train), ("val", val)):
        two_classes(plain / part, 2)
        two_classes(tmp_path / "set" / given, 2)
    found = scan(tmp_path / "set")
    assert found.split.classes == ["a", "b"]
    assert [item.name for item in found.val or []] == [f"{val}/a/p0.png", f"{val}/a/p1.png", *names(found)[-2:]]
    assert found.fingerprint == scan(plain).fingerprint
    assert f"training from {train}, validation from {val}" in found.understood(0.1)[0]


def test_a_test_set_beside_a_validation_set_is_not_used_and_told(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        two_classes(tmp_path / part, 2)
    fill(tmp_path / "val" / "c", 1)
    fill(tmp_path / "train" / "d", 1)
    fill(tmp_path / "train", 1)
    assert scan(tmp_path).remarks == [
        "classes without a folder in val: d",
        "not used, since train has no such class: val/c",
        "not used, since they are in no class folder: train/p0.png",
        "not used, beside train and val: test",
        "classes without a picture in val: d",
    ]


@pytest.mark.parametrize(
    ("folders", "complaint"),
    [
        (["train/a", "train/b", "Train/a", "val/a", "val/b"], "Train, train, which are the same part"),
        (["train/a", "val/a", "validation/a"], "val, validation, which are the same part"),
        (["train", "val"], "train holds 0 class folders"),
        (["train_images", "val_images"], "named like parts of a split but hold no class folders"),
        (["Train/a", "Train/b"], "has a folder Train but not the other of train and val"),
        (["validation", "test"], "but not the other of train and val"),
        (["imagenette2/train/a", "imagenette2/val/a"], "did you mean .*imagenette2"),
    ],
)
def test_what_could_be_a_split_or_not_is_refused(tmp_path: Path, folders: list[str], complaint: str) -> None:
    for number, folder in enumerate(folders):
        fill(tmp_path / folder, 2, seed=10 * number)
    with pytest.raises(ValueError, match=complaint):
        scan(tmp_path)


@pytest.mark.parametrize("classes", [["bus", "car", "train"], ["exam", "test"], ["steam-train", "teapot", "test-tube"]])
def test_classes_may_be_called_train_or_test(tmp_path: Path, classes: list[str]) -> None:
    for number, name in enumerate(classes):
        fill(tmp_path / name, 2, seed=10 * number)
    assert scan(tmp_path).split.classes == classes


def odd(root: Path) -> dict[str, str]:
    """Files that can't be used, of all kinds, in class a; and the reason for each."""
    good = (root / "a" / "p0.png").read_bytes()
    content = {"cut.png": good[:300], "empty.jpg": b"", "text.JPG": b"no picture", "phone.HEIC": b"\0\0\0\x18ftypheic"}
    content["vast.png"] = vast(14_200)
    for name, data in content.items():
        (root / "a" / name).write_bytes(data)
    (root / "a" / "gone.png").symlink_to("nowhere.png")
    (root / "a" / "folder.jpg").mkdir()
    os.mkfifo(root / "a" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root / "a")  # an address has 107 bytes at most
        server.bind("socket.png")
        os.chdir(here)
    shutil.copy(root / "a" / "p0.png", os.fsencode(root / "a") + b"/caf\xe9.png")
    return {
        "a/cut.png": "truncated", "a/empty.jpg": "an empty file", "a/text.JPG": "not a picture",
        "a/phone.HEIC": "no decoder for .heic", "a/vast.png": "pixels", "a/gone.png": "a broken link",
        "a/folder.jpg": "a folder, not a picture", "a/pipe.png": "not a regular file",
        "a/socket.png": "not a regular file", "a/caf\udce9.png": "its name is not UTF-8",
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ["folder", "crops"])
def test_what_cannot_be_used_is_left_out_and_named_all_at_once(tmp_path: Path, dataset: str) -> None:
    root = two_classes(tmp_path / "set", 8)
    clean = load_data(dataset, str(root), ["image_size=16"])[1]
    reasons = odd(root)
    _, spec, source = load_data(dataset, str(root), ["image_size=16"])
    assert source.left_out.keys() == reasons.keys()
    assert all(reason in source.left_out[name] for name, reason in reasons.items())
    (said,) = [remark for remark in source.remarks if remark.startswith("left out 10 of 26 pictures: ")]
    assert "a/caf\\udce9.png (its name is not UTF-8)" in said
    said.encode()
    assert spec == clean
    with pytest.raises(ValueError, match="10 pictures can't be used: ") as refusal:
        load_data(dataset, str(root), ["image_size=16", "unusable=refuse"])
    assert all(name.replace("\udce9", "\\udce9") in str(refusal.value) for name in reasons)
    strict = [f"data={{name: {dataset}, root: {root}}}", "data.unusable=refuse"]
    with pytest.raises(ValueError, match="10 pictures can't be used"):
        expand(load_grid("demo", strict))


def test_strictness_is_no_part_of_a_trial(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    specs = [load_data("folder", str(root), [f"unusable={choice}"])[1] for choice in ("leave_out", "refuse")]
    assert specs[0] == specs[1]


def test_a_folder_mostly_of_files_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    root = two_classes(tmp_path, 3)
    for number in range(6):
        (root / "a" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    assert len(scan(root).left_out) == 6  # half
    (root / "b" / "IMG_9.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"7 of 13 pictures .* more than 50%: .*convert it to JPEG"):
        scan(root)


def test_folders_of_tools_and_hidden_ones_are_skipped_by_rule(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "set", 3)
    before = scan(root).fingerprint
    skipped = [
        ".git",
        "__MACOSX",
        "@eaDir",
        ".Trash-1000",
        "$RECYCLE.BIN",
        "lost+found",
        "Thumbs",
        ".ipynb_checkpoints",
    ]
    for name in skipped:
        fill(root / name, 2, seed=50)
        fill(root / "a" / name, 2, seed=60)
    (root / "a" / "._p0.png").write_bytes(b"\0\5\x16\7")
    (root / "notes.txt").write_text("of people")
    found = scan(root)
    assert (found.fingerprint, found.left_out) == (before, {})
    assert found.remarks[0].startswith("skipped, hidden or created by tools: $RECYCLE.BIN, .Trash-1000, .git")
    assert found.remarks[1] == "skipped, not named like a picture: notes.txt"


def test_formats_and_upper_case_suffixes_are_read(tmp_path: Path) -> None:
    for number, suffix in enumerate((".JPG", ".gif", ".BMP", ".tif", ".JFIF", ".ppm", ".webp", ".avif")):
        fill(tmp_path / "ab"[number % 2], 1, seed=number).joinpath("p0.png").unlink(missing_ok=True)
        noise(number).save(tmp_path / "ab"[number % 2] / f"q{number}{suffix}")
    found = scan(tmp_path)
    assert len(found.train) == 8
    assert found.left_out == {}


@pytest.mark.parametrize("count", [0, 1])
def test_a_class_without_a_training_picture_is_refused_at_planning(tmp_path: Path, count: int) -> None:
    root = two_classes(tmp_path / "set", 3)
    fill(root / "c", count)
    with pytest.raises(ValueError, match="once one is held out for validation in 1 of 3 classes: c; add pictures"):
        load_data("folder", str(root), [])
    two_classes(tmp_path / "split" / "val", 1)
    two_classes(tmp_path / "split" / "train", 1)
    (tmp_path / "split" / "train" / "b" / "p0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"to train on in 1 of 2 classes: b .*train/b/p0.png \(an empty file\)"):
        load_data("folder", str(tmp_path / "split"), [])


def test_what_was_understood_is_said(tmp_path: Path) -> None:
    for number in range(7):
        fill(tmp_path / f"c{number}", 4 + number, seed=20 * number)
    assert load_data("folder", str(tmp_path), ["options.val_share=0.25"])[2].understood == [
        "7 classes: c0, c1, c2, c3, c4 and 2 more; "
        "no split of its own: about 25% of each class held out for validation",
        "34 pictures (3 (c0) to 7 (c6) per class) for training, "
        "15 pictures (1 (c0) to 3 (c5) per class) for validation",
    ]


def test_what_is_read_is_the_list_that_is_fingerprinted(tmp_path: Path) -> None:
    found = scan(two_classes(tmp_path))
    assert {name for part in found.parts(0.1) for name, _ in part} == set(names(found))
    assert found.fingerprint == DATASETS["folder"].inspect(FolderOptions(), tmp_path).fingerprint


def test_holding_out_takes_every_kth_picture_of_a_class() -> None:
    pictures_of = [(f"{label}/{number}", label) for label in (0, 1) for number in range(5)]
    train, val = _held_out(pictures_of, 0.4)
    assert [name for name, _ in val] == ["0/0", "0/2", "0/4", "1/0", "1/2", "1/4"]
    assert [name for name, _ in train] == ["0/1", "0/3", "1/1", "1/3"]
    many = [(str(number), number % 5000) for number in range(20_000)]
    train, val = _held_out(many, 0.5)  # 20 s where it took time by the square of the classes
    assert len(train) == len(val) == 10_000
    assert json.dumps(sorted(label for _, label in val)) == json.dumps(sorted(2 * list(range(5000))))
