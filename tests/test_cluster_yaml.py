"""cluster.yaml as Ray's own launcher sees it."""

import copy
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.loader import load_function_or_class
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.util.accelerators import accelerators

from sweep.grid.load import load_grid
from sweep.service.cluster import needs_of
from sweep.spec import Resources

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
        lambda config: config["available_node_types"]["a10g"].update(min_workers=99),
        lambda config: config["available_node_types"]["a10g"].update(resource={}),
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


def test_workers_are_spot_instances_of_several_kinds_and_sizes(config: dict[str, Any]) -> None:
    offers = {(kind_of(node), node["resources"].get("GPU", 0)) for node in workers(config).values()}
    assert offers >= {("", 0), ("A10G", 1), ("L4", 1), ("A10G", 4), ("L4", 4), ("A100", 8), ("H100", 1), ("H100", 8)}
    for node in workers(config).values():
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert "min_workers" not in node
    assert config["provider"]["cache_stopped_nodes"] is False


def test_kinds_of_gpu_are_ones_that_ray_finds_on_a_node_and_a_trial_may_name(config: dict[str, Any]) -> None:
    known = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    for name, node in workers(config).items():
        assert (kind_of(node) in known) == ("GPU" in node["resources"]), name
        if kind_of(node):
            resources = Resources(gpus=1, cpus=1, accelerator=kind_of(node))
            assert all(amount <= node["resources"][need] for need, amount in needs_of(resources).items())


def test_a_refused_spot_instance_is_started_on_demand_in_any_of_several_zones(config: dict[str, Any]) -> None:
    pytest.importorskip("boto3", reason="boto3 comes with the extra `cluster`")
    provider = config["provider"]
    assert load_function_or_class(provider["module"]).__module__ == "sweep.service.ec2"
    zones = provider["availability_zone"].split(",")
    assert len(zones) >= 3
    assert all(zone.startswith(provider["region"]) for zone in zones)


def test_root_disks_are_small_and_say_what_they_can_do(config: dict[str, Any]) -> None:
    for node in config["available_node_types"].values():
        (disk,) = [mapping["Ebs"] for mapping in node["node_config"]["BlockDeviceMappings"]]
        assert disk["VolumeSize"] <= 100
        assert disk["VolumeType"] == "gp3"
        assert {"Iops", "Throughput", "Encrypted"} <= set(disk)


@IGNORED
@pytest.mark.parametrize(
    ("needs", "trials", "started"),
    [
        ({"CPU": 4, "GPU": 0.5}, 2, {"a10g": 1}),
        ({"CPU": 8, "GPU": 1}, 2, {"a10g": 2}),  # an L4 would hold them as well: priority decides
        ({"CPU": 4, "GPU": 1}, 16, {"a10g-4": 2, "l4-4": 2}),
        ({"CPU": 8, "GPU": 1, "accelerator_type:L4": 0.001}, 1, {"l4": 1}),
        ({"CPU": 32, "GPU": 4}, 1, {"a10g-4": 1}),
        ({"CPU": 8, "GPU": 1, "accelerator_type:H100": 0.001}, 1, {}),
        ({"CPU": 4}, 2, {"cpu": 1}),
    ],
)
def test_rays_autoscaler_starts_what_trials_need_and_nothing_dear(
    config: dict[str, Any], needs: dict[str, float], trials: int, started: dict[str, int]
) -> None:
    assert nodes_for(config, needs, trials) == started


@IGNORED
def test_open_types_are_taken_by_size_whatever_they_cost(config: dict[str, Any]) -> None:
    """What the comment in the file says of Ray, and why the dear types are closed."""
    dear = {name for name, node in workers(config).items() if node["max_workers"] == 0}
    assert dear == {"a10g-8", "h100", "a100-8", "h100-8"}
    for name in dear:
        config["available_node_types"][name]["max_workers"] = 1
    assert nodes_for(config, {"CPU": 4, "GPU": 1}, 8) == {"a100-8": 1}
    assert nodes_for(config, {"CPU": 8, "GPU": 1, "accelerator_type:H100": 0.001}, 1) == {"h100": 1}


def workers(config: dict[str, Any]) -> dict[str, Any]:
    return {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}


