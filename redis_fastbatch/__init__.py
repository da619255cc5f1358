"""The fastest way to move batches between Python and Redis."""

try:
    from redis_fastbatch._core import resp as _resp  # noqa: F401
except ImportError as _error:
    raise ImportError(
        f"redis_fastbatch's compiled core is missing or does not load ({_error}): run this outside the source "
        "tree, or build it there with `python setup.py build_ext --inplace`"
    ) from _error

from redis_fastbatch._version import __version__
from redis_fastbatch.client import FastBatch
from redis_fastbatch.codecs import Codec, MsgpackCodec, RawCodec
from redis_fastbatch.errors import BatchError, DecodeError, EncodeError, FastBatchError
from redis_fastbatch.report import BatchReport

__all__ = [
    "BatchError",
    "BatchReport",
    "Codec",
    "DecodeError",
    "EncodeError",
    "FastBatch",
    "FastBatchError",
    "MsgpackCodec",
    "RawCodec",
    "__version__",
]
