"""What neurons respond to: a network that answers to a known pattern gives exactly the windows that hold it."""

import io
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from upath import UPath

from analysis.picture import png
from analysis.write import write_bytes
from models.convnet import ConvNet
from sweep.data.images import Images
from sweep.data.prepare import PreparedData, prepare
from sweep.grid.schema import Grid
from sweep.results.example_sheets import EXAMPLES, TILE, DamagedSheetError, examples_of, read_sheet, sheet
from sweep.results.examples import EXAMPLES_OF_NEURONS, GREY, draw_examples, find_examples, tile_of
from sweep.results.measuring import measure_sweep
from sweep.results.tables import COLUMNS, Row, read_table, table_of
from sweep.spec import Plan, TrialSpec
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial
from tests.command import document, run

SIDE, KERNEL, STRIDE, PADDING = 56, 8, 4, 2
LAYER = "features.conv"
RNG = np.random.default_rng(0)
PATTERN = RNG.choice([-4, 4], size=(3, KERNEL, KERNEL)).astype(np.int16)
ELSEWHERE = 128  # the level that scenes are normalised to 0
PLACES = [(3, 5), (13, 13), (0, 2), (7, 0), (5, 5), (9, 1), (1, 9), (12, 6), (4, 4), (8, 8)]
"""Where in the map the pattern of each image is; those of images 1, 2 and 3 reach beyond the border."""


def planted(strengths: list[int], places: list[tuple[int, int]]) -> np.ndarray:
    """Images uint8[n, 3, SIDE, SIDE]: the pattern so strong, where a position sees it, and nothing else."""
    images = np.full((len(strengths), 3, SIDE + 2 * KERNEL, SIDE + 2 * KERNEL), ELSEWHERE, dtype=np.uint8)
    for image, strength, (row, column) in zip(images, strengths, places, strict=True):
        top, left = (KERNEL + place * STRIDE - PADDING for place in (row, column))
        image[:, top : top + KERNEL, left : left + KERNEL] = ELSEWHERE + strength * PATTERN
    return images[:, :, KERNEL:-KERNEL, KERNEL:-KERNEL]


@pytest.fixture
def net() -> ConvNet:
    """A conv whose neuron 0 looks for the pattern, neuron 1 for its negative, and neuron 2 for nothing."""
    conv = nn.Conv2d(3, 3, KERNEL, STRIDE, PADDING, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(PATTERN).float() * torch.tensor([1.0, -1, 0])[:, None, None, None])
    return ConvNet(nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(inplace=True))), [LAYER], 5, SIDE)


@pytest.fixture
def spec(plan: Plan) -> TrialSpec:
    return plan.spec


@pytest.fixture
def data(plan: Plan) -> PreparedData:
    return prepare(plan.spec.data, plan.root)


def showing(data: PreparedData, images: np.ndarray) -> PreparedData:
    return replace(data, val_images=Images([images]))


def told(row: Row, name: str) -> list[object]:
    return list(json.loads(row[name]))


def tiles_of(picture: Image.Image, examples: int) -> np.ndarray:
    """The tiles [n, k, y, x, 3] of a sheet, cut out one by one."""
    pixels, each = np.asarray(picture), TILE + 1
    across = [
        [pixels[r : r + TILE, c : c + TILE] for c in range(0, each * examples, each)]
        for r in range(0, len(pixels), each)
    ]
    return np.array(across)


