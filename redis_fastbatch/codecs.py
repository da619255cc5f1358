"""The codecs by name, and the protocol of a user's codec."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from redis_fastbatch._core.codec import PythonCodec, ValueCodec
from redis_fastbatch._core.json.codec import JsonCodec
from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.raw import RawCodec

__all__ = [
    "AnyCodec",
    "Codec",
    "CodecName",
    "JsonCodec",
    "MsgpackCodec",
    "RawCodec",
    "ValueCodec",
    "common_types",
    "resolve",
]


@runtime_checkable
class Codec(Protocol):
    """A user's codec: any object with these two methods.

    An exception that they raise becomes the `__cause__` of the item's EncodeError or DecodeError.
    """

    def dumps(self, value: Any, /) -> bytes:
        """Return the bytes of a value."""

    def loads(self, data: bytes, /) -> Any:
        """Return the value that the bytes hold."""


CodecName: TypeAlias = Literal["msgpack", "json", "raw", "toolkit", "toolkit-msgpack"]
AnyCodec: TypeAlias = "CodecName | ValueCodec | Codec"


def common_types(value: Any) -> Any:
    """Return a value of a common type as the nearest type that codecs write: a `default=` for a codec.

    Decimal, UUID, date, time and naive datetime become str. So do aware datetimes of a subclass, such as
    pandas.Timestamp. numpy arrays become lists, and numpy scalars numbers, except that datetime64 becomes a str as
    exact as its unit. NaT becomes None, dataclasses become dicts, sets become lists, and members of an Enum become
    their value. Reading gives the type that was written.

    Raises:
        TypeError: the value is of another type.
    """
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        # pandas.NaT is a datetime that does not equal itself.
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
        # Python has no type for a long double.
        return plain if isinstance(plain, numpy.generic) else _nearest(plain)
    raise TypeError(f"no common type: {type(value).__name__}")


def _moments(numpy: Any, value: Any) -> Any:
    """Return the text of each datetime64: tolist() gives ints for some units, and loses the unit."""
    texts = numpy.asarray(numpy.datetime_as_string(value)).astype(object)
    texts[numpy.isnat(value)] = None
    return texts.tolist()


def _nearest(value: Any) -> Any:
    """Return a replacement of MessagePack's types; the first one may be of a common type too, such as Decimal."""
    if type(value) is datetime.datetime and value.tzinfo is not None:
        return value
    try:
        return common_types(value)
    except TypeError:
        return value


def toolkit_codec() -> ValueCodec:
    """Return the codec `toolkit`, see ToolkitCodec."""
    # Imported late, here and below, because most programs never use it.
    from redis_fastbatch._core.toolkit.codec import ToolkitCodec

    return ToolkitCodec()


def toolkit_msgpack_codec() -> ValueCodec:
    """Return the codec `toolkit-msgpack`, see ToolkitMsgpackCodec."""
    from redis_fastbatch._core.toolkit.codec import ToolkitMsgpackCodec

    return ToolkitMsgpackCodec()


_registry: dict[str, Callable[[], ValueCodec]] = {
    "msgpack": MsgpackCodec,
    "raw": RawCodec,
    "json": JsonCodec,
    "toolkit": toolkit_codec,
    "toolkit-msgpack": toolkit_msgpack_codec,
}


def resolve(codec: AnyCodec) -> ValueCodec:
    """Return the codec with a name, or a wrapper of a user's codec.

    Raises:
        ValueError: no codec has this name.
        TypeError: `codec` has no dumps() and loads(), is a class, or these methods are coroutines.
    """
    if isinstance(codec, ValueCodec) and not _is_overridden(codec):
        return codec
    if isinstance(codec, str):
        try:
            return _registry[codec]()
        except KeyError:
            raise ValueError(f"codec must be one of {', '.join(sorted(_registry))}, got {codec!r}") from None
    if isinstance(codec, Codec):
        _check_methods(codec)
        return PythonCodec(codec.dumps, codec.loads)
    raise TypeError(f"codec must be a name or have dumps() and loads(), got {type(codec).__name__}")


def _check_methods(codec: Codec) -> None:
    """Refuse a codec whose methods cannot work for any value."""
    for name in ("dumps", "loads"):
        if inspect.iscoroutinefunction(getattr(codec, name)):
            raise TypeError(f"a codec's {name}() must be a plain method, got a coroutine function")
        if isinstance(codec, type) and not isinstance(
            inspect.getattr_static(codec, name), (staticmethod, classmethod)
        ):
            raise TypeError(f"codec must be an object such as {codec.__name__}(), got the class {codec.__name__}")


def _is_overridden(codec: ValueCodec) -> bool:
    """Return whether a subclass overrides the methods, which batches would not call: they encode in C."""
    return type(codec).dumps is not ValueCodec.dumps or type(codec).loads is not ValueCodec.loads


def __getattr__(name: str) -> Any:
    if name in ("ToolkitCodec", "ToolkitMsgpackCodec"):
        from redis_fastbatch._core.toolkit import codec as toolkit_json

        return getattr(toolkit_json, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
