"""Compare what was read with what was written: stricter than ==, and NaN equals NaN."""

from __future__ import annotations

from typing import Any


def same(expected: Any, found: Any) -> bool:
    """Compare two values by type and content, at any depth.

    == treats True, 1 and 1.0 as equal, which a codec must not. It also treats NaN as unequal to itself, and the
    flights have NaN where a figure is missing.
    """
    if type(expected) is not type(found):
        return False
    if isinstance(expected, dict):
        return expected.keys() == found.keys() and all(same(expected[key], found[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(expected) == len(found) and all(map(same, expected, found))
    return bool(expected == found) or (expected != expected and found != found)
