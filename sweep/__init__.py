"""The service: spec, grid, data, training, checkpoints, store, scheduling, command line."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from fsspec.config import conf

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds this package and the others of the project."""

# Other machines write into a sweep's storage: a listing that fsspec remembers is one that has gone stale.
for _protocol in ("s3", "s3a", "gs", "gcs", "abfs", "az"):
    conf.setdefault(_protocol, {})["use_listings_cache"] = False


class _Siblings(MetaPathFinder):
    """Finds the project's packages beside this one, whatever else of their names stands on the path.

    A researcher's repository often has a `models` of its own, and PYTHONPATH or Ray puts the repository first.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ("analysis", "dashboard", "models"):
            return None
        return PathFinder.find_spec(fullname, [str(ROOT)])


if not any(isinstance(finder, _Siblings) for finder in sys.meta_path):
    sys.meta_path.insert(sys.meta_path.index(PathFinder), _Siblings())
