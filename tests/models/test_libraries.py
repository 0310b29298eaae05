"""Names of libraries' networks, and networks made from them without any download."""

import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from huggingface_hub import constants as hub

from models import libraries
from tests.conftest import free_port


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


def test_torchvisions_weights_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = libraries.build("torchvision", "squeezenet1_1", trained=False).state_dict()
    state["classifier.1.bias"] += 1
    (url,) = {one.url for one in torchvision.models.SqueezeNet1_1_Weights}
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    net = libraries.build("torchvision", "squeezenet1_1", trained=True)
    assert torch.equal(net.state_dict()["classifier.1.bias"], state["classifier.1.bias"])


def test_timms_weights_come_from_its_cache_at_once_where_no_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    libraries._go_offline_without_a_network.cache_clear()
    with pytest.raises(OSError, match="cache"):
        libraries.build("timm", "test_resnet", trained=True)
    assert hub.HF_HUB_OFFLINE
    state = libraries.build("timm", "test_resnet", trained=False).state_dict()
    state["fc.bias"] += 1
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    safetensors.torch.save_file(state, folder / "snapshots" / "1" / "model.safetensors")
    net = libraries.build("timm", "test_resnet", trained=True)
    assert torch.equal(net.state_dict()["fc.bias"], state["fc.bias"])


def test_a_server_that_answers_and_a_proxy_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline = libraries._go_offline_without_a_network.__wrapped__
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        go_offline()
    assert not hub.HF_HUB_OFFLINE
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    go_offline()
    assert not hub.HF_HUB_OFFLINE
