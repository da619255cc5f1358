"""redis-toolkit's format for single values, as the codec `toolkit` writes it."""

from __future__ import annotations

import json
from typing import Any

from redis_fastbatch._core.toolkit import plain as toolkit_json_plain
from redis_fastbatch._core.toolkit.codec import ToolkitCodec
from redis_fastbatch.errors import DecodeError, EncodeError
from redis_fastbatch.toolkit.exceptions import SerializationError

_codec = ToolkitCodec()


class BytesAwareJSONEncoder(json.JSONEncoder):
    """A JSONEncoder that writes bytes and bytearray as base64 in a wrapper."""

    def default(self, o: Any) -> Any:
        """Return the replacement that is written for `o`."""
        return toolkit_json_plain.json_default(o)


def serialize_value(value: Any) -> bytes:
    """Return the bytes that redis-toolkit stores for a value.

    Raises:
        SerializationError: the format has no form for the value.
    """
    try:
        return _codec.dumps(value)
    except EncodeError as error:
        raise SerializationError(error.reason, value, error.__cause__ or error) from error


def deserialize_value(data: Any) -> Any:
    """Return the value of stored bytes: JSON is decoded, other UTF-8 becomes str, and other bytes stay bytes.

    Anything that is not bytes is returned as it is, except that the ints 0 and 1 become bools.

    Raises:
        SerializationError: the parts of a NumPy array's wrapper are inconsistent.
        Exception: those of another wrapper are; the exception that its data raised.
    """
    if isinstance(data, (bytes, bytearray)):
        try:
            return _codec.loads(data)
        except DecodeError as error:
            if _is_numpy(data):
                raise SerializationError(f"no NumPy array can be made: {error}", None, error.__cause__) from error
            raise (error.__cause__ or error) from None
    if isinstance(data, int) and data in (0, 1):
        return bool(data)
    return None if data == toolkit_json_plain.NONE else data


def _is_numpy(data: bytes | bytearray) -> bool:
    """Return whether JSON bytes are the wrapper of a NumPy array."""
    wrapper = json.loads(data)
    return isinstance(wrapper, dict) and wrapper.get("__type__") == "numpy"


def serialize_numpy_array(value: Any) -> bytes:
    """Return the bytes of a NumPy array.

    Raises:
        SerializationError: `value` is not an array, or JSON has no form for its elements.
    """
    if not toolkit_json_plain.is_array(value):
        raise SerializationError(f"value must be a NumPy array, got {type(value).__name__}", value)
    return serialize_value(value)


def deserialize_numpy_array(obj: dict[str, Any]) -> Any:
    """Return the NumPy array of a wrapper with __dtype__, __shape__ and __data__.

    Raises:
        SerializationError: these are inconsistent, or NumPy is not installed.
    """
    try:
        return toolkit_json_plain.array(obj)
    except Exception as error:
        raise SerializationError(f"no NumPy array can be made: {error}", obj, error) from error
