"""EC2 nodes for Ray's launcher: spot instances first, on-demand ones where EC2 has none; cluster.yaml names this.

Ray's own provider starts what a node type says. Where EC2 refuses a spot instance, the autoscaler asks for the same
type again a few seconds later: a type's `priority` yields to instances that never come up, not to refusals (2.60).
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

_NO_SPOT = ("InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow")
_MARKET = "InstanceMarketOptions"
_log = logging.getLogger(__name__)


class SpotFirst(AWSNodeProvider):
    """Ray's provider for EC2 that starts a node on demand if no zone has a spot instance for it."""

    def _create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start up to `count` instances; returns them by their ids.

        Raises:
            NodeLaunchException: EC2 starts none in any zone.
        """
        try:
            return super()._create_node(node_config, tags, count)
        except NodeLaunchException as error:
            if _MARKET not in node_config or error.category not in _NO_SPOT:
                raise
            _log.warning("EC2 has no spot %s (%s); starting it on demand", node_config["InstanceType"], error.category)
        on_demand = {key: value for key, value in node_config.items() if key != _MARKET}
        return super()._create_node(on_demand, tags, count)
