"""Numbers in words, for readers."""


def count(number: float, noun: str) -> str:
    """A number and its noun: `1 trial`, `2 trials`, `0.5 GPUs`, `2 analyses`, `1,200 epochs`."""
    if number == 1:
        return f"1 {noun}"
    many = f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"
    return f"{number:,} {many}" if isinstance(number, int) else f"{number:g} {many}"


def decimal(value: float, digits: int = 2) -> str:
    """A number with this many decimals, without a minus sign before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def short_layer(layer: str) -> str:
    """A layer's name without the parts that all of a network's layers share."""
    return layer.removeprefix("features.").removesuffix(".conv")
