"""The documents are fresh, their links lead somewhere, and every command is in the README."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli import app
from sweep.grid import registries

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
def test_generated_parts_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_project(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_headings_that_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text())
    broken = [anchor for file, anchor in links if anchor not in headings(document.parent / file if file else document)]
    assert broken == []


def headings(document: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f"sweep {name}" not in readme] == []


def test_make_results_reproduces_every_results_table_of_the_readme() -> None:
    shown = re.findall(r"<!-- results (\S+) -->", (ROOT / "README.md").read_text())
    made = re.findall(r"benchmarks/publish\.py (\S+) (.+)", (ROOT / "Makefile").read_text())
    published = [json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())["command"] for name in shown]
    assert [(name, f"sweep launch {' '.join(shlex.split(launch))}") for name, launch in made] == list(
        zip(shown, published, strict=True)
    )


def test_the_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in DOCUMENTS for name in re.findall(r"(?:^|`)make ([a-z]+)", text.read_text(), re.MULTILINE)}
    assert {"demo", "test", "docs"} <= named <= targets


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_python_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    said = re.findall(r"^print.*# ([^:\n]+)", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said
    assert said == ["none", "1.00 horizontal"]


def test_every_listing_is_in_the_catalogue() -> None:
    shown = re.findall(r"<!-- list (\S+) -->", (ROOT / "docs" / "catalogue.md").read_text())
    assert sorted(shown) == sorted(registries.ROWS)


def test_the_modules_that_documents_name_exist() -> None:
    files = [*DOCUMENTS, ROOT / "cluster.yaml"]
    name = re.compile(r"`((?:analysis|dashboard|models|sweep)(?:[./]\w+)+)`")
    missing = {
        f"{file.name}: {found}" for file in files for found in name.findall(file.read_text()) if not exists(found)
    }
    assert missing == set()


def test_the_test_that_contributing_runs_exists() -> None:
    ((file, word),) = re.findall(r"-m pytest (\S+) -k (\w+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert re.search(rf"^def test_\w*{word}", (ROOT / file).read_text(), re.MULTILINE)


def exists(name: str) -> bool:
    """Whether a name is a file's path, a module, or what a module defines."""
    if "/" in name:
        return (ROOT / name).exists()
    module, _, last = name.replace(".", "/").rpartition("/")
    if (ROOT / module / last).exists() or (ROOT / module / f"{last}.py").exists():
        return True
    file = ROOT / f"{module}.py"
    return file.exists() and re.search(rf"^(?:def |class )?{last}\b", file.read_text(), re.MULTILINE) is not None


def test_the_picture_of_the_imports_leaves_out_only_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    rooms = importlib.import_module("rooms")
    assert rooms.bare({("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("d", "c")}) == {
        ("a", "b"), ("b", "c"), ("a", "d"), ("d", "c"),
    }  # fmt: skip
    found = rooms.arrows([room for floor in rooms.floors() for room in floor])
    assert ("dashboard", "sweep.results") in found
    assert {importer for importer, _ in found} >= {"sweep.service", "sweep.training"}
    assert not [arrow for arrow in found if arrow[0] in ("analysis", "models")]
