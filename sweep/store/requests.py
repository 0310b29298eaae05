"""What the dashboard and `sweep stop` ask of a sweep: to run a trial again, to stop one, or to stop altogether.

A request is a file, `requests/<trial_id>.json`, so that it outlives both sides; a newer one for the same trial
replaces it. The running driver, or else the next resume, picks it up and removes it. Requests to stop are for the
running driver alone; that to stop altogether is the file `requests/stop`. Knows neither torch nor Ray.
"""

import reprlib
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from upath import UPath

from sweep.store.files import children, read_json, remove_file, write_json
from sweep.store.lease import Holder, holder
from sweep.store.sweep_dir import SweepDir

Start = Literal["checkpoint", "scratch"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Run a trial again, from its last valid checkpoint or from scratch; `requested_at` is seconds since 1970."""

    trial_id: str
    start: Start
    requested_at: float


@dataclass(frozen=True, kw_only=True)
class TrialStop:
    """Stop one trial: it saves first, and runs again only when it is asked for; `requested_at` as in `Request`."""

    trial_id: str
    requested_at: float
    action: Literal["stop"] = "stop"


class Requests(NamedTuple):
    """The requests of a sweep, oldest first, and a message for each file in their folder that is not one."""

    pending: list[Request | TrialStop]
    damaged: list[str]


def request_retry(sweep: UPath, trial_id: str, start: Start) -> None:
    """Ask for a trial to be run again; a newer request replaces an older one.

    Raises:
        ValueError: the trial is not one of the sweep's, or there is no such start.
    """
    if start not in get_args(Start):
        raise ValueError(f"a trial starts from {' or '.join(get_args(Start))}, not from {start!r}")
    _require_trial(sweep, trial_id)
    request = Request(trial_id=trial_id, start=start, requested_at=time.time())
    write_json(_file(sweep, trial_id), asdict(request))


def request_trial_stop(sweep: UPath, trial_id: str) -> None:
    """Ask the driver that works on a sweep to stop one trial.

    Raises:
        ValueError: the trial is not one of the sweep's, or no driver works on it.
    """
    _require_trial(sweep, trial_id)
    _require_driver(sweep)
    write_json(_file(sweep, trial_id), asdict(TrialStop(trial_id=trial_id, requested_at=time.time())))


def read_requests(sweep: UPath) -> Requests:
    """All requests of a sweep, with the damaged ones apart, so that they don't block the others."""
    folder = SweepDir(sweep).requests
    pending: list[Request | TrialStop] = []
    damaged: list[str] = []
    for trial_id in requested_trials(sweep):
        file = folder / f"{trial_id}.json"
        try:
            pending.append(_request(file))
        except FileNotFoundError:
            continue  # answered by another reader since the folder was listed
        except ValueError as error:
            damaged.append(str(error))
    return Requests(sorted(pending, key=lambda request: request.requested_at), damaged)


def requested_trials(sweep: UPath) -> list[str]:
    """The trials, by id, for which something has been asked and not been answered; a listing, which reads no file."""
    names = children(SweepDir(sweep).requests)
    return [name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")]


def pending_requests(sweep: UPath) -> list[Request | TrialStop]:
    """The requests that can be answered, oldest first."""
    return read_requests(sweep).pending


def pending_request(sweep: UPath, trial_id: str) -> Request | TrialStop | None:
    """The request for one trial, or None where there is none or it is damaged."""
    try:
        return _request(_file(sweep, trial_id))
    except (FileNotFoundError, ValueError):
        return None


def forget(sweep: UPath, request: Request | TrialStop) -> None:
    """Remove an answered request, unless it is gone or a newer one for the same trial stands in its place."""
    if pending_request(sweep, request.trial_id) in (request, None):
        remove_file(_file(sweep, request.trial_id))


def request_stop(sweep: UPath) -> Holder:
    """Ask the driver that works on a sweep to stop, wherever it runs; its trials save first. Returns who that is.

    Raises:
        ValueError: no driver works on the sweep.
    """
    working = _require_driver(sweep)
    write_json(_stop_file(sweep), {"driver": working.token})
    return working


def stop_requested(sweep: UPath) -> bool:
    """Whether the driver that works on a sweep is to stop; a request to an earlier one is over."""
    try:
        asked: Any = read_json(_stop_file(sweep))
    except (FileNotFoundError, ValueError):
        return False
    working = holder(sweep)
    return working is not None and asked == {"driver": working.token}


def forget_stop(sweep: UPath) -> None:
    """Remove the request to stop, if there is one."""
    remove_file(_stop_file(sweep))


def _require_trial(sweep: UPath, trial_id: str) -> None:
    if not SweepDir(sweep).has_trial(trial_id):
        raise ValueError(f"{sweep.name} has no trial {trial_id!r}; see `sweep status {sweep}`")


def _require_driver(sweep: UPath) -> Holder:
    working = holder(sweep)
    if working is None:
        raise ValueError(f"no driver works on {sweep}, so there is nothing to stop; see `sweep status {sweep}`")
    return working


def _stop_file(sweep: UPath) -> UPath:
    return SweepDir(sweep).requests / "stop"  # without the ending of the others, which are for a trial


def _file(sweep: UPath, trial_id: str) -> UPath:
    return SweepDir(sweep).requests / f"{trial_id}.json"


def _request(file: UPath) -> Request | TrialStop:
    """Read a request.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is damaged, or is not for the trial that its name says; the message names it.
    """
    values: Any = read_json(file)
    stops = isinstance(values, dict) and values.get("action") == "stop"
    try:
        request = TrialStop(**values) if stops else Request(**values)
    except TypeError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} is not a request ({said}); remove it and ask again") from error
    known = isinstance(request, TrialStop) or request.start in get_args(Start)
    if not known or file.name != f"{request.trial_id}.json":
        raise ValueError(f"{file} is not a request for its trial ({reprlib.repr(values)}); remove it and ask again")
    if not isinstance(request.requested_at, int | float):
        raise ValueError(f"{file} does not say when it was made ({reprlib.repr(values)}); remove it and ask again")
    return request
