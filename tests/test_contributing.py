"""The examples of CONTRIBUTING.md work as they are written: applied to a copy, what they add trains and appears."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "dashboard", "models", "sweep")
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+), (above|in|a new file) ?(\w*)\n(.*?)```", re.DOTALL)
EXAMPLES = {
    part.split("\n", 1)[0]: BLOCK.findall(part)
    for part in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## Add ")[1:]
}
TINY = [
    "interventions=[baseline]",
    "data.options={train_images: 8, val_images: 4}",
    "recipe.epochs=1",
    "recipe.batch_size=4",
]

# Runs in the copy: prints what each example came to.
TRY = """
import json, sys, tempfile
from pathlib import Path
from streamlit.testing.v1 import AppTest
from upath import UPath

import models
from sweep.data.prepare import prepare
from sweep.grid import catalogue
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.training.train import train

copy, folder, tiny = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
assert Path(models.__file__).is_relative_to(copy)


def epochs(name, *settings):
    plan, = expand(load_grid("demo", [*settings[:1], *tiny, *settings[1:]])).plans
    return [row["epoch"] for row in train(plan.spec, prepare(plan.spec.data, None), UPath(folder / name))]


def names(what):
    return [row[0] for row in catalogue.rows(what)[1]]


trained = {
    "an intervention": epochs("1", "seeds=[0]", "interventions=[transpose]"),
    "an architecture": epochs("2", "architectures=[simplified_deep]"),
    "a data set": epochs("3", "data.name=edges"),
    "a recipe": epochs("4", "recipe=steady"),
}
listed = {what: names(what) for what in ("interventions", "architectures", "data", "recipes")}
sys.argv = ["app.py", str(folder / "storage")]
page = AppTest.from_file(f"{copy}/dashboard/app.py", default_timeout=60).run().switch_page("views/accuracy.py").run()
print(json.dumps({
    "trained": trained, "listed": listed, "title": page.title[0].value,
    "errors": [error.value for error in page.exception],
}))
"""


def apply(copy: Path, path: str, where: str, name: str, code: str) -> None:
    """Put a block of the document where its first line says."""
    file = copy / path
    if where == "a new file":
        assert not file.exists()
        file.write_text(code, encoding="utf-8")
        return
    before, start, rest = re.split(rf"^({name}\b)", file.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)
    if where == "above":
        changed = f"{before.rstrip()}\n\n\n{code.strip()}\n\n\n{start}{rest}"
    else:
        entries, end, after = re.split(r"^(\})", rest, maxsplit=1, flags=re.MULTILINE)
        changed = f"{before}{start}{entries}{code}{end}{after}"
    file.write_text(changed, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with all examples applied."""
    copy = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for blocks in EXAMPLES.values():
        for block in blocks:
            apply(copy, *block)
    return copy


@pytest.fixture(scope="module")
def outcome(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the examples, tried in one process that sees the copy instead of the project."""
    from tests.dashboard.synthetic import write_sweep

    folder = tmp_path_factory.mktemp("tried")
    write_sweep(folder / "storage" / "first")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRY, str(copy), str(folder), json.dumps(TINY)],
        env=os.environ | {"PYTHONPATH": str(copy), "SWEEP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_there_are_five_examples_of_at_most_15_new_lines() -> None:
    lines = {
        title: sum(bool(line.strip()) for *_, code in blocks for line in code.splitlines())
        for title, blocks in EXAMPLES.items()
    }
    assert list(lines) == ["an intervention", "an architecture", "a data set", "a recipe", "a dashboard page"]
    assert {title: number for title, number in lines.items() if not 0 < number <= 15} == {}


@pytest.mark.parametrize("example", ["an intervention", "an architecture", "a data set", "a recipe"])
def test_what_an_example_adds_trains(outcome: dict[str, Any], example: str) -> None:
    assert outcome["trained"][example] == [0, 1]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("interventions", "transpose"),
        ("architectures", "simplified_deep"),
        ("data", "edges"),
        ("recipes", "steady"),
    ],
)
def test_what_an_example_adds_is_listed_before_make_docs(outcome: dict[str, Any], what: str, name: str) -> None:
    assert name in outcome["listed"][what]


def test_the_page_of_the_example_appears(outcome: dict[str, Any]) -> None:
    assert outcome["title"] == "Accuracy · first"
    assert outcome["errors"] == []


def test_the_examples_have_the_projects_style(copy: Path) -> None:
    files = sorted({path for blocks in EXAMPLES.values() for path, *_ in blocks if path.endswith(".py")})
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *command, *config, *files],
            cwd=copy, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
