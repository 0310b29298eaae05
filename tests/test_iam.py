"""The policies in examples/iam against what Ray's launcher asks of EC2."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME

pytest.importorskip("boto3", reason="boto3 comes with the extra `cluster`")

import boto3
from botocore import xform_name
from botocore.client import BaseClient
from ray.autoscaler._private.aws import config as launcher
from ray.autoscaler._private.aws import node_provider

from sweep.service.ec2 import SpotFirst
from tests.ec2 import REGION, simulated_ec2, subnets

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "iam"
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
UNUSED = {
    "DescribeImages",  # looks for CloudWatch's agent, which cluster.yaml does not configure
    "DescribeLaunchTemplateVersions",  # no node type has a launch template
    "StartInstances",  # no stopped node is kept: cache_stopped_nodes is false
}
"""Calls in Ray's source that cluster.yaml never leads to."""


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())["Statement"]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def actions(name: str, service: str) -> set[str]:
    """What a policy allows of one service."""
    allowed = {action for statement in statements(name) for action in listed(statement["Action"])}
    return {action.removeprefix(f"{service}:") for action in allowed if action.startswith(f"{service}:")}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """What Ray asks of a simulated EC2, by the policy that should allow it."""
    with pytest.MonkeyPatch.context() as patch, simulated_ec2():
        home = tmp_path_factory.mktemp("home")
        (home / ".ssh").mkdir()
        patch.setenv("HOME", str(home))
        subnet, *_ = subnets()
        yield {"ray-up": recorded(bootstrap), "nodes": recorded(lambda: run_a_node(subnet))}


def recorded(step: Callable[[], None]) -> set[str]:
    """The EC2 actions that a step needs: its calls, and CreateTags where one of them tags what it makes."""
    made: set[str] = set()
    call = BaseClient._make_api_call

    def record(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if client.meta.service_model.service_name == "ec2":
            made.update({operation, "CreateTags"} if "TagSpecifications" in parameters else {operation})
        return call(client, operation, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", record)
        step()
    return made


def bootstrap() -> None:
    """What `ray up` does before it starts the head."""
    prepared = prepare_config(CLUSTER)
    SpotFirst.bootstrap_config(SpotFirst.fillout_available_node_types_resources(prepared))


def run_a_node(subnet: str) -> None:
    """What the launcher does with a node, from its start to its end."""
    provider = SpotFirst({"region": REGION, "cache_stopped_nodes": False}, CLUSTER["cluster_name"])
    node = {"InstanceType": "g5.2xlarge", "ImageId": "ami-12c6146b", "SubnetIds": [subnet]}
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_NODE_NAME: "a worker"}
    (started,) = provider.create_node(node, tags, 1)
    assert provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "worker"}) == [started]
    provider.set_node_tags(started, {"ray-node-status": "up-to-date"})
    provider.terminate_nodes([started])
    provider.terminate_node(provider.create_node(node, tags, 1).popitem()[0])


@pytest.mark.parametrize("name", ["ray-up", "nodes"])
def test_a_policy_allows_what_ray_calls_and_nothing_else(calls: dict[str, set[str]], name: str) -> None:
    assert actions(name, "ec2") == calls[name]


def test_no_other_call_in_rays_source_is_forgotten() -> None:
    known = {xform_name(name): name for name in boto3.client("ec2", REGION).meta.service_model.operation_names}
    called = called_in(inspect.getsource(launcher)) | called_in(inspect.getsource(node_provider))
    found = {known[name] for name in called & set(known)}
    assert {"CreateSecurityGroup", "CreateTags", "DescribeInstanceTypes"} <= found
    assert found - actions("nodes", "ec2") - actions("ray-up", "ec2") == UNUSED
    assert CLUSTER["provider"]["cache_stopped_nodes"] is False


def called_in(source: str) -> set[str]:
    """The names of all methods that a module's source calls."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {function.attr for function in calls if isinstance(function, ast.Attribute)}


@pytest.mark.parametrize("name", NAMES)
def test_policies_name_every_action_and_bind_what_changes_ec2(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        assert not [action for action in listed(statement["Action"]) if "*" in action]
        only_looks = all(action.startswith("ec2:Describe") for action in listed(statement["Action"]))
        assert (listed(statement.get("Resource", "")) == ["*"]) == only_looks  # EC2 knows no narrower one for these


def test_only_this_clusters_nodes_are_started_tagged_and_ended() -> None:
    bound: dict[str, list[dict[str, str]]] = {}
    for one in statements("nodes"):
        for action in listed(one["Action"]) if one["Resource"] == "arn:aws:ec2:*:*:instance/*" else []:
            bound.setdefault(action, []).append(one["Condition"]["StringEquals"])
    this_cluster = CLUSTER["cluster_name"]
    assert bound == {
        "ec2:RunInstances": [{f"aws:RequestTag/{TAG_RAY_CLUSTER_NAME}": this_cluster}],
        "ec2:CreateTags": [
            {"ec2:CreateAction": "RunInstances"},
            {f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": this_cluster},
        ],
        "ec2:TerminateInstances": [{f"aws:ResourceTag/{TAG_RAY_CLUSTER_NAME}": this_cluster}],
    }


def test_nodes_get_the_two_roles_of_cluster_yaml_and_read_the_images_that_it_names() -> None:
    (passed,) = [one for one in statements("nodes") if one["Action"] == "iam:PassRole"]
    nodes = [node["node_config"] for node in CLUSTER["available_node_types"].values()]
    roles = {node["IamInstanceProfile"]["Name"] for node in nodes}
    assert {role.rpartition("/")[2] for role in passed["Resource"]} == roles
    (read,) = [one for one in statements("nodes") if one["Action"] == "ssm:GetParameters"]
    readable = [resource.partition(":parameter")[2].rstrip("*") for resource in read["Resource"]]
    assert all(node["ImageId"].removeprefix("resolve:ssm:").startswith(tuple(readable)) for node in nodes)


def test_the_documented_commands_make_the_roles_with_these_policies(tmp_path: Path) -> None:
    script = re.findall(r"```shell\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)[0]
    command = tmp_path / "aws"
    command.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    made = {option(call, "--instance-profile-name") for call in calls if call[1] == "create-instance-profile"}
    nodes = [node["node_config"] for node in CLUSTER["available_node_types"].values()]
    assert made == {node["IamInstanceProfile"]["Name"] for node in nodes}
    put = [call for call in calls if call[1] == "put-role-policy"]
    assert {(option(call, "--role-name"), option(call, "--policy-document")) for call in put} == {
        ("weight-banding-head", "file://storage.json"),
        ("weight-banding-worker", "file://storage.json"),
        ("weight-banding-head", "file://nodes.json"),
    }
    assert all((FOLDER / option(call, "--policy-document").removeprefix("file://")).exists() for call in put)


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]
