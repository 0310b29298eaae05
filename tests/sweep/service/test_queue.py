"""What Tune is told to start, and what its workers are given: tasks in order, failed ones after a while."""

from typing import Any

import pytest
from ray.tune.search import Searcher

from sweep.service import queue as module
from sweep.service.failures import died_of
from sweep.service.queue import Queue, Task, Tasks, kind_of
from sweep.spec import Resources


def task(name: str, **facts: Any) -> Task:
    return Resources().model_dump() | {"trial_id": name, "root": None, "data_key": "scenes"} | facts


def tasks(*names: str) -> list[Task]:
    return [task(name) for name in names]


SMALL = kind_of(task(""))


def taken(queue: Queue, most: int = 1) -> list[str]:
    return [task["trial_id"] for task in queue.take(SMALL, most)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_tasks_come_in_order_and_the_end_once_no_worker_is_left(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b", "c"))
    assert isinstance(queue.suggest("w"), dict)
    queue.started("w")
    assert [taken(queue), taken(queue, 5), taken(queue)] == [["a"], ["b", "c"], []]
    assert queue.suggest("x") is None
    queue.ended("w")
    assert queue.suggest("x") == Searcher.FINISHED
    assert queue.closed


def test_as_many_workers_are_wanted_as_tasks_wait_and_the_rest_is_surplus(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b"))
    assert [isinstance(queue.suggest(worker), dict) for worker in "wxy"] == [True, True, False]
    queue.started("w")
    assert queue.surplus() == set()
    assert taken(queue, 2) == ["a", "b"]
    assert queue.surplus() == {"x"}
    queue.ended("x")
    assert queue.surplus() == set()


def test_a_task_that_waits_can_be_removed_but_not_one_that_is_held_back(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b", "c", "d"))
    (first,) = queue.take(SMALL, 1)
    queue.tasks.add(first, delay_s=5)
    queue.tasks.hold("e")
    assert [queue.tasks.remove(name) for name in ("a", "c", "e", "f")] == [True, True, False, False]
    clock[0] += 5
    assert taken(queue, 5) == ["b", "d"]
    queue.tasks.drop("e")
    assert len(queue.tasks) == 0


def test_a_failed_task_waits_while_others_are_taken_and_keeps_its_place(clock: list[float]) -> None:
    queue = Queue(tasks("a", "b", "c"))
    (first,) = queue.take(SMALL, 1)
    queue.tasks.add(first, delay_s=8.0)
    assert queue.holds("a")
    assert taken(queue) == ["b"]
    clock[0] += 8.0
    assert taken(queue, 5) == ["a", "c"]


def test_while_all_tasks_wait_for_their_time_tune_is_asked_to_wait_and_the_driver_to_tend(clock: list[float]) -> None:
    tended: list[int] = []
    queue = Queue([], tend=lambda: tended.append(1))
    queue.tasks.add(task("a"), delay_s=8.0)
    assert queue.suggest("w") is None
    assert tended == [1]
    clock[0] += 8.0
    assert isinstance(queue.suggest("w"), dict)


def test_a_task_held_back_keeps_the_end_from_coming(clock: list[float]) -> None:
    queue = Queue([])
    queue.tasks.hold("a")
    assert queue.suggest("w") is None
    queue.tasks.add(task("a"))
    assert taken(queue) == ["a"]
    queue.tasks.hold("b")
    queue.tasks.drop("b")
    assert queue.suggest("w") == Searcher.FINISHED


def test_what_has_failed_on_a_node_is_tried_there_again_only_if_nothing_else_waits(clock: list[float]) -> None:
    queue = Queue([task("a", failed_on="sick"), task("b", failed_on="sick"), task("c")])
    kind = kind_of(task("a"))
    assert [taken["trial_id"] for taken in queue.take(kind, 2, "sick")] == ["c"]
    assert [taken["trial_id"] for taken in queue.take(kind, 2, "sick")] == ["a"]
    assert [taken["trial_id"] for taken in queue.take(kind, 1, "well")] == ["b"]
    assert len(queue.tasks) == 0


def test_kinds_have_workers_of_their_own(clock: list[float]) -> None:
    large = task("large", cpus=8, gpus=1.0)
    queue = Queue([*tasks("a"), large, task("pictures", root="/p", data_key="p"), task("scenes", root=None)])
    wanted = [queue.suggest(worker) for worker in "wxyz"]
    assert [found["task"]["trial_id"] if isinstance(found, dict) else found for found in wanted] == [
        "a", "large", "pictures", "a",
    ]  # fmt: skip
    assert [task["trial_id"] for task in queue.take(kind_of(large), 5)] == ["large"]


def test_higher_priority_comes_first_and_gets_the_places_of_others(clock: list[float]) -> None:
    urgent = task("urgent", cpus=2, priority=1)
    queue = Queue([*tasks("a", "b"), task("c", priority=1), urgent])
    assert isinstance(queue.suggest("w"), dict)
    queue.started("w")
    assert taken(queue) == ["c"]
    wanted = queue.suggest("x")
    assert isinstance(wanted, dict)
    assert wanted["task"]["trial_id"] == "urgent"
    assert taken(queue) == []  # so that the worker ends and leaves its place
    queue.started("x")
    assert queue.take(kind_of(urgent), 1) == [urgent]
    assert taken(queue, 5) == ["a", "b"]


def test_a_paused_queue_starts_and_gives_nothing_and_a_closing_one_ends(clock: list[float]) -> None:
    paused = [True]
    queue = Queue(tasks("a"), paused=lambda: paused[0])
    assert queue.suggest("w") is None
    assert taken(queue) == []
    paused[0] = False
    assert isinstance(queue.suggest("w"), dict)
    queue.closing = True
    assert taken(queue) == []
    assert queue.surplus() == {"w"}
    assert queue.suggest("x") is None
    queue.ended("w")
    assert queue.suggest("x") == Searcher.FINISHED


def test_a_hundred_thousand_tasks_are_no_burden() -> None:
    many = Tasks(task(str(number)) for number in range(100_000))
    began = module.time.process_time()
    while many.take(SMALL, 3):
        pass
    assert module.time.process_time() - began < 3
    assert len(many) == 0


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
            "ran out of memory",
        ),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly", "process died"),
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialWorker",
            "process died",
        ),  # Tune's
        ("The actor 6d7c0e65e174f1aa is unavailable: RpcError: Socket closed rpc_code: 14.", "process died"),
        ("", "process died"),
        ("Traceback\n\nKeyError: 'a'\n", "KeyError: 'a'"),
    ],
)
def test_why_a_process_died_is_said_in_a_line(report: str, said: str) -> None:
    assert said in died_of(report)
