"""A batch of writes in flight. See flight.py for what a flight is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
)

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import (
    COMMAND_BYTES,
    FIRST_COMMAND_BYTES,
    NO_LIMIT,
    WINDOW_BYTES,
    WINDOW_CHUNKS,
    ChunkState,
    Explain,
    InFlightChunk,
    ServerFlight,
    each_once,
)
from redis_fastbatch._engine.outcome import Failure, RecordedBatch, WriteOutcome, not_sent, outcome_unknown
from redis_fastbatch._engine.pacing import FlushTimer

# Errors about the server's state, not about an item: every item would be refused alike.
SERVER_STATE = (ReadOnlyError, BusyLoadingError, MasterDownError, AuthenticationError)
SERVER_STATE_CODES = ("MISCONF", "NOREPLICAS", "CLUSTERDOWN", "BUSY")

# Settled chunks whose memory is kept for the next ones: at most SPARE_CHUNKS, none larger than SPARE_BYTES.
SPARE_CHUNKS = 32
SPARE_BYTES = 2 * COMMAND_BYTES


class WriteFlight(ServerFlight, RecordedBatch):
    """A batch of writes in flight.

    Args:
        writer: encodes the items.
        single: the command that carries one item, for those of a refused chunk.
        outcome: records what became of the items.
        repeatable: whether commands of unknown outcome may be sent again.
        window: the most bytes that may be unconfirmed.
        on_msetex_lost: called when the server turns out not to have MSETEX.
    """

    def __init__(
        self,
        writer: BatchWriter,
        single: Command,
        outcome: WriteOutcome,
        *,
        repeatable: bool = True,
        window: int = WINDOW_BYTES,
        on_msetex_lost: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(writer, outcome)
        self.outcome = outcome
        self.report = outcome.report
        self._repeatable = repeatable
        self._single = single
        self._conditional = b"NX" in single.tail or b"XX" in single.tail
        self._window = window
        self._on_msetex_lost = on_msetex_lost
        self._flush_timer = None if writer.in_memory else FlushTimer()
        self._spare: list[Chunk] = []
        self._halted: BaseException | None = None
        self._bytes = 0
        self._taken = 0

    @property
    def _takes_items(self) -> bool:
        return not self._writer.exhausted and self._halted is None

    @property
    def _full(self) -> bool:
        return self._bytes >= self._window or len(self._in_flight) >= WINDOW_CHUNKS

    @property
    def awaiting_replies(self) -> bool:
        return bool(self._in_flight) and self._in_flight[0].state is ChunkState.SENT

    @property
    def source_error(self) -> BaseException | None:
        return self._halted or self._writer.source_error

    # From items to chunks.

    def _encode(self, budget: int | None) -> None:
        writer = self._writer
        filling = self._filling = self._filling or self._blank()
        chunk = filling.chunk
        before = chunk.count
        try:
            self._fill(chunk, budget)
        except BaseException as halt:
            # Such as Ctrl-C while the source was at work: the items that it gave before are still written.
            self._halted = halt
            chunk.seal()
        failed = self.outcome.record_unencoded(writer.failures) if writer.failures else 0
        self._taken += chunk.count - before + failed
        self._queue(filling, failed)
        if chunk.sealed:
            self._filling = None
            if not writer.exhausted:
                writer.max_bytes = min(max(FIRST_COMMAND_BYTES, self.report.bytes_sent // 8), COMMAND_BYTES)
        self.outcome.deliver()

    def _queue(self, filling: InFlightChunk, failed: int) -> None:
        """Queue a chunk for sending if it is sealed; `failed` items beside it could not be encoded."""
        if filling.chunk.sealed and filling.chunk.count:
            self._ready.append(filling)

    def _blank(self) -> InFlightChunk:
        if not self._spare:
            return InFlightChunk(self._writer.blank(), self._taken)
        chunk = self._spare.pop()
        chunk.restart(self._writer.command)
        return InFlightChunk(chunk, self._taken)

    def _fill(self, chunk: Chunk, budget: int | None) -> None:
        if self._flush_timer is None:
            self._writer.fill_some(chunk, NO_LIMIT if budget is None else budget)
        else:
            # Replies may have come while a slow source was at work.
            self._poll_after_send = self._flush_timer.fill(self._writer, chunk, budget)

    def begin_with(self, chunk: Chunk, state: ChunkState) -> None:
        """Take the first chunk over, whose items were encoded before the flight was made.

        Args:
            chunk: the chunk, sealed.
            state: NEW, or its state if it was sent already. Its replies have not been read.
        """
        first = InFlightChunk(chunk, 0)
        failed = self.outcome.record_unencoded(self._writer.failures)
        self._taken = chunk.count + failed
        if state is ChunkState.NEW:
            self._queue(first, failed)
        else:
            first.state = state
            first.started = time.monotonic()
            self._in_flight.append(first)
            self._bytes = len(chunk)
            self.report.bytes_sent += len(chunk)
        self.outcome.deliver()

    # From chunks to replies.

    def started(self, chunk: Chunk) -> None:
        leaving = self._ready[0]
        leaving.state = ChunkState.SENDING
        leaving.started = time.monotonic()
        self._in_flight.append(leaving)
        self._ready.popleft()
        size = len(chunk)
        self._bytes += size
        self.report.bytes_sent += size

    def finished(self, chunk: Chunk) -> None:
        self._in_flight[-1].state = ChunkState.SENT

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        while self._in_flight:
            oldest = self._in_flight[0]
            chunk = oldest.chunk
            replies = oldest.non_ok_replies
            wanted = chunk.replies - oldest.done
            seen = len(replies)
            read = self._read(reader, oldest, wanted)
            oldest.done += read
            for i in range(seen, len(replies)):
                index, reply = replies[i]
                if isinstance(reply, ErrorReply):
                    replies[i] = index, self._checked(explain(reply))
            if read < wanted:
                return
            self._settle_oldest()
            if budget is not None:
                return

    def _read(self, reader: ReplyReader, oldest: InFlightChunk, wanted: int) -> int:
        """Read up to `wanted` replies to a chunk, and return how many had arrived."""
        replies = oldest.non_ok_replies
        return reader.statuses(wanted, oldest.done, replies, self._is_queued(oldest.chunk))

    def _is_queued(self, chunk: Chunk) -> bool:
        """Return whether the server answers the commands of a chunk with QUEUED."""
        return False

    def _checked(self, error: Exception) -> Exception:
        """Return an error reply, but raise it if the server is still loading: the transport then waits for it."""
        if self.wait_while_loading and isinstance(error, BusyLoadingError):
            raise error
        return error

    def _settle_oldest(self) -> None:
        """Settle the oldest chunk, which has all its replies."""
        oldest = self._in_flight[0]
        chunk = oldest.chunk
        size = len(chunk)
        before = self.report.total if self.outcome.has_hooks else 0
        if not chunk.command.many:
            self._settle_each(oldest, oldest.non_ok_replies)
        elif oldest.non_ok_replies or chunk.command.counted:
            self._settle_many(oldest)
        else:
            oldest.state = ChunkState.SETTLED
            self.outcome.record(chunk.count)
        self._in_flight.popleft()
        self._bytes -= size
        self.settled += 1
        items = self.report.total - before if self.outcome.has_hooks else 0
        self.outcome.chunk_settled(items, size, oldest.started, self._bytes)
        self.outcome.deliver()
        if not self._writer.exhausted:
            self._recycle(chunk)

    def _recycle(self, chunk: Chunk) -> None:
        if len(self._spare) < SPARE_CHUNKS and len(chunk) <= SPARE_BYTES:
            # Emptied now: the items need not live until the chunk's next use.
            chunk.restart(chunk.command)
            self._spare.append(chunk)

    def _settle_many(self, settled: InFlightChunk) -> None:
        """Settle a command that carries many items and has one reply."""
        chunk = settled.chunk
        reply = settled.non_ok_replies[0][1] if settled.non_ok_replies else b"OK"
        if _confirms(chunk.command, settled.non_ok_replies):
            self._record(settled, written=chunk.count)
        elif not isinstance(reply, Exception):
            raise InvalidResponse(f"{chunk.command.name.decode()} was answered with {reply!r:.80}")
        elif self._is_msetex_lost(chunk.command, reply):
            self._lose_msetex(settled)
        else:
            self._refuse_many(settled, reply)

    def _refuse_many(self, refused: InFlightChunk, error: Exception) -> None:
        """Handle the refusal of a command that carries many items."""
        if _is_server_state(error):
            self._fail_all(refused, error)
        else:
            self._send_instead(refused, self._single)

    def _is_msetex_lost(self, command: Command, error: Exception) -> bool:
        if command.name != b"MSETEX":
            return False
        text = str(error).lower()
        return "unknown command" in text or (isinstance(error, NoPermissionError) and "'msetex'" in text)

    def _lose_msetex(self, refused: InFlightChunk) -> None:
        """Send SETs instead: the server does not have MSETEX, or no longer."""
        if self._on_msetex_lost is not None:
            self._on_msetex_lost()
        self._writer.use(self._single)
        self._send_instead(refused, self._single)

    def _send_instead(self, refused: InFlightChunk, command: Command) -> None:
        """Send the items of a refused chunk once more, in another command."""
        refused.state = ChunkState.SETTLED
        self._ready.append(InFlightChunk(refused.chunk.extract(command), refused.position))

    def _settle_each(self, settled: InFlightChunk, non_ok_replies: Iterable[tuple[int, Any]]) -> None:
        """Settle commands of one item each."""
        keys, values = settled.chunk.keys, settled.chunk.values
        skipped: list[Any] = []
        failed: list[Failure] = []
        for index, reply in non_ok_replies:
            if reply is None and self._conditional:
                skipped.append(keys[index])
            elif isinstance(reply, Exception):
                failed.append((keys[index], values[index], reply))
            else:
                raise InvalidResponse(f"SET was answered with {reply!r:.80}")
        self._record(settled, len(keys) - len(skipped) - len(failed), skipped, failed)

    def _fail_all(
        self, refused: InFlightChunk, error: Exception, own_errors: dict[int, Exception] | None = None
    ) -> None:
        """Record all items of a chunk as failed: those in `own_errors` for that error, all others for `error`."""
        values = refused.chunk.values
        own = own_errors or {}
        failed = [(key, values[i], own.get(i, error)) for i, key in enumerate(refused.chunk.keys)]
        self._record(refused, failed=failed)

    def _record(
        self, settled: InFlightChunk, written: int = 0, skipped: list[Any] | None = None, failed: Any = ()
    ) -> None:
        settled.state = ChunkState.SETTLED
        self.outcome.record(written, skipped or (), failed)

    # Early ends.

    def connection_lost(self) -> bool:
        if self._in_flight and not self._may_repeat():
            return False
        self._start_over()
        return True

    def _may_repeat(self) -> bool:
        return self._repeatable

    def _start_over(self) -> None:
        """Put what was in flight in front of what is to be sent."""
        while self._in_flight:
            self._ready.appendleft(self._in_flight[-1].again())
            self._in_flight.pop()
        self._bytes = 0

    def abort(self, error: BaseException) -> None:
        self.outcome.fix_prefix(self.confirmed_prefix())
        self.outcome.record_unencoded(self._writer.failures)
        unknown, unsent = outcome_unknown(error), not_sent(error)
        for open_chunk in self._open_chunks():
            if open_chunk.state is not ChunkState.SETTLED:
                self._fail_all(open_chunk, unknown if open_chunk.left else unsent)
        self._in_flight.clear()
        self._ready.clear()
        self._filling = None
        self.outcome.deliver()

    def _open_chunks(self) -> list[InFlightChunk]:
        filling = () if self._filling is None else (self._filling,)
        return each_once(self._in_flight, self._ready, filling)

    def confirmed_prefix(self) -> int:
        if not (self._in_flight or self._ready or self._filling):
            return self._taken
        return min((open_chunk.position for open_chunk in self._open_chunks()), default=self._taken)


def _confirms(command: Command, non_ok_replies: list[tuple[int, Any]]) -> bool:
    """Return whether a command of many items was answered as it is when all of them were written."""
    if command.name == b"MSETEX":
        return len(non_ok_replies) == 1 and type(non_ok_replies[0][1]) is int and non_ok_replies[0][1] == 1
    return not non_ok_replies


def _is_server_state(error: Exception) -> bool:
    return isinstance(error, SERVER_STATE) or str(error).startswith(SERVER_STATE_CODES)
