"""YAML that can't be meant is refused in one line with its place; what can be meant is read."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from upath import UPath

from sweep.store.strict_yaml import parse_yaml, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "it names 'a' twice, in lines 1 and 3"),
        ("a: {b: 1, b: 1}", "it names 'b' twice, in line 1"),
        ("- x: 1\n  'x': 2\n", "it names 'x' twice, in lines 1 and 2"),
        ("1: a\n0x1: b\n", "it names 1 twice, in lines 1 and 2"),
        (BOMB, "it: its aliases (*) stand for 1e+07 values; write out what is meant"),
        ("a: &a\n  b: *a\n", "it, line 1: a part refers to itself"),
        ("a: 1\n\tb: 2\n", "indent with spaces, not tabs"),
        ("a: [1,\nb: 2", "it is not YAML: line "),
        ("a: 1\n---\nb: 1\n", "expected a single document"),
        ("a: 2026-13-45", "it is not YAML: month must be in 1..12"),
        ("a: !!python/object:os.system []", "could not determine a constructor"),
        ("[" * 100_000, "it is not YAML: "),
    ],
)
def test_what_cant_be_meant_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".+") as error:
        parse_yaml(text, "it")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &a [1]\nb: *a\n", {"a": [1], "b": [1]}),
        ("x: &x {k: 1}\ny: {<<: *x, k: 2}\n", {"x": {"k": 1}, "y": {"k": 2}}),  # merging may override
        ("1: a\n'1': b\ntrue: c\n", {1: "c", "1": "b"}),
    ],
)
def test_what_can_be_meant_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "it") == value


def test_a_long_list_is_no_bomb() -> None:
    assert len(parse_yaml(yaml.safe_dump({"seeds": list(range(20_000))}), "it")["seeds"]) == 20_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"a: caf\xe9\n", "it is not UTF-8 text: byte 0xe9 in line 1"),
        (b"a: 1\nb: \x00\n", "it is not text: character 0x00 in line 2"),
        ("a: 1".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ValueError, match="it") as error:
        read_yaml(UPath(tmp_path / "x.yaml"), "it")
    assert str(error.value) == said


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read_yaml(UPath(tmp_path / "x.yaml"), "it") == {"a": 1}


def test_a_folder_and_a_file_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder, not a YAML file"):
        read_yaml(UPath(tmp_path), "it")
    with pytest.raises(ValueError, match="there is no it"):
        read_yaml(UPath(tmp_path / "x.yaml"), "it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1")
    (tmp_path / "x.yaml").chmod(0)
    with pytest.raises(ValueError, match="it can't be read; change its permissions"):
        read_yaml(UPath(tmp_path / "x.yaml"), "it")
