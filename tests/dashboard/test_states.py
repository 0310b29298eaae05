"""Every page over all that a storage can hold: three seeds, what failed, runs, was abandoned, left out, damaged."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard.serve import APP
from sweep.results.tables import read_table, write_table
from tests.dashboard.synthetic import trial_id, write_sweep

PAGES = sorted(path.name for path in (APP.parent / "views").glob("*.py"))
NASTY = "ValueError: $x$ :red[a] ![b](http://c.example/d.png) <b>e</b> `f` [g](h) *i* #j"
LINKS: dict[str, dict[str, list[str]]] = {
    "weights.py": {"show": [trial_id("baseline", 2), trial_id("x_pool", 0), f"{trial_id('rotate90', 0)}/no.layer"]},
    "compare.py": {"trial": [trial_id("baseline", 0), trial_id("x_pool", 0), "no-such-trial"]},
    "trial.py": {"trial": [trial_id("x_pool", 0)]},
}


def every_state(folder: Path) -> None:
    """The sweep of `write_sweep` with a third seed, abandoned and unscored trials, damaged pictures, nasty texts."""
    write_sweep(folder)
    sweep = UPath(folder)
    trials, layers, epochs = (read_table(sweep, name) for name in ("trials", "layers", "epochs"))
    seed = trial_id("baseline", 2)
    of_first = {name: table[table["trial_id"] == trial_id("baseline", 0)] for name, table in
                (("trials", trials), ("layers", layers), ("epochs", epochs))}  # fmt: skip
    shutil.copytree(folder / "trials" / trial_id("baseline", 0), folder / "trials" / seed)
    for file in (folder / "trials" / seed).rglob("features.3b.conv.npz"):
        file.write_bytes(b"PK half of a picture")
    third = {name: table.assign(trial_id=seed) for name, table in of_first.items()}
    third["trials"] = third["trials"].assign(seed=2)
    abandoned = trials[trials["status"] == "running"].assign(
        trial_id=trial_id("no_pooling", 1), seed=1, status="pending", attempts=3, reason=NASTY, host=NASTY
    )
    unscored = third["trials"].assign(trial_id=trial_id("baseline", 3), seed=3)
    broken = third["layers"].assign(trial_id=trial_id("baseline", 3), verdict=None, horizontal=None, error=NASTY)
    trials.loc[trials["status"] == "failed", "error"] = NASTY
    write_table(sweep, "trials", pd.concat([trials, third["trials"], abandoned, unscored], ignore_index=True))
    write_table(sweep, "layers", pd.concat([layers, third["layers"], broken], ignore_index=True))
    write_table(sweep, "epochs", pd.concat([epochs, third["epochs"]], ignore_index=True))
    (folder / "notes").mkdir()
    (folder / "notes" / f"{seed}.json").write_text('{"text": ')
    (folder / "requests").mkdir()
    (folder / "requests" / f"{seed}.json").write_text("no request")


@pytest.mark.parametrize(("page", "driven"), [*((page, True) for page in PAGES), ("trials.py", False)])
def test_every_page_over_every_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, driven: bool) -> None:
    every_state(tmp_path / "demo")
    if not driven:
        (tmp_path / "demo" / "driver" / "1.json").unlink()
    monkeypatch.setattr(sys, "argv", ["app.py", str(tmp_path)])
    app = AppTest.from_file(str(APP), default_timeout=120).switch_page(f"views/{page}")
    for name, values in LINKS.get(page, {}).items():
        app.query_params[name] = values
    app.run()
    assert not app.exception
    said = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.title, *app.subheader, *app.header]
    assert not any("![b](http" in str(element.value) for element in said)
    assert not any("-0.00" in str(element.value) for element in said)
    assert len(app.title) == 1
