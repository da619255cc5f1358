"""The exceptions of this package. redis-py's exceptions are passed on as they are.

FastBatchError
  + EncodeError     a key or value cannot be written
  + DecodeError     bytes from the server cannot be decoded
  + BatchError      some items of a batch were not written
  + ServerError     the embedded server cannot be found, started or stopped
  + RedisToolkitError (redis_fastbatch.toolkit), with its subclasses
"""

from __future__ import annotations

from typing import Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.report import BatchReport

Key = Any


class FastBatchError(Exception):
    """Base of all errors of redis_fastbatch."""


class EncodeError(FastBatchError):
    """A key or value cannot be written.

    Attributes:
        key: the item's key; None if a value was encoded alone.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, key: Key = None) -> None:
        super().__init__(reason, key)
        self.reason = reason
        self.key = key

    def __str__(self) -> str:
        return self.reason if self.key is None else f"key {format_key(self.key)}: {self.reason}"


class DecodeError(FastBatchError):
    """The codec cannot decode bytes that were read from the server.

    Attributes:
        reason: what was expected and what was found.
        offset: the position in the value, in bytes.
        key: the item's key; None if bytes were decoded alone.
        field: the field of a hash; None if the value is not one of a hash.
    """

    def __init__(self, reason: str, offset: int = 0, key: Key = None, field: Key = None) -> None:
        super().__init__(reason, offset, key)
        self.reason = reason
        self.offset = offset
        self.key = key
        self.field = field

    def __str__(self) -> str:
        place = f"at byte {self.offset}: {self.reason}"
        if self.field is not None:
            place = f"field {format_key(self.field)}, {place}"
        return place if self.key is None else f"key {format_key(self.key)}, {place}"


class BatchError(FastBatchError):
    """Some items of a batch were not written. The `report` names them.

    Attributes:
        report: the BatchReport of the whole batch.
    """

    def __init__(self, message: str, report: BatchReport) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])


class ServerError(FastBatchError):
    """The embedded server cannot be found, started or stopped."""
