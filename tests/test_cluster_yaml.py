"""cluster.yaml as Ray's own launcher sees it."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from sweep.grid.load import load_grid
from sweep.service.cluster import needs_of

ROOT = Path(__file__).parents[1]
IGNORED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonschema's, inside Ray


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


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
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_there_is_one_worker_type_with_a_gpu_on_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert set(types) == {"head", "gpu_worker"}
    assert types["gpu_worker"]["resources"]["GPU"] == 1
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("grid", sorted((ROOT / "sweep" / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_trial_of_each_grid_fits_a_worker(config: dict[str, Any], grid: Path) -> None:
    shipped = load_grid(grid.stem, [])
    worker = config["available_node_types"]["gpu_worker"]["resources"]
    for architecture in shipped.architectures:
        needs = needs_of(shipped.resources.of_architecture(architecture))
        assert all(amount <= worker[name] for name, amount in needs.items())


def test_every_node_starts_with_token_authentication(config: dict[str, Any]) -> None:
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert any(".bashrc" in command and "RAY_AUTH_MODE=token" in command for command in config["setup_commands"])


def test_what_is_mounted_is_there_and_suffices_for_an_installation(config: dict[str, Any]) -> None:
    mounted = {local for local in config["file_mounts"].values() if not local.startswith("~")}
    assert all((ROOT / path).exists() for path in mounted)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert mounted == packages | {"pyproject.toml", project["project"]["readme"]}


def test_nodes_get_the_launchers_own_needs_and_a_python_that_the_project_takes(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    setup = "\n".join(config["setup_commands"])
    assert "weight-banding[cluster]" in setup
    names = {re.split(r"[><=\[]", requirement)[0] for requirement in project["optional-dependencies"]["cluster"]}
    assert {"boto3", "ray", "s3fs"} <= names
    found = re.search(r"--python (\d+)\.(\d+)", setup)
    least = re.search(r"(\d+)\.(\d+)", project["requires-python"])
    assert found is not None
    assert least is not None
    assert tuple(map(int, found.groups())) >= tuple(map(int, least.groups()))


def test_every_node_names_its_image_for_rays_own_is_too_old(config: dict[str, Any]) -> None:
    for node_type in config["available_node_types"].values():
        assert "ubuntu-24.04" in node_type["node_config"]["ImageId"]
        assert config["auth"]["ssh_user"] == "ubuntu"


def test_node_settings_are_ones_that_ec2_knows(config: dict[str, Any]) -> None:
    assert node_errors(config) == ""


@pytest.mark.parametrize(
    "harm",
    [
        lambda node: node.update(InstanceTyp="m6i.xlarge"),
        lambda node: node.update(IamInstanceProfile={"Nam": "x"}),
        lambda node: node["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="much"),
    ],
)
def test_the_check_of_node_settings_can_fail(config: dict[str, Any], harm: Any) -> None:
    harm(config["available_node_types"]["gpu_worker"]["node_config"])
    assert node_errors(config) != ""


def node_errors(config: dict[str, Any]) -> str:
    """What EC2's own description of RunInstances finds wrong with the node settings."""
    session = pytest.importorskip("botocore.session", reason="botocore comes with the extra `cluster`")
    validate = pytest.importorskip("botocore.validate")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    counts = {"MinCount": 1, "MaxCount": 1}  # as Ray adds them
    nodes = [node_type["node_config"] | counts for node_type in config["available_node_types"].values()]
    return "".join(validate.ParamValidator().validate(node, shape).generate_report() for node in nodes)


def test_workers_watch_for_the_end_of_their_spot_instance(config: dict[str, Any]) -> None:
    *_, watch = config["worker_start_ray_commands"]
    assert "python -m sweep.spot" in watch
    assert watch.endswith("&")
    for command in config["setup_commands"] + config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_documented_commands_make_the_roles_that_the_file_names(config: dict[str, Any], tmp_path: Path) -> None:
    (script,) = re.findall(r"```shell\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    command = tmp_path / "aws"
    command.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-eu", "-c", script], env=environment, capture_output=True, text=True, check=True)
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    made = {option(call, "--instance-profile-name") for call in calls if call[1] == "create-instance-profile"}
    nodes = config["available_node_types"]
    assert made == {node["node_config"]["IamInstanceProfile"]["Name"] for node in nodes.values()}
    policies = {
        (option(call, "--role-name"), option(call, "--policy-name")): json.loads(option(call, "--policy-document"))
        for call in calls
        if call[1] == "put-role-policy"
    }
    assert ("weight-banding-worker", "storage") in policies
    passed = policies["weight-banding-head", "launch"]["Statement"][1]
    assert passed["Action"] == "iam:PassRole"
    assert passed["Resource"].endswith(f"role/{nodes['gpu_worker']['node_config']['IamInstanceProfile']['Name']}")


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]
