"""One policy for pictures that can't be used: all are left out and listed; too many of them are an error."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.data.index import Examination, examine_all
from sweep.data.pictures import Examined, shown
from sweep.data.remote import Pictures
from sweep.data.walk import Found

MOST_UNUSABLE = 0.5  # of the files that should be pictures: above it, the folder isn't what its owner thinks
_NAMED = 10  # files per reason, and reasons, in one line of a terminal


@dataclass(frozen=True)
class Usable:
    """The pictures that can be used, in order of name, what was left out and why, and which have changed."""

    examined: dict[str, Examined]
    left_out: dict[str, str]
    changed: list[str]
    remarks: list[str]


Examine = Callable[[Any, Sequence[str]], Examination]
"""Says what each file below a root holds, as `examine_all` does."""


def _accept(seen: Examined) -> str | None:
    return None


def usable(
    root: Pictures,
    found: Found,
    accepts: Callable[[Examined], str | None] = _accept,
    examine: Examine = examine_all,
) -> Usable:
    """Examine what was found below `root` and leave out what can't be used; `accepts` may give a further reason.

    Raises:
        ValueError: more than half of the files can't be used.
    """
    looked = examine(root, found.names)
    left_out = dict(found.left_out)
    examined = {}
    for name, seen in looked.examined.items():
        reason = seen.unusable or accepts(seen)
        if reason is None:
            examined[name] = seen
        else:
            left_out[name] = reason
    total = len(examined) + len(left_out)
    if len(left_out) > MOST_UNUSABLE * total:
        raise ValueError(
            f"{len(left_out)} of {total} pictures in {shown(root)} can't be used, more than {MOST_UNUSABLE:.0%}: "
            f"{named(left_out, 5)}; fix or remove them"
        )
    return Usable(examined, left_out, looked.changed, _remarks(found, left_out, looked.changed, total))


def fingerprint(pictures: Iterable[tuple[str, Examined]]) -> str:
    """A digest of names and contents in order, and of how levels are read where that has been fixed."""
    digest = hashlib.sha256()
    for name, seen in pictures:
        digest.update(name.encode() + b"\0" + bytes.fromhex(seen.sha256))
        if seen.levels:
            digest.update(f"\0levels {seen.levels}".encode())
    return digest.hexdigest()


def named(reasons: Mapping[str, str], most: int = _NAMED) -> str:
    """Files with the reasons why they can't be used, grouped by reason, on one line."""
    alike: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        alike.setdefault(reason, []).append(name)
    groups = [f"{listed(names, most)} ({reason})" for reason, names in list(alike.items())[:most]]
    return ", ".join(groups) + _and_more(sum(len(names) for names in list(alike.values())[most:]))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, on one line."""
    return ", ".join(shown(name) for name in names[:most]) + _and_more(len(names) - most)


def _and_more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _remarks(found: Found, left_out: dict[str, str], changed: list[str], total: int) -> list[str]:
    remarks = []
    if changed:
        remarks.append(f"changed since they were last read, so trials get new ids: {listed(changed)}")
    if found.skipped:
        remarks.append(f"skipped, hidden or created by tools: {listed(sorted(found.skipped))}")
    if found.others:
        remarks.append(f"skipped, not named like a picture: {listed(sorted(found.others))}")
    if left_out:
        remarks.append(f"left out {len(left_out):,} of {total:,} pictures: {named(left_out)}")
    return remarks
