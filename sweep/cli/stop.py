"""`sweep stop` and `sweep logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli import consoles
from sweep.cli.checks import require_job_server
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import follow
from sweep.store.files import absolute

if TYPE_CHECKING:
    from upath import UPath

    from sweep.service.jobs import JobServer, Location

_LOOK_EVERY_S = 1.0


def stop(
    sweep: SweepName,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Stop the driver that works on a sweep, wherever it runs, after its trials have saved.

    With --cluster, stop the sweep's jobs there.
    """
    from sweep.service.jobs import JobServer, located
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        _stop_jobs(JobServer(cluster, insecure), located(sweep, storage), as_json)
        return
    _stop_driver(open_sweep(sweep, absolute(storage)).path, as_json)


def logs(
    sweep: SweepName,
    cluster: Annotated[
        str,
        typer.Option(help="The job server of the cluster that works on the sweep.", callback=require_job_server),
    ],
    storage: Storage = "runs",
    insecure: Insecure = False,
) -> None:
    """Follow what the newest job of a sweep prints, and exit with its code."""
    from sweep.service.jobs import JobServer, located

    server, location = JobServer(cluster, insecure), located(sweep, storage)
    jobs = server.working_on(location)
    if not jobs:
        raise ValueError(f"no job of {server.url} has worked on {location.path}")
    follow(jobs[0])


def _stop_jobs(server: JobServer, location: Location, as_json: bool) -> None:
    jobs = [job for job in server.working_on(location) if not job.ended]
    if not jobs:
        raise ValueError(
            f"no job of {server.url} works on {location.path}; where its driver runs, say `sweep stop {location.path}`"
        )
    for job in jobs:
        consoles.tell(f"stopping job {job.id}: its trials save first", as_json)
        job.stop()
    _conclude({"jobs": [job.id for job in jobs]}, f"sweep resume {location.path} {server.options}", as_json)


def _stop_driver(sweep: UPath, as_json: bool) -> None:
    """Ask the driver to stop, and wait until it has given the sweep back."""
    from sweep.store.lease import holder
    from sweep.store.requests import forget_stop, request_stop

    asked = request_stop(sweep)
    consoles.tell(f"stopping process {asked.pid} on {asked.host}: its trials save first", as_json)
    while (working := holder(sweep)) is not None and working.token == asked.token:
        time.sleep(_LOOK_EVERY_S)
    if working is None:
        forget_stop(sweep)
    _conclude({"host": asked.host, "pid": asked.pid}, f"sweep resume {sweep}", as_json)


def _conclude(stopped: dict[str, Any], resume: str, as_json: bool) -> None:
    if as_json:
        consoles.print_json({"stopped": stopped, "resume": resume})
    else:
        consoles.tell(f"stopped; continue with: {resume}")
