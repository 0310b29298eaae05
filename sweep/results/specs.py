"""What differs between the specs of several trials. Needs neither torch nor Ray."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sweep.results.differences import ABSENT, changes

MISSING = "-"
"""Stands in the table for a key that a spec lacks."""


def spec_differences(specs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The values in which specs differ: a row for each dotted key, a column (0, 1, ...) for each spec, in words."""
    against = [{change.key: change for change in changes(specs[0], spec)} for spec in specs]
    keys = list(dict.fromkeys(key for found in against for key in found))
    first = {key: change.before for found in against for key, change in found.items()}
    rows = [[_in_words(found[key].after if key in found else first[key]) for found in against] for key in keys]
    return pd.DataFrame(rows, index=pd.Index(keys, name="key", dtype=object), columns=range(len(specs)), dtype=object)


def _in_words(value: Any) -> str:
    if value is ABSENT:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value)
