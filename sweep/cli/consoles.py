"""Where the command line prints: results on standard output, everything else on standard error."""

import sys

from rich.console import Console

# They keep the streams of the start: the driver redirects standard output while Tune prints.
# A log or a pipe has no width of its own; 160 characters fit the tables without wrapping.
output = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
complaints = Console(stderr=True)


def complain(said: str) -> None:
    """Print a mistake or a failure in one line."""
    complaints.print(f"sweep: {said}", style="red", highlight=False, markup=False, soft_wrap=True)
