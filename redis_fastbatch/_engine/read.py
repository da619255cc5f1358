"""Batches that read, under way: see flight.py for what a flight is."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from redis.exceptions import BusyLoadingError, InvalidResponse

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT, Explain, Hooked, OnError
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES, ValueSizes
from redis_fastbatch.errors import DecodeError, cluster_hint, error_text

logger = logging.getLogger("redis_fastbatch")

READ_WINDOW = 6
"""Commands that read and are under way at the same time."""


class _Reading:
    """A command that reads, under way."""

    __slots__ = ("begun", "chunk", "done", "mark")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.begun = False
        self.done = 0
        self.mark = 0


class ReadFlight(Hooked):
    """A batch of MGETs under way.

    Args:
        writer: encodes the keys.
        codec: decodes the values.
        out: gets the values: a dict by key, or a list of (key, value) pairs in the keys' order.
        default: stands for a key that is missing or cannot be decoded.
        on_error: "raise" ends the batch at the first value that cannot be decoded; "report" goes on; a
            callable gets (key, bytes, exception) and goes on.
        limit: keys a command asks for at most.
        pause: keeps the garbage collector away; told of every value, it lets it breathe now and then.
        sizes: what is known of the values' sizes; it learns.
        budget: once as many bytes of values were read, no further keys are taken.
        max_value_size: longer values are refused, in bytes; 0 for no limit. This is for those that somebody else
            has read: a ReplyReader refuses them before.
    """

    repeatable = True

    def __init__(
        self,
        writer: BatchWriter,
        codec: ValueCodec,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        *,
        default: Any = None,
        on_error: OnError = "raise",
        limit: int = COMMAND_ITEMS,
        pause: gc_pause.Pause | None = None,
        sizes: ValueSizes | None = None,
        budget: int = NO_LIMIT,
        max_value_size: int = 0,
    ) -> None:
        self.patient = True
        self.pace: int | None = None
        self.settled = 0
        self.failed = 0
        self.error: Exception | None = None
        self._writer = writer
        self._codec = codec
        self._out = out
        self._default = default
        self._on_error = on_error
        self._limit = limit
        self._pause = pause
        self._sizes = sizes or ValueSizes()
        self._budget = budget
        self._max_value_size = max_value_size
        self._flying: deque[_Reading] = deque()
        self._ready: deque[_Reading] = deque()
        self._filling: Chunk | None = None
        self._bytes = 0

    @property
    def done(self) -> bool:
        return not self._flying and not self._ready and self._ended

    @property
    def _ended(self) -> bool:
        return self._writer.exhausted or self.error is not None or self._spent

    @property
    def _spent(self) -> bool:
        # Keys that were put into a chunk are asked for, whatever has been read since.
        return self._filling is None and self._bytes >= self._budget

    @property
    def _full(self) -> bool:
        # The first reply is waited for: many values of unknown size would fill the server's memory.
        return len(self._flying) >= (READ_WINDOW if self._sizes.known else 1)

    @property
    def in_flight(self) -> bool:
        return bool(self._flying)

    @property
    def halfway(self) -> bool:
        return self._filling is not None and not self._ready and not self._ended and not self._full

    @property
    def dry(self) -> bool:
        return self._writer.dry

    @property
    def late(self) -> bool:
        return False

    @property
    def owed(self) -> bool:
        return False

    def next_chunk(self) -> Chunk | None:
        if self._full:
            return None
        if not self._ready:
            if self._ended:
                return None
            self._encode()
        return self._ready[0].chunk if self._ready else None

    def _encode(self) -> None:
        self._writer.max_items = min(self._limit, self._sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        chunk = Chunk(self._writer.command) if self._filling is None else self._filling
        self._writer.fill_some(chunk, NO_LIMIT if self.pace is None else self.pace)
        self._filling = None if chunk.sealed else chunk
        for key, _, error in self._writer.failures:
            self._failure(key, None, error)
        self._writer.failures.clear()
        if self._writer.source_error is not None and self.error is None:
            self.error = self._writer.source_error
        if chunk.sealed and chunk.count:
            self._ready.append(_Reading(chunk))

    def hurry(self) -> None:
        chunk = self._filling
        if chunk is not None and chunk.count:
            chunk.seal()
            self._ready.append(_Reading(chunk))
            self._filling = None

    def started(self, chunk: Chunk) -> None:
        self._flying.append(self._ready.popleft())

    def finished(self, chunk: Chunk) -> None:
        """Reading again is always safe: nothing to remember."""

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self._flying:
            reading = self._flying[0]
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
            self._count(reading.done - had, before - len(reader))
            for key, data, error in failures:
                self._failure(key, data, explain(error) if isinstance(error, ErrorReply) else error)
            if reading.done < len(keys):
                return
            self._land()
            if self.pace is not None:
                return

    def take_reply(self, reply: Any) -> None:
        reading = self._flying[0]
        if isinstance(reply, Exception):
            self._refuse(reply)
            return
        if not isinstance(reply, list) or len(reply) != len(reading.chunk.keys):
            raise InvalidResponse(f"MGET was answered with {reply!r:.80}")
        pairs = zip(reading.chunk.keys, map(self._loads, reading.chunk.keys, reply), strict=True)
        if isinstance(self._out, dict):
            self._out.update(pairs)
        else:
            self._out.extend(pairs)
        self._count(len(reply), sum(len(data) for data in reply if data is not None))
        self._land()

    def _land(self) -> None:
        """The oldest command has its whole reply. Before that nothing is settled: all of it is asked for again."""
        self._flying.popleft()
        self.settled += 1

    def _loads(self, key: Any, data: bytes | None) -> Any:
        if data is None:
            return self._default
        if 0 < self._max_value_size < len(data):
            raise DecodeError(f"a value of {len(data)} bytes: max_value_size is {self._max_value_size}", key=key)
        try:
            return self._codec.loads(data)
        except DecodeError as error:
            error.key = key
            self._failure(key, data, error)
            return self._default

    def _count(self, values: int, size: int) -> None:
        self._sizes.saw(values, size)
        self._bytes += size
        if self._pause is not None:
            self._pause.made(values)

    def _refuse(self, error: Exception) -> None:
        """The server refused a whole command."""
        if self.patient and isinstance(error, BusyLoadingError):
            raise error
        self._flying.popleft()
        if self.error is None:
            self.error = error

    def _failure(self, key: Any, data: bytes | None, error: Exception) -> None:
        self.failed += 1
        if isinstance(error, DecodeError) or callable(self._on_error):
            if callable(self._on_error):
                self._call(self._on_error, key, data, error)
                return
            if self._on_error == "report":
                return
        if self.error is None:
            self.error = error

    def interrupted(self) -> bool:
        if self._flying and self._flying[0].begun and isinstance(self._out, list):
            del self._out[self._flying[0].mark :]
        while self._flying:
            self._ready.appendleft(_Reading(self._flying.pop().chunk))
        return True

    def abandon(self, error: BaseException) -> None:
        self._flying.clear()
        self._ready.clear()


class CountFlight(ReadFlight):
    """A batch of commands that answer with a number each, such as UNLINK."""

    def __init__(self, writer: BatchWriter) -> None:
        super().__init__(writer, ValueCodec(), {}, limit=COMMAND_ITEMS, sizes=ValueSizes(0))
        self.total = 0

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self._flying:
            whole = reader.reply()
            if whole is None:
                return
            reply = whole[0]
            self.take_reply(explain(reply) if isinstance(reply, ErrorReply) else reply)

    def take_reply(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._refuse(reply)
        elif type(reply) is int and 0 <= reply <= self._flying[0].chunk.count:
            self.total += reply
            self._land()
        else:
            raise InvalidResponse(f"a number of keys expected, found {reply!r:.80}")


def read_ended(flight: ReadFlight, on_error: OnError) -> None:
    """Raises what ended a batch that reads; logs what was tolerated."""
    if flight.error is not None:
        hint = cluster_hint(flight.error)
        # Python 3.10 has no notes.
        if hint and hasattr(flight.error, "add_note"):
            flight.error.add_note(f"{error_text(flight.error)}{hint}")
        raise flight.error
    if flight.failed and on_error == "report":
        logger.warning("batch_get: %d values could not be decoded", flight.failed)
