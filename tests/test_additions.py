"""What somebody adds is tested, listed and counted by itself: no test holds a number that the addition would break."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ADDED = {
    "models/interventions.py": '''

def mirror(images: Images) -> Images:
    """Mirror every image left to right."""
    return images.flip(-1)


INTERVENTIONS["mirrored"] = Intervention(
    what="every image mirrored", source="ours: a test", expected={}, transform=mirror
)
''',
    "models/architectures.py": '''

def three_convs(num_classes: int, image_size: int) -> ConvNet:
    """Two groups."""
    return ConvNet(_groups([[8], [8, 8]]), _convs("1b", "1a"), num_classes, image_size)


ARCHITECTURES["three_convs"] = Architecture(build=three_convs, image_size=56, source="ours: a test")
''',
    "sweep/data/registry.py": """

DATASETS["other_scenes"] = Dataset(**vars(DATASETS["scenes"]) | {"source": "ours: a test"})
""",
    "sweep/presets/recipe/brief.yaml": """\
epochs: 2
batch_size: 8
lr: 0.05
momentum: 0.5
weight_decay_body: 0
weight_decay_head: 0
""",
    "sweep/presets/data/few.yaml": "name: other_scenes\nimage_size: 56\noptions: {train_images: 16, val_images: 8}\n",
    "sweep/grids/brief.yaml": """\
# sweep launch brief
# Every intervention on the new network.
name: brief
architectures: [three_convs]
interventions: all
data: few
recipe: brief
""",
    "dashboard/views/greeting.py": 'import streamlit as st\n\nst.title("A page more")\n',
}

COUNTED = [
    "tests/dashboard/test_dashboard.py::test_every_page_opens_on_a_sweep_and_on_an_empty_storage[greeting]",
    "tests/models/test_models.py::test_every_intervention_survives_a_trip_to_another_process[mirrored]",
    "tests/sweep/grid/test_grid.py::test_all_stands_for_everything_that_the_project_names",
    "tests/sweep/grid/test_grid.py::test_every_data_set_names_its_source_and_options_with_defaults[other_scenes]",
    "tests/sweep/grid/test_grid.py::test_every_shipped_data_preset_is_data_that_a_grid_can_name[few]",
    "tests/sweep/grid/test_grid.py::test_every_shipped_recipe_trains_to_its_end_with_finite_rates[brief]",
    *(
        "tests/sweep/grid/test_grid.py::"
        f"test_every_shipped_grid_is_the_product_of_what_it_names_and_opens_with_its_command[{grid}]"
        for grid in ("brief", "full", "interventions", "smoke-full", "article-simplified")
    ),
    "tests/sweep/grid/test_grid.py::test_the_articles_grids_have_the_articles_numbers_of_networks",
    "tests/sweep/service/test_end_to_end.py::test_list_names_everything",
    "tests/sweep/training/test_cells.py::test_a_cell_is_built_or_excluded_for_a_reason[three_convs-mirrored]",
    "tests/sweep/training/test_cells.py::test_a_cell_of_every_intervention_learns_comes_back_and_is_analysed[mirrored]",
    "tests/sweep/training/test_cells.py::test_every_architecture_has_its_turn",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, with one more of everything that can be named."""
    for folder in ("analysis", "dashboard", "models", "sweep", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, text in ADDED.items():
        with (tmp_path / file).open("a", encoding="utf-8") as opened:
            opened.write(text)
    app = tmp_path / "dashboard" / "app.py"
    overview = "        st.Page(VIEWS /"
    app.write_text(app.read_text().replace(overview, f'        st.Page(VIEWS / "greeting.py"),\n{overview}', 1))
    return tmp_path


@pytest.mark.whole
def test_one_more_of_everything_breaks_no_number_and_is_tested(copy: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *COUNTED]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
