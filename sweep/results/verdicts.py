"""Verdicts in words."""

from analysis.banding import too_noisy

TOO_NOISY = "too noisy to judge"


def told_verdict(verdict: str | None, reliability: float | None) -> str:
    """A layer's verdict, or `too noisy to judge` where it is none and noise would hide even perfect bands."""
    return TOO_NOISY if too_noisy(verdict, reliability) else verdict or ""
