"""Batches that read, in flight. See flight.py for what a flight is."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from redis.exceptions import BusyLoadingError, InvalidResponse

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT, Explain
from redis_fastbatch._engine.outcome import OnError, ReadOutcome
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES, ValueSizes
from redis_fastbatch.errors import cluster_hint, error_text

logger = logging.getLogger("redis_fastbatch")

READ_WINDOW = 6
"""The most commands that read and are in flight at the same time."""


class _InFlightRead:
    """A command that reads, in flight.

    Attributes:
        begun: the head of its reply has been read.
        done: how many of its values have been read.
        mark: how many pairs the result had before them.
    """

    __slots__ = ("begun", "chunk", "done", "mark")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.begun = False
        self.done = 0
        self.mark = 0


class ReadFlight:
    """A batch of MGETs in flight.

    Args:
        writer: encodes the keys.
        codec: decodes the values.
        out: gets the values: a dict by key, or a list of (key, value) pairs in the keys' order.
        outcome: counts the values and handles those that cannot be decoded.
        default: stands for a key that is missing or whose value cannot be decoded.
        limit: the most keys of a command.
        budget: once so many bytes of values were read, no further keys are taken.
    """

    poll_after_send = False
    awaiting_replies = False

    def __init__(
        self,
        writer: BatchWriter,
        codec: ValueCodec,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        outcome: ReadOutcome,
        *,
        default: Any = None,
        limit: int = COMMAND_ITEMS,
        budget: int = NO_LIMIT,
    ) -> None:
        self.wait_while_loading = True
        self.pace: int | None = None
        self.settled = 0
        self.outcome = outcome
        self._writer = writer
        self._codec = codec
        self._out = out
        self._default = default
        self._limit = limit
        self._budget = budget
        self._in_flight: deque[_InFlightRead] = deque()
        self._ready: deque[_InFlightRead] = deque()
        self._filling: Chunk | None = None

    @property
    def hook_raised(self) -> bool:
        return self.outcome.hook_raised

    @property
    def done(self) -> bool:
        return not self._in_flight and not self._ready and self._ended

    @property
    def _ended(self) -> bool:
        return self._writer.exhausted or self.outcome.error is not None or self._spent

    @property
    def _spent(self) -> bool:
        # Keys that were put into a chunk are asked for, whatever has been read since.
        return self._filling is None and self.outcome.size >= self._budget

    @property
    def _full(self) -> bool:
        # The first reply is waited for: many values of unknown size would fill the server's memory.
        return len(self._in_flight) >= (READ_WINDOW if self.outcome.sizes.known else 1)

    @property
    def in_flight(self) -> bool:
        return bool(self._in_flight)

    @property
    def has_partial_chunk(self) -> bool:
        return self._filling is not None and not self._ready and not self._ended and not self._full

    @property
    def source_pending(self) -> bool:
        return self._writer.dry

    def next_chunk(self) -> Chunk | None:
        if self._full:
            return None
        if not self._ready:
            if self._ended:
                return None
            self._encode()
        return self._ready[0].chunk if self._ready else None

    def _encode(self) -> None:
        self._writer.max_items = min(self._limit, self.outcome.sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        chunk = Chunk(self._writer.command) if self._filling is None else self._filling
        self._writer.fill_some(chunk, NO_LIMIT if self.pace is None else self.pace)
        self._filling = None if chunk.sealed else chunk
        for key, _, error in self._writer.failures:
            self.outcome.fail(key, None, error)
        self._writer.failures.clear()
        if self._writer.source_error is not None:
            self.outcome.end_with(self._writer.source_error)
        if chunk.sealed and chunk.count:
            self._ready.append(_InFlightRead(chunk))

    def flush_partial(self) -> None:
        chunk = self._filling
        if chunk is not None and chunk.count:
            chunk.seal()
            self._ready.append(_InFlightRead(chunk))
            self._filling = None

    def started(self, chunk: Chunk) -> None:
        self._in_flight.append(self._ready.popleft())

    def finished(self, chunk: Chunk) -> None:
        """Do nothing: whatever was sent, it may be read again."""

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self._in_flight:
            reading = self._in_flight[0]
            keys = reading.chunk.keys
            if not reading.begun:
                begun = reader.array(len(keys))
                if begun is False:
                    return
                if begun is not True:
                    self._refuse(explain(begun))
                    continue
                reading.begun = True
                reading.mark = len(self._out)
            failures: list[tuple[Any, bytes | None, Exception]] = []
            before, had = len(reader), reading.done
            most = NO_LIMIT if self.pace is None else self.pace
            reading.done = reader.values(keys, had, self._codec, self._default, self._out, failures, most)
            self.outcome.count(reading.done - had, before - len(reader))
            for key, data, error in failures:
                self.outcome.fail(key, data, explain(error) if isinstance(error, ErrorReply) else error)
            if reading.done < len(keys):
                return
            self._settle_oldest()
            if self.pace is not None:
                return

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


class CountFlight(ReadFlight):
    """A batch of commands in flight that are each answered with a number, such as UNLINK.

    Attributes:
        total: the sum of the numbers.
    """

    def __init__(self, writer: BatchWriter) -> None:
        codec = ValueCodec()
        super().__init__(writer, codec, {}, ReadOutcome(codec, sizes=ValueSizes(0)))
        self.total = 0

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self._in_flight:
            whole = reader.reply()
            if whole is None:
                return
            reply = whole[0]
            if isinstance(reply, ErrorReply):
                self._refuse(explain(reply))
            elif type(reply) is int and 0 <= reply <= self._in_flight[0].chunk.count:
                self.total += reply
                self._settle_oldest()
            else:
                raise InvalidResponse(f"a number of keys was expected, got {reply!r:.80}")


def read_ended(outcome: ReadOutcome, on_error: OnError) -> None:
    """Raise what ended a batch that reads; log what was tolerated."""
    error = outcome.error
    if error is not None:
        hint = cluster_hint(error)
        # Python 3.10 has no notes.
        if hint and hasattr(error, "add_note"):
            error.add_note(f"{error_text(error)}{hint}")
        raise error
    if outcome.failed and on_error == "report":
        logger.warning("batch_get: %d values could not be decoded", outcome.failed)
