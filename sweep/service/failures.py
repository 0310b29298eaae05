"""What Ray says of a process that has failed or died, and how long to wait before the next try."""

import re
from pathlib import Path
from typing import Any

_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_DEATH = re.compile(r"ActorDiedError|ActorUnavailableError|[Tt]he actor ([0-9a-f]+ )?(died|is (dead|unavailable))")


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 and so on, up to a minute."""
    return min(_BACKOFF_S * 2.0 ** (max(failures, 1) - 1), _LONGEST_BACKOFF_S)


def report_of(trial: Any) -> str:
    """What Tune wrote about a trial's failure, read from the original: the copy in the storage comes later."""
    file = Path(trial.error_file or "")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def died_of(traceback: str) -> str:
    """Why a process that could not report it itself has ended, according to Ray."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    if "OutOfMemoryError" in traceback or "running low on memory" in traceback:
        return (
            "its node ran out of memory and Ray killed the trial; give trials more resources.cpus, or smaller batches"
        )
    if not lines or _DEATH.search(traceback):
        return "the trial's process died (killed, out of memory, or its node gone)"
    return lines[-1].strip()


def cant_be_imported(traceback: str) -> bool:
    """Whether a trial's process could not import what it needs; a retry would fail too."""
    return died_of(traceback).startswith(("ImportError:", "ModuleNotFoundError:"))
