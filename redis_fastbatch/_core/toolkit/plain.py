"""The toolkit's format with the standard library, for rare and unusual values.

These functions define the format. The compiled reader and writer pass on every value that they are not sure about,
so a value is the same in both ways.
"""

from __future__ import annotations

import binascii
import json
import sys
from collections.abc import Callable
from typing import Any

NONE = b"__NONE__"


def _wrapped(name: str, data: Any) -> dict[str, Any]:
    return {"__type__": name, "__data__": data}


def _base64(data: bytes | bytearray) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def json_default(value: Any) -> Any:
    """Return what json.dumps writes inside a container for a value that JSON has no type for."""
    if isinstance(value, bytes):
        return _wrapped("bytes", _base64(value))
    if isinstance(value, bytearray):
        return _wrapped("bytearray", _base64(value))
    raise TypeError(f"the toolkit's JSON has no type for {type(value).__name__}")


def is_array(value: Any) -> bool:
    """Return whether a value is a NumPy array. It can only be one if NumPy has been imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def dumps(value: Any) -> bytes:
    """Return the bytes of any value.

    Raises:
        TypeError, ValueError, RecursionError: the value cannot be written.
    """
    if value is None:
        return NONE
    if isinstance(value, bool):
        return _json(_wrapped("bool", value))
    if isinstance(value, (bytes, bytearray)):
        # Only inside a container does a bytearray stay one.
        return _json(_wrapped("bytes", _base64(value)))
    if isinstance(value, (str, int, float, dict, list, tuple)):
        return _json(_wrapped(type(value).__name__, value))
    if is_array(value):
        header = {"__type__": "numpy", "__dtype__": str(value.dtype), "__shape__": value.shape}
        return json.dumps({**header, "__data__": value.tolist()}, ensure_ascii=False).encode()
    raise TypeError(
        f"the toolkit's format holds None, bool, int, float, str, bytes, bytearray, dict, list, tuple and NumPy "
        f"arrays, got {type(value).__name__}"
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=json_default).encode()


def loads(data: bytes, preserve_int: bool = False) -> Any:
    """Return the value of any bytes: JSON is decoded, other UTF-8 becomes str, and other bytes stay bytes.

    Args:
        preserve_int: read the ints 0 and 1 as ints; the toolkit reads them as bools.

    Raises:
        Exception: the parts of a wrapper are inconsistent; the type depends on the fault.
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
        # The toolkit converts every value that equals 0 or 1, such as 0.0 and false.
        return int(data) if preserve_int or data not in (0, 1) else bool(data)
    if name in ("dict", "list", "tuple"):
        revived = _revived(data)
        return tuple(revived) if name == "tuple" else revived
    if name == "numpy":
        return array(wrapper)
    # An unknown type gives its data as it is.
    return _MAKERS[name](data) if name in _MAKERS else data


def _bytes(text: Any) -> bytes:
    # Characters outside the alphabet are skipped, as in base64.b64decode().
    return binascii.a2b_base64(text.encode("ascii"))


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "bytes": _bytes,
    "bytearray": lambda text: bytearray(_bytes(text)),
    "bool": bool,
    "float": float,
    "str": str,
}


def _revived(value: Any) -> Any:
    """Return the value with its wrappers of bytes replaced by bytes, at any depth."""
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
