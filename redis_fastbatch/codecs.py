"""The codecs by name, and the protocol of a codec of one's own."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from redis_fastbatch._core.codec import PythonCodec, ValueCodec
from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.raw import RawCodec

__all__ = ["AnyCodec", "Codec", "MsgpackCodec", "RawCodec", "ValueCodec", "common_types", "json_codec", "resolve"]


@runtime_checkable
class Codec(Protocol):
    """A codec of one's own: any object with these two methods.

    What they raise becomes the item's EncodeError or DecodeError, and is its `__cause__`.
    """

    def dumps(self, value: Any, /) -> bytes:
        """Returns the bytes of a value."""

    def loads(self, data: bytes, /) -> Any:
        """Returns the value of bytes."""


AnyCodec: TypeAlias = "str | ValueCodec | Codec"


def common_types(value: Any) -> Any:
    """A `default=` for MsgpackCodec that writes common types as the nearest that MessagePack has.

    Decimal, UUID, date, time and naive datetime become str, and so do aware datetimes of a subclass, such as
    pandas.Timestamp. numpy arrays become lists and numpy scalars numbers, but datetime64 a str as exact as its
    unit; NaT becomes None. Dataclasses become dicts, sets lists, and members of an Enum their value. They are
    read back as what they became.

    Raises:
        TypeError: a value of any other type.
    """
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        # pandas.NaT is a datetime, and no moment.
        return value.isoformat() if value == value else None
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, enum.Enum):
        return _nearest(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and value.dtype.kind != "m":
        plain = _moments(numpy, value) if value.dtype.kind == "M" else value.tolist()
        # A long double stays one: Python has no number for it.
        return plain if isinstance(plain, numpy.generic) else _nearest(plain)
    raise TypeError(f"no common type: {type(value).__name__}")


def _moments(numpy: Any, value: Any) -> Any:
    """The text of each datetime64: tolist() has ints for some units, which do not say of which."""
    texts = numpy.asarray(numpy.datetime_as_string(value)).astype(object)
    texts[numpy.isnat(value)] = None
    return texts.tolist()


def _nearest(value: Any) -> Any:
    """What stands for a value may be of a common type in its turn: a member's Decimal, numpy's date."""
    if type(value) is datetime.datetime and value.tzinfo is not None:
        return value
    try:
        return common_types(value)
    except TypeError:
        return value


def json_codec() -> PythonCodec:
    """Compact JSON by the standard library: UTF-8, no spaces, NaN and Infinity refused as JSON has none."""
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    decoder = json.JSONDecoder()
    return PythonCodec(
        lambda value: encoder.encode(value).encode(), lambda data: decoder.decode(str(data, "utf-8"))
    )


def toolkit_codec() -> ValueCodec:
    """redis-toolkit's format, see ToolkitCodec."""
    # Imported late, here and below: most programs never use it.
    from redis_fastbatch._core.toolkit.codec import ToolkitCodec

    return ToolkitCodec()


def toolkit_msgpack_codec() -> ValueCodec:
    """Tagged MessagePack that also reads redis-toolkit's format, see ToolkitMsgpackCodec."""
    from redis_fastbatch._core.toolkit.codec import ToolkitMsgpackCodec

    return ToolkitMsgpackCodec()


_registry: dict[str, Callable[[], ValueCodec]] = {
    "msgpack": MsgpackCodec,
    "raw": RawCodec,
    "json": json_codec,
    "toolkit": toolkit_codec,
    "toolkit-msgpack": toolkit_msgpack_codec,
}


def resolve(codec: AnyCodec) -> ValueCodec:
    """Returns the codec of that name, or wraps a codec of the user's.

    Raises:
        ValueError: no codec has that name.
        TypeError: it has no dumps() and loads(), or they are a class's that wants to be called, or coroutines'.
    """
    if isinstance(codec, ValueCodec) and not _is_overridden(codec):
        return codec
    if isinstance(codec, str):
        try:
            return _registry[codec]()
        except KeyError:
            raise ValueError(f"no codec {codec!r}: there are {', '.join(sorted(_registry))}") from None
    if isinstance(codec, Codec):
        _check_methods(codec)
        return PythonCodec(codec.dumps, codec.loads)
    raise TypeError(f"a codec is a name or has dumps() and loads(); a {type(codec).__name__} is neither")


def _check_methods(codec: Codec) -> None:
    """Refuses methods that every value would fail at."""
    for name in ("dumps", "loads"):
        if inspect.iscoroutinefunction(getattr(codec, name)):
            raise TypeError(f"a codec's {name}() is called and not awaited: a plain method, not a coroutine's")
        if isinstance(codec, type) and not isinstance(
            inspect.getattr_static(codec, name), (staticmethod, classmethod)
        ):
            raise TypeError(f"a codec is an object, such as {codec.__name__}(), not its class")


def _is_overridden(codec: ValueCodec) -> bool:
    """Whether a subclass has methods of its own. Batches encode and decode past them, in C."""
    return type(codec).dumps is not ValueCodec.dumps or type(codec).loads is not ValueCodec.loads


def __getattr__(name: str) -> Any:
    if name in ("ToolkitCodec", "ToolkitMsgpackCodec"):
        from redis_fastbatch._core.toolkit import codec as toolkit_json

        return getattr(toolkit_json, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
