"""The article's figure 12 as published: how the neurons of its networks spread over four clusters.

Source: Petrov et al., Weight Banding, Distill 2021, doi 10.23915/distill.00024.009, figure 12 (CC-BY 4.0).
"""

from importlib.resources import files

import pandas as pd

K = 4
"""The number of clusters of the published table."""
CLUSTERS = ("vertical", "horizontal", "centre_weighted", "unbanded")
"""Its columns; `centre_weighted` are horizontal bands with extra weight in the centre."""
POSITIONS = {"5b": 1, "5a": 2}
"""Its layers; 1 is the last conv."""


def figure12() -> pd.DataFrame:
    """One row for each published network and layer: `model`, `intervention` (our name), `layer`, `position`
    (1 is the last conv), and the percentage of its 512 neurons in each of `CLUSTERS`."""
    with (files("analysis") / "figure12.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#")
    return table.assign(position=table["layer"].map(POSITIONS))
