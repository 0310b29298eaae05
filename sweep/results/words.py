"""Numbers in words."""


def count(number: float, noun: str) -> str:
    """A number and its noun: `1 trial`, `2 trials`, `0.5 GPUs`, `2 analyses`, `1,200 epochs`."""
    if number == 1:
        return f"1 {noun}"
    many = f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"
    return f"{number:,} {many}" if isinstance(number, int) else f"{number:g} {many}"
