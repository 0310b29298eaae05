"""Pictures of trained weights are those of scikit-learn's NMF, which are the article's."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF
from torch import Tensor, nn

from analysis.banding import band_scores
from analysis.reduce import align_colours, reduce_weights, split_signs


@pytest.fixture(scope="module", params=[(32, 32, 5e-3, 300), (168, 16, 2e-2, 150)], ids=["small", "large"])
def trained(request: pytest.FixtureRequest) -> list[Tensor]:
    """The weights of two 5x5 convs that have learnt handwritten digits, with the weight decay that lets noise fade.

    The last one of the second network has matrices that are factorised as large ones.
    """
    wide, last, decay, steps = request.param
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convs = [nn.Conv2d(a, b, 5, padding=2, bias=False) for a, b in pairwise((1, 16, wide, last))]
        blocks = [nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()) for conv in convs]
        net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(images), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return [conv.weight.detach()[:32] for conv in convs[1:]]


def scikit_learns(weights: Tensor) -> np.ndarray:
    """The reduced weights as the article made them."""
    n, _, ky, kx = weights.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations: it needs more than its 200 for a few neurons
        factors = [NMF(3, init="nndsvd", random_state=0).fit_transform(x) for x in split_signs(weights).numpy()]
    aligned = align_colours(np.stack(factors).reshape(n, ky, kx, 3))
    return aligned / aligned.max(axis=(1, 2, 3), keepdims=True)


def test_a_trained_layers_picture_is_scikit_learns(trained: list[Tensor]) -> None:
    for weights in trained:
        ours, theirs = reduce_weights(weights), scikit_learns(weights)
        assert np.abs(ours - theirs).mean() <= 0.01
        mine, other = band_scores(ours), band_scores(theirs)
        assert abs(mine.horizontal - other.horizontal) <= 0.02
        assert abs(mine.vertical - other.vertical) <= 0.02
