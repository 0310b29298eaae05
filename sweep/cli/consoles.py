"""Where the command line prints: results on standard output, everything else on standard error."""

import json
import sys
from typing import Any

from rich.console import Console

# They keep the streams of the start: the driver redirects standard output while Tune prints.
# A log or a pipe has no width of its own; 160 characters fit the tables without wrapping.
output = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
complaints = Console(stderr=True)


def messages(as_json: bool) -> Console:
    """Where what a reader should know goes: with `--json`, standard output holds the document alone."""
    return complaints if as_json else output


def tell(said: str, as_json: bool = False, style: str | None = None) -> None:
    """Print a line that may hold names and paths, as it is."""
    messages(as_json).print(said, style=style, highlight=False, markup=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, allow_nan=False))


def complain(said: str) -> None:
    """Print a mistake or a failure in one line."""
    complaints.print(f"sweep: {said}", style="red", highlight=False, markup=False, soft_wrap=True)
