"""The toolkit's format by the standard library: what is too rare or too odd for the compiled way.

Its rules are the whole truth of the format. The compiled reader and writer hand over whatever they do not
know for sure, so each value is the same whichever way it takes.
"""

from __future__ import annotations

import binascii
import json
import sys
from collections.abc import Callable
from typing import Any

NONE = b"__NONE__"


class Unusual(Exception):
    """The compiled way does not know what to do with this value or these bytes."""


def _wrapped(name: str, data: Any) -> dict[str, Any]:
    return {"__type__": name, "__data__": data}


def _base64(data: bytes | bytearray) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def json_default(value: Any) -> Any:
    """What json.dumps writes for a value inside a container that JSON has no type for."""
    if isinstance(value, bytes):
        return _wrapped("bytes", _base64(value))
    if isinstance(value, bytearray):
        return _wrapped("bytearray", _base64(value))
    raise TypeError(f"a {type(value).__name__} is not of a type that the toolkit's JSON holds")


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array. One exists only where its module has been imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def dumps(value: Any) -> bytes:
    """The bytes of any value.

    Raises:
        TypeError, ValueError, RecursionError: it cannot be written.
    """
    if value is None:
        return NONE
    if isinstance(value, bool):
        return _json(_wrapped("bool", value))
    if isinstance(value, (bytes, bytearray)):
        # Inside a container a bytearray stays one; on its own it does not.
        return _json(_wrapped("bytes", _base64(value)))
    if isinstance(value, (str, int, float, dict, list, tuple)):
        return _json(_wrapped(type(value).__name__, value))
    if is_array(value):
        header = {"__type__": "numpy", "__dtype__": str(value.dtype), "__shape__": value.shape}
        return json.dumps({**header, "__data__": value.tolist()}, ensure_ascii=False).encode()
    raise TypeError(
        f"a value of type {type(value).__name__}: the toolkit's format holds None, bool, int, float, str, bytes, "
        "bytearray, dict, list, tuple and NumPy arrays"
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=json_default).encode()


def loads(data: bytes, preserve_int: bool = False) -> Any:
    """The value of any bytes: what is no JSON is text, what is no UTF-8 stays bytes.

    Args:
        preserve_int: the ints 0 and 1 stay ints; the toolkit makes bools of them.

    Raises:
        Exception: a wrapper whose parts do not fit together; its type depends on what is wrong.
    """
    if data == NONE:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, dict) and "__type__" in found:
        return _unwrapped(found, preserve_int)
    return _revived(found)


def _unwrapped(wrapper: dict[str, Any], preserve_int: bool) -> Any:
    name: Any = wrapper["__type__"]
    data: Any = wrapper.get("__data__")
    if not isinstance(name, str):
        return data
    if name == "int":
        # Not only ints are equal to 0 and 1: the toolkit takes 0.0 and false alike.
        return int(data) if preserve_int or data not in (0, 1) else bool(data)
    if name in ("dict", "list", "tuple"):
        revived = _revived(data)
        return tuple(revived) if name == "tuple" else revived
    if name == "numpy":
        return array(wrapper)
    # A type that is not known: its data as it is.
    return _MAKERS[name](data) if name in _MAKERS else data


def _bytes(text: Any) -> bytes:
    # Characters outside the alphabet are passed over, as base64.b64decode() does it.
    return binascii.a2b_base64(text.encode("ascii"))


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "bytes": _bytes,
    "bytearray": lambda text: bytearray(_bytes(text)),
    "bool": bool,
    "float": float,
    "str": str,
}


def _revived(value: Any) -> Any:
    """The value with bytes in place of their wrappers, at any depth."""
    if isinstance(value, dict):
        name = value.get("__type__")
        if name in ("bytes", "bytearray") and "__data__" in value:
            return _MAKERS[name](value["__data__"])
        return {key: _revived(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value


def array(wrapper: dict[str, Any]) -> Any:
    import numpy

    return numpy.array(wrapper["__data__"], dtype=wrapper["__dtype__"]).reshape(wrapper["__shape__"])
