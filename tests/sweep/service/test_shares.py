"""What each of several sweeps on one cluster may use."""

import pytest
import ray

from sweep.service import shares as module
from sweep.service.shares import Claim, Seat, Share, Shares, fair


def claims(**wanted: tuple[float, float]) -> dict[str, Claim]:
    return {name: Claim(name, weight, 0.0, amount) for name, (weight, amount) in wanted.items()}


@pytest.mark.parametrize(
    ("wanted", "shares"),
    [
        ({"a": (1, 100), "b": (1, 100)}, {"a": 4, "b": 4}),
        ({"a": (1, 2), "b": (1, 100)}, {"a": 2, "b": 6}),
        ({"a": (3, 100), "b": (1, 100)}, {"a": 6, "b": 2}),
        ({"a": (1, 1), "b": (1, 3), "c": (2, 100)}, {"a": 1, "b": 7 / 3, "c": 14 / 3}),
        ({"a": (1, 0)}, {"a": 0}),
    ],
)
def test_nobody_gets_more_than_it_wants_and_the_rest_goes_by_weight(
    wanted: dict[str, tuple[float, float]], shares: dict[str, float]
) -> None:
    assert fair(8, claims(**wanted)) == pytest.approx(shares)


def test_a_sweep_is_limited_only_while_others_want_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    actor = Shares()
    assert actor.report("a", Claim("first", 1, 8, 100), 8) == Share(None)
    assert actor.report("b", Claim("second", 1, 0, 2), 8) == Share(2, (("first", 8, "CPU"),))
    assert actor.report("a", Claim("first", 1, 8, 100), 8).amount == 6
    assert actor.report("c", Claim("third", 1, 0, 5, unit="GPU"), 8) == Share(None)
    actor.leave("b")
    assert actor.report("a", Claim("first", 1, 8, 100), 8).amount is None
    actor.report("b", Claim("second", 1, 4, 100), 8)
    now[0] = 20.0  # its driver was killed
    assert actor.report("a", Claim("first", 1, 8, 100), 8) == Share(None)


def test_drivers_of_one_cluster_meet_in_one_actor(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REPORT_EVERY_S", 0.0)
    first, second = Seat("a"), Seat("b")
    for _ in range(3):
        for seat, name in ((first, "first"), (second, "second")):
            seat.tend(Claim(name, 1, 1, 10))
            if seat._answer is not None:
                ray.wait([seat._answer], timeout=30)
    first.tend(Claim("first", 1, 1, 10))
    assert first.share == Share(1.0, (("second", 1, "CPU"),))
    ray.kill(ray.get_actor("sweep-shares", namespace="sweep"))
