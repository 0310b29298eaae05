"""Make text fit a terminal."""

from collections import Counter
from collections.abc import Sequence

_CUT = "…"
_LEAST = 8  # characters of a name that still says something


def readable(trial_ids: Sequence[str]) -> dict[str, str]:
    """Each trial's id, without its hash if that is still unique."""
    short = {trial_id: trial_id.rpartition("-")[0] for trial_id in trial_ids}
    counts = Counter(short.values())
    return {trial_id: name if counts[name] == 1 else trial_id for trial_id, name in short.items()}


def shortened(names: Sequence[str], width: int) -> dict[str, str]:
    """Names cut in the middle to at most `width` characters where that leaves them unique, else as little longer."""
    longest = max(map(len, names), default=0)
    for allowed in range(max(width, _LEAST), longest):
        for tail in _tails(allowed):
            cut = {name: _cut(name, allowed, tail) for name in names}
            if len(set(cut.values())) == len(cut):
                return cut
    return {name: name for name in names}


def _tails(width: int) -> list[int]:
    """How many characters of the end may be kept, the likeliest first: half, then ever fewer and more."""
    half = (width - len(_CUT)) // 2
    return sorted(range(1, width - len(_CUT)), key=lambda tail: abs(tail - half))


def _cut(name: str, width: int, tail: int) -> str:
    return name if len(name) <= width else name[: width - len(_CUT) - tail] + _CUT + name[-tail:]
