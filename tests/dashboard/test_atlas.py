"""The page about an atlas: shown where there is one, filtered and searched, with the weights of the chosen layer."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import atlases
from dashboard.serve import APP
from sweep.cli.dashboard import _shown
from sweep.results.atlas import COLUMNS, write_atlas
from sweep.results.verdicts import TOO_NOISY
from sweep.store.atlas_dir import Asked, AtlasDir

pytestmark = pytest.mark.slow

NETWORKS = [
    # source, pooling, weights, horizontal, vertical, verdict, reliability
    ("timm:resnet18.a1", "global average", "trained", 0.9, -0.1, "horizontal", 0.8),
    ("timm:vgg16.tv", "flatten", "trained", 0.1, -0.001, "none", 0.8),
    ("random:timm:resnet18", "global average", "random", 0.0, 0.0, "none", 0.02),
    ("/nets/[turned].pt", "unknown", None, 0.0, 0.8, "vertical", None),
]


def write(folder: Path) -> None:
    """An atlas of four networks and one whose weights can't be had; only the first one's picture is there."""
    atlas = AtlasDir(UPath(folder))
    atlas.ask(Asked(sources=["timm"]))
    rows: list[dict[str, object]] = []
    for number, (source, pooling, weights, horizontal, vertical, verdict, reliability) in enumerate(NETWORKS):
        library = "timm" if "timm:" in source else "file"
        name = source.rpartition(":")[2].rpartition("/")[2]
        scores = {"horizontal": horizontal, "horizontal_low": horizontal - 0.1, "horizontal_high": horizontal + 0.1,
                  "vertical": vertical, "vertical_low": vertical - 0.1, "vertical_high": vertical + 0.1}  # fmt: skip
        facts = {"source": source, "library": library, "name": name, "weights": weights, "architecture": name[:8]}
        layer = {"layer": "layer4.conv", "kernel": "3x3", "padding": "zeros", "neurons": 8, "digest": f"d{number}"}
        layer |= {"single_tap": number, "reliability": reliability}
        rows += [facts | layer | scores | {"pooling": pooling, "position": p, "verdict": verdict} for p in (1, 2)]
    rows.append({"source": "timm:gone.v1", "library": "timm", "name": "gone.v1", "error": "ValueError: no $network$"})
    write_atlas(atlas, pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))
    folder_of = folder / "networks" / "d0"
    folder_of.mkdir(parents=True)
    none, reduced = np.zeros(8), np.ones((8, 3, 3, 3), np.float16)
    np.savez(folder_of / "layer4.conv.npz", reduced=reduced, order=np.arange(8), horizontal=none, vertical=none)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    write(tmp_path / "atlas")
    monkeypatch.setattr(sys, "argv", ["app.py", str(tmp_path)])
    return AppTest.from_file(str(APP), default_timeout=600).switch_page("views/atlas.py")


def names(page: AppTest) -> list[str]:
    return list(page.dataframe[1].value["Network"])


def test_it_counts_verdicts_by_pooling_and_shows_the_weights_of_a_layer(page: AppTest) -> None:
    page.run()
    assert not page.exception
    counts = page.dataframe[0].value.set_index("pooling")
    assert list(counts.loc["global average"]) == [2, 1, 0, 0, 1]
    assert page.dataframe[1].value["Verdict"].tolist() == ["horizontal", "none", TOO_NOISY, "vertical"]
    assert names(page) == ["resnet18.a1", "vgg16.tv", "resnet18", "[turned].pt"]
    assert page.dataframe[1].value["Vertical"].tolist() == [-0.1, 0.0, 0.0, 0.8]
    assert any("resnet18.a1" in str(part.value) for part in page.subheader)
    (image,) = page.get("image")
    assert image.proto.imgs[0].url.endswith(".png")
    assert any("1 network without scores" in part.label for part in page.expander)


def test_filters_and_the_search_are_in_the_address(page: AppTest) -> None:
    page.query_params["pooling"] = "global average"
    page.query_params["search"] = "resnet a1"
    page.run()
    assert names(page) == ["resnet18.a1"]
    page.text_input[0].set_value("nothing of this name").run()
    assert any("No layer matches" in str(part.value) for part in page.info)
    assert "search" in page.query_params


def test_what_is_too_noisy_to_judge_is_told_apart_from_none(page: AppTest) -> None:
    page.query_params["verdict"] = TOO_NOISY
    page.run()
    assert not page.exception
    assert names(page) == ["resnet18"]
    told = [str(part.value) for part in page.caption]
    assert any(TOO_NOISY in part for part in told)
    assert any("2 of 8 neurons with weights at one position alone" in part for part in told)
    page.query_params["verdict"] = "none"
    page.run()
    assert names(page) == ["vgg16.tv"]


def test_a_link_shows_its_layer_and_says_what_is_not_there(page: AppTest) -> None:
    page.query_params["shown"] = "/nets/[turned].pt#2"
    page.run()
    assert not page.exception
    assert any("picture can't be read" in str(part.value) for part in page.info)
    page.query_params["shown"] = "timm:other#1"
    page.run()
    assert any("no scored layer" in str(part.value) for part in page.warning)


def test_the_page_is_there_only_where_an_atlas_is(page: AppTest, tmp_path: Path) -> None:
    assert _shown(str(tmp_path), "runs") == str(tmp_path)
    assert _shown(str(tmp_path / "atlas"), "runs") == str(tmp_path / "atlas")
    sys.argv[1] = str(tmp_path / "atlas")
    assert (atlases.names(), atlases.opened("atlas").path.name) == (["atlas"], "atlas")
    sys.argv[1] = str(tmp_path / "elsewhere")
    assert atlases.names() == []
    page.run()
    assert not page.exception
    assert "Atlas" not in [str(title.value) for title in page.title]
