"""Build a network from the names of its architecture and intervention."""

import torch

from models.architectures import architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from models.names import require_known


def build(architecture: str, intervention: str, num_classes: int, image_size: int, seed: int) -> ConvNet:
    """Build an initialised network on the CPU; the same arguments give the same weights, bit for bit.

    Leaves PyTorch's global random state as it was.

    Raises:
        ValueError: a name is unknown; the message lists the allowed names and the nearest.
    """
    found = architecture_named(architecture)
    require_known("intervention", intervention, INTERVENTIONS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = found.build(num_classes, image_size)
        INTERVENTIONS[intervention].change_network(net)
        found.initialise(net)
    return net
