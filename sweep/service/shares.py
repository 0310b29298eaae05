"""Fair shares between the sweeps that run on one cluster at the same time.

The drivers tell a small actor what they use and what they could use; it tells each how much is its own. What one sweep
can't use is the others'; a driver that is alone, or has not been heard of for a while, limits nobody.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

_NAME, _NAMESPACE = "sweep-shares", "sweep"
_FORGOTTEN_S = 15.0
_REPORT_EVERY_S = 2.0


@dataclass(frozen=True)
class Claim:
    """What a sweep uses and what it could use in all, of the cluster's GPUs, or of its CPUs if it needs no GPU."""

    sweep: str
    weight: float
    used: float
    wanted: float
    unit: str = "CPU"
    seen_at: float = 0.0


@dataclass(frozen=True)
class Share:
    """What a sweep may use, None if as much as there is, and what others use, by their names."""

    amount: float | None = None
    others: tuple[tuple[str, float, str], ...] = ()


def fair(total: float, claims: Mapping[str, Claim]) -> dict[str, float]:
    """Divide a total by weights, so that nobody gets more than it wants (max-min fairness)."""
    left, open_claims, shares = total, dict(claims), dict.fromkeys(claims, 0.0)
    while open_claims and left > 0:
        per_weight = left / sum(claim.weight for claim in open_claims.values())
        content = {key: claim for key, claim in open_claims.items() if claim.wanted <= per_weight * claim.weight}
        if not content:
            return shares | {key: per_weight * claim.weight for key, claim in open_claims.items()}
        for key, claim in content.items():
            shares[key] = claim.wanted
            left -= claim.wanted
            del open_claims[key]
    return shares


class Shares:
    """The actor: what each driver has said last."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def report(self, token: str, claim: Claim, total: float) -> Share:
        """Take over a driver's claim, and tell it what it may use."""
        now = time.monotonic()
        self._claims[token] = Claim(**(vars(claim) | {"seen_at": now}))
        self._claims = {key: said for key, said in self._claims.items() if now - said.seen_at < _FORGOTTEN_S}
        rivals = {key: said for key, said in self._claims.items() if said.unit == claim.unit}
        others = tuple((said.sweep, said.used, said.unit) for key, said in rivals.items() if key != token and said.used)
        if len(rivals) == 1 or sum(said.wanted for said in rivals.values()) <= total:
            return Share(None, others)
        return Share(fair(total, rivals)[token], others)

    def leave(self, token: str) -> None:
        """A driver has ended."""
        self._claims.pop(token, None)


class Seat:
    """A driver's side: reports now and then, and never waits for the answer."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._actor: Any = None
        self._answer: Any = None
        self._next = 0.0
        self.share = Share()

    def tend(self, claim: Claim) -> None:
        """Report what is used and wanted, if it is time to, and take the last answer."""
        now = time.monotonic()
        if self._answer is not None:
            done, _ = ray.wait([self._answer], timeout=0)
            if not done:
                return
            self._take()
        if now < self._next:
            return
        self._next = now + _REPORT_EVERY_S
        if self._actor is None:
            options = {"name": _NAME, "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True}
            self._actor = ray.remote(Shares).options(num_cpus=0, **options).remote()
        self._answer = self._actor.report.remote(self._token, claim, ray.cluster_resources().get(claim.unit, 0.0))

    def leave(self) -> None:
        """Let the others have all."""
        if self._actor is not None:
            self._actor.leave.remote(self._token)

    def _take(self) -> None:
        try:
            self.share = ray.get(self._answer)
        except ray.exceptions.RayError:  # its node is gone; the next report makes another
            self._actor, self.share = None, Share()
        self._answer = None
