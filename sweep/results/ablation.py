"""What a sweep's networks lose without their bands: each trial's newest checkpoint with simpler kernels.

Writes `trials/<id>/ablation.json`, and from them `results/ablations.parquet`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from analysis.ablation import CHANGES, Change
from models.convnet import ConvNet
from sweep.data.prepare import PreparedData
from sweep.results.measuring import BATCH, Measurement, chosen_images, chosen_numbers
from sweep.results.tables import Row
from sweep.spec import TrialSpec

ImageBatch = Float[Tensor, "b 3 s s"]


def ablate(net: ConvNet, data: PreparedData, spec: TrialSpec, images: int) -> list[Row]:
    """Accuracies on `images` validation images with the kernels of one conv changed, for each conv and change.

    `recalibrated_accuracy` is that after the running statistics of batch norm were taken anew on as many training
    images: with other kernels the old ones are wrong, which by itself costs accuracy.
    """
    seen = chosen_images(data, data.val_images, spec, images)
    labels = data.val_labels[chosen_numbers(data.val_images, images)]
    training = chosen_images(data, data.train_images, spec, images)
    rows = []
    for layer in net.final_convs:
        for change in CHANGES:
            with changed(net, layer, change):
                accuracy = accuracy_of(net, seen, labels)
                recalibrate(net, training)
                recalibrated = accuracy_of(net, seen, labels)
            rows.append({
                "layer": layer, "change": change, "accuracy": accuracy, "recalibrated_accuracy": recalibrated,
                "images": len(seen),
            })  # fmt: skip
    return rows


ABLATION = Measurement(table="ablations", done="ablated", measure=ablate)


@contextmanager
def changed(net: ConvNet, layer: str, change: Change) -> Iterator[None]:
    """A network with other kernels in one conv; afterwards its weights and statistics are what they were."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    conv = net.get_submodule(layer)
    assert isinstance(conv, nn.Conv2d)
    try:
        with torch.no_grad():
            conv.weight.copy_(CHANGES[change](conv.weight.clone(), torch.Generator().manual_seed(0)))
        yield
    finally:
        net.load_state_dict(before)


def recalibrate(net: ConvNet, images: ImageBatch) -> None:
    """Take the running statistics of all batch norms anew, as plain means over batches of images, all of one size.

    Raises:
        ValueError: there are fewer than two images, of which a batch norm of vectors can't take a variance.
    """
    if len(images) < 2:
        raise ValueError("batch norm needs at least 2 training images to take its statistics anew")
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    try:
        with torch.no_grad():
            for batch in images.tensor_split(math.ceil(len(images) / BATCH)):
                net(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def accuracy_of(net: ConvNet, images: ImageBatch, labels: Tensor) -> float:
    """Share of images whose class the network finds, in evaluation mode."""
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(batch).argmax(dim=1) for batch in images.split(BATCH)])
    return float((found == labels).float().mean())
