"""A grid that is too large is refused at once, before torch and Ray are loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.grid.document import grid_names, read_document

pytestmark = pytest.mark.slow

MOST_CPU_S = 1.0
LAUNCH = """
import json, resource, sys
from sweep.cli import main
sys.argv = ["sweep", "launch", sys.argv[1], "--storage", sys.argv[2]]
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([used.ru_utime + used.ru_stime, sorted({"torch", "ray"} & set(sys.modules))]))
"""
GRID = """
name: x
architectures: [simplified_mini]
interventions: {interventions}
seeds: {seeds}
data: {{name: scenes, options: {{train_images: 64, val_images: 32}}}}
recipe: {{epochs: {epochs}, batch_size: 32, lr: 0.1, momentum: 0.9, weight_decay_body: 0.0, weight_decay_head: 0.0}}
"""


def written(seeds: int = 1, epochs: int = 1, interventions: str = "[untrained]") -> str:
    return GRID.format(seeds=[*range(seeds)], epochs=epochs, interventions=interventions)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (written(seeds=200_000), "bytes, and may have 1,048,576"),
        (written(seeds=120_000), "lists more than 101,000 values; split it into several files"),
        (written(seeds=30_000, interventions="[untrained, baseline, rotate90, no_pooling]"), "seeds is 120,000 trials"),
        (written(epochs=10**12), "recipe.epochs: must be less than or equal to 100000, not 1000000000000"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in
         zip("abcdefgh", "bcdefghi", strict=True)), "its aliases (*) stand for"),
    ],
    ids=["bytes", "values", "trials", "epochs", "aliases"],
)  # fmt: skip
def test_a_grid_that_is_too_large_is_refused_within_a_second(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    command = [sys.executable, "-W", "ignore", "-c", LAUNCH, str(tmp_path / "grid.yaml"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    cpu_s, loaded = json.loads(done.stdout)
    assert loaded == []
    assert cpu_s < MOST_CPU_S
    assert not (tmp_path / "runs").exists()


def test_all_counts_as_one_at_least_until_the_names_are_known(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(written(seeds=1000, interventions="all"))
    architectures = ", ".join(f"a{number}" for number in range(101))
    with pytest.raises(ValueError, match=r"x seeds is at least 101,000 trials, and a grid has 100,000 at most"):
        read_document(str(tmp_path / "grid.yaml"), [f"architectures=[{architectures}]"])


@pytest.mark.parametrize("name", grid_names())
def test_a_grids_outline_leaves_its_document_as_it_is(name: str) -> None:
    assert read_document(name, ["data.seed=3"])["data"]["seed"] == 3
