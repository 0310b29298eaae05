"""`sweep stop` and `sweep logs`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import follow
from sweep.store.files import absolute

if TYPE_CHECKING:
    from upath import UPath

    from sweep.service.jobs import JobServer, Location

_LOOK_EVERY_S = 1.0


def stop(
    sweep: SweepName,
    storage: Storage = "runs",
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Stop the driver that works on a sweep, wherever it runs, after its trials have saved.

    With --cluster, stop the sweep's jobs there.
    """
    from sweep.service.jobs import JobServer, located
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        _stop_jobs(JobServer(cluster, insecure), located(sweep, storage))
        return
    _stop_driver(open_sweep(sweep, absolute(storage)).path)


def logs(
    sweep: SweepName,
    cluster: Annotated[str, typer.Option(help="The job server of the cluster that works on the sweep.")],
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


def _stop_jobs(server: JobServer, location: Location) -> None:
    jobs = [job for job in server.working_on(location) if not job.ended]
    if not jobs:
        raise ValueError(
            f"no job of {server.url} works on {location.path}; where its driver runs, say `sweep stop {location.path}`"
        )
    for job in jobs:
        _tell(f"stopping job {job.id}: its trials save first")
        job.stop()
    _tell(f"stopped; continue with: sweep resume {location.path} {server.options}")


def _stop_driver(sweep: UPath) -> None:
    """Ask the driver to stop, and wait until it has given the sweep back."""
    from sweep.store.lease import holder
    from sweep.store.requests import forget_stop, request_stop

    asked = request_stop(sweep)
    _tell(f"stopping process {asked.pid} on {asked.host}: its trials save first")
    while (working := holder(sweep)) is not None and working.token == asked.token:
        time.sleep(_LOOK_EVERY_S)
    if working is None:
        forget_stop(sweep)
    _tell(f"stopped; continue with: sweep resume {sweep}")


def _tell(said: str) -> None:
    consoles.output.print(said, highlight=False, markup=False, soft_wrap=True)
