"""Sizes of tests in the default tier and with `pytest --full`."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

# conftest.py sets this before it imports the tests.
full = False

every_byte = False
"""Whether faults are injected at every byte, not only where a reader's state changes."""

asked = False
"""Whether the test that runs depends on the tier, see passed_tests.py."""


def by_tier(default: T, full_tier: T) -> T:
    """Return the value for the tier that runs."""
    global asked
    asked = True
    return full_tier if full else default


def examples(count: int) -> int:
    """Return the number of examples for Hypothesis: `count` with `--full`, otherwise a tenth of it."""
    return by_tier(max(20, count // 10), count)