@pytest.mark.parametrize("intervention", ["baseline", "rotate90", "rotate180"])
def test_a_planted_neuron_gives_exactly_its_windows(
    net: ConvNet, data: PreparedData, spec: TrialSpec, intervention: str
) -> None:
    strengths = [3, 9, 8, 7, 11, 5, 4, 10, 2, 1]
    turns = {"baseline": 0, "rotate90": 3, "rotate180": 2}[intervention]  # which the intervention undoes
    images = np.ascontiguousarray(np.rot90(planted(strengths, PLACES), turns, axes=(2, 3)))
    changed = spec.model_copy(update={"intervention": intervention})
    rows = find_examples(net, showing(data, images), changed, 256)
    assert [(row["layer"], row["neuron"], row["images"]) for row in rows] == [(LAYER, n, 10) for n in range(3)]
    assert told(rows[0], "image_numbers") == [4, 7, 2, 3, 1, 5, 6, 0]
    whole = (PATTERN.astype(float) ** 2).sum() / 42
    seen = np.array([11, 10, 8 * 6 / 8, 7 * 6 / 8, 9 * 6 / 8 * 6 / 8, 5, 4, 3])  # of 8 rows or columns, 2 are outside
    assert told(rows[0], "activations") == pytest.approx((whole * seen).tolist(), rel=1e-5)
    picture = draw_examples(showing(data, images), changed, rows)[LAYER]
    drawn = tiles_of(picture, EXAMPLES)[0]
    for place, image in enumerate(told(rows[0], "image_numbers")):
        row, column = PLACES[image]  # type: ignore[call-overload]
        top, left = row * STRIDE - PADDING, column * STRIDE - PADDING
        assert told(rows[0], "positions")[place] == [row, column]
        assert told(rows[0], "windows")[place] == [top, left, top + KERNEL, left + KERNEL]
        window = (ELSEWHERE + strengths[image] * PATTERN).transpose(1, 2, 0)  # type: ignore[call-overload]
        window[: max(0, -top)] = GREY
        window[:, : max(0, -left)] = GREY
        window[SIDE - top :] = GREY
        window[:, SIDE - left :] = GREY
        assert np.array_equal(drawn[place], window.repeat(TILE // KERNEL, axis=0).repeat(TILE // KERNEL, axis=1))


def test_the_number_is_the_convs_own_output_whatever_comes_after_it(
    net: ConvNet, data: PreparedData, spec: TrialSpec
) -> None:
    images = planted([2] * 9, PLACES[:1] * 9)
    images[:, :, ::STRIDE] = 255  # light everywhere
    net.features[0].bias = nn.Parameter(torch.full((3,), -1e6))  # ReLU would leave zeros
    row = find_examples(net, showing(data, images), spec, 256)[2]
    assert told(row, "activations") == [-1e6] * EXAMPLES
    assert told(row, "image_numbers") == list(range(EXAMPLES))  # of equal ones the first


def test_an_image_counts_once_however_often_the_pattern_is_in_it(
    net: ConvNet, data: PreparedData, spec: TrialSpec
) -> None:
    twice = np.maximum(planted([9], [(2, 2)]), 0)
    window = (slice(None), slice(None), slice(30, 38), slice(30, 38))
    twice[window] = planted([8], [(8, 8)])[window]
    once = planted([5, 1], [(3, 3), (4, 4)])
    rows = find_examples(net, showing(data, np.concatenate([once[:1], twice, once[1:]])), spec, 256)
    assert told(rows[0], "image_numbers") == [1, 0, 2]
    assert told(rows[0], "positions") == [[2, 2], [3, 3], [4, 4]]


def test_only_so_many_images_are_looked_at_evenly_spaced(net: ConvNet, data: PreparedData, spec: TrialSpec) -> None:
    images = planted([1, 9, 2, 9, 3], [(3, 3)] * 5)
    row = find_examples(net, showing(data, images), spec, 3)[0]
    assert (row["images"], told(row, "image_numbers")) == (3, [4, 2, 0])


def test_outputs_that_are_not_finite_are_told(net: ConvNet, data: PreparedData, spec: TrialSpec) -> None:
    with torch.no_grad():
        net.features[0].weight[1] = torch.nan
    with pytest.raises(ValueError, match=r"outputs of features\.conv must be finite; did training diverge"):
        find_examples(net, showing(data, planted([1], [(3, 3)])), spec, 8)


def test_a_large_window_is_averaged_and_a_narrow_one_keeps_its_shape() -> None:
    picture = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    averaged = picture.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(tile_of(picture, (0, 0, 64, 64)) - averaged).max() <= 1
    tile = tile_of(picture, (0, 0, 64, 16))
    assert (tile[:, :12] == GREY).all()
    assert (tile[:, 20:] == GREY).all()
    assert np.abs(tile[:, 12:20] - averaged[:, :8]).max() <= 1


@pytest.fixture
def drawn(sweep: SweepDir) -> np.ndarray:
    """The sheet of a trial `t`."""
    tiles = RNG.integers(0, 256, (5, 3, TILE, TILE, 3)).astype(np.uint8)
    write_bytes(sweep.trial("t").measured_picture("examples", 7, LAYER), png(sheet(tiles)))
    return tiles


def test_a_sheet_is_read_as_it_was_drawn(sweep: SweepDir, drawn: np.ndarray) -> None:
    found = read_sheet(sweep.trial("t"), 7, LAYER)
    assert found is not None
    assert np.array_equal(found, drawn)
    assert read_sheet(sweep.trial("t"), 8, LAYER) is None


@pytest.mark.parametrize("keep", [0, 9, 60, 2000, -200])
def test_a_damaged_sheet_is_told(sweep: SweepDir, drawn: np.ndarray, keep: int) -> None:
    file = sweep.trial("t").measured_picture("examples", 7, LAYER)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DamagedSheetError, match=r"conv\.png is damaged; remove it, and `sweep examples` draws"):
        read_sheet(sweep.trial("t"), 7, LAYER)


def test_a_picture_of_another_size_is_no_sheet(sweep: SweepDir) -> None:
    picture = Image.new("RGB", (40, 40))
    write_bytes(sweep.trial("t").measured_picture("examples", 7, LAYER), png(picture))
    with pytest.raises(DamagedSheetError, match="is no sheet of tiles"):
        read_sheet(sweep.trial("t"), 7, LAYER)


ROW = {
    "trial_id": "t", "step": 7, "layer": LAYER, "neuron": 4, "images": 16, "activations": "[2.5, 1.0, -0.5]",
    "image_numbers": "[11, 3, 8]", "positions": "[[0, 1], [2, 3], [4, 5]]",
    "windows": "[[-2, 2, 6, 12], [6, 10, 14, 20], [14, 18, 22, 28]]",
}  # fmt: skip


def test_the_row_of_a_neuron_and_its_tiles_make_its_examples(drawn: np.ndarray) -> None:
    rows = table_of("examples", [{**ROW, "neuron": 3}, ROW])
    found = examples_of(rows, drawn, 7, LAYER, 4)
    assert found is not None
    assert (found.images, found.height, found.width) == (16, 8, 10)
    assert [(e.activation, e.image, e.row, e.column) for e in found.strongest] == [
        (2.5, 11, 0, 1), (1.0, 3, 2, 3), (-0.5, 8, 4, 5),
    ]  # fmt: skip
    assert all(np.array_equal(e.picture, tile) for e, tile in zip(found.strongest, drawn[4], strict=True))
    assert examples_of(rows, drawn, 7, LAYER, 2) is None
    assert examples_of(rows, drawn, 8, LAYER, 4) is None
    assert examples_of(rows, drawn[:4], 7, LAYER, 4) is None


@pytest.mark.parametrize("harm", [{"positions": "[1]"}, {"windows": "[]"}, {"activations": "{"}, {"activations": None}])
def test_a_damaged_row_is_as_good_as_none(drawn: np.ndarray, harm: Row) -> None:
    assert examples_of(table_of("examples", [ROW | harm]), drawn, 7, LAYER, 4) is None


@pytest.fixture
def trained(sweep: SweepDir, plan: Plan, tiny: Grid) -> SweepDir:
    sweep.add([plan])
    sweep.record_launch(tiny.model_dump(mode="json"))
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    return sweep


def outcomes(sweep: SweepDir, images: int = 12) -> list[str]:
    return [done.outcome for done in measure_sweep(sweep, EXAMPLES_OF_NEURONS, images)]


@pytest.mark.slow
def test_examples_are_found_once_for_each_checkpoint(trained: SweepDir, plan: Plan) -> None:
    assert outcomes(trained) == ["examples found"]
    table = read_table(trained.path, "examples")
    assert list(table) == list(COLUMNS["examples"])
    assert table["neuron"].tolist() == 2 * list(range(48))
    assert table["layer"].unique().tolist() == list(plan.layers)
    assert set(table["images"]) == {12}
    trial = trained.trial(plan.trial_id)
    before = {layer: trial.measured_picture("examples", 9, layer).read_bytes() for layer in plan.layers}
    assert all(Image.open(io.BytesIO(data)).size == (8 * 33 - 1, 48 * 33 - 1) for data in before.values())
    assert outcomes(trained) == ["there already"]
    trial.measured_picture("examples", 9, plan.layers[0]).unlink()
    assert outcomes(trained) == ["examples found"]
    assert {layer: trial.measured_picture("examples", 9, layer).read_bytes() for layer in plan.layers} == before
    assert outcomes(trained, 5) == ["examples found"]
    assert set(read_table(trained.path, "examples")["images"]) == {5}
    rows = json.loads(trial.measured_file("examples").read_text())
    earlier = trial.measured_pictures("examples") / "0" / "features.3b.conv.png"
    write_bytes(earlier, b"of an earlier checkpoint")
    trial.measured_file("examples").write_text(json.dumps([row | {"step": 0} for row in rows]))
    assert outcomes(trained, 5) == ["examples found"]
    assert not earlier.exists()


@pytest.mark.slow
def test_what_is_interrupted_while_pictures_are_written_is_not_there(
    trained: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcomes(trained) == ["examples found"]

    def fail(path: UPath, content: bytes) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("sweep.results.measuring.write_bytes", fail)
        assert outcomes(trained, 5) == ["OSError: the disk is full"]
    assert read_table(trained.path, "examples").empty
    assert outcomes(trained) == ["examples found"]


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_others_go_on(trained: SweepDir, torn: str) -> None:
    found = document("examples", str(trained.path), "--images", "12", code=1)
    failed = {trial["trial_id"]: trial["outcome"] for trial in found["trials"] if trial["failed"]}
    assert list(failed) == [torn]
    assert failed[torn].endswith("its sha256 differs from the manifest's")
    assert {row["trial_id"] for row in found["examples"]} == {t["trial_id"] for t in found["trials"]} - set(failed)
    assert len(found["examples"]) == 2 * 48
    assert len(json.loads(found["examples"][0]["activations"])) == EXAMPLES
    assert "1 of 2 trials: there already" in run("examples", str(trained.path), "--images", "12", code=1)


@pytest.mark.slow
def test_starting_from_scratch_sets_examples_aside(trained: SweepDir, plan: Plan) -> None:
    outcomes(trained)
    trial = trained.trial(plan.trial_id)
    trial.set_aside()
    assert outcomes(trained) == ["no checkpoint"]
    beside = trial.attempts / "1"
    assert {path.name for path in (beside / "examples" / "9").iterdir()} == {f"{layer}.png" for layer in plan.layers}
    assert not trial.measured_pictures("examples").exists()


@pytest.mark.slow
def test_examples_are_kept_in_an_object_store(trained: SweepDir, plan: Plan) -> None:
    storage = UPath("memory://examples/[runs]/demo")
    storage.fs.put(trained.path.path, storage.path, recursive=True)
    sweep = SweepDir(storage)
    assert outcomes(sweep) == ["examples found"]
    assert outcomes(sweep) == ["there already"]
    tiles = read_sheet(sweep.trial(plan.trial_id), 9, plan.layers[0])
    assert tiles is not None
    found = examples_of(read_table(sweep.path, "examples"), tiles, 9, plan.layers[0], 47)
    assert found is not None
    assert len(found.strongest) == EXAMPLES


def test_a_tile_says_where_a_sheet_has_been_written(tmp_path: Path) -> None:
    trial = SweepDir(UPath(tmp_path)).trial("t")
    assert trial.measured_picture("examples", 3, "a.b").path.endswith("trials/t/examples/3/a.b.png")
