"""What the neurons of a sweep's last convs respond to: the images that activate each most, at its newest checkpoint.

Writes `trials/<id>/examples/<step>/<layer>.png` and `trials/<id>/examples.json`, and from the latter
`results/examples.parquet`. Axis letters: `m` images looked at, `n` neurons, `p` positions (rows, columns flattened),
`k` examples, `s` side of an image, `y x` rows and columns of a window or a tile.

Source: dataset examples as in Olah et al., Feature Visualization, Distill 2017. The highest output of the conv itself,
before batch norm and ReLU, is what a neuron's weights give, and batch norm may turn its sign.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from models.convnet import ConvNet
from models.receptive_field import Extent, receptive_fields
from sweep.data.prepare import PreparedData
from sweep.results.example_sheets import EXAMPLES, TILE, sheet
from sweep.results.measuring import BATCH, Measurement, chosen_numbers, seen_images
from sweep.results.tables import Row
from sweep.spec import TrialSpec

GREY = 128
Window = tuple[int, int, int, int]
"""Top, left, bottom and right in pixels of an image, the latter two behind the last pixel."""


def find_examples(net: ConvNet, data: PreparedData, spec: TrialSpec, images: int) -> list[Row]:
    """The strongest of `images` validation images for each neuron of each of the final convs, at most `EXAMPLES`.

    Each image counts once, by its position with the highest output; of equal ones the first image stands first.

    Raises:
        ValueError: an output is not finite.
    """
    numbers = chosen_numbers(data.val_images, images)
    fields = receptive_fields(net)
    rows = []
    for layer, (highest, places, width) in _peaks(net, data, spec, numbers).items():
        if not highest.isfinite().all():
            raise ValueError(f"the outputs of {layer} must be finite; did training diverge?")
        field = fields[layer]
        activations, order = (part[:EXAMPLES].T for part in highest.sort(dim=0, descending=True, stable=True))
        for neuron, strongest in enumerate(order):
            positions = [divmod(int(place), width) for place in places[strongest, neuron]]
            rows.append({
                "layer": layer, "neuron": neuron, "images": len(numbers),
                "activations": json.dumps([float(f"{value:.6g}") for value in activations[neuron].tolist()]),
                "image_numbers": json.dumps(numbers[strongest].tolist()),
                "positions": json.dumps(positions),
                "windows": json.dumps([_window(field.rows, field.columns, *position) for position in positions]),
            })  # fmt: skip
    return rows


def draw_examples(data: PreparedData, spec: TrialSpec, rows: list[Row]) -> Mapping[str, Image.Image]:
    """A sheet for each layer: what the positions of the rows see, as the network was shown it."""
    wanted = [(json.loads(row["image_numbers"]), json.loads(row["windows"])) for row in rows]
    pictures = _pictures(data, spec, sorted({number for numbers, _ in wanted for number in numbers}))
    cut: dict[tuple[int, Window], UInt8[np.ndarray, "y x 3"]] = {}
    tiles: dict[str, list[list[np.ndarray]]] = {}
    for row, (numbers, windows) in zip(rows, wanted, strict=True):
        keys = [(number, tuple(window)) for number, window in zip(numbers, windows, strict=True)]
        for number, window in set(keys) - cut.keys():
            cut[number, window] = tile_of(pictures[number], window)
        tiles.setdefault(row["layer"], []).append([cut[key] for key in keys])
    return {layer: sheet(np.array(own)) for layer, own in tiles.items()}


EXAMPLES_OF_NEURONS = Measurement(table="examples", done="examples found", measure=find_examples, draw=draw_examples)


def tile_of(picture: UInt8[np.ndarray, "s s 3"], window: Window) -> UInt8[np.ndarray, "y x 3"]:
    """A window of a picture scaled to a tile, with grey for what is not of the picture.

    Pixels are averaged where a window is larger than a tile, and repeated where it is smaller.
    """
    top, left, bottom, right = window
    outside = Image.new("RGB", (right - left, bottom - top), (GREY,) * 3)
    outside.paste(Image.fromarray(picture), (-left, -top))
    scale = TILE / max(outside.size)
    width, height = (max(1, round(length * scale)) for length in outside.size)
    tile = Image.new("RGB", (TILE, TILE), (GREY,) * 3)
    tile.paste(outside.resize((width, height), Image.Resampling.BOX), ((TILE - width) // 2, (TILE - height) // 2))
    return np.asarray(tile)


def _peaks(
    net: ConvNet, data: PreparedData, spec: TrialSpec, numbers: Int64[Tensor, " m"]
) -> dict[str, tuple[Float[Tensor, "m n"], Int64[Tensor, "m n"], int]]:
    """The highest output of each neuron in each image and its place among a map's positions, and the map's width."""
    net.eval()
    highest: dict[str, list[Tensor]] = {name: [] for name in net.final_convs}
    places: dict[str, list[Tensor]] = {name: [] for name in net.final_convs}
    widths: dict[str, int] = {}
    with torch.no_grad():
        for batch in numbers.split(BATCH):
            _, outputs = net.maps(seen_images(data, data.val_images, spec, batch))
            for name, output in outputs.items():
                found = output.flatten(2).max(dim=2)
                highest[name].append(found.values)
                places[name].append(found.indices)
                widths[name] = output.shape[3]
    return {name: (torch.cat(highest[name]), torch.cat(places[name]), widths[name]) for name in net.final_convs}


def _window(rows: Extent, columns: Extent, row: int, column: int) -> Window:
    (top, bottom), (left, right) = rows.of(row), columns.of(column)
    return top, left, bottom, right


def _pictures(data: PreparedData, spec: TrialSpec, numbers: list[int]) -> dict[int, UInt8[np.ndarray, "s s 3"]]:
    """Images by number as the network is shown them, in pixel levels."""
    return dict(zip(numbers, _shown(data, spec, numbers), strict=True))


def _shown(data: PreparedData, spec: TrialSpec, numbers: list[int]) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
    for batch in torch.tensor(numbers).split(BATCH):
        yield from data.levels(seen_images(data, data.val_images, spec, batch)).permute(0, 2, 3, 1).numpy()
