"""How tests are spread over processes: what needs Ray stays in one, which holds one Ray for all of them."""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
NEEDS_RAY = re.compile(r"\b(ray_address|local_ray|drive|mark\.ray)\b")


class RayInOneProcess(LoadScopeScheduling):
    """Hands out all modules that need Ray to the first process, and every other test by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return "ray" if needs_ray(nodeid.partition("::")[0]) else nodeid


@cache
def needs_ray(module: str) -> bool:
    return NEEDS_RAY.search((ROOT / module).read_text(encoding="utf-8")) is not None
