"""What `sweep probe`, `ablate` and `examples` share: measure each trial's network once, and tell what was done."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from sweep.cli import consoles

if TYPE_CHECKING:
    from sweep.results.measuring import Measured, Measurement
    from sweep.store.sweep_dir import SweepDir


def measure(sweep: SweepDir, measurement: Measurement, images: int) -> list[Measured]:
    """Measure all trials under a progress bar."""
    from rich.progress import track

    from sweep.results.measuring import measure_sweep

    measured = measure_sweep(sweep, measurement, images)
    trials = len(sweep.trials())
    return list(track(measured, "measuring", total=trials, console=consoles.complaints, transient=True))


def tell(sweep: SweepDir, measurement: Measurement, measured: list[Measured], as_json: bool) -> int:
    """Print what was done, or with `as_json` the whole table; returns the exit code."""
    from sweep.results.tables import plain_records, read_table

    failed = [done for done in measured if done.failed]
    if as_json:
        rows = plain_records(read_table(sweep.path, measurement.table))
        trials = [asdict(done) for done in measured]
        consoles.print_json({"sweep": sweep.name, "trials": trials, measurement.table: rows})
        return 1 if failed else 0
    for outcome, number in Counter(done.outcome for done in measured if not done.failed).items():
        consoles.tell(f"{number} of {len(measured)} trials: {outcome}")
    for done in failed:
        consoles.tell(f"{done.trial_id}: {done.outcome}", style="red")
    return 1 if failed else 0
