"""Compressed frames of zstd, LZ4 and gzip, by the libraries for them. A frame's first bytes tell which it is."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

from redis_fastbatch.errors import DecodeError

MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18", "zlib": b"\x1f\x8b\x08"}
"""The first bytes of the frames of each algorithm. For zlib they are gzip's, which are less common than zlib's."""

GZIP = 31
"""zlib's number for gzip's frames."""

LZ4_BLOCK = 64 * 1024
"""How much is decompressed at a time if an LZ4 frame does not say how much it holds."""

Compress = Callable[[Any], bytes]


def compressor(algorithm: str, level: int | None) -> Compress:
    """Return a function that compresses a buffer into one frame. Threads may share it.

    Args:
        algorithm: "zstd", "lz4" or "zlib".
        level: the library's level of compression; None for its default.

    Raises:
        ValueError: there is no such algorithm or level.
        ImportError: the library is not installed.
    """
    if algorithm not in MAGIC:
        raise ValueError(f"algorithm must be one of {', '.join(map(repr, MAGIC))}, got {algorithm!r}")
    if level is not None and not isinstance(level, int):
        raise TypeError(f"level must be an int or None, got {type(level).__name__}")
    if algorithm == "zstd":
        return _ZstdCompressor(level).compress
    if algorithm == "lz4":
        frame = _lz4()
        return lambda data: bytes(frame.compress(data, compression_level=level or 0))
    if level is not None and not -1 <= level <= 9:
        raise ValueError(f"level must be from -1 to 9 for zlib, got {level}")

    def compress(data: Any) -> bytes:
        one = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, GZIP)
        return one.compress(data) + one.flush()

    return compress


def decompress(algorithm: str, data: Any, limit: int) -> bytes:
    """Return the bytes of a frame, at most `limit` of them. Memory is allocated as they come.

    Raises:
        DecodeError: the frame is damaged, holds more bytes, or more bytes follow; or its library is not installed.
    """
    try:
        if algorithm == "zstd":
            one = _zstd().ZstdDecompressor()
            found = one.decompress(data, max_length=limit + 1)
        elif algorithm == "lz4":
            one, found = _lz4_frame(data, limit)
        else:
            one = zlib.decompressobj(GZIP)
            found = one.decompress(data, limit + 1)
    except ImportError as error:
        raise DecodeError(f"the value is compressed; {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"the value is not a frame of {algorithm}: {error}") from error
    if len(found) > limit:
        raise DecodeError(f"a value of more than {limit} bytes when it is decompressed: max_value_size is {limit}")
    if not one.eof:
        raise DecodeError(f"the frame of {algorithm} is cut short", len(data))
    if one.unused_data:
        raise DecodeError(f"{len(one.unused_data)} bytes follow the frame of {algorithm}")
    return bytes(found)


def _lz4_frame(data: Any, limit: int) -> tuple[Any, bytes]:
    """Return lz4's decompressor, and the bytes of a frame, more than `limit` only to show that there are more.

    lz4 allocates as many bytes as it is asked for. So it is asked for as many as the frame says that it has, and
    then for a few more at a time, in case the frame does not say so, or lies.
    """
    frame = _lz4()
    one = frame.LZ4FrameDecompressor()
    expected = min(frame.get_frame_info(data)["content_size"], limit) or LZ4_BLOCK
    parts = [one.decompress(data, max_length=expected)]
    total = len(parts[0])
    while not one.eof and not one.needs_input and total <= limit:
        parts.append(one.decompress(b"", max_length=LZ4_BLOCK))
        total += len(parts[-1])
    return one, parts[0] if len(parts) == 1 else b"".join(parts)


class _ZstdCompressor:
    """Compresses buffers with one context, because making a context takes longer than using it."""

    def __init__(self, level: int | None) -> None:
        self._zstd = _zstd()
        self._level = level
        try:
            self._context = self._zstd.ZstdCompressor(level)
        except (ValueError, self._zstd.ZstdError) as error:
            raise ValueError(f"level {level} for zstd: {error}") from error

    def compress(self, data: Any) -> bytes:
        try:
            found: bytes = self._context.compress(data, mode=self._context.FLUSH_FRAME)
        except BaseException:
            # The context may hold a part of a frame.
            self._context = self._zstd.ZstdCompressor(self._level)
            raise
        return found


@functools.cache
def _zstd() -> Any:
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise ImportError("zstd needs backports.zstd: pip install 'redis-fastbatch[zstd]'") from error
    return zstd


@functools.cache
def _lz4() -> Any:
    try:
        import lz4.frame
    except ImportError as error:
        raise ImportError("lz4 needs the package lz4: pip install 'redis-fastbatch[lz4]'") from error
    return lz4.frame
