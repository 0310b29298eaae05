"""The documents are fresh, their links lead somewhere, and every command is in the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f"sweep {name}" not in readme] == []


def test_make_results_reproduces_every_results_table_of_the_readme() -> None:
    shown = re.findall(r"<!-- results (\S+) -->", (ROOT / "README.md").read_text())
    published = re.findall(r"benchmarks/publish\.py (\S+)", (ROOT / "Makefile").read_text())
    assert sorted(shown) == sorted(published)


def test_the_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in DOCUMENTS for name in re.findall(r"(?:^|`)make ([a-z]+)", text.read_text(), re.MULTILINE)}
    assert {"demo", "test", "docs"} <= named <= targets
