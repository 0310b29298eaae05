"""The report and what it is made of, on a synthetic sweep in every state and on an empty one."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from analysis.clusters import KS
from sweep.report.cells import SEEDS_DRAWN, trajectory_lines
from sweep.report.drawings import Line, interval_svg, trajectory_svg
from sweep.report.export import export
from sweep.report.page import _probe_rows, render, write_report
from sweep.results.clusters import update_clusters
from sweep.results.figure12 import cluster_section, published_percents
from sweep.results.tables import COLUMNS, read_centres, read_table
from tests.dashboard.synthetic import TRIALS, trial_id, write_sweep


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """The synthetic sweep with one trial more, in which each neuron differs a little from the others."""
    surprise = ("spatial_mask", 0, "finished", 0.2, 0.1, "none", "horizontal")
    monkeypatch.setattr("tests.dashboard.synthetic.TRIALS", [*TRIALS, surprise])
    write_sweep(tmp_path / "demo")
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "demo").rglob("*.npz")):
        with np.load(path) as arrays:
            content = dict(arrays)
        content["reduced"] = content["reduced"] + rng.uniform(0, 0.02, content["reduced"].shape).astype(np.float16)
        np.savez(path, **content)
    layers = read_table(UPath(tmp_path / "demo"), "layers")[["trial_id", "step", "layer"]]
    parts = []
    for neuron, score in enumerate((0.7, 0.2, 0.1, 0.0)):  # all neurons are banded but those of the surprise
        surprising = layers["trial_id"] == trial_id("spatial_mask", 0)
        scores = {"neuron": neuron, "horizontal": surprising.map({True: score, False: 0.9}), "vertical": -0.1}
        parts.append(layers.assign(**scores))
    neurons = pd.concat(parts, ignore_index=True).astype(COLUMNS["neurons"])
    neurons.to_parquet(tmp_path / "demo" / "results" / "neurons.parquet", index=False)
    return UPath(tmp_path / "demo")


class Page(HTMLParser):
    """Tags that were opened and not closed, ids, links, and what the page loads."""

    VOID = {"meta", "img", "br"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(values["href"])] if "href" in values else []
        self.sources += [str(values["src"])] if "src" in values else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A drawing's part closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(sweep: UPath) -> None:
    update_clusters(sweep)
    html = render(sweep)
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<script" not in html
    assert re.findall(r"https?://|url\(|@import", html) == []


def test_it_tells_everything_of_the_sweep(sweep: UPath) -> None:
    update_clusters(sweep)
    html = render(sweep)
    for said in (
        "0.88 ± 0.04",  # baseline, two seeds: 0.91 and 0.85
        "≠ expected",  # spatial_mask is not banded
        "1 running",
        "DivergedError: the loss was not a finite number at step 7",
        "Traceback (most recent call last)",
        "coordinates need two convolutions",
        "Exploration: other layers",
        "holds from epoch 2, 2",
        "k = 19",
        "How to read",
    ):
        assert said in html, said


def test_a_verdict_is_surprising_only_where_something_else_was_expected(sweep: UPath) -> None:
    # Both layers of spatial_mask in the table, and its card.
    assert render(sweep).count("≠ expected") == 3


def test_text_from_outside_is_escaped(sweep: UPath) -> None:
    error = sweep / "trials" / trial_id("x_pool", 0) / "error.txt"
    error.write_text("<script>alert(1)</script>")
    assert "&lt;script&gt;alert(1)" in render(sweep)


def test_an_empty_sweep_has_a_report(tmp_path: Path) -> None:
    sweep = UPath(tmp_path / "empty")
    (sweep / "results").mkdir(parents=True)
    update_clusters(sweep)
    write_report(sweep, UPath(tmp_path / "report.html"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Page(html).open == []
    assert "No trials yet" in html
    assert export(sweep, UPath(tmp_path / "export")) == 2 * (len(COLUMNS) + 3)


def test_many_seeds_are_drawn_in_part_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [("baseline", seed, "finished", 0.9, 0.0, "horizontal", "horizontal") for seed in range(5)]
    monkeypatch.setattr("tests.dashboard.synthetic.TRIALS", many)
    write_sweep(tmp_path / "many")
    html = render(UPath(tmp_path / "many"))
    assert html.count("<span>seed ") == 2 * SEEDS_DRAWN
    assert "3 of 5 seeds drawn" in html


def test_two_recipes_are_two_grids_and_are_not_averaged(sweep: UPath) -> None:
    path = sweep / "results" / "trials.parquet"
    trials = pd.read_parquet(path)
    trials["recipe_key"] = ["a", "b", *["a"] * (len(trials) - 2)]
    trials.to_parquet(path)
    html = render(sweep)
    assert html.count('<table class="grid">') == 2
    assert "recipe b" in html
    assert "0.88 ± 0.04" not in html


def test_only_finished_trials_at_their_last_step_are_averaged(sweep: UPath) -> None:
    update_clusters(sweep)
    r2 = {trial_id("baseline", 0): 0.5, trial_id("baseline", 1): 0.7, trial_id("rotate90", 0): 0.125}
    probes = [
        {"trial_id": trial, "step": 20, "layer": layer, "row_r2": value + 0.0625 * place, "column_r2": -value}
        for trial, value in r2.items()
        for place, layer in enumerate(("features.3b.conv", "map"))
    ]
    stale = {"trial_id": trial_id("baseline", 0), "step": 10, "layer": "map", "row_r2": -9.0, "column_r2": -9.0}
    running = stale | {"trial_id": trial_id("untrained", 0), "step": 20}
    frame = pd.DataFrame([*probes, stale, running], columns=list(COLUMNS["probes"])).astype(COLUMNS["probes"])
    frame.to_parquet(sweep / "results" / "probes.parquet", index=False)
    trials, layers = read_table(sweep, "trials").fillna({"data_key": "", "recipe_key": ""}), read_table(sweep, "layers")
    rows = _probe_rows(trials, layers, read_table(sweep, "probes"))
    found = [(row.intervention, row.layer, row.n, row.row_mean, row.column_mean) for row in rows.itertuples()]
    assert found == [
        ("baseline", "map", 2, pytest.approx(0.6625), pytest.approx(-0.6)),
        ("baseline", "features.3b.conv", 2, pytest.approx(0.6), pytest.approx(-0.6)),
        ("rotate90", "map", 1, pytest.approx(0.1875), pytest.approx(-0.125)),
        ("rotate90", "features.3b.conv", 1, pytest.approx(0.125), pytest.approx(-0.125)),
    ]
    clusters = read_table(sweep, "clusters")
    going_on = trials.assign(status=trials["status"].where(trials["trial_id"] != trial_id("baseline", 1), "running"))
    section = cluster_section(sweep, going_on, clusters, read_table(sweep, "neurons"))
    assert section is not None
    assert {row.seeds for row in section.rows if row.intervention == "baseline"} == {1}
    own = {(row.intervention, row.layer): row.own for row in section.rows}
    assert own["baseline", "features.3b.conv"] == [0, 100, 0]
    assert own["spatial_mask", "features.3b.conv"] == [0, 25, 75]


def test_clusters_of_two_recipes_say_which(sweep: UPath) -> None:
    update_clusters(sweep)
    trials = read_table(sweep, "trials").fillna({"data_key": ""})
    section = cluster_section(sweep, trials.assign(recipe_key=["a", "b"] * 4), read_table(sweep, "clusters"))
    assert section is not None
    assert {row.condition for row in section.rows} == {"scenes, recipe a", "scenes, recipe b"}


def test_clusters_of_a_sweep(sweep: UPath) -> None:
    assert update_clusters(sweep)
    table = read_table(sweep, "clusters")
    assert set(table["k"]) == set(KS)
    assert table.groupby(["trial_id", "layer", "k"])["percent"].sum().to_numpy() == pytest.approx(100)
    assert set(table["step"]) == {20}
    assert set(table["label"]) == {"horizontal"}  # the synthetic neurons are all alike
    for k in KS:
        centres = read_centres(sweep, k)
        assert centres is not None
        assert centres.shape == (k, 5, 5, 3)
    assert read_centres(sweep, 3) is None


def test_clusters_are_made_anew_only_when_something_changed(sweep: UPath) -> None:
    assert update_clusters(sweep)
    assert not update_clusters(sweep)
    assert update_clusters(sweep, normalisation="norm")
    assert set(read_table(sweep, "clusters")["normalisation"]) == {"norm"}
    layers = pd.read_parquet(sweep / "results" / "layers.parquet")
    layers[layers["step"] < 20].to_parquet(sweep / "results" / "layers.parquet")
    assert update_clusters(sweep, normalisation="norm")
    assert set(read_table(sweep, "clusters")["step"]) == {10}


def test_layers_of_other_kernels_make_no_clusters(sweep: UPath) -> None:
    assert update_clusters(sweep, (3, 3))
    assert read_table(sweep, "clusters").empty
    assert 'id="clusters"' not in render(sweep)


def test_the_article_stands_beside_its_own_networks_only() -> None:
    assert published_percents("simplified", "baseline", 1) == [0, 100, 0, 0]
    assert published_percents("simplified_mini", "no_pooling", 1) == [0, 0, 16.4, 83.6]
    assert published_percents("resnet50", "baseline", 1) == []
    assert published_percents("simplified", "untrained", 1) == []


def test_export_writes_every_table_twice_and_every_layer(sweep: UPath, tmp_path: Path) -> None:
    update_clusters(sweep)
    folder = UPath(tmp_path / "export")
    files = export(sweep, folder)
    written = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert len(written) == files
    assert len(list(Path(folder / "weights").rglob("*.png"))) == 4 * 2  # of finished trials
    assert len(list(Path(folder / "centres").iterdir())) == len(KS)
    trials = pd.read_csv(folder / "tables" / "trials.csv")
    assert trials["trial_id"].tolist() == read_table(sweep, "trials")["trial_id"].tolist()
    assert len(pd.read_parquet(folder / "tables" / "layers.parquet")) == len(read_table(sweep, "layers"))


def test_a_trajectory_is_thin_for_seeds_and_thick_for_their_mean() -> None:
    seeds = [pd.DataFrame({"epoch": [0.0, 1.0], "horizontal": [0.0, top], "vertical": 0.0}) for top in (0.4, 0.8)]
    lines = [line for line in trajectory_lines(seeds) if line.direction == "horizontal"]
    assert [(line.thick, line.scores) for line in lines] == [
        (False, [0, 0.4]), (False, [0, 0.8]), (True, [0, pytest.approx(0.6)]),
    ]  # fmt: skip
    assert trajectory_svg(lines).count("<polyline") == 3


def test_drawings_stay_within_their_frames() -> None:
    svg = trajectory_svg([Line(direction="vertical", epochs=[0.0], scores=[-5.0], thick=True)])
    places = [float(value) for value in re.findall(r'c[xy]="([^"]+)"', svg)]
    assert all(0 <= place <= 250 for place in places)
    assert np.isfinite(places).all()
    assert 'cx="177.0"' in interval_svg(9.0, None, "#000")
    assert "stroke-width" not in interval_svg(0.0, None, "#000")
