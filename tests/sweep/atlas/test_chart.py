"""Networks looked at by plain calls, without Ray: files, a library of three, the same weights twice, what is broken."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from upath import UPath

from analysis.layers import analyze_file
from models import libraries
from models.libraries import Library
from sweep.atlas import chart as charting
from sweep.atlas import network as networks
from sweep.atlas.chart import Task, chart
from sweep.atlas.memory import free_bytes
from sweep.atlas.sources import addresses, listing, unfinished
from sweep.report.atlas import render
from sweep.results.atlas import COLUMNS, atlas_table, failures, read_atlas, read_layer, verdicts_by, write_atlas
from sweep.results.tables import parquet, plain_records
from sweep.results.verdicts import TOO_NOISY, told_verdict
from sweep.store.addresses import absolute_source
from sweep.store.atlas_dir import Asked, AtlasDir, Record, atlas_names, open_atlas
from sweep.terminal.atlas import atlas_json, summary

TASK = Task(last=2, run="a run")


def banded(n: int = 12, c: int = 6) -> torch.Tensor:
    noise = torch.randn(n, c, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.linspace(-1, 1, 5)[:, None].expand(5, 5) * noise[:, :, :1, :1] + 0.05 * noise


class Tiny(nn.Module):
    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")
        self.conv = nn.Conv2d(6, 12, 5, padding=2)
        self.head = nn.Linear(12, 2)
        if trained:
            self.conv.weight.data = banded()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.stem(images)).mean((2, 3)))


def build(name: str, trained: bool) -> nn.Module:
    if name == "gone.v1" and trained:
        raise OSError("no route to the server")
    return nn.Linear(2, 2) if name.startswith("flat") else Tiny(trained)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of three networks, one of whose weights can't be had."""
    known = Library(
        architectures=lambda: ["flat", "gone", "tiny"], weights=lambda: ["flat.v1", "gone.v1", "tiny.v1"], build=build
    )
    monkeypatch.setitem(libraries.LIBRARIES, "timm", known)


