"""redis-toolkit's wire format for single values; the codec `toolkit` is where it is made."""

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
        """What is written in the place of `o`."""
        return toolkit_json_plain.json_default(o)


def serialize_value(value: Any) -> bytes:
    """The bytes that redis-toolkit stores for a value.

    Raises:
        SerializationError: the value is of a type that the format does not hold.
    """
    try:
        return _codec.dumps(value)
    except EncodeError as error:
        raise SerializationError(error.reason, value, error.__cause__ or error) from error


def deserialize_value(data: Any) -> Any:
    """The value of stored bytes; what is no JSON is text, what is no UTF-8 stays bytes.

    What is not bytes comes back as it is, but for the ints 0 and 1, which come back as bools.

    Raises:
        SerializationError: a NumPy array's wrapper whose parts do not fit together.
        Exception: another wrapper whose parts do not: whatever its data raised.
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
    """Whether JSON is the wrapper of a NumPy array."""
    wrapper = json.loads(data)
    return isinstance(wrapper, dict) and wrapper.get("__type__") == "numpy"


def serialize_numpy_array(value: Any) -> bytes:
    """The bytes of a NumPy array.

    Raises:
        SerializationError: it is none, or holds what JSON has no type for.
    """
    if not toolkit_json_plain.is_array(value):
        raise SerializationError(f"a {type(value).__name__} is no NumPy array", value)
    return serialize_value(value)


def deserialize_numpy_array(obj: dict[str, Any]) -> Any:
    """The NumPy array of a wrapper with __dtype__, __shape__ and __data__.

    Raises:
        SerializationError: they do not fit together, or NumPy is not installed.
    """
    try:
        return toolkit_json_plain.array(obj)
    except Exception as error:
        raise SerializationError(f"no NumPy array can be made: {error}", obj, error) from error
