"""Labelled pictures on disk: read whole, never downloaded, a missing root told with what to put where."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.data.augment import centre_window, random_window
from sweep.data.prepare import prepare
from sweep.grid import expand, load_grid


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
    assert data.train_images.shape == (8, 3, 64, 64)
    assert data.val_labels.tolist() == [0, 1]
    levels = data.train_images.float().mean(dim=(1, 2, 3))
    assert [round(level / 50) for level in levels.tolist()] == [1 if label == 0 else 4 for label in data.train_labels]
    images, _ = data.training_batch(data.train_images, data.train_labels, torch.Generator().manual_seed(0))
    assert images.shape == (8, 3, 56, 56)
    assert data.validation_images(data.val_images).shape == (2, 3, 56, 56)


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


def test_an_unreadable_picture_is_named(classes: Path) -> None:
    (classes / "cats" / "3.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"can't read .*3\.png .*remove it"):
        prepare(data_spec("folder", classes), classes)


def test_cifar_in_the_wrong_place_is_not_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="extract its archive there"):
        data_spec("cifar10", tmp_path)


def test_windows_are_parts_of_the_image_drawn_from_the_generator_alone() -> None:
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    first, second = (random_window(images, 5, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    corner = first[1, 0, 0, 0]
    top, left = divmod(int(corner - images[1, 0, 0, 0]), 8)
    assert torch.equal(first[1], images[1, :, top : top + 5, left : left + 5])
    assert torch.equal(centre_window(images, 4), images[:, :, 2:6, 2:6])
    assert random_window(images, 8, torch.Generator()) is images
