"""The attempts of a trial as its log tells them: when each began and ended, where, and how. Pure functions of texts."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

Outcome = Literal["finished", "failed", "stopped", "superseded", "cut off", "running"]
"""How an attempt ended. `superseded`: another process started the trial meanwhile; `cut off`: it could say nothing."""

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (.*)")
_START = re.compile(r"attempt (\d+) starts on (.*), process (\d+):")
_SUPERSEDED = re.compile(r"attempt \d+ has started elsewhere; this was attempt (\d+)$")
_EPOCH = re.compile(r"epoch (\d+) ends at step ")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a trial; times are seconds since 1970.

    `epoch` is the last one that it finished, None if it finished none. `said` is the error of one that failed.
    """

    number: int
    host: str
    process: int
    began_at: float
    ended_at: float
    outcome: Outcome = "cut off"
    epoch: int | None = None
    said: str = ""


class _Line(NamedTuple):
    at: float
    text: str


def attempts(log: str, running_until: float | None = None) -> list[Attempt]:
    """The attempts in a trial's log, in the order in which they began.

    `running_until` is the last heartbeat of a trial that runs now: the last attempt, if it has not ended, lasts so far.
    Lines that are not a log's are left out, as are those before the first attempt.
    """
    found: list[Attempt] = []
    for line in _lines(log.splitlines()):
        if (start := _START.match(line.text)) is not None:
            number, host, process = start.groups()
            found.append(
                Attempt(number=int(number), host=host, process=int(process), began_at=line.at, ended_at=line.at)
            )
        elif found:
            place = _speaker(found, line.text)
            found[place] = _told(found[place], line)
    if found and running_until is not None and found[-1].outcome == "cut off":
        found[-1] = replace(found[-1], outcome="running", ended_at=max(running_until, found[-1].ended_at))
    return found


def _lines(lines: Iterable[str]) -> Iterator[_Line]:
    for line in lines:
        if (parts := _LINE.fullmatch(line)) is not None:
            try:
                at = datetime.strptime(parts[1], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
            except ValueError:  # digits, but no date
                continue
            yield _Line(at, parts[2])


def _speaker(found: list[Attempt], text: str) -> int:
    """Which attempt a line is about: the newest, but for one that learns that it has been superseded."""
    superseded = _SUPERSEDED.match(text)
    numbers = [attempt.number for attempt in found]
    if superseded is None or int(superseded[1]) not in numbers:
        return len(found) - 1
    return len(numbers) - 1 - numbers[::-1].index(int(superseded[1]))


def _told(attempt: Attempt, line: _Line) -> Attempt:
    text, ended = line.text, replace(attempt, ended_at=max(line.at, attempt.ended_at))
    if text == "finished":
        return replace(ended, outcome="finished")
    if text.startswith("failed: "):
        return replace(ended, outcome="failed", said=text.removeprefix("failed: "))
    if text.startswith("stopped"):
        return replace(ended, outcome="stopped")
    if _SUPERSEDED.match(text):
        return replace(ended, outcome="superseded")
    if (epoch := _EPOCH.match(text)) is not None:
        return replace(ended, epoch=int(epoch[1]))
    return ended
