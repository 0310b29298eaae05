"""Pin in .ci/constraints.txt what is installed here and the project needs: `make constraints`.

Dependencies of dependencies are included, for each Python below and Linux on x86_64, on which the nodes run.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / ".ci" / "constraints.txt"
PYTHONS = ("3.11", "3.12")
_NODE = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
_HEAD = "# The versions that the tests ran with; written by `make constraints`, read by `pip install -c`\n"


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, its extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for line in [*project["dependencies"], *(line for extra in extras for line in extra)]]


def pins() -> dict[str, str]:
    """The installed version of everything that the project needs, directly or not, by the package's name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = requirements()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        for extra in {"", *needed.extras} - {known for package, known in seen if package == name}:
            seen.add((name, extra))
            try:
                versions[name] = Version(version(name)).public  # torch's goes on with the CUDA that it was built for
            except PackageNotFoundError:  # only another of the Pythons needs it
                continue
            waiting += children(name, extra)
    return versions


def children(name: str, extra: str) -> list[Requirement]:
    """What an installed package needs on a node, or with one of its extras."""
    return [needed for line in requires(name) or [] if applies(needed := Requirement(line), extra)]


def applies(needed: Requirement, extra: str) -> bool:
    """Whether a node needs it, under any of the Pythons."""
    pythons = [{"python_version": python, "python_full_version": f"{python}.0"} for python in PYTHONS]
    nodes = [default_environment() | _NODE | python | {"extra": extra} for python in pythons]
    return needed.marker is None or any(needed.marker.evaluate(node) for node in nodes)


if __name__ == "__main__":
    lines = [f"{name}=={pinned}\n" for name, pinned in sorted(pins().items())]
    FILE.write_text(_HEAD + "".join(lines), encoding="utf-8")
