"""How much a test does in the default tier, and how much with `pytest --full`."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

# conftest.py sets it before it imports the first test.
full = False


def by_tier(default: T, full_tier: T) -> T:
    """Return one of two values, by the tier that runs."""
    return full_tier if full else default


def examples(count: int) -> int:
    """Return how many examples Hypothesis tries: all of them with `--full`, else a fifth."""
    return by_tier(max(20, count // 5), count)
