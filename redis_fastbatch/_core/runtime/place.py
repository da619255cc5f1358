"""The place in a value that an error is about. It is found only after an error, so packing does not pay for it."""

from __future__ import annotations

from typing import Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import EncodeError

MAX_DEPTH = 200
"""Levels that are searched: deeper places are not named, and Python's own recursion limit is not reached."""
LONGEST_PLACE = 12
"""Subscripts that a message shows; the middle of a longer place is left out."""


def type_name(value: Any) -> str:
    """Return the name of a value's type, with its module unless that is builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


DECLARES_FIELDS = ("__dataclass_fields__", "__struct_fields__", "__attrs_attrs__", "__pydantic_fields__")
"""Attributes of the classes whose objects a codec with `type=` writes."""


def default_advice(value: Any, codec: str) -> str:
    """Return which argument of a codec lets it write a value of a type that it does not have."""
    advice = f"use a codec with default=, such as {codec}(default=codecs.common_types)"
    kind = type(value)
    if any(hasattr(kind, name) for name in DECLARES_FIELDS):
        return f"{advice}, or with type=, such as {codec}(type={kind.__name__})"
    return advice


def misfit(value: Any, reason: str) -> EncodeError:
    """Return the error about a value somewhere inside the one that is packed; placed() adds where."""
    error = EncodeError(reason)
    error.misfit = value  # type: ignore[attr-defined]
    return error


def placed(error: BaseException, root: Any) -> BaseException:
    """Return the error with the place, inside `root`, of the value that it is about."""
    if not isinstance(error, EncodeError) or "misfit" not in error.__dict__:
        return error
    steps = _steps_to(root, error.__dict__.pop("misfit"), 0)
    if not steps:
        return error
    if len(steps) > LONGEST_PLACE:
        steps = [*steps[: LONGEST_PLACE // 2], "...", *steps[-LONGEST_PLACE // 2 :]]
    better = EncodeError(f"{''.join(steps).strip()}: {error.reason}", error.key)
    better.__cause__ = error.__cause__
    return better


def _steps_to(root: Any, wanted: Any, depth: int) -> list[str] | None:
    """Return the subscripts that lead from `root` to the very object `wanted`; None where it is not inside."""
    if root is wanted:
        return []
    if depth >= MAX_DEPTH:
        return None
    if isinstance(root, dict):
        for key, value in list(dict.items(root)):
            if _steps_to(key, wanted, depth + 1) is not None:
                return [" in a key"]
            steps = _steps_to(value, wanted, depth + 1)
            if steps is not None:
                return [f"[{format_key(key):.60}]", *steps]
    elif isinstance(root, (list, tuple)):
        for i, value in enumerate(list(root)):
            steps = _steps_to(value, wanted, depth + 1)
            if steps is not None:
                return [f"[{i}]", *steps]
    return None
