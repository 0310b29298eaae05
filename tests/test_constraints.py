"""The versions that nodes and images install."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".ci" / "constraints.txt"


@pytest.fixture
def constraints(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / ".ci")
    return importlib.import_module("constraints")


def pinned() -> dict[str, str]:
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_every_line_is_a_plain_pin() -> None:
    head, *lines = FILE.read_text().splitlines()
    assert head.startswith("# ")
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line)] == []  # no URL, no +cu130
    assert list(pinned()) == sorted(pinned())


def test_every_requirement_has_a_pin_that_meets_it(constraints: ModuleType) -> None:
    pins = pinned()
    needed: list[Requirement] = constraints.requirements()
    assert {"torch", "s3fs", "onnx", "timm", "pytest"} <= {requirement.name for requirement in needed}
    assert [str(one) for one in needed if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"))] == []


def test_dependencies_of_dependencies_have_pins(constraints: ModuleType) -> None:
    pins = pinned()
    assert {"botocore", "grpcio", "nvidia-cublas"} <= set(pins)  # without CUDA's libraries a CPU's torch was pinned
    same = {name: version for name, version in constraints.pins().items() if pins.get(name) == version}
    needed = {child for name in same for child in constraints.children(name, "")}
    assert len(needed) > 50
    assert sorted(canonicalize_name(child.name) for child in needed if canonicalize_name(child.name) not in pins) == []


def test_it_pins_what_gpus_need_and_what_only_one_python_needs(constraints: ModuleType) -> None:
    assert constraints.applies(Requirement('x; platform_system == "Linux" and platform_machine == "x86_64"'), "")
    assert constraints.applies(Requirement('x; python_version < "3.12"'), "")
    assert constraints.applies(Requirement('x; python_version >= "3.12"'), "")
    assert not constraints.applies(Requirement('x; sys_platform == "win32"'), "")
    assert not constraints.applies(Requirement('x; extra == "tune"'), "")
    assert constraints.applies(Requirement('x; extra == "tune"'), "tune")
