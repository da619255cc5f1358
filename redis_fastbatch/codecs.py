"""The codecs by name, and the protocol of a user's codec."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from redis_fastbatch._common_types import common_types
from redis_fastbatch._core.codec import PythonCodec, ValueCodec
from redis_fastbatch._core.compressed import Compressing
from redis_fastbatch._core.json.codec import JsonCodec
from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.raw import RawCodec

__all__ = [
    "AnyCodec",
    "Codec",
    "CodecName",
    "CompressedCodec",
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


Algorithm: TypeAlias = Literal["zstd", "lz4", "zlib"]
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


class CompressedCodec(Compressing):
    """A codec that compresses the values of another codec.

    Values shorter than `min_size` are stored as the other codec writes them, and so are values that compression
    does not make shorter. It reads both. It also reads values that were written without compression, or with
    another algorithm, because a frame's first bytes name its algorithm.

    Args:
        codec: the codec of the values: a name, a codec, or any object with dumps() and loads().
        algorithm: "zstd" (needs backports.zstd before Python 3.14), "lz4" (needs lz4), or "zlib", which writes
            gzip's format.
        level: the level of compression; None for the library's default.
        min_size: values shorter than this are not compressed, in bytes.
        max_value_size: the longest value to read, in bytes after decompression; 0 for the limit of the client
            that uses the codec, or 512 MiB if that has none. A longer one raises DecodeError.
    """

    def __init__(
        self,
        codec: AnyCodec = "msgpack",
        algorithm: Algorithm = "zstd",
        *,
        level: int | None = None,
        min_size: int = 512,
        max_value_size: int = 0,
    ) -> None:
        for name, size in (("min_size", min_size), ("max_value_size", max_value_size)):
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"{name} must be an int of at least 0, got {size!r}")
        super().__init__(resolve(codec), algorithm, level, min_size, max_value_size)


def resolve(codec: AnyCodec, max_value_size: int = 0) -> ValueCodec:
    """Return the codec with a name, or a wrapper of a user's codec.

    Args:
        codec: a name, a codec, or a user's codec.
        max_value_size: the longest value that the client reads, in bytes; 0 for no limit. It applies to a codec
            that compresses, unless that has a limit of its own.

    Raises:
        ValueError: no codec has this name.
        TypeError: `codec` has no dumps() and loads(), is a class, or these methods are coroutines.
    """
    if isinstance(codec, ValueCodec) and not _is_overridden(codec):
        return codec.limited(max_value_size) if isinstance(codec, Compressing) else codec
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
