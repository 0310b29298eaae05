"""A node that EC2 has no spot instance for is started on demand, on simulated EC2."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME

pytest.importorskip("boto3", reason="boto3 comes with the extra `cluster`")

from botocore.exceptions import ClientError

from sweep.service.ec2 import SpotFirst
from tests.ec2 import REGION, simulated_ec2, subnets

NODE = {"InstanceType": "g5.2xlarge", "ImageId": "ami-12c6146b"}
SPOT = NODE | {"InstanceMarketOptions": {"MarketType": "spot"}}

_STARTS = "provide-client-params.ec2.RunInstances"

Request = dict[str, Any]


class Account:
    """The provider on an account whose EC2 refuses some launches."""

    def __init__(self) -> None:
        self.provider = SpotFirst({"region": REGION, "cache_stopped_nodes": False}, "test")
        self.zones = subnets()
        self.asked: list[Request] = []
        """What EC2 was asked to start, in order."""
        self._code, self._refused = "", lambda _: False
        self._events = self.provider.ec2_fail_fast.meta.client.meta.events
        self._events.register(_STARTS, self._answer)

    def close(self) -> None:
        self._events.unregister(_STARTS, self._answer)

    def refuse(self, code: str, which: Callable[[Request], bool]) -> None:
        self._code, self._refused = code, which

    def start(self, node: Request) -> Any:
        tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_NODE_NAME: "ray-test-worker"}
        (started,) = self.provider.create_node(node | {"SubnetIds": self.zones}, tags, 1).values()
        return started

    def _answer(self, params: Request, **_: Any) -> None:
        self.asked.append(dict(params))
        if self._refused(params):
            raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "RunInstances")


@pytest.fixture(scope="module")
def ec2() -> Iterator[None]:
    with simulated_ec2():
        yield


@pytest.fixture
def account(ec2: None) -> Iterator[Account]:
    account = Account()
    yield account
    account.close()


def is_spot(request: Request) -> bool:
    return "InstanceMarketOptions" in request


def test_a_spot_instance_comes_first(account: Account) -> None:
    account.start(SPOT)
    assert [is_spot(request) for request in account.asked] == [True]


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"])
def test_every_zone_is_asked_before_a_node_starts_on_demand(account: Account, code: str) -> None:
    account.refuse(code, is_spot)
    node = account.start(SPOT)
    *spot, on_demand = account.asked
    assert {request["SubnetId"] for request in spot} == set(account.zones)
    assert len(account.zones) > 2
    assert all(map(is_spot, spot))
    assert not is_spot(on_demand)
    tags = {tag["Key"]: tag["Value"] for tag in node.tags}
    assert (tags["ray-cluster-name"], tags["Name"]) == ("test", "ray-test-worker")


def test_every_zone_is_asked_on_demand_too(account: Account) -> None:
    last = account.zones[-1]
    account.refuse("InsufficientInstanceCapacity", lambda request: is_spot(request) or request["SubnetId"] != last)
    account.start(SPOT)
    assert not is_spot(account.asked[-1])


@pytest.mark.parametrize(
    ("node", "code"),
    [(SPOT, "UnauthorizedOperation"), (SPOT, "VcpuLimitExceeded"), (NODE, "InsufficientInstanceCapacity")],
)
def test_what_a_node_on_demand_would_not_cure_is_told_as_it_is(account: Account, node: Request, code: str) -> None:
    account.refuse(code, lambda _: True)
    with pytest.raises(NodeLaunchException, match=code):
        account.start(node)
    assert {is_spot(request) for request in account.asked} == {is_spot(node)}
