"""What an intervention changes: differences, intervals and probabilities computed by hand, and how often they err."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from models.interventions import INTERVENTIONS
from sweep.results.contrasts import contrasts, half_width, holm, p_value


def rows(*values: tuple[str, int, float], **more: object) -> pd.DataFrame:
    """Rows as `scored` gives them, of (intervention, seed, horizontal)."""
    common = {
        "data": "scenes", "data_key": "d", "recipe_key": "r", "architecture": "net", "layer": "last", "position": 1,
        "vertical": 0.0, "val_accuracy": 0.5, "expected": "unknown", "primary": "horizontal", "step": 100,
    } | more  # fmt: skip
    return pd.DataFrame(
        [common | dict(zip(("intervention", "seed", "horizontal"), value, strict=True)) for value in values]
    )


def row(table: pd.DataFrame, intervention: str = "x_pool", quantity: str = "horizontal") -> pd.Series:
    ((_, found),) = table[(table["intervention"] == intervention) & (table["quantity"] == quantity)].iterrows()
    return found


THREE_CELLS = (
    ("baseline", 0, 0.9), ("baseline", 1, 0.7),
    ("x_pool", 0, 0.5), ("x_pool", 1, 0.5), ("x_pool", 2, 0.2),
    ("xy_pool", 0, 0.8), ("xy_pool", 1, 0.6),
)  # fmt: skip


def test_a_difference_by_hand() -> None:
    found = row(contrasts(rows(*THREE_CELLS)))
    # Squares around the cells' means: 0.02, 0.06 and 0.02, over 1 + 2 + 1 degrees of freedom: variance 0.025. The
    # means are 0.8 and 0.4; t(0.975, 4) = 2.776445.
    assert (found["n"], found["n_baseline"], found["df"], found["primary"]) == (3, 2, 4, True)
    assert found["difference"] == pytest.approx(-0.4)
    assert found["std"] == pytest.approx(0.025**0.5)
    error = (0.025 * (1 / 3 + 1 / 2)) ** 0.5
    assert found["low"] == pytest.approx(-0.4 - 2.776445 * error, abs=1e-6)
    assert found["high"] == pytest.approx(-0.4 + 2.776445 * error, abs=1e-6)
    # With 4 degrees of freedom P(|T| > t) = 1 - s (3 - s^2) / 2, where s = t / sqrt(t^2 + 4).
    s = (0.4 / error) / math.hypot(0.4 / error, 2)
    assert found["p"] == pytest.approx(1 - s * (3 - s * s) / 2)
    assert found["p_holm"] == pytest.approx(2 * found["p"])  # the smaller of two


def test_only_primary_endpoints_are_tested_and_counted() -> None:
    last = rows(*THREE_CELLS)
    before = rows(*THREE_CELLS, layer="before", position=2)
    table = contrasts(pd.concat([last, before]))
    assert len(table) == 2 * (3 + 2)  # the accuracy is the network's, so there is one for both layers
    tested = table[table["p"].notna()]
    assert tested.index.equals(table[table["primary"]].index)
    assert tested[["position", "quantity"]].drop_duplicates().to_numpy().tolist() == [[1, "horizontal"]]
    assert table["low"].notna().all()
    assert row(table[table["position"] == 1])["p_holm"] == row(contrasts(last))["p_holm"]


def test_the_plan_names_the_endpoint_and_an_older_one_is_judged_by_what_was_expected() -> None:
    cells = (("baseline", 0, 0.9), ("baseline", 1, 0.8), ("rotate90", 0, 0.1), ("rotate90", 1, 0.0))
    turned = rows(*cells)
    turned.loc[turned["intervention"] == "rotate90", "primary"] = "vertical"
    assert row(contrasts(turned), "rotate90", "vertical")["primary"]
    assert not row(contrasts(turned), "rotate90", "horizontal")["primary"]
    turned["primary"] = pd.NA
    assert row(contrasts(turned), "rotate90", "horizontal")["primary"]
    turned.loc[turned["intervention"] == "rotate90", "expected"] = "vertical"
    assert row(contrasts(turned), "rotate90", "vertical")["primary"]


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_endpoint_is_vertical_where_rows_become_columns(name: str) -> None:
    stripes = torch.arange(8.0)[None, None, :, None].expand(1, 3, 8, 8)  # each row has one value
    turned = INTERVENTIONS[name].transform(stripes)
    rows_stay = bool((turned == turned[:, :, :, :1]).all())
    assert INTERVENTIONS[name].primary == ("horizontal" if rows_stay else "vertical")


def test_one_seed_borrows_the_spread_of_other_cells() -> None:
    found = row(contrasts(rows(("baseline", 0, 0.9), ("baseline", 1, 0.7), ("x_pool", 0, 0.5))))
    assert (found["n"], found["df"]) == (1, 1)
    # t(0.975, 1) = 12.706205, variance 0.02 * (1 + 1/2).
    assert found["high"] - found["difference"] == pytest.approx(12.706205 * 0.03**0.5)


def test_without_a_cell_of_several_seeds_nothing_is_known_of_the_spread() -> None:
    found = row(contrasts(rows(("baseline", 0, 0.9), ("x_pool", 0, 0.5))))
    assert (found["difference"], found["df"]) == (pytest.approx(-0.4), 0)
    assert found[["std", "low", "high", "p", "p_holm"]].isna().all()


def test_what_was_not_trained_tells_nothing_of_the_spread() -> None:
    trained = rows(("baseline", 0, 0.9), ("baseline", 1, 0.7))
    untrained = rows(("untrained", 0, 0.0), ("untrained", 1, 0.0), ("untrained", 2, 0.0), step=0)
    found = row(contrasts(pd.concat([trained, untrained])), "untrained")
    assert (found["df"], found["std"]) == (1, pytest.approx(0.02**0.5))
    assert found["p"] > 0.05


@pytest.mark.parametrize("column", ["data", "data_key", "recipe_key", "architecture", "position"])
def test_trials_of_different_conditions_are_not_compared(column: str) -> None:
    table = rows(("baseline", 0, 0.9), ("x_pool", 0, 0.5))
    table[column] = table[column].astype(object)
    table.loc[1, column] = 9 if column == "position" else "other"
    assert contrasts(table).empty


def test_tables_without_keys_are_still_compared() -> None:
    table = rows(*THREE_CELLS)
    table[["data_key", "recipe_key"]] = pd.NA
    assert row(contrasts(table))["difference"] == pytest.approx(-0.4)


def test_half_width_is_student_t() -> None:
    assert half_width(1.0, 2) == pytest.approx(4.302653, rel=1e-6)  # t(0.975, 2)
    assert half_width(2.0, 30) == pytest.approx(2 * 2.042272, rel=1e-6)  # t(0.975, 30)
    assert np.isnan(half_width(1.0, 0))


def test_probability_with_one_degree_of_freedom() -> None:
    assert p_value(-0.3, 0.1, 1) == pytest.approx(1 - 2 * math.atan(3) / math.pi)
    assert p_value(0.0, 0.0, 3) == 1
    assert p_value(0.1, 0.0, 3) == 0


def test_probabilities_are_corrected_for_their_number() -> None:
    # By hand: sorted 0.01, 0.03, 0.04 times 3, 2, 1 are 0.03, 0.06, 0.04; made rising, 0.03, 0.06, 0.06.
    p = pd.Series([0.04, None, 0.01, 0.03, None], dtype="Float64")
    assert holm(p).dropna().tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(p).isna().tolist() == p.isna().tolist()
    assert holm(pd.Series([0.6, 0.7], dtype="Float64")).tolist() == [1, 1]


@pytest.mark.whole
def test_chance_alone_is_rarely_called_a_difference() -> None:
    """Where no intervention does anything, 5% of sweeps or fewer should have one with p_holm below 0.05."""
    draw = np.random.default_rng(0)
    cells = [(name, seed) for name in ("baseline", *(f"i{k}" for k in range(8))) for seed in range(3)]
    found = 0
    for _ in range(100):
        table = rows(*((name, seed, score) for (name, seed), score in zip(cells, draw.normal(size=27), strict=True)))
        found += bool((contrasts(table)["p_holm"] < 0.05).any())
    assert found / 100 <= 0.1  # 0.05 and two standard errors; uncorrected, 0.3
