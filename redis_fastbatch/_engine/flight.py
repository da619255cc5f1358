"""What of a batch is under way, and what the replies to it mean. No input or output happens here.

A flight hands out chunks to send, is told when they were sent, reads their replies, and knows at any time what
is settled: so the sync, the asyncio and the cluster transport need only move bytes.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
)

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.outcome import Books, Failure, Tally
from redis_fastbatch._engine.pacing import Linger
from redis_fastbatch.errors import FastBatchError
from redis_fastbatch.report import BatchReport, ChunkStats, OnChunk, Progress

logger = logging.getLogger("redis_fastbatch")

OnError: TypeAlias = "Literal['raise', 'report'] | Callable[[Any, Any, Exception], object]"
Explain: TypeAlias = Callable[[ErrorReply], Exception]

FIRST_COMMAND_BYTES = 32 * 1024
"""A command is cut at about as many bytes at first: the server works on one while the next is encoded."""

COMMAND_BYTES = 96 * 1024
"""And at as many in the long run: an eighth of what was sent before, so that the first and the last command,
beside which nothing else goes on, are a small part of a batch."""

COMMAND_ITEMS = 1000
"""Items a command carries at most by default: well under a millisecond of the server's time."""

WINDOW_BYTES = 512 * 1024
"""Bytes that may be sent and not yet be confirmed."""

WINDOW_CHUNKS = 128
"""Commands that may be: where `chunk_size` makes them small, what is kept of each outweighs its bytes."""

# Errors that say nothing of the items: every one would be refused alike.
SERVER_STATE = (ReadOnlyError, BusyLoadingError, MasterDownError, AuthenticationError)
SERVER_STATE_CODES = ("MISCONF", "NOREPLICAS", "CLUSTERDOWN", "BUSY")

NO_LIMIT = 2**62

LOG_INTERVAL = 10.0
"""Seconds between two log lines of a long batch."""

# Memory of chunks that are done, kept for the next ones: so many, and no larger ones.
SPARE_CHUNKS = 32
SPARE_BYTES = 2 * COMMAND_BYTES


class Flight(Protocol):
    """What a transport needs of a batch under way."""

    repeatable: bool
    patient: bool
    hook_raised: bool
    """A callable of the caller's has raised, which ends the batch."""
    pace: int | None
    """Items that next_chunk() and take() may deal with at a time; None for no limit. A transport that sets it
    must be ready for next_chunk() to return None while a chunk is half full, and call take() until it leaves
    what has arrived alone."""

    @property
    def late(self) -> bool:
        """The source is slow: replies should be looked for after each chunk, not only when the window is full."""

    @property
    def halfway(self) -> bool:
        """A chunk is half full, and next_chunk() would go on with it."""

    @property
    def dry(self) -> bool:
        """The source had no item at hand when a chunk was being filled."""

    @property
    def done(self) -> bool:
        """Everything is sent and settled."""

    @property
    def settled(self) -> int:
        """Grows whenever replies settle something."""

    @property
    def in_flight(self) -> bool:
        """Replies are outstanding."""

    @property
    def owed(self) -> bool:
        """Replies are outstanding to writes that have been sent whole."""

    def next_chunk(self) -> Chunk | None:
        """A sealed chunk to send now, or None while the window is full or when there is no more."""

    def hurry(self) -> None:
        """A chunk that is half full is to be sent as it is."""

    def started(self, chunk: Chunk) -> None:
        """The first byte of the chunk is about to leave."""

    def finished(self, chunk: Chunk) -> None:
        """The last byte of the chunk has left."""

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        """Reads what replies have arrived."""

    def take_reply(self, reply: Any) -> None:
        """One reply that somebody else read: an exception for an error."""

    def interrupted(self) -> bool:
        """The connection is lost. False when what was under way may not be sent again."""

    def abandon(self, error: BaseException) -> None:
        """The batch ends here: what is under way has an unknown outcome."""


class _Flying(Tally):
    """A chunk under way."""

    __slots__ = ("chunk", "done", "others", "position", "sent", "started", "whole")

    def __init__(self, chunk: Chunk, position: int) -> None:
        super().__init__()
        self.chunk = chunk
        self.position = position
        self.done = 0
        self.others: list[tuple[int, Any]] = []
        self.sent = False
        self.whole = False
        self.started = 0.0

    def again(self) -> _Flying:
        """The same chunk, with no reply read, some bytes of which have left."""
        again = _Flying(self.chunk, self.position)
        again.sent = True
        return again


class Hooked:
    """Calls what the caller wants called.

    Attributes:
        hook_raised: one of those callables has raised. That ends the batch, whatever it looks like: a dead-letter
            queue in Redis loses connections too, and ours is then to blame for nothing.
    """

    hook_raised = False

    def _call(self, hook: Callable[..., object], *arguments: Any) -> None:
        try:
            hook(*arguments)
        except Exception:
            self.hook_raised = True
            raise


