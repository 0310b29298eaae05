"""The analysis works on one thread wherever it runs; so do its tests."""

from collections.abc import Iterator

import pytest

from analysis.layers import one_thread


@pytest.fixture(scope="session", autouse=True)
def a_single_thread() -> Iterator[None]:
    with one_thread():
        yield
