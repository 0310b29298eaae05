"""Data sets: counted randomness, labels that mean the image, folders of pictures with bad ones among them."""

import importlib.resources
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.data.crops import CropsOptions, augment_crops, make_crops, scan_folder
from sweep.data.pictures import open_picture
from sweep.data.prepare import prepare
from sweep.data.registry import DATASETS
from sweep.data.scenes import ScenesOptions, flip_scenes, make_scenes, scene_classes
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.training.randomness import Stream, epoch_order, generator

FEW = ScenesOptions(train_images=40, val_images=10)


def test_scenes_are_a_function_of_their_seed() -> None:
    first, second, other = (make_scenes(FEW, 56, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train_images, second.train_images)
    assert not np.array_equal(first.train_images, other.train_images)
    assert first.train_images.shape == (40, 3, 56, 56)
    assert first.train_images.dtype == np.uint8
    assert not np.array_equal(first.train_images[:10], first.val_images)


def test_classes_are_ordered_triples_or_with_shuffled_zones_their_sets() -> None:
    assert len(scene_classes(FEW)) == 27
    shuffled = FEW.model_copy(update={"zones": "shuffled"})
    assert len(scene_classes(shuffled)) == 10
    assert make_scenes(shuffled, 56, 0).train_labels.max() < 10


def column_spread(options: ScenesOptions) -> float:
    """Where, across the image, the contrast of noiseless scenes lies: its standard deviation in pixels."""
    images = make_scenes(options, 56, 0).train_images.astype(float)
    energy = np.abs(images - 128).sum(axis=(0, 1, 2))[12:-12]
    columns = np.arange(len(energy))
    mean = (energy * columns).sum() / energy.sum()
    return float(np.sqrt((energy * (columns - mean) ** 2).sum() / energy.sum()))


def test_the_position_knob_scatters_the_discs() -> None:
    still = FEW.model_copy(update={"noise": 0.0, "train_images": 200})
    assert column_spread(still.model_copy(update={"position": "scattered"})) > 1.2 * column_spread(still)


@pytest.mark.parametrize(("flip", "axis", "order"), [("left_right", -1, 1), ("top_bottom", -2, -1)])
def test_a_flipped_scene_has_the_label_of_the_mirrored_textures(flip: str, axis: int, order: int) -> None:
    images, labels = torch.randn(50, 3, 8, 8), torch.arange(50) % 27
    options = FEW.model_copy(update={"flip": flip})
    flipped_images, flipped_labels = flip_scenes(options, (images, labels), torch.Generator().manual_seed(0))
    was_flipped = (flipped_images == images.flip(axis)).all(dim=(1, 2, 3))
    assert 10 < was_flipped.sum() < 40
    classes = scene_classes(FEW)
    mirror = {0: 0, 1: 2, 2: 1}
    for flipped, old, new in zip(was_flipped, labels.tolist(), flipped_labels.tolist(), strict=True):
        expected = tuple(mirror[t] for t in classes[old][::order]) if flipped else classes[old]
        assert classes[new] == expected


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_flips_as_its_option_says(name: str) -> None:
    """All are trained with left-right flips unless told otherwise, and say nothing of it, as before."""
    dataset = DATASETS[name]
    images, labels = torch.randn(40, 3, 8, 8), torch.zeros(40, dtype=torch.int64)
    for flip, flipped in (("none", images), ("left_right", images.flip(-1)), ("top_bottom", images.flip(-2))):
        options = dataset.read_options(
            {"flip": flip} | ({"noise": 0} if "noise" in dataset.options.model_fields else {})
        )
        seen, _ = dataset.augment(options, (images, labels), torch.Generator().manual_seed(0))
        changed = (seen != images).any(dim=(1, 2, 3))
        assert torch.equal(seen, torch.where(changed[:, None, None, None], flipped, images))
        assert changed.sum() == 0 if flip == "none" else 10 < changed.sum() < 30
        assert options.model_dump(mode="json").get("flip", "left_right") == flip
    assert "flip" not in dataset.read_options({}).model_dump(mode="json")


def test_all_flips_share_one_prepared_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path))
    few = ["data.options.train_images=40", "data.options.val_images=10"]
    usual, none = (
        expand(load_grid("demo", [*few, f"data.options.flip={flip}"])).plans[0].spec.data
        for flip in ("left_right", "none")
    )
    assert usual.key != none.key
    assert usual.prepared == none.prepared == usual
    prepare(usual, None)
    unflipped = prepare(none, None)
    assert [path.name for path in tmp_path.iterdir() if (path / "index.json").exists()] == [usual.key]
    windows = torch.zeros(8, 3, 56, 56, dtype=torch.uint8)
    windows[..., :28] = 255
    batch = windows, torch.arange(8)
    seen, _ = unflipped.training_batch(*batch, torch.Generator().manual_seed(0))
    assert (seen[..., 0] > seen[..., -1]).all()
    seen, _ = replace(unflipped, flip="left_right").training_batch(*batch, torch.Generator().manual_seed(0))
    assert 0 < (seen[..., 0] < seen[..., -1]).all(dim=(1, 2)).sum() < 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scikit-learn's two photographs cut into twelve, in the three formats, with three bad files among them."""
    folder = tmp_path_factory.mktemp("pictures")
    images = importlib.resources.files("sklearn.datasets.images")
    for name, suffix in (("china.jpg", "jpg"), ("flower.jpg", "png")):
        with images.joinpath(name).open("rb") as file, Image.open(file) as photograph:
            for index in range(6):
                left, top = 200 * (index % 3), 200 * (index // 3)
                part = photograph.crop((left, top, left + 200, top + 200))
                part.save(folder / f"{name[:-4]}{index}.{'webp' if index == 5 else suffix}")
    (folder / "torn.jpg").write_bytes((folder / "china0.jpg").read_bytes()[:500])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.webp").touch()
    (folder / "notes.txt").write_text("is no picture and is not counted as one")
    return folder


def test_bad_pictures_are_named_and_left_out(pictures: Path) -> None:
    folder = scan_folder(pictures)
    assert len(folder.pictures) == 12
    assert {path.name for path in folder.unreadable} == {"torn.jpg", "text.png", "empty.webp"}


def test_the_fingerprint_is_that_of_the_content(pictures: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "a", tmp_path / "b"]
    for copy in copies:
        copy.mkdir()
        for path in scan_folder(pictures).pictures:
            (copy / path.name).write_bytes(path.read_bytes())
    first, second = (scan_folder(copy).fingerprint for copy in copies)
    assert first == second == scan_folder(pictures).fingerprint
    (copies[0] / "china0.jpg").write_bytes((pictures / "china1.jpg").read_bytes())
    assert scan_folder(copies[0]).fingerprint != first


@pytest.mark.parametrize("folder", ["gone", "few"])
def test_a_folder_without_enough_pictures_says_what_is_needed(pictures: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "few").mkdir()
    for path in scan_folder(pictures).pictures[:9]:
        (tmp_path / "few" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"not a folder|holds 9 usable pictures; at least 10 are needed"):
        scan_folder(tmp_path / folder)


def test_crops_spread_evenly_over_the_pictures(pictures: Path) -> None:
    options = CropsOptions(train_images=30, val_images=13)
    arrays = make_crops(options, 56, 0, scan_folder(pictures).pictures)
    assert arrays.train_images.shape == (30, 3, 56, 56)
    assert np.bincount(arrays.train_labels).tolist() == [3] * 6 + [2] * 6
    assert len(arrays.val_labels) == 13
    again = make_crops(options, 56, 0, scan_folder(pictures).pictures)
    assert np.array_equal(arrays.train_images, again.train_images)


def test_crops_get_noise_and_flips_from_the_generator_alone() -> None:
    batch = (torch.zeros(8, 3, 4, 4), torch.arange(8))
    first, second = (augment_crops(CropsOptions(), batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[0].std().item() == pytest.approx(0.15, rel=0.2)


def test_prepared_data_is_made_once_and_refused_when_the_folder_has_changed(pictures: Path, tmp_path: Path) -> None:
    settings = [f"data.root={pictures}", "data.options={train_images: 24, val_images: 12}"]
    spec = expand(load_grid("photos", settings)).plans[0].spec.data
    data = prepare(spec, pictures)
    assert spec.num_classes == 12
    assert (len(data.train_images), data.train_images.side) == (24, (56, 56))
    assert torch.equal(prepare(spec, Path("/gone")).train_images[:], data.train_images[:])
    changed = spec.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(ValueError, match="its pictures have changed; launch again"):
        prepare(changed, pictures)


def test_the_number_of_training_images_is_known_before_they_are_made(pictures: Path, tmp_path: Path) -> None:
    for index in range(5):
        for name in ("cats", "dogs"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (60, 60), (0, 40 * index, 99)).save(tmp_path / name / f"{index}.png")
    few = "options: {train_images: 24, val_images: 12}"
    for data in (f"name: scenes, {few}", f"name: crops, root: {pictures}, {few}", f"name: folder, root: {tmp_path}"):
        grid = load_grid("demo", [f"data={{{data}}}"])
        expansion = expand(grid)
        made = prepare(expansion.plans[0].spec.data, grid.data.folder)
        assert expansion.source.train_images == len(made.train_images)


def test_counted_randomness_differs_between_streams_and_positions() -> None:
    draws = {
        (stream, position): torch.rand(1, generator=generator(0, stream, position)).item()
        for stream in (Stream.ORDER, Stream.AUGMENT)
        for position in range(50)
    }
    assert len(set(draws.values())) == 100
    assert sorted(epoch_order(0, 3, 10).tolist()) == list(range(10))
    assert not torch.equal(epoch_order(0, 3, 10), epoch_order(0, 4, 10))


def test_transparency_shows_white_and_a_picture_of_one_colour_is_left_out(pictures: Path) -> None:
    clear = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (30, 30, 60, 90))
    clear.save(pictures / "drawing.png")
    Image.new("RGBA", (120, 120), (9, 9, 9, 0)).save(pictures / "nothing.png")
    drawn = np.asarray(open_picture(pictures / "drawing.png", 64))
    assert drawn[0, 0].tolist() == [255, 255, 255]
    assert drawn[45, 45].tolist() == [0, 0, 0]
    folder = scan_folder(pictures)
    assert pictures / "drawing.png" in folder.pictures
    assert "one flat colour" in folder.unreadable[pictures / "nothing.png"]