@pytest.fixture
def atlas(tmp_path: Path) -> AtlasDir:
    return AtlasDir(UPath(tmp_path / "runs" / "atlas"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two copies of a banded file, a broken one, what is no checkpoint, and what training continues from."""
    folder = tmp_path / "nets"
    (folder / "deep").mkdir(parents=True)
    torch.save({"first.weight": torch.randn(6, 3, 3, 3), "last.weight": banded()}, folder / "a.pt")
    shutil.copy(folder / "a.pt", folder / "deep" / "copy.pth")
    (folder / "broken.pt").write_text("torn")
    for name in ("notes.txt", "training.safetensors", ".hidden.pt", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("none of these")
    return folder


def table(atlas: AtlasDir, records: list[Record]) -> Any:
    return atlas_table(records, lambda digest: atlas.layers(digest) or {})


def meant(*sources: str) -> list[str]:
    return [address for source in sources for address in addresses(source)]


def test_a_library_is_scored_and_what_is_missing_is_a_row_with_its_reason(library: None, atlas: AtlasDir) -> None:
    found = listing(atlas, ["timm", "random:timm:t*", "timm:tiny.v1"], []).networks
    assert found == ["timm:flat.v1", "timm:gone.v1", "timm:tiny.v1", "random:timm:tiny"]
    flat, gone, trained, random = (chart(atlas, address, TASK) for address in found)
    assert "no convolution" in str(flat.error)
    assert "run this where there is a network" in str(gone.error)
    assert (trained.architecture, trained.pooling, trained.error) == ("tiny", "global average", None)
    rows = table(atlas, [flat, gone, trained, random])
    assert list(rows.columns) == list(COLUMNS)
    of = rows.set_index(["source", "position"])
    last, before = of.loc[("timm:tiny.v1", 1)], of.loc[("timm:tiny.v1", 2)]
    assert (last["layer"], last["kernel"], last["padding"], last["verdict"]) == ("conv", "5x5", "zeros", "horizontal")
    assert (before["layer"], before["kernel"], before["padding"]) == ("stem", "3x3", "reflect")
    assert last["horizontal_low"] <= last["horizontal"] <= last["horizontal_high"]
    assert of.loc[("random:timm:tiny", 1)]["verdict"] == "none"
    assert rows["weights"].tolist() == ["trained"] * 4 + ["random"] * 2
    assert [number for number, _, _ in failures(rows)] == [1, 1]


def test_a_file_is_scored_as_sweep_analyze_scores_it(atlas: AtlasDir, folder: Path) -> None:
    record = chart(atlas, str(folder / "a.pt"), TASK)
    (result,) = analyze_file(folder / "a.pt", ["last"])
    (row,) = table(atlas, [record]).query("layer == 'last'").to_dict("records")
    assert result.scores is not None
    assert (row["position"], row["library"], row["pooling"]) == (1, "file", "unknown")
    assert row["horizontal"] == result.scores.horizontal
    assert record.digest is not None
    reduced = read_layer(atlas.path, record.digest, "last")
    assert reduced is not None
    assert result.reduction is not None
    np.testing.assert_allclose(reduced.reduced, result.reduction.reduced, atol=1e-3)  # it is kept in half precision


def test_the_same_weights_are_analysed_once_and_both_rows_say_so(
    atlas: AtlasDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = charting.analyze_chosen
    monkeypatch.setattr(charting, "analyze_chosen", lambda *given: calls.append(1) or whole(*given))
    found = addresses(str(folder))
    assert [UPath(one).name for one in found] == ["a.pt", "broken.pt", "copy.pth"]
    records = [chart(atlas, address, TASK) for address in found]
    assert len(calls) == 1
    rows = table(atlas, records)
    last = rows[rows["position"] == 1].set_index("name")["same_as"]
    assert last.to_dict() == {"a.pt": found[2], "copy.pth": found[0]}
    assert verdicts_by(rows, "pooling").to_dict("records") == [
        {"pooling": "unknown", "networks": 1, "horizontal": 1, "vertical": 0, "none": 0, TOO_NOISY: 0}
    ]
    assert "damaged" in rows.set_index("name").loc["broken.pt", "error"]


def test_weights_that_another_actor_analyses_are_left_to_it_and_taken_over_from_a_dead_run(atlas: AtlasDir) -> None:
    assert atlas.claim("digest", "first", "run")
    assert atlas.claim("digest", "first", "run")  # its actor has died, and it is tried again
    assert not atlas.claim("digest", "second", "run")
    assert atlas.claim("digest", "second", "next run")


def test_only_what_is_missing_or_has_changed_is_done_again(atlas: AtlasDir, folder: Path, library: None) -> None:
    found = meant(str(folder), "timm")
    assert unfinished(atlas, found) == found
    for address in found[:3]:
        chart(atlas, address, TASK)
    a, broken, copy, *named = found
    assert unfinished(atlas, found) == [broken, *named]
    for address in named:
        chart(atlas, address, TASK)
    assert unfinished(atlas, found) == [broken, "timm:flat.v1", "timm:gone.v1"]
    torch.save({"last.weight": torch.randn(8, 4, 3, 3)}, copy)
    (atlas.path / "sources" / "torn.json").write_text("{")
    assert unfinished(atlas, [a, copy]) == [copy]


def test_an_interrupted_analysis_has_no_results_and_its_row_says_so(atlas: AtlasDir, folder: Path) -> None:
    record = chart(atlas, str(folder / "a.pt"), TASK)
    (atlas.network(str(record.digest)) / "layers.json").unlink()
    assert unfinished(atlas, [record.source]) == [record.source]
    assert "run the same command again" in atlas_table([record], lambda _: {})["error"].iloc[0]


def test_a_network_larger_than_the_machine_is_not_built(
    atlas: AtlasDir, library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "free_bytes", lambda: 10)
    assert "of memory" in str(chart(atlas, "timm:tiny.v1", TASK).error)


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       2000 kB\nMemAvailable:   1000 kB\nHugePages_Total:       0\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:       2000 kB\n"}, None),
        (MEMINFO, 1_024_000),
        (  # a job below a slice that allows less than its machine has, and less than the job's own group
            MEMINFO | {
                "proc/self/cgroup": "1:name=systemd:/\n0::/jobs/7\n",
                "sys/fs/cgroup/jobs/7/memory.max": "max\n", "sys/fs/cgroup/jobs/7/memory.current": "900\n",
                "sys/fs/cgroup/jobs/memory.max": "5000\n", "sys/fs/cgroup/jobs/memory.current": "4500\n",
                "sys/fs/cgroup/jobs/memory.stat": "anon 4100\ninactive_file 300\nactive_file 100\n",
            },
            900,
        ),
        (  # a container that sees its group as the top one
            MEMINFO | {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "5100\n",
            },
            0,
        ),
        (  # version 1: the path is the host's, what is mounted the container's
            MEMINFO | {
                "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/c0ffee\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "7000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 10\n",
            },
            1030,
        ),
        (  # version 1 without a limit
            MEMINFO | {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000\n",
            },
            1_024_000,
        ),
    ],
)  # fmt: skip
def test_free_memory_is_the_least_that_the_machine_and_its_control_groups_have_left(
    tmp_path: Path, files: dict[str, str], free: int | None
) -> None:
    assert free_bytes(system(tmp_path, files)) == free
    assert (free_bytes() or 2**30) > 2**20  # of this process


@pytest.mark.parametrize("damage", ["", "[", '[{"layer": "la', "{}", '[{"layer": 1, "error": null}]', "\xff"])
def test_damaged_results_are_made_again(atlas: AtlasDir, folder: Path, damage: str) -> None:
    source = str(folder / "a.pt")
    record = chart(atlas, source, TASK)
    whole = table(atlas, [record])
    folder_of = atlas.network(str(record.digest))
    (folder_of / "layers.json").write_bytes(damage.encode("latin-1"))
    (folder_of / "claim.json").write_bytes(damage.encode("latin-1"))
    assert "run the same command again" in table(atlas, [record])["error"].iloc[0]
    assert unfinished(atlas, [source]) == [source]
    chart(atlas, source, Task(last=2, run="next run"))
    assert unfinished(atlas, [source]) == []
    assert table(atlas, [record]).equals(whole)


def test_a_remembered_source_that_means_nothing_any_more_is_a_row_with_its_reason(
    library: None, atlas: AtlasDir, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied, below = str(folder / "deep"), str(folder / "deep" / "copy.pth")
    sources = ["timm:tiny.v1", emptied, below, "torchvision", "timm:flat*"]
    chart(atlas, below, TASK)
    shutil.rmtree(folder / "deep")
    (folder / "deep").mkdir()
    known = Library(architectures=list, weights=lambda: ["flat.v1"], build=build)
    monkeypatch.setitem(libraries.LIBRARIES, "timm", known)

    def missing() -> list[str]:
        raise ImportError("no such library")

    monkeypatch.setitem(libraries.LIBRARIES, "torchvision", Library(architectures=list, weights=missing, build=build))
    found = listing(atlas, sources, ["timm:flat*"])
    assert (found.networks, found.todo) == ([below, "timm:flat.v1"], [below, "timm:flat.v1"])
    assert [record.source for record in found.lost] == ["timm:tiny.v1", emptied, "torchvision"]
    rows = table(atlas, found.lost)
    assert rows["name"].tolist() == ["tiny.v1", "deep", "torchvision"]
    assert ["no network" in rows["error"][0], "no checkpoint" in rows["error"][1], rows["error"][2]] == [
        True, True, "ImportError: no such library",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no network"):
        listing(atlas, sources, ["timm:tiny.v1"])
    shutil.rmtree(folder / "deep")
    (folder / "deep").write_text("a file now")
    assert listing(atlas, [below], []).todo == [below]
    assert "NotADirectoryError" in str(chart(atlas, below, TASK).error)


def test_layers_too_noisy_to_judge_are_no_evidence_for_none(atlas: AtlasDir, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(8, 1, 5, 5, generator=generator)
    noise = torch.randn(8, 8, 5, 5, generator=generator)
    scale = torch.randn(8, 8, 1, 1, generator=generator)
    torch.save({"c.weight": noise}, folder / "noise.pt")
    torch.save({"c.weight": pattern * scale + 0.01 * noise}, folder / "shapes.pt")
    records = [chart(atlas, str(folder / name), TASK) for name in ("noise.pt", "shapes.pt")]
    rows = table(atlas, records)
    assert rows["verdict"].tolist() == ["none", "none"]
    (noisy,), (sound,) = (list((atlas.layers(str(record.digest)) or {}).values()) for record in records)
    for column in ("reliability", "null_turned_mean", "null_turned_high", "single_tap"):
        assert rows[column].tolist() == [noisy[column], sound[column]]
    assert [told_verdict(row["verdict"], row["reliability"]) for row in plain_records(rows)] == [TOO_NOISY, "none"]
    counts = {"pooling": "unknown", "networks": 2, "horizontal": 0, "vertical": 0, "none": 1, TOO_NOISY: 1}
    assert verdicts_by(rows, "pooling").to_dict("records") == [counts]
    console = Console(file=StringIO(), width=160)
    console.print(summary(rows))
    assert TOO_NOISY in console.file.getvalue()
    document = atlas_json(atlas, rows)
    assert document["by_pooling"] == [counts]
    assert document["layers"][0]["reliability"] == noisy["reliability"]
    page = render(atlas, rows)
    assert page.count(f">{TOO_NOISY}<") == page.count(">none<") == 5  # the head of three counts, a picture, a row


def test_a_table_and_results_of_an_older_version_are_read(atlas: AtlasDir, folder: Path) -> None:
    added = ["reliability", "null_turned_mean", "null_turned_high", "single_tap"]
    record = chart(atlas, str(folder / "a.pt"), TASK)
    rows = table(atlas, [record])
    atlas.table.parent.mkdir(parents=True)
    atlas.table.write_bytes(parquet(rows.drop(columns=added)))
    old = read_atlas(atlas)
    assert old[added].isna().all(axis=None)
    assert verdicts_by(old, "pooling")["horizontal"].tolist() == [1]
    file = atlas.network(str(record.digest)) / "layers.json"
    layers = [{key: value for key, value in row.items() if key not in added} for row in json.loads(file.read_text())]
    file.write_text(json.dumps(layers))
    assert unfinished(atlas, [record.source]) == []
    assert table(atlas, [record]).equals(old)


def test_mistakes_are_told_with_a_cure(tmp_path: Path, atlas: AtlasDir) -> None:
    with pytest.raises(ValueError, match="libraries: timm, torchvision"):
        absolute_source("tim")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        addresses(str(tmp_path / "empty"))
    (tmp_path / "empty" / "sweep.yaml").touch()
    with pytest.raises(ValueError, match="sweep analyze"):
        addresses(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="is empty"):
        atlas.extended([], None)
    atlas.ask(atlas.extended(["timm"], 2))
    assert atlas.extended(["timm", "torchvision"], None) == Asked(sources=["timm", "torchvision"], last=2)
    with pytest.raises(ValueError, match="--last"):
        atlas.extended([], 3)
    atlas.file.write_text("{")
    with pytest.raises(ValueError, match="damaged") as told:
        atlas.asked()
    assert "sweep resume" not in str(told.value)


def test_an_atlas_is_found_by_name_or_path(tmp_path: Path, atlas: AtlasDir) -> None:
    assert atlas_names(atlas.path.parent) == []
    atlas.ask(Asked(sources=["timm"]))
    assert atlas_names(atlas.path.parent) == ["atlas"]
    assert open_atlas("atlas", str(tmp_path / "runs")) == open_atlas(str(atlas.path), "elsewhere") == atlas
    (atlas.path / "sweep.yaml").touch()
    with pytest.raises(ValueError, match="is a sweep"):
        open_atlas("atlas", str(tmp_path / "runs"))


def test_the_table_survives_being_written(atlas: AtlasDir, folder: Path) -> None:
    rows = table(atlas, [chart(atlas, str(folder / "a.pt"), TASK)])
    assert read_atlas(atlas).empty
    write_atlas(atlas, rows)
    assert read_atlas(atlas).equals(rows)
    atlas.table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="sweep atlas --name"):
        read_atlas(atlas)
