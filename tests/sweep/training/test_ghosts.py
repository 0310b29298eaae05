import copy

import torch
from torch import nn

from sweep.training.ghosts import RunningStatistics
from sweep.training.ranks import ALONE


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, momentum=0.3))


def buffers(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def step(net: nn.Module, parts: list[torch.Tensor]) -> None:
    statistics = RunningStatistics(net)
    statistics.begin_step()
    for part in parts:
        net(part)
        statistics.end_part()
    statistics.end_step(ALONE)


def test_one_part_moves_them_as_batch_norm_does() -> None:
    images = torch.randn(8, 3, 6, 6)
    net, plain = network(), network()
    for _ in range(2):
        step(net, [images])
        plain(images)
    for name, buffer in buffers(plain).items():
        assert torch.allclose(buffer, buffers(net)[name]), name


def test_several_parts_move_them_once_by_their_mean_in_any_order() -> None:
    parts = [torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * (1 + seed) for seed in range(3)]
    net, backwards = network(), network()
    each = []
    for part in parts:
        alone = copy.deepcopy(net)
        alone(part)
        each.append(buffers(alone))
    step(net, parts)
    step(backwards, parts[::-1])
    for name, found in buffers(net).items():
        assert torch.allclose(found.float(), torch.stack([one[name].float() for one in each]).mean(0), atol=1e-6), name
        assert torch.allclose(found, buffers(backwards)[name], atol=1e-6), name
    assert [module.momentum for module in net if isinstance(module, nn.BatchNorm2d)] == [0.1, 0.3]
