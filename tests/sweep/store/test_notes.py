"""Notes of readers, on a local disk, an object store in memory, and S3."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from upath import UPath

from sweep.store import notes
from sweep.store.notes import SWEEP, TEXT_LIMIT, Note, read_notes, write_note

TRIAL = "simplified_mini-baseline-s0-0123456789ab"
OTHER = "simplified_mini-rotate90-s0-0123456789ab"


def write_sweep(path: UPath) -> UPath:
    for name in ("sweep.yaml", f"trials/{TRIAL}/spec.json", f"trials/{OTHER}/spec.json"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    return path


@pytest.fixture(params=["disk", "object store"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    memory = fsspec.filesystem("memory")
    yield write_sweep(UPath(tmp_path / "demo") if request.param == "disk" else UPath("memory://notes/demo"))
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def damage(sweep: UPath, content: bytes) -> None:
    (sweep / "notes").mkdir(parents=True, exist_ok=True)
    (sweep / "notes" / f"{OTHER}.json").write_bytes(content)


def test_a_sweep_without_notes_has_none(sweep: UPath) -> None:
    assert read_notes(sweep) == {}
    assert read_notes(sweep.parent / "nothing") == {}


def test_a_note_is_read_as_it_was_written(sweep: UPath) -> None:
    write_note(sweep, TRIAL, "  worth a figure,\n see 3b ", star=True, who="Ada")
    write_note(sweep, SWEEP, "the one for the paper")
    found = read_notes(sweep)
    assert list(found) == [TRIAL, SWEEP]
    assert (found[TRIAL].text, found[TRIAL].star, found[TRIAL].who) == ("worth a figure, see 3b", True, "Ada")
    assert found[TRIAL].noted_at > 1.7e9
    assert found[SWEEP] == Note(text="the one for the paper", noted_at=found[SWEEP].noted_at)
    assert found.damaged == []


def test_a_later_note_replaces_an_earlier_one_and_an_empty_one_removes_it(sweep: UPath) -> None:
    write_note(sweep, TRIAL, "first")
    read_notes(sweep)
    write_note(sweep, TRIAL, "other")
    assert read_notes(sweep)[TRIAL].text == "other"
    write_note(sweep, TRIAL, "", star=True)
    assert read_notes(sweep)[TRIAL].star
    write_note(sweep, TRIAL, " ")
    assert read_notes(sweep) == {}
    write_note(sweep, TRIAL, "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"text": 5}', b'{"star": "perhaps"}', b'{"noted_at": Infinity}', b"\xff", b" " * 20000],
)
def test_a_damaged_note_is_skipped_and_told(sweep: UPath, content: bytes) -> None:
    write_note(sweep, TRIAL, "kept")
    damage(sweep, content)
    found = read_notes(sweep)
    assert list(found) == [TRIAL]
    (said,) = found.damaged
    assert f"{OTHER}.json is not a note (" in said
    assert said.endswith("remove it, or write the note again")
    assert "\n" not in said
    write_note(sweep, OTHER, "whole again")
    assert read_notes(sweep).damaged == []


def test_what_is_not_a_notes_file_is_left_alone(sweep: UPath) -> None:
    write_note(sweep, TRIAL, "kept")
    for name in (".demo.json.0123.part", ".hidden.json", "README.md"):
        (sweep / "notes" / name).write_bytes(b"?")
    found = read_notes(sweep)
    assert (list(found), found.damaged) == ([TRIAL], [])


def test_a_note_about_nothing_is_refused(sweep: UPath) -> None:
    for about in ("nobody", "../demo", "", ".", f"../trials/{TRIAL}"):
        with pytest.raises(ValueError, match="has no trial"):
            write_note(sweep, about, "hello")
    with pytest.raises(ValueError, match="there is no sweep at"):
        write_note(sweep.parent / "nothing", SWEEP, "hello")
    assert not (sweep.parent / "nothing").exists()


@pytest.mark.parametrize("character", ["a", "é", "😀"])
def test_the_longest_note_fits_and_a_longer_one_is_refused(sweep: UPath, character: str) -> None:
    write_note(sweep, TRIAL, character * TEXT_LIMIT, who=character * notes.WHO_LIMIT)
    assert read_notes(sweep)[TRIAL].text == character * TEXT_LIMIT
    with pytest.raises(ValueError, match="at most 1000 characters"):
        write_note(sweep, TRIAL, character * (TEXT_LIMIT + 1))


def test_what_utf8_cannot_hold_is_replaced(sweep: UPath) -> None:
    write_note(sweep, TRIAL, "a\ud800b")
    assert read_notes(sweep)[TRIAL].text == "a?b"


def test_only_changed_notes_are_read_again(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: UPath) -> bytes:
        read.append(path.stem)
        return bytes(path.read_bytes())

    monkeypatch.setattr(notes, "read_bytes", counted)
    for about in (TRIAL, OTHER, SWEEP):
        write_note(sweep, about, "first")
    read_notes(sweep)
    assert sorted(read) == sorted([TRIAL, OTHER, SWEEP])
    write_note(sweep, OTHER, "other")
    assert read_notes(sweep)[OTHER].text == "other"
    assert read[3:] == [OTHER]
    assert read_notes(sweep)[TRIAL].text == "first"
    assert len(read) == 4


def test_s3_is_asked_once_for_a_listing_and_once_for_each_changed_note(object_store: int) -> None:
    moto = pytest.importorskip("moto.server", reason="moto[server] is a development extra")
    pytest.importorskip("s3fs", reason="s3fs comes with the extra `cluster`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=object_store, verbose=False)
    server.start()
    try:
        UPath("s3://noted").mkdir()
        sweep = write_sweep(UPath("s3://noted/lr=[1]/demo"))
        write_note(sweep, TRIAL, "kept")
        write_note(sweep, SWEEP, "first")
        assert {about: note.text for about, note in read_notes(sweep).items()} == {TRIAL: "kept", SWEEP: "first"}
        asked: list[str] = []
        call = sweep.fs._call_s3

        async def counted(method: str, *arguments: object, **options: object) -> object:
            asked.append(method)
            return await call(method, *arguments, **options)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sweep.fs, "_call_s3", counted)
            write = json.loads((sweep / "notes" / "sweep.json").read_bytes()) | {"text": "later"}
            (sweep / "notes" / "sweep.json").write_bytes(json.dumps(write).encode())
            asked.clear()
            assert read_notes(sweep)[SWEEP].text == "later"
            assert asked == ["list_objects_v2", "get_object"], asked
    finally:
        server.stop()
