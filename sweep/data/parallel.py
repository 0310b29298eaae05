"""Apply a function to many items at once, in threads or in processes of this machine."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from sweep.data.pictures import decoders

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Like `map`: results in order. It runs only a few items ahead, so that an error or a stop ends it soon.

The service has one that runs Ray tasks.
"""


@contextmanager
def in_threads() -> Iterator[Mapper]:
    """Map in as many threads as there are cores: good for decoding, which releases the GIL half of the time."""
    with decoders() as pool:
        yield lambda function, items: _ahead(lambda item: pool.submit(function, item), items, 2 * _cores())


@contextmanager
def in_processes(workers: int | None = None) -> Iterator[Mapper]:
    """Map in processes (default: as many as there are cores).

    Raises:
        ChildProcessError: one of them was killed.
    """
    number = workers or _cores()
    pools: list[ProcessPoolExecutor] = []

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        waiting = iter(items)
        first = list(islice(waiting, 2))
        if len(first) < 2:  # to start a process takes longer
            yield from map(function, first)
            return
        if not pools:
            pools.append(_pool(number))
        yield from _ahead(lambda item: pools[0].submit(function, item), chain(first, waiting), 2 * number)

    try:
        yield mapped
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that decodes pictures was killed, perhaps for want of memory; run the same command again to "
            "continue, with fewer --workers"
        ) from error
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _pool(number: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")  # a fork of this process would copy locks that threads hold
    context.set_forkserver_preload(["sweep.data.shards"])
    return ProcessPoolExecutor(number, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its children
    warnings.simplefilter("ignore")  # Pillow's that matter become reasons
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent does, also when it is killed: a worker would wait for its next item forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ahead(submit: Callable[[Any], "Future[Any]"], items: Iterable[Any], number: int) -> Iterator[Any]:
    """The results of submitted items in order, with a limited number of items under way."""
    waiting = iter(items)
    running = deque(submit(item) for item in islice(waiting, number))
    try:
        while running:
            result = running.popleft().result()
            running.extend(submit(item) for item in islice(waiting, 1))
            yield result
    finally:
        for future in running:
            future.cancel()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
