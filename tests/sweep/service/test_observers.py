"""Observers hear everything in order, in threads of their own; one that fails or hangs stops nothing."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from sweep.results.compact import survey
from sweep.results.live import LiveTables
from sweep.results.tables import Row
from sweep.service import observers as module
from sweep.service.clerk import Clerk
from sweep.service.observers import Observer, Observers, SweepState, parameters_of
from sweep.spec import Plan
from sweep.store.manifest import EpochRow
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status


class Remembers(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        self.threads.add(threading.get_ident())
        self.heard.append(("epoch", plan.trial_id, row["epoch"]))

    def ended(self, plan: Plan, status: Status, layers: Sequence[Row]) -> None:
        self.heard.append(("ended", plan.trial_id, status.status, [row["layer"] for row in layers]))

    def state(self, state: SweepState) -> None:
        self.heard.append(("state", state))

    def closed(self, state: SweepState, error: BaseException | None) -> None:
        self.heard.append(("closed", state, error))


class Fails(Observer):
    name = "a tracker"

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        raise ConnectionError("no server\nanswers")


class Hangs(Observer):
    name = "a slow tracker"

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        time.sleep(60)


@pytest.fixture
def live(sweep: SweepDir, plan: Plan) -> LiveTables:
    sweep.add([plan])
    return LiveTables(sweep, survey(sweep))


def observed(live: LiveTables, *observers: Observer) -> tuple[Observers, list[str]]:
    said: list[str] = []
    return Observers(observers, live, said.append), said


def test_events_arrive_in_order_in_another_thread(live: LiveTables, plan: Plan) -> None:
    remembers = Remembers()
    told, said = observed(live, remembers)
    live.tell(plan.trial_id, Status(status="running"))
    for epoch in range(3):
        told.epoch(plan.trial_id, {"epoch": epoch})
    told.tend(2, lambda _: True, True)
    live.tell(plan.trial_id, Status(status="finished"))
    told.ended(plan.trial_id)
    told.close(0, False, None)
    before = SweepState({"running": 1}, frozenset({plan.trial_id}), 2, True)
    after = SweepState({"finished": 1}, frozenset(), 0, False)
    assert remembers.heard == [
        *(("epoch", plan.trial_id, epoch) for epoch in range(3)),
        ("state", before),
        ("ended", plan.trial_id, "finished", []),
        ("closed", after, None),
    ]
    assert threading.get_ident() not in remembers.threads
    assert said == []


def test_a_trials_end_is_told_with_the_layers_of_its_last_checkpoint(live: LiveTables, plan: Plan) -> None:
    remembers = Remembers()
    told, _ = observed(live, remembers)
    live.tell(plan.trial_id, Status(status="finished"))
    told.ended(plan.trial_id)
    told.tend(1, lambda _: True, False)
    told.analysed(plan.trial_id, 9, [{"layer": "3b"}])
    told.analysed(plan.trial_id, 3, [{"layer": "of an earlier step"}])
    told.tend(0, lambda _: False, False)
    told.close(0, False, None)
    assert [event for event in remembers.heard if event[0] == "ended"] == [("ended", plan.trial_id, "finished", ["3b"])]


def test_an_observer_that_fails_is_dropped_with_one_line_and_the_others_go_on(live: LiveTables, plan: Plan) -> None:
    remembers = Remembers()
    told, said = observed(live, Fails(), remembers)
    for epoch in range(3):
        told.epoch(plan.trial_id, {"epoch": epoch})
        time.sleep(0.05)
    told.close(0, False, None)
    assert said == ["a tracker: ConnectionError: no server answers; it hears no more"]
    assert len(remembers.heard) == 4


def test_an_observer_that_hangs_holds_up_nothing(live: LiveTables, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_UNHEARD", 5)
    monkeypatch.setattr(module, "_LAST_EVENTS_S", 0.1)
    told, said = observed(live, Hangs())
    began = time.monotonic()
    for epoch in range(20):
        told.epoch(plan.trial_id, {"epoch": epoch})
    told.close(0, False, None)
    assert time.monotonic() - began < 5
    assert said == ["a slow tracker: TimeoutError: it is 5 events behind; it hears no more"]


def test_an_observer_that_is_late_at_the_end_is_not_waited_for(
    live: LiveTables, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_EVENTS_S", 0.1)
    told, said = observed(live, Hangs())
    told.epoch(plan.trial_id, {"epoch": 0})
    told.close(0, False, None)
    assert said == ["a slow tracker: TimeoutError: it is 2 events behind at the end; it hears no more"]


def test_the_clerk_says_how_long_its_jobs_take() -> None:
    took: list[float] = []
    clerk = Clerk(lambda _: None, took.append)
    clerk.do(lambda: time.sleep(0.05), lambda _: None)
    clerk.close()
    assert len(took) == 1
    assert 0.05 <= took[0] < 5


def test_parameters_have_dotted_names(plan: Plan) -> None:
    found = parameters_of(plan)
    assert found["architecture"] == plan.spec.architecture
    assert found["recipe.lr"] == plan.spec.recipe.lr
    assert found["data.options.train_images"] == 48
    assert not any(isinstance(value, dict) for value in found.values())
