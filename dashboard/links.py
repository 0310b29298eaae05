"""Addresses of pages, relative to that of another page, so that they hold below any base path."""

from collections.abc import Sequence
from urllib.parse import urlencode


def to(page: str, sweep: str, **choices: str | Sequence[str]) -> str:
    """The address of a page about a sweep that shows some choices."""
    return f"{page}?{urlencode({'sweep': sweep} | choices, doseq=True)}"
