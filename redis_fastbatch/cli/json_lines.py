"""Values as lines of JSON: what `dump` writes, and what `load` says of rows that failed."""

from __future__ import annotations

import base64
import datetime
import json
import sys
from typing import Any

_TEXTS = {str}
_CONTAINERS = (dict, list, tuple)


def json_line(value: Any) -> str:
    """A value as a line of JSON.

    Bytes are text where they are UTF-8 and base64 else, points in time are in ISO 8601, arrays are lists, NaN and
    the infinities are null, and a map's keys are text.

    Raises:
        TypeError: JSON has no place for a value of that type.
        ValueError: a map has two keys that would be the same text.
        RecursionError: it is nested too deeply.
    """
    return json_text(value) + "\n"


def json_text(value: Any) -> str:
    """As json_line(), without the line's end."""
    if _has_odd_keys(value):
        value = json_able(value)
    try:
        return _ENCODER.encode(value)
    except ValueError:
        # NaN or an infinity: the encoder asks _nearest() about neither.
        return _ENCODER.encode(json_able(value))


def _has_odd_keys(value: Any) -> bool:
    """Whether a map in it has a key that is no text."""
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


def json_able(value: Any) -> Any:
    """A value made of what JSON has; raises as json_line() does."""
    if isinstance(value, dict):
        named = {_name(key): json_able(item) for key, item in value.items()}
        if len(named) < len(value):
            raise ValueError(f"a map has keys that are the same text in JSON, among {list(value)!r:.100}")
        return named
    if isinstance(value, (list, tuple)):
        return [json_able(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (str, int)):
        return value
    return _nearest(value)


def _name(key: Any) -> str:
    """A map's key as JSON has it: what is no text, as the text that its value would be."""
    if isinstance(key, str):
        return key
    able = json_able(key)
    return able if isinstance(able, str) else _ENCODER.encode(able)


def _nearest(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        # As numbers, points in time would lose their unit.
        plain = numpy.datetime_as_string(value).tolist() if value.dtype.kind == "M" else value.tolist()
        # A long double stays one: Python has no number for it.
        if not isinstance(plain, numpy.generic):
            return json_able(plain)
    raise TypeError(f"JSON has no place for a {type(value).__name__}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_nearest)
