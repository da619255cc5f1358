"""A batch that reads hashes, in flight: an HGETALL or HMGET for each key."""

from __future__ import annotations

from typing import Any

from redis.exceptions import BusyLoadingError, RedisError

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.read import ReadFailure, ReadFlight
from redis_fastbatch._messages import format_key
from redis_fastbatch._redirections import error_text, is_wrong_type
from redis_fastbatch.errors import DecodeError


class HashReadOutcome(ReadOutcome):
    """The outcome recorder of a batch that reads hashes. A key of another type does not end it."""

    __slots__ = ("_tolerable",)

    def fail(self, key: Any, data: bytes | None, error: Exception) -> None:
        self._tolerable = isinstance(error, DecodeError) or is_wrong_type(error)
        if isinstance(error, RedisError):
            error.args = (f"key {format_key(key)}: {error_text(error)}", *error.args[1:])
        super().fail(key, data, error)

    def _concerns_key(self, error: Exception) -> bool:
        return self._tolerable


class HashReadFlight(ReadFlight):
    """A batch of HGETALLs or HMGETs in flight.

    Args:
        writer: encodes the keys, a command for each.
        rows: reads the replies.
        out, outcome, options: as for ReadFlight.
    """

    def __init__(
        self,
        writer: BatchWriter,
        rows: HashRows,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        outcome: ReadOutcome,
        options: ReadOptions,
    ) -> None:
        super().__init__(writer, ValueCodec(), out, outcome, options)
        self._rows = rows

    def _begin(self, reader: ReplyReader, keys: list[Any]) -> bool | ErrorReply:
        # Each key has a reply of its own.
        return True

    def _values(
        self, reader: ReplyReader, keys: list[Any], done: int, failures: list[ReadFailure], most: int
    ) -> int:
        return self._rows.read(reader, keys, done, self._default, self._out, failures, most)

    def _refusal(self, error: Exception) -> Exception:
        if self.wait_while_loading and isinstance(error, BusyLoadingError):
            raise error
        return error
