"""The examples for other clouds, Kubernetes and machines of one's own, as their launchers see them."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
IGNORED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonschema's, inside Ray
VMS = ["gcp", "local"]


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    return read("kuberay/cluster")


@pytest.fixture
def job() -> dict[str, Any]:
    return read("kuberay/job")


@IGNORED
@pytest.mark.parametrize("name", VMS)
def test_rays_launcher_takes_it(name: str) -> None:
    validate_config(prepare_config(read(name)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(read(name) | {"max_worker": 3}))


@pytest.mark.parametrize("name", VMS)
def test_nodes_are_set_up_as_those_on_aws(name: str) -> None:
    here, there = read(name), yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert here["file_mounts"] == there["file_mounts"]
    assert sum(command in there["setup_commands"] for command in here["setup_commands"][:2]) == 2
    assert "-c constraints.txt" in here["setup_commands"][2]
    assert any(command.startswith("chmod 600") for command in here["setup_commands"])
    for command in [*here["setup_commands"], *here.get("worker_setup_commands", [])]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    for part in ("head", "worker"):
        (start,) = [command for command in here[f"{part}_start_ray_commands"] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start
        assert ("SWEEP_CACHE=" in start) == (part == "worker")


def test_gcp_has_spot_workers_with_their_own_account_and_nvme() -> None:
    nodes = read("gcp")["available_node_types"]
    assert "scheduling" not in nodes["head"]["node_config"]
    for name, node in nodes.items():
        if name == "head":
            continue
        settings = node["node_config"]
        assert (settings["scheduling"].get("provisioningModel") == "SPOT") == (name != "l4-on-demand")
        assert [disk["type"] for disk in settings["disks"]] == ["PERSISTENT", "SCRATCH"]
        assert settings["serviceAccounts"]


def test_kuberays_job_brings_the_same_cluster_and_ends_it(cluster: dict[str, Any], job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["rayClusterSpec"] == cluster["spec"]
    assert spec["entrypoint"].startswith("sweep launch ")
    assert "--address auto" in spec["entrypoint"]
    assert "--storage s3://" in spec["entrypoint"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0


def test_kuberays_pods_have_ray_a_token_and_no_root(cluster: dict[str, Any]) -> None:
    spec = cluster["spec"]
    assert spec["rayVersion"] == ray.__version__
    assert f"ray=={spec['rayVersion']}\n" in (ROOT / ".ci" / "constraints.txt").read_text()
    assert spec["authOptions"]["mode"] == "token"
    assert spec["authOptions"]["secretName"] in (EXAMPLES / "kuberay" / "cluster.yaml").read_text().split("spec:")[0]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_kuberays_workers_leave_trials_time_to_save_and_cache_on_their_node(cluster: dict[str, Any]) -> None:
    for group in cluster["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        *_, drain = container["lifecycle"]["preStop"]["exec"]["command"]
        subprocess.run(["bash", "-n", "-c", drain], check=True)
        assert int(re.findall(r"sleep (\d+)", drain)[0]) < pod["terminationGracePeriodSeconds"]
        cache = {variable["name"]: variable["value"] for variable in container["env"]}["SWEEP_CACHE"]
        (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == cache]
        assert volume in {one["name"] for one in pod["volumes"]}


@IGNORED
def test_rays_autoscaler_counts_what_kuberays_pods_have(cluster: dict[str, Any]) -> None:
    cluster["metadata"]["namespace"] = "default"
    nodes = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert nodes["headgroup"]["resources"] | {"memory": 0} == {"CPU": 0, "GPU": 0, "memory": 0}
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert {nodes[name]["resources"]["GPU"] for name in groups} == {1, 8}
    for name, group in groups.items():
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert nodes[name]["resources"]["GPU"] == int(limits["nvidia.com/gpu"])
        assert nodes[name]["resources"]["CPU"] == int(limits["cpu"])
        assert [kind for kind in nodes[name]["resources"] if kind.startswith("accelerator_type:")]


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    """KubeRay's published schemas, by kind."""
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip("KUBERAY_CRDS names no folder with KubeRay's definitions (helm-chart/kuberay-operator/crds)")
    found = {}
    for path in Path(folder).glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        (version,) = [one for one in definition["versions"] if one["name"] == "v1"]
        found[definition["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    return found


def closed(schema: Any) -> Any:
    """A Kubernetes schema as JSON Schema that takes no unknown keys; an object's free-form parts stay free."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(part) for key, part in schema.items() if key != "format"}
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if isinstance(made.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in made:
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster", "job"])
def test_kuberays_published_definitions_take_it(schemas: dict[str, dict[str, Any]], name: str) -> None:
    document = read(f"kuberay/{name}")
    metadata = document.pop("metadata")  # the definitions leave it open
    assert set(metadata) == {"name"}
    schema = copy.deepcopy(schemas[document["kind"]])
    schema["required"] = [key for key in schema.get("required", []) if key != "metadata"]
    checker = jsonschema.Draft7Validator(schema)
    assert [error.message for error in checker.iter_errors(document)] == []
    assert json.dumps(document).count("terminationGracePeriodSeconds")
    broken = json.loads(json.dumps(document).replace("terminationGracePeriodSeconds", "terminationGracePeriod"))
    assert [error.message for error in checker.iter_errors(broken)] != []


def test_the_image_is_pinned_by_the_constraints_and_does_not_run_as_root() -> None:
    lines = (EXAMPLES / "Dockerfile").read_text().splitlines()
    assert all("-c constraints.txt" in line for line in lines if "pip install" in line)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    assert all(re.fullmatch(r"FROM python:3\.\d+-slim-\w+( AS build)?", line) for line in lines if "FROM" in line)
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _ = line.removeprefix("COPY ").split()
            assert [source for source in sources if not (ROOT / source).exists()] == []
