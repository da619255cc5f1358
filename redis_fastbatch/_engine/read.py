"""Batches that read, in flight. See flight.py for what a flight is."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

from redis.exceptions import BusyLoadingError

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import NO_LIMIT, ChunkState, Explain, InFlightChunk, ServerFlight
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import OnError, ReadOutcome
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES, FlushTimer

logger = logging.getLogger("redis_fastbatch")

ReadFailure: TypeAlias = tuple[Any, "bytes | None", Exception]
"""A key, the bytes that cannot be decoded or None, and why its value cannot be read."""

READ_WINDOW = 6
"""The most commands that read and are in flight at the same time."""


class _InFlightRead(InFlightChunk):
    """A command that reads, in flight.

    Attributes:
        begun: the head of its reply has been read.
        mark: how many pairs the result had before its values.
    """

    __slots__ = ("begun", "mark")

    def __init__(self, chunk: Chunk) -> None:
        super().__init__(chunk, 0)
        self.begun = False
        self.mark = 0


class ReadFlight(ServerFlight):
    """A batch of MGETs in flight.

    Args:
        writer: encodes the keys.
        codec: decodes the values.
        out: gets the values: a dict by key, or a list of (key, value) pairs in the keys' order.
        outcome: counts the values and handles those that cannot be decoded.
        options: how they are read.
    """

    def __init__(
        self,
        writer: BatchWriter,
        codec: ValueCodec,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        outcome: ReadOutcome,
        options: ReadOptions,
    ) -> None:
        super().__init__(writer, outcome)
        self.outcome = outcome
        self._codec = codec
        self._out = out
        self._default = options.default
        self._limit = options.limit
        self._budget = options.budget

    @property
    def _takes_items(self) -> bool:
        return not (self._writer.exhausted or self.outcome.error is not None or self._spent)

    @property
    def _spent(self) -> bool:
        # Keys that were put into a chunk are asked for, whatever has been read since.
        return self._filling is None and self.outcome.size >= self._budget

    @property
    def _full(self) -> bool:
        # The first reply is waited for: many values of unknown size would fill the server's memory.
        return len(self._in_flight) >= (READ_WINDOW if self.outcome.sizes.known else 1)

    def _encode(self, budget: int | None) -> None:
        writer = self._writer
        writer.max_items = min(self._limit, self.outcome.sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        filling = self._filling or _InFlightRead(Chunk(writer.command))
        chunk = filling.chunk
        if budget is None or writer.in_memory:
            writer.fill_some(chunk, NO_LIMIT if budget is None else budget)
        else:
            timer = self._flush_timer = self._flush_timer or FlushTimer()
            timer.fill(writer, chunk, budget)
        self._filling = None if chunk.sealed else filling
        self._record_unencoded()
        if chunk.sealed and chunk.count:
            self._ready.append(filling)

    def _record_unencoded(self) -> None:
        writer = self._writer
        if writer.failures:
            for key, _, error in writer.failures:
                self.outcome.fail(key, None, error)
            writer.failures.clear()
        if writer.source_error is not None:
            self.outcome.end_with(writer.source_error)

    def begin_with(self, chunk: Chunk, state: ChunkState) -> None:
        """Take the first command over, whose keys were encoded before the flight was made.

        Args:
            chunk: the command, sealed.
            state: NEW, or its state if it was sent already. Its reply has not been read.
        """
        self._record_unencoded()
        if state is not ChunkState.NEW:
            self._in_flight.append(_InFlightRead(chunk))
        elif chunk.count:
            self._ready.append(_InFlightRead(chunk))

    def started(self, chunk: Chunk) -> None:
        self._in_flight.append(self._ready.popleft())

    def finished(self, chunk: Chunk) -> None:
        """Do nothing: whatever was sent, it may be read again."""

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        while self._in_flight:
            reading = self._in_flight[0]
            keys = reading.chunk.keys
            if not reading.begun:
                begun = self._begin(reader, keys)
                if begun is False:
                    return
                if begun is not True:
                    self._refuse(explain(begun))
                    continue
                reading.begun = True
                reading.mark = len(self._out)
            failures: list[ReadFailure] = []
            before, had = len(reader), reading.done
            reading.done = self._values(reader, keys, had, failures, NO_LIMIT if budget is None else budget)
            self.outcome.count(reading.done - had, before - len(reader))
            for key, data, error in failures:
                if isinstance(error, ErrorReply):
                    error = self._refusal(explain(error))
                self.outcome.fail(key, data, error)
            if reading.done < len(keys):
                return
            self._settle_oldest()
            if budget is not None:
                return

    def _begin(self, reader: ReplyReader, keys: list[Any]) -> bool | ErrorReply:
        """Begin to read the reply with the values of `keys`. See ReplyReader.array()."""
        return reader.array(len(keys))

    def _values(
        self, reader: ReplyReader, keys: list[Any], done: int, failures: list[ReadFailure], most: int
    ) -> int:
        """Read the values of `keys`, from key number `done` on. See ReplyReader.values()."""
        return reader.values(keys, done, self._codec, self._default, self._out, failures, most)

    def _refusal(self, error: Exception) -> Exception:
        """Return the exception about a key that the server did not read."""
        return error

    def _settle_oldest(self) -> None:
        """Settle the oldest command, which has its whole reply. Until then all of it would be read again."""
        self._in_flight.popleft()
        self.settled += 1

    def _refuse(self, error: Exception) -> None:
        """End the batch: the server refused a whole command."""
        if self.wait_while_loading and isinstance(error, BusyLoadingError):
            raise error
        self._in_flight.popleft()
        self.outcome.end_with(error)

    def connection_lost(self) -> bool:
        if self._in_flight and self._in_flight[0].begun and isinstance(self._out, list):
            del self._out[self._in_flight[0].mark :]
        while self._in_flight:
            self._ready.appendleft(_InFlightRead(self._in_flight.pop().chunk))
        return True

    def abort(self, error: BaseException) -> None:
        self._in_flight.clear()
        self._ready.clear()


def read_ended(outcome: ReadOutcome, on_error: OnError, method: str = "batch_get") -> None:
    """Raise what ended a batch that reads; log what was tolerated."""
    outcome.raise_error()
    if outcome.failed and on_error == "report":
        logger.warning("%s: %d values could not be decoded", method, outcome.failed)
