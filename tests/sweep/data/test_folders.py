"""Labelled pictures on disk: read whole, never downloaded, a missing root told with what to put where."""

import hashlib
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100
from upath import UPath

from sweep import cli
from sweep.data import shards
from sweep.data.augment import centre_window, cut_windows, random_corners
from sweep.data.prepare import cache_folder, prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.store.manifest import checkpoint_steps
from sweep.training.train import train
from tests.command import run


def picture(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), level, dtype=np.uint8)).save(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of five pictures each, of one grey level a class."""
    for index in range(5):
        picture(tmp_path / "cats" / f"{index}.png", 50)
        picture(tmp_path / "dogs" / f"{index}.jpg", 200)
    return tmp_path


def data_spec(name: str, root: Path, *settings: str):
    return expand(load_grid("demo", [f"data={{name: {name}, root: {root}}}", *settings])).plans[0].spec.data


def test_class_folders_are_split_and_stored_larger_than_they_are_seen(classes: Path) -> None:
    spec = data_spec("folder", classes)
    data = prepare(spec, classes)
    assert spec.num_classes == 2
    assert (len(data.train_images), data.train_images.side) == (8, (64, 64))
    assert data.val_labels.tolist() == [0, 1]
    levels = data.train_images[:].float().mean(dim=(1, 2, 3))
    assert [round(level / 50) for level in levels.tolist()] == [1 if label == 0 else 4 for label in data.train_labels]
    draw = torch.Generator().manual_seed(0)
    windows = cut_windows(data.train_images[:], data.training_corners(8, draw), 56)
    images, _ = data.training_batch(windows, data.train_labels, draw)
    assert images.shape == (8, 3, 56, 56)
    assert data.validation_images(data.val_images[:]).shape == (2, 3, 56, 56)


def test_folders_train_and_val_are_taken_as_they_are(classes: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for part in ("train", "val"):
        for name in ("cats", "dogs"):
            picture(root / part / name / "a.png", 10)
    data = prepare(data_spec("folder", root), root)
    assert len(data.train_labels) == len(data.val_labels) == 2


@pytest.mark.parametrize("name", ["folder", "imagenet", "imagenette", "cifar10", "cifar100"])
def test_a_missing_root_says_what_to_put_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"train/CLASS|extract its archive") as error:
        data_spec(name, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(error.value)
    with pytest.raises(ValueError, match=r"--set data\.root=FOLDER"):
        expand(load_grid("demo", [f"data.name={name}"]))


def test_imagenet_with_a_wrong_number_of_classes_is_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            picture(tmp_path / part / name / "a.png", 10)
    with pytest.raises(ValueError, match="holds 2 class folders, not 1000"):
        data_spec("imagenet", tmp_path)


def test_an_unreadable_picture_is_left_out(classes: Path) -> None:
    (classes / "cats" / "3.png").write_text("no picture")
    assert len(prepare(data_spec("folder", classes), classes).train_images) == 7


def test_a_picture_that_has_changed_since_the_launch_is_named(classes: Path) -> None:
    spec = data_spec("folder", classes, "data.image_size=24")
    (classes / "cats" / "3.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"its pictures have changed \(cats/3.png\); launch again"):
        prepare(spec, classes)


def test_a_picture_exchanged_while_others_are_decoded_is_noticed(
    classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = data_spec("folder", classes, "data.image_size=24")
    monkeypatch.setattr(shards, "SHARD_IMAGES", 2)
    monkeypatch.setattr("sweep.data.parallel._cores", lambda: 1)

    def exchange(done: int, total: int, unit: str) -> None:
        picture(classes / "dogs" / "4.jpg", 60)

    with pytest.raises(ValueError, match=r"its pictures have changed \(dogs/4.jpg\); launch again"):
        prepare(spec, classes, exchange)
    assert not list(cache_folder().glob(f"*{spec.key}-*"))
    assert not (cache_folder() / spec.key).exists()


def test_cifar_in_the_wrong_place_is_not_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="extract its archive there"):
        data_spec("cifar10", tmp_path)


def trained(name: str, root: Path, folder: Path) -> list[dict[str, float | int | None]]:
    """The rows of a trial of two steps on a data set, read from its files as a sweep reads them."""
    settings = [f"data={{name: {name}, root: {root}}}", "interventions=[baseline]", "recipe=tiny"]
    (plan,) = expand(load_grid("demo", [*settings, "recipe.batch_size=10"])).plans
    rows = train(plan.spec, prepare(plan.spec.data, root), UPath(folder))
    assert checkpoint_steps(UPath(folder) / "checkpoints") == [2, 0]
    assert all(np.isfinite(row["val_loss"]) for row in rows)
    return rows


def cifar_batch(rng: np.random.Generator, images: int, labels: str, classes: int) -> bytes:
    """A batch file as CIFAR's authors write it: rows of 3072 bytes, red, green and blue planes one after the other."""
    data = rng.integers(256, size=(images, 3072), dtype=np.uint8)
    return pickle.dumps({"data": data, labels: rng.integers(classes, size=images).tolist()})


@pytest.mark.parametrize(
    ("name", "kind", "classes", "labels", "train_files"),
    [
        ("cifar10", CIFAR10, 10, "labels", [f"data_batch_{index}" for index in range(1, 6)]),
        ("cifar100", CIFAR100, 100, "fine_labels", ["train"]),
    ],
)
def test_cifar_is_trained_on_from_its_own_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[CIFAR10],
    classes: int,
    labels: str,
    train_files: list[str],
) -> None:
    """Small files in CIFAR's format; torchvision verifies them by the checksums of these instead of the real ones."""
    rng = np.random.default_rng(0)
    (test_file,) = (file for file, _ in kind.test_list)
    content = {file: cifar_batch(rng, 20 // len(train_files), labels, classes) for file in train_files}
    content |= {test_file: cifar_batch(rng, 6, labels, classes)}
    meta = pickle.dumps({kind.meta["key"]: [f"class {index}" for index in range(classes)]})
    folder = tmp_path / "root" / kind.base_folder
    folder.mkdir(parents=True)
    for file, data in (content | {kind.meta["filename"]: meta}).items():
        (folder / file).write_bytes(data)
    sums = {file: hashlib.md5(data).hexdigest() for file, data in content.items()}
    monkeypatch.setattr(kind, "train_list", [[file, sums[file]] for file in train_files])
    monkeypatch.setattr(kind, "test_list", [[test_file, sums[test_file]]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": hashlib.md5(meta).hexdigest()})
    monkeypatch.setattr(kind, "tgz_md5", f"small {name}")

    data = prepare(data_spec(name, tmp_path / "root"), tmp_path / "root")
    assert (len(data.train_images), data.train_images.side) == (20, (64, 64))
    first = pickle.loads(content[train_files[0]])
    red = first["data"][0].reshape(3, 32, 32)[0].astype(float)
    assert data.train_images[:][0, 0].float().mean().item() == pytest.approx(red.mean(), abs=2)
    assert data.train_labels[: len(first[labels])].tolist() == first[labels]
    assert len(trained(name, tmp_path / "root", tmp_path / "trial")) == 2

    (folder / test_file).write_bytes(content[test_file][:-1] + b"!")
    with pytest.raises(ValueError, match="extract its archive there"):
        data_spec(name, tmp_path / "root")


def jpeg(level: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((48, 64, 3), level, dtype=np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


def as_imagenet(root: Path, classes: int, train_images: int) -> Path:
    """Class folders of JPEG files with ImageNet's names and upper-case suffix; the class is the level of grey."""
    for index in range(classes):
        wnid, data = f"n{1440764 + index:08}", jpeg(index * 255 // classes)
        for part, count in (("train", train_images), ("val", 1)):
            (root / part / wnid).mkdir(parents=True)
            for number in range(count):
                (root / part / wnid / f"{wnid}_{number}.JPEG").write_bytes(data)
    return root


def test_imagenette_is_trained_on_from_its_class_folders(tmp_path: Path) -> None:
    root = as_imagenet(tmp_path / "imagenette2-320", classes=10, train_images=2)
    assert len(trained("imagenette", root, tmp_path / "trial")) == 2


@pytest.mark.slow
def test_imagenet_is_a_thousand_class_folders(tmp_path: Path) -> None:
    root = as_imagenet(tmp_path / "imagenet", classes=1000, train_images=1)
    spec = data_spec("imagenet", root)
    data = prepare(spec, root)
    assert spec.num_classes == 1000
    assert data.val_labels.tolist() == list(range(1000))
    levels = data.val_images[:].float().mean(dim=(1, 2, 3))
    assert levels.sub(torch.arange(1000) * 255 // 1000).abs().max() < 2


def test_windows_are_parts_of_the_image_drawn_from_the_generator_alone() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    corners, again = (random_corners(2, (8, 8), 5, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(corners, again)
    top, left = corners[1]
    assert torch.equal(cut_windows(images, corners, 5)[1], images[1, :, top : top + 5, left : left + 5])
    assert torch.equal(centre_window(images, 4), images[:, :, 2:6, 2:6])
    undrawn = torch.Generator().manual_seed(1)
    assert not random_corners(2, (8, 8), 8, undrawn).any()
    assert torch.equal(undrawn.get_state(), torch.Generator().manual_seed(1).get_state())


def test_prepare_makes_what_a_launch_then_finds(classes: Path) -> None:
    settings = ["--set", "image_size=56", "--set", "options.val_share=0.2"]
    said = " ".join(run("prepare", "folder", str(classes), *settings).split())
    assert "8 training and 2 validation images of 2 classes, 56 pixels" in said
    spec = data_spec("folder", classes, "data.options.val_share=0.2")
    made = cache_folder() / spec.key
    assert said.endswith(str(made))
    written = (made / "images-00000.npy").stat().st_mtime_ns
    told: list[tuple[int, int, str]] = []
    prepare(spec, classes, lambda *said: told.append(said))
    assert (made / "images-00000.npy").stat().st_mtime_ns == written
    assert told == []


def test_decoding_tells_how_far_it_is(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_IMAGES", 3)
    told: list[tuple[int, int, str]] = []
    spec = data_spec("folder", classes, "data.image_size=40")
    prepare(spec, classes, lambda *said: told.append(said))
    assert told == [(done, 10, "pictures") for done in (3, 6, 9, 10)]


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("imagenett", [], "'imagenette'"),
        ("folder", ["image_siz=56"], "did you mean 'image_size'"),
        ("folder", ["options.val_shar=0.5"], "did you mean 'val_share'"),
    ],
)
def test_a_mistake_in_what_is_to_be_prepared_is_said(
    classes: Path, name: str, settings: list[str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        cli.prepare(name, str(classes), settings)


def test_half_of_train_and_val_is_refused_and_hidden_folders_are_no_classes(classes: Path) -> None:
    (classes / ".thumbnails").mkdir()
    assert data_spec("folder", classes).num_classes == 2
    picture(classes / "train" / "cats" / "a.png", 1)
    with pytest.raises(ValueError, match="has a folder train but not the other"):
        data_spec("folder", classes)
