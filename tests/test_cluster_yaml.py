"""cluster.yaml as Ray's own launcher sees it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[1] / "cluster.yaml"
IGNORED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonschema's, inside Ray


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def validate(config: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@IGNORED
def test_rays_launcher_takes_it(config: dict[str, Any]) -> None:
    prepared = validate(config)
    assert prepared["head_node_type"] == "head"


@IGNORED
@pytest.mark.parametrize(
    "harm",
    [
        lambda config: config.update(max_worker=3),
        lambda config: config.update(head_node_type="haed"),
        lambda config: config["available_node_types"]["gpu_worker"].update(min_workers=99),
        lambda config: config["available_node_types"]["gpu_worker"].update(resource={}),
    ],
)
def test_the_check_can_fail(config: dict[str, Any], harm: Any) -> None:
    harm(config)
    with pytest.raises(Exception, match=r".+"):  # jsonschema's and Ray's own kinds
        validate(config)


def test_the_head_is_on_demand_and_runs_no_trials(config: dict[str, Any]) -> None:
    head = config["available_node_types"]["head"]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_there_is_one_worker_type_with_a_gpu_on_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert set(types) == {"head", "gpu_worker"}
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert config["provider"]["cache_stopped_nodes"] is False


def test_every_node_starts_with_token_authentication(config: dict[str, Any]) -> None:
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_node_settings_are_ones_that_ec2_knows(config: dict[str, Any]) -> None:
    session = pytest.importorskip("botocore.session", reason="botocore comes with the extra `cluster`")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for node_type in config["available_node_types"].values():
        for key, value in node_type["node_config"].items():
            assert key in shape.members
            if isinstance(value, dict):
                assert set(value) <= set(shape.members[key].members)