def kind_of(node: dict[str, Any]) -> str:
    """A node's kind of GPU in Ray's words; empty without one."""
    (kind,) = [name.removeprefix("accelerator_type:") for name in node["resources"] if ":" in name] or [""]
    return kind


def nodes_for(config: dict[str, Any], needs: dict[str, float], trials: int) -> dict[str, int]:
    """How many nodes of each type Ray's autoscaler starts for trials with these needs."""
    types = AutoscalingConfig(validate(config), skip_content_hash=True).get_node_type_configs()
    waiting = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(needs) for _ in range(trials)])
    request = SchedulingRequest(
        resource_requests=waiting, node_type_configs=types, max_num_nodes=config["max_workers"] + 1,
        disable_launch_config_check=True,
    )  # fmt: skip
    launches = ResourceDemandScheduler(None).schedule(request).to_launch
    return {launch.instance_type: launch.count for launch in launches}


@pytest.mark.parametrize("grid", sorted((ROOT / "sweep" / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_trial_of_each_grid_fits_the_smallest_worker(config: dict[str, Any], grid: Path) -> None:
    shipped = load_grid(grid.stem, [])
    worker = config["available_node_types"]["a10g"]["resources"]
    for architecture in shipped.architectures:
        needs = needs_of(shipped.resources.of_architecture(architecture))
        assert all(amount <= worker[name] for name, amount in needs.items())


def test_every_node_starts_with_token_authentication(config: dict[str, Any]) -> None:
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert any(".bashrc" in command and "RAY_AUTH_MODE=token" in command for command in config["setup_commands"])


def test_only_its_owner_reads_a_token(config: dict[str, Any], tmp_path: Path) -> None:
    (made,) = re.findall(r"^# +(\(umask .*?\)) ", (ROOT / "cluster.yaml").read_text(), re.MULTILINE)
    (kept,) = [command for command in config["setup_commands"] if "auth_token" in command]
    ray = tmp_path / "ray"  # leaves the file's mode to the umask, as Ray's own does
    ray.write_text('#!/bin/sh\ntest "$RAY_AUTH_MODE" = token && mkdir -p ~/.ray && echo secret >~/.ray/auth_token\n')
    ray.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    token = tmp_path / ".ray" / "auth_token"
    subprocess.run(["bash", "-euc", f"umask 022; {made}"], env=environment, check=True)
    assert token.stat().st_mode & 0o777 == 0o600
    token.chmod(0o644)
    subprocess.run(["bash", "-euc", kept], env=environment, check=True)
    assert token.stat().st_mode & 0o777 == 0o600


def test_what_is_mounted_is_there_and_suffices_for_an_installation(config: dict[str, Any]) -> None:
    mounted = {local for local in config["file_mounts"].values() if not local.startswith("~")}
    assert all((ROOT / path).exists() for path in mounted)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert mounted == packages | {"pyproject.toml", project["project"]["readme"], ".ci/constraints.txt"}


def test_nodes_get_the_launchers_own_needs_and_a_python_that_the_project_takes(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    setup = "\n".join(config["setup_commands"])
    assert re.search(r"pip install .*-c constraints\.txt .*weight-banding\[cluster\]", setup)
    assert re.search(r"/uv/\d+\.\d+\.\d+/install\.sh", setup)
    names = {re.split(r"[><=\[]", requirement)[0] for requirement in project["optional-dependencies"]["cluster"]}
    assert {"boto3", "ray", "s3fs"} <= names
    found = re.search(r"--python (\d+)\.(\d+)", setup)
    least = re.search(r"(\d+)\.(\d+)", project["requires-python"])
    assert found is not None
    assert least is not None
    assert tuple(map(int, found.groups())) >= tuple(map(int, least.groups()))


def test_every_node_names_its_image_for_rays_own_is_too_old(config: dict[str, Any]) -> None:
    for node_type in config["available_node_types"].values():
        assert re.search(r"ubuntu(-|/server/)24\.04", node_type["node_config"]["ImageId"])
        assert ("nvidia" in node_type["node_config"]["ImageId"]) == bool(node_type["resources"].get("GPU"))
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
    harm(config["available_node_types"]["a10g"]["node_config"])
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
