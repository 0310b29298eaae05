"""Means and first epochs on cases computed by hand."""

from dataclasses import replace

import pandas as pd
import pytest

from sweep.results.compact import compact
from sweep.results.statistics import (
    first_epoch,
    first_epochs,
    over_seeds,
    scored,
    told_direction,
)
from sweep.results.tables import read_table
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir


def rows(*values: tuple[str, int, float, str]) -> pd.DataFrame:
    """Rows as `scored` gives them, of (intervention, seed, horizontal, verdict)."""
    common = {
        "data": "scenes", "data_key": "d", "recipe_key": "r", "architecture": "net", "layer": "last", "position": 1,
        "vertical": 0.0, "val_accuracy": 0.5, "expected": "horizontal", "primary": "horizontal",
        "reliability": 0.9, **dict.fromkeys(["null_horizontal_high", "null_vertical_high", "null_turned_high"], 0.1),
    }  # fmt: skip
    return pd.DataFrame(
        [common | dict(zip(("intervention", "seed", "horizontal", "verdict"), value, strict=True)) for value in values]
    )


def test_tables_without_keys_are_averaged() -> None:
    # Tables compacted before the keys existed have none; missing equals missing.
    table = rows(("baseline", 0, 0.9, "horizontal"), ("x_pool", 0, 0.5, "none"))
    table[["data_key", "recipe_key"]] = pd.NA
    assert len(over_seeds(table)) == 2


def trajectory(*verdicts: str, epochs: tuple[float | None, ...] | None = None) -> pd.DataFrame:
    steps = range(0, 10 * len(verdicts), 10)
    return pd.DataFrame({"step": steps, "epoch": epochs or tuple(range(len(verdicts))), "verdict": verdicts})


def test_mean_and_spread_over_seeds() -> None:
    (row,) = over_seeds(
        rows(("baseline", 0, 0.6, "none"), ("baseline", 1, 0.8, "horizontal"), ("baseline", 2, 1.0, "horizontal"))
    ).to_dict("records")
    assert (row["n"], row["verdict"], row["agreeing"], row["surprising"]) == (3, "horizontal", 2, False)
    assert row["horizontal_mean"] == pytest.approx(0.8)
    assert row["horizontal_std"] == pytest.approx(0.2)  # squares 0.04 + 0 + 0.04, over 2
    assert row["vertical_std"] == 0


@pytest.mark.parametrize("scores", [(0.70, 0.60), (0.60, 0.70)])
def test_where_seeds_are_divided_the_mean_decides(scores: tuple[float, float]) -> None:
    verdicts = ["horizontal" if score >= 2 / 3 else "none" for score in scores]
    (row,) = over_seeds(
        rows(*(("baseline", seed, *of) for seed, of in enumerate(zip(scores, verdicts, strict=True))))
    ).to_dict("records")
    assert (row["verdict"], row["agreeing"], row["surprising"]) == ("none", 1, True)  # the mean is 0.65


def test_a_verdict_tells_of_its_own_score_and_none_of_the_larger_one() -> None:
    assert told_direction("vertical", 0.9, 0.7) == "vertical"
    assert told_direction("none", -0.1, 0.2) == "vertical"
    assert told_direction("none", 0.2, 0.1) == "horizontal"


def test_none_is_told_as_too_noisy_where_most_seeds_are() -> None:
    table = rows(("baseline", 0, 0.3, "none"), ("baseline", 1, 0.3, "none"), ("baseline", 2, 0.9, "horizontal"))
    for reliability, told in (([0.1, 0.1, 0.9], "too noisy to judge"), ([0.1, 0.9, 0.1], "none"), (None, "none")):
        (row,) = over_seeds(table.assign(reliability=pd.Series(reliability, dtype="Float64"))).to_dict("records")
        assert (row["verdict"], row["told"]) == ("none", told)


def test_one_seed_has_no_spread() -> None:
    (row,) = over_seeds(rows(("baseline", 0, 0.6, "none"))).to_dict("records")
    assert row["n"] == 1
    assert pd.isna(row["horizontal_std"])
    assert row["surprising"]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("none", "horizontal", "horizontal"), 1),
        (("none", "horizontal", "none", "horizontal"), 3),  # lost once: it holds from its return
        (("horizontal", "vertical"), 1),
        (("horizontal", "horizontal"), 0),
        (("horizontal", "none"), None),
        ((), None),
    ],
)
def test_first_epoch(verdicts: tuple[str, ...], expected: float | None) -> None:
    assert first_epoch(trajectory(*verdicts)) == expected


def test_first_epoch_counts_in_steps_not_in_row_order() -> None:
    assert first_epoch(trajectory("none", "horizontal", "horizontal").iloc[::-1]) == 1


def test_first_epoch_of_a_checkpoint_whose_epoch_is_not_known() -> None:
    assert first_epoch(trajectory("none", "horizontal", epochs=(0.0, None))) is None


def test_first_epochs_leaves_failed_analyses_out() -> None:
    table = trajectory("none", "horizontal", "none").assign(
        trial_id="t", layer="last", position=1, error=[None, None, "no"]
    )
    (row,) = first_epochs(table).to_dict("records")
    assert (row["verdict"], row["first_epoch"]) == ("horizontal", 1)


def test_scored_takes_finished_trials_at_their_last_step() -> None:
    facts = ["data", "data_key", "recipe_key", "architecture", "intervention", "seed", "val_accuracy", "primary"]
    trials = rows(("baseline", 0, 0.0, ""))[facts].assign(trial_id="t", status="finished", step=20)
    layers = pd.DataFrame(
        {
            "trial_id": "t", "step": [0, 10, 20], "layer": "last", "position": 1, "horizontal": [0.1, 0.2, 0.3],
            "vertical": 0.0, "verdict": "none", "expected": "none", "error": None,
        }
    )  # fmt: skip
    (row,) = scored(trials, layers).to_dict("records")
    assert (row["step"], row["horizontal"]) == (20, 0.3)
    assert scored(trials.assign(status="running"), layers).empty
    assert scored(trials, layers[layers["step"] < 20]).empty  # finished, but its last checkpoint waits for its analysis
    assert scored(trials, layers.assign(error=[None, None, "no"])).empty


def test_settled_trials_of_tables_without_keys_are_read_again(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([replace(plan, excluded="makes no sense")])  # settled without training
    compact(sweep)
    table = read_table(sweep.path, "trials")
    assert table["settled"].tolist() == [True]
    file = sweep.path / "results" / "trials.parquet"
    table.drop(columns=["data_key", "recipe_key"]).to_parquet(file)
    compact(sweep)
    assert read_table(sweep.path, "trials")["recipe_key"].tolist() == [plan.spec.recipe.key]
