"""Make the shards of a prepared set as tasks of a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sweep.data.parallel import Mapper
from sweep.service.cluster import connected


@contextmanager
def in_tasks(address: str, workers: int | None = None) -> Iterator[Mapper]:
    """Map in Ray tasks of one CPU each, as many at a time as the cluster has CPUs, or `workers`.

    A task whose node goes is run again elsewhere.

    Raises:
        ValueError: no cluster answers at the address.
    """
    import ray

    with connected(address):
        number = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield lambda function, items: _mapped(function, items, number, 1 if workers else 2)


def _mapped(function: Callable[[Any], Any], items: Iterable[Any], number: int, ahead: int) -> Iterator[Any]:
    """The results in order; a few more tasks than run are handed in, so that no CPU waits."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=-1)(function)
    waiting = iter(items)
    running = [task.remote(item) for item in islice(waiting, number * ahead)]
    try:
        while running:
            result = _result(running.pop(0))
            running += [task.remote(item) for item in islice(waiting, 1)]
            yield result
    finally:
        for reference in running:
            ray.cancel(reference)


def _result(reference: Any) -> Any:
    """A task's result, or its own error as it would have been raised here."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from error
