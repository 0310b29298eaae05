"""Files are removed and moved by their exact names, whatever pattern the names would be."""

from pathlib import Path

import pytest
from upath import UPath

from sweep.store.files import (
    move,
    read_text,
    remove_file,
    remove_folder,
    require_writable,
    sizes_below,
    version_of,
    write_text,
)
from sweep.store.requests import pending_requests, request_retry

PATTERNS = [("lr=[1]", "lr=1"), ("a*", "ab"), ("a?", "ab"), ("**", "ab"), ("[!a]", "b"), ("{a,b}", "a"), ("a", "ab")]


@pytest.fixture(params=["disk", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return UPath(tmp_path) if request.param == "disk" else UPath(f"memory://files{tmp_path}")


def files(folder: UPath) -> set[str]:
    root = folder.path.rstrip("/") + "/"
    return {key.removeprefix(root) for key in folder.fs.find(folder.path)}


@pytest.mark.parametrize(("name", "other"), PATTERNS)
def test_what_has_a_patterns_name_is_removed_alone(storage: UPath, name: str, other: str) -> None:
    for folder in (name, other):
        for file in ("t/a", "t/b", "c"):
            write_text(storage / folder / file, folder)
    remove_file(storage / name / "c")
    assert files(storage) == {f"{name}/t/a", f"{name}/t/b", f"{other}/t/a", f"{other}/t/b", f"{other}/c"}
    remove_folder(storage / name)
    assert files(storage) == {f"{other}/t/a", f"{other}/t/b", f"{other}/c"}
    remove_file(storage / name / "c")  # gone already
    remove_folder(storage / name)


@pytest.mark.parametrize(("name", "other"), PATTERNS)
def test_what_has_a_patterns_name_is_moved_alone(storage: UPath, name: str, other: str) -> None:
    for folder in (name, other):
        write_text(storage / folder / "t" / "a", folder)
    move(storage / name / "t", storage / name / "attempts" / "1")
    assert files(storage) == {f"{name}/attempts/1/a", f"{other}/t/a"}
    assert read_text(storage / name / "attempts" / "1" / "a") == name


@pytest.mark.parametrize("name", [name for name, _ in PATTERNS])
def test_a_storage_with_a_patterns_name_can_be_used(storage: UPath, name: str) -> None:
    require_writable(storage / name)
    sweep = storage / name / "s"
    assert files(storage) == set()
    write_text(sweep / "trials" / "t" / "spec.json", "{}")
    request_retry(sweep, "t", "scratch")
    assert [request.trial_id for request in pending_requests(sweep)] == ["t"]


def test_text_with_bytes_that_are_not_utf8_is_written_and_read(storage: UPath) -> None:
    write_text(storage / "a", "name \udce9")  # how Python spells a file's name of other bytes
    assert read_text(storage / "a") == r"name \udce9"
    (storage / "b").write_bytes(b"caf\xe9")
    assert read_text(storage / "b") == "caf\ufffd"


def test_files_are_listed_with_their_sizes(storage: UPath) -> None:
    assert sizes_below(storage / "none") == {}
    for name, text in (("[a]/b/c", "123"), ("[a]/é", "é"), ("a/x", "")):
        write_text(storage / name, text)
    assert sizes_below(storage / "[a]") == {"b/c": 3, "é": 2}


def test_a_files_version_changes_when_it_is_written(storage: UPath) -> None:
    assert version_of(storage / "a") is None
    write_text(storage / "a", "1")
    first = version_of(storage / "a")
    assert version_of(storage / "a") == first
    write_text(storage / "a", "2")
    assert version_of(storage / "a") not in (first, None)
