"""The codecs by name, and the protocol of a user's codec."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from redis_fastbatch._common_types import common_types
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
