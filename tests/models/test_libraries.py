"""Names of libraries' networks, and networks made from them without any download."""

import pytest
import torch

from models import libraries


def test_a_pattern_means_the_networks_that_match_it_and_a_name_only_itself() -> None:
    assert libraries.names("timm", "test_re*", trained=False) == ["test_resnet"]
    assert libraries.names("timm", "test_resnet", trained=True) == ["test_resnet"]
    assert libraries.names("timm", "test_resnet.*", trained=True) == ["test_resnet.r160_in1k"]
    assert libraries.names("torchvision", "vgg11.*", trained=True) == ["vgg11.IMAGENET1K_V1"]


@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_a_library_has_many_networks_and_more_weights(library: str) -> None:
    untrained, trained = (libraries.names(library, "", trained) for trained in (False, True))
    assert len(trained) > len(untrained) > 100
    assert all("." in name for name in trained)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        libraries.names("torchvision", "resnet-18", trained=False)


def test_random_weights_are_the_same_each_time() -> None:
    first, second = (libraries.build("timm", "test_resnet", trained=False).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_skeleton_takes_no_memory_and_knows_its_images() -> None:
    net = libraries.skeleton("timm", "test_resnet")
    assert net is not None
    assert {parameter.device.type for parameter in net.parameters()} == {"meta"}
    assert libraries.image_shape(net) == (3, 160, 160)
    assert libraries.skeleton("torchvision", "regnet_y_400mf") is None  # its constructor needs numbers
    detector = libraries.skeleton("torchvision", "fasterrcnn_mobilenet_v3_large_fpn")  # would fetch its backbone
    assert detector is not None
    assert libraries.image_shape(detector) == (3, 224, 224)
