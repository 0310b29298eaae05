"""Of several specs, only what differs is shown, with what each of them says."""

from sweep.results.specs import MISSING, spec_differences


def test_what_differs_has_a_row_and_each_spec_a_column() -> None:
    first = {"architecture": "mini", "recipe": {"lr": 0.1, "epochs": 12, "steps": [1, 2]}, "seed": 0}
    second = {"architecture": "mini", "recipe": {"lr": 0.1, "epochs": 20, "steps": [1, 2]}, "seed": 1}
    third = {"architecture": "vgg16", "recipe": {"lr": 0.1, "epochs": 12, "warmup": True}, "seed": 0}
    table = spec_differences([first, second, third])
    assert {str(key): row.tolist() for key, row in table.iterrows()} == {
        "recipe.epochs": ["12", "20", "12"],
        "seed": ["0", "1", "0"],
        "architecture": ["mini", "mini", "vgg16"],
        "recipe.steps": ["[1, 2]", "[1, 2]", MISSING],
        "recipe.warmup": [MISSING, MISSING, "true"],
    }


def test_equal_specs_differ_in_nothing() -> None:
    assert spec_differences([{"a": {"b": 1}}] * 3).empty
