"""Read absolute position from a sweep's feature maps: each trial's newest checkpoint over its validation images.

Writes `trials/<id>/probe.json`, and from them `results/probes.parquet`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.position import read_position
from models.convnet import ConvNet
from sweep.data.prepare import PreparedData
from sweep.results.measuring import BATCH, Measurement, chosen_images
from sweep.results.tables import Row
from sweep.spec import TrialSpec

MAP = "map"
"""The last map's name among the layers: what the head sees."""


def probe(net: ConvNet, data: PreparedData, spec: TrialSpec, images: int) -> list[Row]:
    """R^2 of row and column, read from the last map and from the output of each conv to analyse (before batch norm)."""
    maps = feature_maps(net, chosen_images(data, data.val_images, spec, images))
    rows = []
    for layer, features in maps.items():
        readout = read_position(features)
        r2 = {"row_r2": readout.row_r2, "column_r2": readout.column_r2}
        rows.append({"layer": layer, **r2, "images": len(features)})
    return rows


POSITION = Measurement(table="probes", done="probed", measure=probe)


def feature_maps(net: ConvNet, images: Tensor) -> dict[str, np.ndarray]:
    """Output [n, c, h, w] of the body (`map`) and of each of the final convs, in evaluation mode."""
    net.eval()
    parts: dict[str, list[Tensor]] = {MAP: [], **{name: [] for name in net.final_convs}}

    def keep(name: str) -> Any:
        # An in-place ReLU after it would change what is kept, so copy.
        return net.get_submodule(name).register_forward_hook(lambda _, __, output: parts[name].append(output.clone()))

    hooks = [keep(name) for name in net.final_convs]
    with torch.no_grad():
        for batch in images.split(BATCH):
            parts[MAP].append(net.features(batch))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(found).numpy() for name, found in parts.items()}
