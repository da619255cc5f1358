"""Batches of values between Python and Redis, serialized and encoded in C."""

from typing import TYPE_CHECKING, Any

try:
    from redis_fastbatch._core.resp import encoder as _encoder  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f"redis_fastbatch's compiled core is missing or does not load ({_error}): run this outside the "
        "source tree, or build it there with `python setup.py build_ext --inplace`"
    ) from None

from redis_fastbatch._version import __version__
from redis_fastbatch.client import FastBatch
from redis_fastbatch.codecs import Codec, CompressedCodec, JsonCodec, MsgpackCodec, RawCodec
from redis_fastbatch.errors import BatchError, DecodeError, EncodeError, FastBatchError
from redis_fastbatch.report import BatchReport, ChunkStats
from redis_fastbatch.templates import col, row

if TYPE_CHECKING:
    from redis_fastbatch.async_client import AsyncFastBatch
    from redis_fastbatch.toolkit import RedisToolkit

__all__ = [
    "AsyncFastBatch",
    "BatchError",
    "BatchReport",
    "ChunkStats",
    "Codec",
    "CompressedCodec",
    "DecodeError",
    "EncodeError",
    "FastBatch",
    "FastBatchError",
    "JsonCodec",
    "MsgpackCodec",
    "RawCodec",
    "RedisToolkit",
    "__version__",
    "col",
    "row",
]


def __getattr__(name: str) -> Any:
    # Importing redis.asyncio takes long, so only programs that use it wait for that.
    if name == "AsyncFastBatch":
        from redis_fastbatch.async_client import AsyncFastBatch

        return AsyncFastBatch
    if name == "RedisToolkit":
        from redis_fastbatch.toolkit import RedisToolkit

        return RedisToolkit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
