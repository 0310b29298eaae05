"""How tests are spread over processes: what shares one Ray stays in one, what starts Ray nodes itself in another."""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
NEEDS_RAY = re.compile(r"\b(ray_address|local_ray|drive|mark\.ray)\b")


class RayInOneProcess(LoadScopeScheduling):
    """Hands out whole what belongs together, the most tests first, and every other test by itself.

    Tests of Ray mostly wait, so the two large groups run side by side. A group is never split: two of tests/cluster at
    once would need more than two cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith("tests/cluster/"):
            return "cluster"
        return "ray" if needs_ray(module) else nodeid


@cache
def needs_ray(module: str) -> bool:
    return NEEDS_RAY.search((ROOT / module).read_text(encoding="utf-8")) is not None
