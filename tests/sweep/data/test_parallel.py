"""Shards are made at once, in order, and nothing is left when the process that asked for them is gone."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from sweep.data.parallel import Mapper, in_processes, in_threads

KILLED = """
import os
from operator import neg
from sweep.data.parallel import in_processes

if __name__ == "__main__":
    with in_processes(2) as mapped:
        for _ in mapped(neg, range(10)):
            pass
        print(os.getpid(), flush=True)
        input()
"""


def slowest_first(item: int) -> int:
    time.sleep(0.1 if item == 0 else 0)  # others overtake it
    return -item


def fail_at_3(item: int) -> int:
    if item == 3:
        raise ValueError("three")
    return item


def die(item: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("mapper", [in_threads, lambda: in_processes(2)])
def test_results_come_in_order_and_an_error_ends_it(mapper: Callable[[], AbstractContextManager[Mapper]]) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    with mapper() as mapped:
        assert list(mapped(slowest_first, range(20))) == [-item for item in range(20)]
        with pytest.raises(ValueError, match="three"):
            list(mapped(fail_at_3, items()))
    assert len(taken) < 1000


def test_a_single_item_needs_no_process() -> None:
    with in_processes(2) as mapped:
        assert list(mapped(lambda _: os.getpid(), [0])) == [os.getpid()]


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(ChildProcessError, match="was killed, perhaps for want of memory"), in_processes(2) as mapped:
        list(mapped(die, range(4)))


@pytest.mark.slow
def test_no_process_outlives_the_one_that_asked(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # the server of forks and its two
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
