"""Remove a sweep, or some of its trials, in an order that leaves nothing half-removed that could pass for whole.

A sweep: the file `removing` comes first and goes last. In between `sweep.yaml` goes before the rest, so what is left is
no sweep to anyone, a launch under its name is refused, and another removal continues.

A trial: its status goes first, then all that says of something that it is complete, then its spec, then the rest. At
each point what is left is a trial that has done less, or none.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from analysis.write import RESULTS, is_local
from sweep.store.files import children, files_below, read_text, remove_file, remove_files, remove_folder, write_text
from sweep.store.lease import hold
from sweep.store.manifest import MANIFEST
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir

_REMOVING = "removing"
_SAID = "`sweep remove` takes this sweep away; run it again to finish\n"


@dataclass(frozen=True)
class Loss:
    """What a removal takes away."""

    trials: int
    checkpoints: int
    size: int


def loss(sizes: Mapping[str, int], trials: int) -> Loss:
    """What goes with files of so many trials, given their sizes by name."""
    manifests = [name for name in sizes if name.endswith(f"/{MANIFEST}")]
    return Loss(trials, len(manifests), sum(sizes.values()))


def is_half_removed(sweep: UPath) -> bool:
    """Whether a removal of a sweep was interrupted, or is going on."""
    try:
        return read_text(sweep / _REMOVING) == _SAID
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # a folder of this name is somebody's own
        return False


def require_not_half_removed(sweep: UPath) -> None:
    """Refuse to launch into what is left of a sweep.

    Raises:
        ValueError: its removal was interrupted, or is going on.
    """
    if is_half_removed(sweep):
        raise ValueError(f"{sweep} is half removed; finish that first: sweep remove {sweep}")


def remove_sweep(sweep: SweepDir) -> None:
    """Remove a sweep with all that its folder holds, or what an interrupted removal has left of it.

    Raises:
        BusyError: a driver works on it.
    """
    held = {_REMOVING, sweep.driver.name}
    with hold(sweep.path):
        write_text(sweep.path / _REMOVING, _SAID)
        remove_file(sweep.file)
        for name in children(sweep.path):
            if name not in held:
                _remove(sweep.path / name)
    remove_folder(sweep.driver)
    remove_file(sweep.path / _REMOVING)
    if is_local(sweep.path):
        with suppress(OSError):  # somebody has just launched under the same name
            Path(sweep.path.path).rmdir()


def remove_trial(sweep: SweepDir, trial: TrialDir) -> None:
    """Remove a trial with its work, its note and a request to run it.

    The caller holds the sweep, and rewrites its tables.
    """
    names = sorted(files_below(trial.path))
    spec, status = trial.spec_file.name, trial.status_file.name
    complete = [name for name in names if "/" not in name or name.rpartition("/")[2] in (RESULTS, MANIFEST)]
    remove_file(trial.status_file)
    remove_files([trial.path / name for name in complete if name not in (spec, status)])
    remove_file(trial.spec_file)
    remove_folder(trial.path)
    remove_files([folder / f"{trial.trial_id}.json" for folder in (sweep.requests, sweep.notes)])


def _remove(path: UPath) -> None:
    if is_local(path) and (Path(path.path).is_symlink() or not Path(path.path).is_dir()):
        remove_file(path)
    else:
        remove_folder(path)
