"""Numbers, times and errors in words, for readers."""

import re
from math import isnan

_SIZES = ("bytes", "kB", "MB", "GB", "TB")
_UNITS = ((86400 * 2, 86400, "days"), (3600 * 2, 3600, "hours"), (120, 60, "minutes"))


def count(number: float, noun: str) -> str:
    """A number and its noun: `1 trial`, `2 trials`, `0.5 GPUs`, `2 analyses`, `1,200 epochs`."""
    if number == 1:
        return f"1 {noun}"
    many = f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"
    return f"{number:,} {many}" if isinstance(number, int) else f"{number:g} {many}"


def decimal(value: float, digits: int = 2) -> str:
    """A number with this many decimals, without a minus sign before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def mean_and_spread(mean: float | None, std: float | None) -> str:
    """`0.81 ± 0.03`, without the spread where there is one seed; a dash where there is no number."""
    if mean is None or isnan(mean):
        return "–"  # noqa: RUF001  # a dash
    return decimal(mean) + ("" if std is None or isnan(std) else f" ± {decimal(std)}")


def duration(seconds: float) -> str:
    """`40 s`, `5 minutes`, `3.5 hours`, `2.1 days`."""
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}" if name == "minutes" else f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def size_in_words(size: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point: `17 bytes`, `3.2 MB`."""
    power = 0
    while size >= 1000 and power < len(_SIZES) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.1f} {_SIZES[power]}" if power else f"{size:.0f} {_SIZES[power]}"


def remarkable(neurons: int, dead: float | None, single_tap: float | None) -> str:
    """What readers of a layer's scores should know of its neurons: `2 of 64 neurons without variation`, or nothing."""
    told = {
        "without variation": dead or 0,
        "with weights at one position alone, which score 0": single_tap or 0,  # None: analysed by an older version
    }
    return "; ".join(f"{int(n)} of {neurons} neurons {what}" for what, n in told.items() if n)


def short_layer(layer: str) -> str:
    """A layer's name without the parts that all of a network's layers share."""
    return layer.removeprefix("features.").removesuffix(".conv")


def kind_of(error: str) -> str:
    """What errors of one kind share: their text without numbers, ids and paths."""
    return re.sub(r"\S*/\S*|[0-9a-f]{8,}|\d+", "#", error)
