"""The analysis works on one thread wherever it runs; so do its tests."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from analysis.layers import LayerResult, analyze_convs, chosen_convs, one_thread


@pytest.fixture(scope="session", autouse=True)
def a_single_thread() -> Iterator[None]:
    with one_thread():
        yield


def analysed(path: Path, layers: Sequence[str] | None = None) -> list[LayerResult]:
    """The layers of a checkpoint, all or those named, as `sweep analyze` analyses them."""
    return list(analyze_convs(chosen_convs(path, layers)))
