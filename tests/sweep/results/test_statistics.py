"""Means, paired differences and first epochs on cases computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sweep.results.compact import compact
from sweep.results.statistics import (
    first_epoch,
    first_epochs,
    half_width,
    holm,
    over_seeds,
    p_value,
    paired_differences,
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
        "vertical": 0.0, "val_accuracy": 0.5, "expected": "horizontal",
    }  # fmt: skip
    return pd.DataFrame(
        [common | dict(zip(("intervention", "seed", "horizontal", "verdict"), value, strict=True)) for value in values]
    )


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


def test_one_seed_has_no_spread() -> None:
    (row,) = over_seeds(rows(("baseline", 0, 0.6, "none"))).to_dict("records")
    assert row["n"] == 1
    assert pd.isna(row["horizontal_std"])
    assert row["surprising"]


def test_paired_differences_by_hand() -> None:
    table = paired_differences(
        rows(
            ("baseline", 0, 0.9, "horizontal"), ("baseline", 1, 0.7, "horizontal"), ("baseline", 2, 0.8, "horizontal"),
            ("x_pool", 0, 0.5, "none"), ("x_pool", 1, 0.5, "none"), ("x_pool", 7, 0.1, "none"),
        )
    )  # fmt: skip
    row = table[table["direction"] == "horizontal"].iloc[0]
    # Seeds 0 and 1 are in both: -0.4 and -0.2. Mean -0.3, std 0.1414, t(0.975, 1) = 12.706: half 12.706 * 0.1.
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(-0.3)
    assert row["std"] == pytest.approx(0.02**0.5)
    assert row["low"] == pytest.approx(-0.3 - 1.2706, abs=1e-4)
    assert row["high"] == pytest.approx(-0.3 + 1.2706, abs=1e-4)
    # t = -0.3 / 0.1 = -3 with one degree of freedom, where P(|t| > x) = 1 - 2 atan(x) / pi.
    assert row["p"] == pytest.approx(1 - 2 * math.atan(3) / math.pi)
    assert row["p_holm"] == pytest.approx(2 * row["p"])  # of two differences; the vertical one is 0 on both seeds


def test_pairing_beats_the_spread_between_seeds() -> None:
    # Seeds differ by far more than the intervention does, which takes 0.1 off each.
    table = paired_differences(
        rows(
            *(("baseline", s, s / 10, "none") for s in range(5)),
            *(("x_pool", s, s / 10 - 0.1, "none") for s in range(5)),
        )
    )
    row = table[table["direction"] == "horizontal"].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((-0.1, -0.1))


def test_probabilities_are_corrected_for_their_number() -> None:
    # By hand: sorted 0.01, 0.03, 0.04 times 3, 2, 1 are 0.03, 0.06, 0.04; made rising, 0.03, 0.06, 0.06.
    p = pd.Series([0.04, None, 0.01, 0.03, None], dtype="Float64")
    assert holm(p).dropna().tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(p).isna().tolist() == p.isna().tolist()
    assert holm(pd.Series([0.6, 0.7], dtype="Float64")).tolist() == [1, 1]


def test_chance_alone_is_rarely_called_a_difference() -> None:
    """Of tables of 20 differences that are all noise, 5% should have one with p_holm below 0.05."""
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        p = [p_value(float(x.mean()), float(x.std(ddof=1)), 5) for x in draw.normal(size=(20, 5))]
        found += bool((holm(pd.Series(p)) < 0.05).any())
    assert found / 400 == pytest.approx(0.05, abs=0.03)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    table = paired_differences(rows(("baseline", 0, 0.9, "horizontal"), ("x_pool", 0, 0.5, "none")))
    row = table.iloc[0]
    assert (row["n"], row["mean"]) == (1, pytest.approx(-0.4))
    assert table.loc[0, ["std", "low", "high", "p", "p_holm"]].isna().all()


@pytest.mark.parametrize("column", ["data", "data_key", "recipe_key", "architecture", "position", "seed"])
def test_trials_of_different_conditions_are_no_pair(column: str) -> None:
    table = rows(("baseline", 0, 0.9, "horizontal"), ("x_pool", 0, 0.5, "none"))
    table[column] = table[column].astype(object)
    table.loc[1, column] = "other" if table[column].dtype == object and isinstance(table.loc[0, column], str) else 9
    assert paired_differences(table).empty


def test_tables_without_keys_still_pair() -> None:
    # Tables compacted before the keys existed have none; missing equals missing.
    table = rows(("baseline", 0, 0.9, "horizontal"), ("x_pool", 0, 0.5, "none"))
    table[["data_key", "recipe_key"]] = pd.NA
    assert len(paired_differences(table)) == 2
    assert len(over_seeds(table)) == 2


def test_half_width_is_student_t() -> None:
    assert half_width(1.0, 3) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2)
    assert half_width(2.0, 31) == pytest.approx(2 * 2.042272 / math.sqrt(31), rel=1e-6)  # t(0.975, 30)


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
    facts = ["data", "data_key", "recipe_key", "architecture", "intervention", "seed", "val_accuracy"]
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
