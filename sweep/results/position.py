"""Look at a sweep's feature maps: how well position can be read from them, and what bands they make likely.

Each trial's newest checkpoint sees its validation images.
Writes `trials/<id>/probe.json`, and from them `results/probes.parquet`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.nulls import input_null
from analysis.position import read_position
from models.convnet import ConvNet
from sweep.data.prepare import PreparedData
from sweep.results.measuring import BATCH, Measurement, chosen_images, evenly
from sweep.results.tables import Row
from sweep.spec import TrialSpec

MAP = "map"
"""The last map's name among the layers: what the head sees."""


def probe(net: ConvNet, data: PreparedData, spec: TrialSpec, images: int) -> list[Row]:
    """R^2 of row and column, read from the last map and from the output of each conv to analyse (before batch norm).

    Beside them, what kernels made of a conv's inputs would score.
    """
    chosen = chosen_images(data, data.val_images, spec, images)
    nulls = input_nulls(net, chosen)
    rows = []
    for layer, features in feature_maps(net, chosen).items():
        readout = read_position(features)
        r2 = {"row_r2": readout.row_r2, "column_r2": readout.column_r2}
        rows.append({"layer": layer, "images": len(features)} | r2 | nulls.get(layer, {}))
    return rows


POSITION = Measurement(table="probes", done="probed", measure=probe)


def input_nulls(net: ConvNet, images: Tensor) -> dict[str, Row]:
    """What kernels made of its own inputs score, for each of the final convs whose inputs have windows at all."""
    found: dict[str, Row] = {}

    def keep(name: str, conv: nn.Conv2d) -> Any:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            maps = inputs[0].unflatten(1, (conv.groups, -1)).flatten(0, 1)  # a neuron sees the channels of its group
            try:
                null = input_null(maps, (conv.kernel_size[0], conv.kernel_size[1]))
            except ValueError:  # maps smaller than the kernel, or a layer that is never active
                return
            found[name] = {"null_input_horizontal": null.horizontal, "null_input_vertical": null.vertical}

        return conv.register_forward_pre_hook(look)

    net.eval()
    hooks = [keep(name, conv) for name in net.final_convs if isinstance(conv := net.get_submodule(name), nn.Conv2d)]
    with torch.no_grad():
        net.features(images[evenly(len(images), BATCH)])  # ordered by class
    for hook in hooks:
        hook.remove()
    return found


def feature_maps(net: ConvNet, images: Tensor) -> dict[str, np.ndarray]:
    """Output [n, c, h, w] of the body (`map`) and of each of the final convs, in evaluation mode."""
    net.eval()
    parts: dict[str, list[Tensor]] = {MAP: [], **{name: [] for name in net.final_convs}}
    with torch.no_grad():
        for batch in images.split(BATCH):
            last, outputs = net.maps(batch)
            for name, found in {MAP: last, **outputs}.items():
                parts[name].append(found)
    return {name: torch.cat(found).numpy() for name, found in parts.items()}
