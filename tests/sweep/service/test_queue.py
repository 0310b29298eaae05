"""What Tune is handed next: due tasks in order, failed ones after a while, the end only when nothing runs or waits."""

import pytest
from ray.tune.search import Searcher

from sweep.service import queue as module
from sweep.service.failures import died_of
from sweep.service.queue import Queue


def tasks(*names: str) -> list[dict[str, str]]:
    return [{"trial_id": name} for name in names]


def handed(queue: Queue) -> str | None:
    suggested = queue.suggest("")
    return suggested["task"]["trial_id"] if isinstance(suggested, dict) else suggested


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_tasks_come_in_order_and_the_end_once_all_have_ended(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b"))
    assert [handed(queue), handed(queue), handed(queue)] == ["a", "b", None]
    queue.ended("a")
    assert handed(queue) is None
    queue.ended("b")
    assert handed(queue) == Searcher.FINISHED


def test_a_failed_task_waits_while_others_run_and_does_not_hold_up_new_ones(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b", "c"))
    assert [handed(queue), handed(queue)] == ["a", "b"]
    queue.ended("a")
    queue.add({"trial_id": "a"}, delay_s=8.0)
    assert queue.holds("a")
    assert [handed(queue), handed(queue)] == ["c", None]
    clock[0] += 8.0
    assert handed(queue) == "a"


def test_where_nothing_else_runs_a_task_waits_on_its_own(clock: list[float]) -> None:
    queue = Queue([])
    queue.add({"trial_id": "a"}, delay_s=8.0)
    assert queue.suggest("") == {"task": {"trial_id": "a", "delay_s": 8.0}}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
            "ran out of memory",
        ),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", "process died"),
        ("The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrial", "process died"),  # Tune's
        ("", "process died"),
        ("Traceback\n\nKeyError: 'a'\n", "KeyError: 'a'"),
    ],
)
def test_why_a_process_died_is_said_in_a_line(report: str, said: str) -> None:
    assert said in died_of(report)


def test_a_task_held_back_is_handed_out_when_it_arrives_and_the_end_waits_for_it(clock: list[float]) -> None:
    arrived: list[dict[str, str]] = []

    def arrivals() -> list[dict[str, str]]:
        found, arrived[:] = list(arrived), []
        return found

    queue = Queue(tasks("a"), arrivals, aimed=lambda task: task | {"node": "n"})
    assert queue.suggest("") == {"task": {"trial_id": "a", "node": "n", "delay_s": 0.0}}
    queue.ended("a")
    queue.hold("a")
    assert handed(queue) is None
    assert queue.holds("a")
    arrived += tasks("a")
    assert handed(queue) == "a"
    queue.ended("a")
    assert handed(queue) == Searcher.FINISHED


def test_who_interrupts_need_not_wait_for_what_is_held_back(clock: list[float]) -> None:
    interrupted = [False]
    queue = Queue([], interrupted=lambda: interrupted[0])
    queue.hold("a")
    assert handed(queue) is None
    interrupted[0] = True
    assert handed(queue) == Searcher.FINISHED
