"""moto's simulated EC2, as Ray's launcher meets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

REGION = "us-west-2"


@contextmanager
def simulated_ec2() -> Iterator[None]:
    """An account with moto's default network, and none of the clients that Ray remembers."""
    moto = pytest.importorskip("moto")
    from ray.autoscaler._private.aws import utils

    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.delenv("AWS_ENDPOINT_URL", raising=False)  # of a store that other tests have started and stopped
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        _forget(utils)
        yield
    _forget(utils)


def _forget(utils: Any) -> None:
    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()


def subnets() -> list[str]:
    """The account's subnets, one for each zone."""
    return sorted(subnet.id for subnet in boto3.resource("ec2", REGION).subnets.all())