class WriteFlight(Hooked):
    """A batch of writes under way; a context manager, at whose end the report is complete.

    Args:
        writer: encodes the items.
        single: the command that carries one item, for those of a refused chunk.
        report: gets the outcome.
        on_error: what to do with a failed item: "raise" and "report" leave it to the report.
        repeatable: whether commands of unknown outcome may be sent again.
        atomic: the batch is one chunk, all or nothing.
        window: bytes that may be unconfirmed.
        progress: hears of every chunk that is settled.
        on_chunk: gets the ChunkStats of every chunk that is settled.
        on_msetex_lost: called when the server turns out not to have MSETEX.
    """

    def __init__(
        self,
        writer: BatchWriter,
        single: Command,
        report: BatchReport,
        *,
        on_error: OnError = "raise",
        repeatable: bool = True,
        atomic: bool = False,
        window: int = WINDOW_BYTES,
        progress: Progress | None = None,
        on_chunk: OnChunk | None = None,
        on_msetex_lost: Callable[[], None] | None = None,
    ) -> None:
        self.repeatable = repeatable
        self.patient = True
        self.pace: int | None = None
        self.settled = 0
        self.report = report
        self._writer = writer
        self._single = single
        self._conditional = b"NX" in single.tail or b"XX" in single.tail
        self._books = Books(report, on_error if callable(on_error) else None)
        self._atomic = atomic
        self._window = window
        self._progress = progress
        self._on_chunk = on_chunk
        self._log_due = time.monotonic() + LOG_INTERVAL
        self._logged = 0
        self._on_msetex_lost = on_msetex_lost
        self._flying: deque[_Flying] = deque()
        self._ready: deque[_Flying] = deque()
        self._filling: _Flying | None = None
        self._spare: list[Chunk] = []
        self._linger = Linger()
        self._halted: BaseException | None = None
        self._bytes = 0
        self._taken = 0
        self._prefix_closed = False
        self._doomed = False

    def __enter__(self) -> WriteFlight:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if error is not None:
                # It is already, unless Ctrl-C came before the transport had done so.
                self.abandon(error)
        finally:
            self._close_prefix()
            if self._progress is not None:
                self._progress.close()

    @property
    def done(self) -> bool:
        return not self._flying and not self._ready and self._ended

    @property
    def _ended(self) -> bool:
        return self._writer.exhausted or self._halted is not None

    @property
    def _full(self) -> bool:
        return self._bytes >= self._window or len(self._flying) >= WINDOW_CHUNKS

    @property
    def in_flight(self) -> bool:
        return bool(self._flying)

    @property
    def owed(self) -> bool:
        return bool(self._flying) and self._flying[0].whole

    @property
    def halfway(self) -> bool:
        return self._filling is not None and not self._ready and not self._full

    @property
    def dry(self) -> bool:
        return self._writer.dry

    @property
    def late(self) -> bool:
        return self._linger.late

    @property
    def source_error(self) -> BaseException | None:
        """What the iterable of items raised, which ended it: Ctrl-C too, where it struck there."""
        return self._halted or self._writer.source_error

    def next_chunk(self) -> Chunk | None:
        if self._full:
            return None
        if self._ready:
            return self._ready[0].chunk
        if self._ended:
            return None
        return self._encode()

    def _encode(self) -> Chunk | None:
        writer = self._writer
        # Here it is not settled, whatever comes between the lines that follow.
        flying = self._filling = self._filling or self._blank()
        chunk = flying.chunk
        had = chunk.count
        try:
            self._fill(chunk)
        except BaseException as halt:
            # Such as Ctrl-C while the source was at work: what it gave before is still carried out.
            self._halted = halt
            chunk.seal()
        failed = self._books.enter_unencoded(writer.failures)
        if self._atomic and (failed or self._doomed or self.source_error is not None):
            self._doom(flying)
        elif chunk.sealed and chunk.count:
            self._ready.append(flying)
        self._taken += chunk.count - had + failed
        if chunk.sealed:
            self._filling = None
            writer.max_bytes = min(max(FIRST_COMMAND_BYTES, self.report.bytes_sent // 8), COMMAND_BYTES)
        self._books.deliver(self._call)
        return self._ready[0].chunk if self._ready else None

    def hurry(self) -> None:
        flying = self._filling
        if flying is not None and flying.chunk.count and not self._atomic:
            flying.chunk.seal()
            self._ready.append(flying)
            self._filling = None

    def _blank(self) -> _Flying:
        if not self._spare:
            return _Flying(self._writer.blank(), self._taken)
        chunk = self._spare.pop()
        chunk.restart(self._writer.command)
        return _Flying(chunk, self._taken)

    def _fill(self, chunk: Chunk) -> None:
        if self.pace is not None:
            self._writer.fill_some(chunk, self.pace)
        elif self._atomic:
            self._writer.fill_some(chunk, NO_LIMIT)
        else:
            self._linger.fill(self._writer, chunk)

    def _doom(self, flying: _Flying) -> None:
        """An item of an atomic batch failed: none is sent once all have been encoded."""
        self._doomed = True
        if flying.chunk.sealed:
            self._fail_all(flying, FastBatchError("not written: another item of the atomic batch failed"))

    def started(self, chunk: Chunk) -> None:
        # In this order, here and elsewhere: an exception from a signal's handler may come between any two lines,
        # and a chunk that is in neither place would pass for settled.
        flying = self._ready[0]
        flying.started = time.monotonic()
        self._flying.append(flying)
        self._ready.popleft()
        size = len(chunk)
        self._bytes += size
        self.report.bytes_sent += size

    def finished(self, chunk: Chunk) -> None:
        self._flying[-1].whole = True

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self._flying:
            flying = self._flying[0]
            chunk = flying.chunk
            wanted = chunk.replies - flying.done
            had = len(flying.others)
            read = reader.statuses(wanted, flying.done, flying.others, self._queues(chunk))
            flying.done += read
            for i in range(had, len(flying.others)):
                index, reply = flying.others[i]
                if isinstance(reply, ErrorReply):
                    flying.others[i] = index, self._impatient(explain(reply))
            if read < wanted:
                return
            self._land()
            if self.pace is not None:
                return

    def _queues(self, chunk: Chunk) -> bool:
        """Whether the server queues the commands of a chunk, for EXEC to carry out."""
        return False

    def take_reply(self, reply: Any) -> None:
        flying = self._flying[0]
        if isinstance(reply, Exception):
            reply = self._impatient(reply)
        queued = self._queues(flying.chunk) and reply in (b"QUEUED", "QUEUED")
        if not queued and reply not in (b"OK", "OK"):
            flying.others.append((flying.done, reply))
        flying.done += 1
        if flying.done == flying.chunk.replies:
            self._land()

    def _impatient(self, error: Exception) -> Exception:
        """A server that is still loading is waited for, as redis-py does, until its retries are used up."""
        if self.patient and isinstance(error, BusyLoadingError):
            if self._atomic:
                # Where one command is refused none is carried out: all may be sent again.
                for flying in self._flying:
                    flying.whole = False
            raise error
        return error

    def _land(self) -> None:
        """All replies to the oldest chunk are there."""
        flying = self._flying[0]
        chunk = flying.chunk
        had = self.report.total
        if chunk.command.many:
            self._settle_many(flying)
        else:
            self._settle_each(flying, flying.others)
        self._flying.popleft()
        self._bytes -= len(chunk)
        self.settled += 1
        self._tell(flying, self.report.total - had)
        self._books.deliver(self._call)
        self._recycle(chunk)

    def _recycle(self, chunk: Chunk) -> None:
        if self._atomic:
            # Freeing that many items takes milliseconds: not here, where an event loop may be waiting.
            self._spare.append(chunk)
        elif len(self._spare) < SPARE_CHUNKS and len(chunk) <= SPARE_BYTES:
            # Emptied now: the items need not live until the chunk's next use.
            chunk.restart(chunk.command)
            self._spare.append(chunk)

    @property
    def _unconfirmed(self) -> int:
        """Bytes that were sent and have no reply."""
        return self._bytes

    def _tell(self, flying: _Flying, items: int) -> None:
        """Lets whoever wants to know hear of a chunk that has its replies, which settled so many items."""
        if self.hook_raised:
            # It ended the batch, and is not asked again.
            return
        now = time.monotonic()
        if self._progress is not None:
            self._call(self._progress.update, self.report.total)
        if self._on_chunk is not None:
            stats = ChunkStats(items, len(flying.chunk), now - flying.started, self._unconfirmed)
            self._call(self._on_chunk, stats)
        if now >= self._log_due:
            elapsed = now - self._log_due + LOG_INTERVAL
            self._log_due = now + LOG_INTERVAL
            rate = (self.report.total - self._logged) / elapsed
            self._logged = self.report.total
            failed = self.report.failed
            logger.info("batch_set: %d items settled, %d failed, %.0f items/s", self._logged, failed, rate)

    def _settle_many(self, flying: _Flying) -> None:
        chunk = flying.chunk
        reply = flying.others[0][1] if flying.others else b"OK"
        if _confirms(chunk.command, flying.others):
            self._books.enter(flying, chunk.count, written=chunk.count)
        elif not isinstance(reply, Exception):
            raise InvalidResponse(f"{chunk.command.name.decode()} was answered with {reply!r:.80}")
        elif self._is_msetex_lost(chunk.command, reply):
            self._lose_msetex(flying)
        elif self._atomic or _is_server_state(reply):
            self._fail_all(flying, reply)
        else:
            self._send_instead(flying, self._single)

    def _is_msetex_lost(self, command: Command, error: Exception) -> bool:
        if command.name != b"MSETEX":
            return False
        text = str(error).lower()
        return "unknown command" in text or (isinstance(error, NoPermissionError) and "'msetex'" in text)

    def _lose_msetex(self, flying: _Flying) -> None:
        """The server has no MSETEX, or no longer: the SETs that carry the same take its place."""
        if self._on_msetex_lost is not None:
            self._on_msetex_lost()
        self._writer.use(self._single)
        self._send_instead(flying, self._single)

    def _send_instead(self, flying: _Flying, command: Command) -> None:
        """The items of a chunk that was refused go again, in another command."""
        again = _Flying(flying.chunk.extract(command), flying.position)
        self._ready, flying.booked = deque((*self._ready, again)), flying.chunk.count

    def _settle_each(self, flying: _Flying, others: Iterable[tuple[int, Any]]) -> None:
        keys, values = flying.chunk.keys, flying.chunk.values
        skipped: list[Any] = []
        failed: list[Failure] = []
        for index, reply in others:
            if reply is None and self._conditional:
                skipped.append(keys[index])
            elif isinstance(reply, Exception):
                failed.append((keys[index], values[index], reply))
            else:
                raise InvalidResponse(f"SET was answered with {reply!r:.80}")
        written = len(keys) - len(skipped) - len(failed)
        self._books.enter(flying, len(keys), written=written, skipped=skipped, failed=failed)

    def _fail_all(self, flying: _Flying, error: Exception, own: dict[int, Any] | None = None) -> None:
        """All items of a chunk failed, those in `own` for a reason of their own."""
        values = flying.chunk.values
        reasons = own or {}
        failed = [(key, values[i], reasons.get(i, error)) for i, key in enumerate(flying.chunk.keys)]
        self._books.enter(flying, flying.chunk.count, failed=failed)

    def interrupted(self) -> bool:
        for flying in self._flying:
            if not self.repeatable and (flying.whole or not self._atomic):
                return False
        self._start_over()
        return True

    def _start_over(self) -> None:
        """What was under way goes to the front of what is to be sent."""
        while self._flying:
            self._ready.appendleft(self._flying[-1].again())
            self._flying.pop()
        self._bytes = 0

    def abandon(self, error: BaseException) -> None:
        self._close_prefix()
        unknown = RedisError(f"outcome unknown: {type(error).__name__} before the server confirmed it: {error}")
        unsent = RedisError(f"not sent: {type(error).__name__}: {error}")
        self._books.enter_unencoded(self._writer.failures)
        # Ctrl-C between two lines finds one that is on its way from one place to the next in both.
        left = {id(flying.chunk): (flying, flying.sent) for flying in self._unsent()}
        left |= {id(flying.chunk): (flying, True) for flying in self._flying}
        for flying, sent in left.values():
            if not flying.booked:
                self._fail_all(flying, unknown if sent else unsent)
        self._flying.clear()
        self._ready.clear()
        self._filling = None
        self._books.deliver(self._call)

    def ended_before(self, items: Iterable[Any], error: BaseException) -> None:
        """The batch has ended before the turn of these items, which were taken from the source already."""
        self._books.enter_unread(items, RedisError(f"not sent: {type(error).__name__}: {error}"))
        self._books.deliver(self._call)

    def _unsent(self) -> tuple[_Flying, ...]:
        return (*self._ready, self._filling) if self._filling is not None else tuple(self._ready)

    def _close_prefix(self) -> None:
        """Says in the report how far all is settled: before what is open is entered as failed, and once."""
        if not self._prefix_closed:
            self.report.confirmed_prefix, self._prefix_closed = self.confirmed_prefix(), True

    def confirmed_prefix(self) -> int:
        """Items from the start of the input of which every one is settled."""
        open_positions = [flying.position for flying in (*self._flying, *self._unsent())]
        return min(open_positions, default=self._taken)


def _confirms(command: Command, others: list[tuple[int, Any]]) -> bool:
    """Whether a command of many items was answered as it is when all of them were written."""
    if command.name == b"MSETEX":
        return len(others) == 1 and type(others[0][1]) is int and others[0][1] == 1
    return not others


def _is_server_state(error: Exception) -> bool:
    return isinstance(error, SERVER_STATE) or str(error).startswith(SERVER_STATE_CODES)
