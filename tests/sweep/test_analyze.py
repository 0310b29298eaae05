"""`sweep analyze FILE`: every convolution scored or skipped with its reason, as a table, as JSON, as a picture."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from analysis.layers import analyze_file
from sweep.cli import app
from sweep.grid.load import load_grid
from sweep.terminal.show import layer_results_table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = torch.linspace(-1, 1, 5)[:, None].expand(5, 5)
    noise = torch.randn(12, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    state = {"stem.weight": noise, "point.weight": torch.zeros(8, 8, 1, 1), "nan.weight": noise * torch.nan}
    state["last.weight"] = rows * noise[:, :, :1, :1] + 0.05 * noise
    path = tmp_path / "net.pt"
    torch.save({"state_dict": state}, path)
    return path


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


def test_json_has_the_keys_it_promises_and_a_reason_for_each_layer_without_scores(file: Path) -> None:
    result = analyze(file, "--json")
    rows = {row["layer"]: row for row in json.loads(result.stdout)}
    assert list(rows) == ["stem", "point", "nan", "last"]
    keys = ["layer", "shape", "horizontal", "vertical", "verdict", "skipped", "null_turned_high", "reliability"]
    assert all(list(row) == keys for row in rows.values())
    assert (rows["stem"]["verdict"], rows["last"]["verdict"]) == ("none", "horizontal")
    assert rows["last"]["horizontal"] > 2 / 3
    assert (rows["point"]["horizontal"], rows["point"]["verdict"]) == (None, None)
    assert "1x1" in rows["point"]["skipped"]
    assert "NaN" in rows["nan"]["skipped"]
    assert result.stderr == ""  # no progress bar where nobody watches


def test_the_table_shows_intervals_and_reasons(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = StringIO()
    monkeypatch.setattr("sweep.cli.consoles.output", Console(file=paper, width=160))
    analyze(file)
    printed = paper.getvalue()
    assert "skipped: 1x1 kernel" in printed
    assert "12x6x5x5" in printed
    assert "[" in next(line for line in printed.splitlines() if "last" in line)


def test_the_figure_has_a_row_a_scored_layer(file: Path, tmp_path: Path) -> None:
    one, both = tmp_path / "one.png", tmp_path / "both.png"
    assert analyze(file, "--figure", one, "--layer", "last").exit_code == 0
    assert analyze(file, "--figure", both).exit_code == 0
    with Image.open(one) as small, Image.open(both) as large:
        assert small.width == pytest.approx(large.width, rel=0.1)
        assert 1.5 * small.height < large.height < 2.5 * small.height


def test_the_joint_form_is_an_option(file: Path) -> None:
    own, joint = (json.loads(analyze(file, "--json", "--nmf", way).stdout) for way in ("per-neuron", "joint"))
    assert own[0]["horizontal"] != joint[0]["horizontal"]


def test_a_figure_without_a_scored_layer_or_a_folder_says_so(file: Path, tmp_path: Path) -> None:
    nothing = analyze(file, "--figure", tmp_path / "a.png", "--layer", "point", "--json")
    assert "no layer could be scored" in str(nothing.exception)
    nowhere = analyze(file, "--figure", tmp_path / "gone" / "a.png", "--json")
    assert "can't write" in str(nowhere.exception)
    assert [len(json.loads(result.stdout)) for result in (nothing, nowhere)] == [1, 4]  # what was measured is told


def test_the_two_scores_and_intervals_are_told_apart(file: Path) -> None:
    (row,) = json.loads(analyze(file, "--json", "--layer", "last").stdout)
    (result,) = analyze_file(file, ["last"])
    assert result.scores is not None
    assert row["horizontal"] == pytest.approx(result.scores.horizontal, abs=1e-4)
    assert row["vertical"] == pytest.approx(result.scores.vertical, abs=1e-4)
    table = layer_results_table([result])
    horizontal, vertical = ("".join(table.columns[column].cells) for column in (2, 3))
    for said, direction in ((horizontal, "horizontal"), (vertical, "vertical")):
        numbers = [getattr(result.scores, f"{direction}{end}") for end in ("", "_low", "_high")]
        assert [float(number) for number in re.findall(r"-?\d+\.\d+", said)] == [round(n, 2) for n in numbers]


@pytest.mark.parametrize("name", ["net.tar", "net"])
def test_a_file_of_another_kind_is_told_with_the_kinds_that_are_read(file: Path, name: str) -> None:
    other = file.with_name(name)
    other.write_bytes(b"\x01\x02\x03")
    assert "known endings: .safetensors" in str(analyze(other).exception)


def test_a_grid_may_ask_for_all_layers_and_for_as_many_actors_as_fit() -> None:
    analysis = load_grid("demo", ["analysis.layers=all", "analysis.actors=auto"]).analysis
    assert (analysis.layers, analysis.actors) == ("all", "auto")
    assert load_grid("demo", []).analysis.layers == "final"
    with pytest.raises(ValueError, match="did you mean 'all'"):
        load_grid("demo", ["analysis.layers=al"])
    with pytest.raises(ValueError, match=r"analysis\.actors"):
        load_grid("demo", ["analysis.actors=0"])
