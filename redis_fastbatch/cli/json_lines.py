"""Writes values as lines of JSON: for `dump`, and for the failed rows of `load`."""

from __future__ import annotations

import base64
import datetime
import json
import sys
from functools import partial
from typing import Any

ADVICE = "dump as Parquet, or with --lossy, which writes null for NaN and the infinities, and base64 for bytes"

_TEXTS = {str}
_CONTAINERS = (dict, list, tuple)


def json_line(value: Any, *, exact: bool = False) -> str:
    """Return a value as a line of JSON.

    Bytes that are UTF-8 are text, points in time are in ISO 8601, arrays are lists, and a map's keys are text.

    Args:
        value: the value.
        exact: whether to refuse what JSON cannot hold. Otherwise bytes that are not UTF-8 become base64, and NaN
            and the infinities null.

    Raises:
        TypeError: JSON cannot hold a value of that type.
        ValueError: a map has two keys that would be the same text, or `exact` refuses it.
        RecursionError: it is nested too deeply.
    """
    if not exact:
        return json_text(value) + "\n"
    if _has_odd_keys(value):
        value = json_able(value, exact=True)
    try:
        return _EXACT.encode(value) + "\n"
    except ValueError:
        # The encoder's message for NaN does not say what to do; this one does.
        return _EXACT.encode(json_able(value, exact=True)) + "\n"


def json_text(value: Any) -> str:
    """Return a value as JSON, as json_line() does without `exact`, and without the line end."""
    if _has_odd_keys(value):
        value = json_able(value)
    try:
        return _ENCODER.encode(value)
    except ValueError:
        # NaN or an infinity: the encoder does not call _nearest() for them.
        return _ENCODER.encode(json_able(value))


def _has_odd_keys(value: Any) -> bool:
    """Return whether a map in the value has a key that is not text."""
    within = [value]
    while within:
        value = within.pop()
        items = value
        if isinstance(value, dict):
            if value and set(map(type, value)) != _TEXTS:
                return True
            items = value.values()
        elif not isinstance(value, (list, tuple)):
            continue
        within.extend(item for item in items if isinstance(item, _CONTAINERS))
    return False


def json_able(value: Any, *, exact: bool = False) -> Any:
    """Return the value with only types that JSON has. Raises as json_line() does."""
    if isinstance(value, dict):
        named = {_name(key, exact): json_able(item, exact=exact) for key, item in value.items()}
        if len(named) < len(value):
            raise ValueError(
                f"expected keys that differ as text, found two that are the same, among {list(value)!r:.100}"
            )
        return named
    if isinstance(value, (list, tuple)):
        return [json_able(item, exact=exact) for item in value]
    if isinstance(value, float):
        if value - value == 0:
            return value
        if exact:
            raise ValueError(f"found {value}, expected a number that JSON has: {ADVICE}")
        return None
    if value is None or isinstance(value, (str, int)):
        return value
    return _nearest(value, exact)


def _name(key: Any, exact: bool) -> str:
    """Return a map's key as text, as JSON would write its value."""
    if isinstance(key, str):
        return key
    able = json_able(key, exact=exact)
    return able if isinstance(able, str) else _ENCODER.encode(able)


def _nearest(value: Any, exact: bool = False) -> Any:
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            if exact:
                raise ValueError(f"found bytes that are not UTF-8, expected text: {ADVICE}") from None
            return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        # Times become text, because numbers would lose their unit.
        plain = numpy.datetime_as_string(value).tolist() if value.dtype.kind == "M" else value.tolist()
        # Python has no type for a long double.
        if not isinstance(plain, numpy.generic):
            return json_able(plain, exact=exact)
    raise TypeError(f"JSON has no place for a {type(value).__name__}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_nearest)
_EXACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=partial(_nearest, exact=True))
