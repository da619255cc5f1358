"""redis-toolkit as the reference for the drop-in, and functions that compare the two."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from servers import missing


def toolkit_module(name: str = "") -> Any:
    """Return a module of redis-toolkit. If it is not installed, skip the test, or fail it in CI."""
    try:
        # It prints messages about its loggers during the import.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return importlib.import_module(f"redis_toolkit{'.' if name else ''}{name}")
    except ImportError as error:
        return missing(f"redis-toolkit cannot be imported ({error})")


def outcome(function: Callable[[Any], Any], argument: Any) -> tuple[str, Any]:
    """Return ("returned", result) of a call, or ("raised", error)."""
    try:
        return "returned", function(argument)
    except Exception as error:
        return "raised", error


def same(one: Any, other: Any) -> bool:
    """Return whether values are equal, with the same types at every depth, in the same order.

    NaN equals NaN, 0.0 differs from -0.0.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (one != one and other != other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one).__module__ == "numpy":
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist())
    return bool(one == other)


def same_outcome(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Return whether both returned the same, or both raised."""
    return one[0] == other[0] and (one[0] == "raised" or same(one[1], other[1]))
