"""What a reader asks of the driver: to run trials again, to stop some or all. Says what could not be asked."""

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import escape
from typing import Literal

from upath import UPath

from sweep.store import requests
from sweep.store.files import STORAGE_ERRORS

Action = Literal["checkpoint", "scratch", "stop"]
"""To run a trial again from its last checkpoint or from scratch, or to stop it."""
_THREADS = 16
_REFUSALS: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ValueError)


def ask(sweep: UPath, trial_ids: Sequence[str], action: Action) -> list[str]:
    """Write a request for each trial; returns what went wrong, each once."""

    def write(trial_id: str) -> str | None:
        try:
            if action == "stop":
                requests.request_trial_stop(sweep, trial_id)
            else:
                requests.request_retry(sweep, trial_id, action)
        except _REFUSALS as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(dict.fromkeys(said for said in pool.map(write, trial_ids) if said is not None))


def resume_command(sweep: UPath, trial_ids: Sequence[str]) -> str:
    """The command that runs trials again; `--only` takes patterns, so what would be one is escaped."""
    only = [part for trial_id in trial_ids for part in ("--only", escape(trial_id))]
    return shlex.join(["sweep", "resume", str(sweep), *only])
