"""An atomic batch in flight: all of it is written, or nothing. See flight.py for what a flight is.

A batch of one command goes as that command. Any other is sent while it is encoded, between MULTI and EXEC: the
server keeps the commands until EXEC carries them out. Where an item fails, DISCARD takes the place of EXEC.
(10,000 dicts of five fields: 482 ns an item, and 585 as one command that is encoded whole before it is sent.)
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any

from redis.exceptions import BusyLoadingError, ExecAbortError, InvalidResponse, ResponseError

from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.flight import NO_LIMIT, ChunkState, Event, InFlightChunk, Send, each_once
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch.errors import FastBatchError

MULTI = Command(b"MULTI", many=True, with_values=False)
EXEC = Command(b"EXEC", many=True, with_values=False)
DISCARD = Command(b"DISCARD", many=True, with_values=False)
FRAME = (MULTI, EXEC, DISCARD)


class State(enum.Enum):
    """What the server knows of an atomic batch."""

    SINGLE = "the batch is one command so far, which goes without MULTI"
    OPENING = "MULTI goes first, and nothing else before its reply"
    OPEN = "the server queues what it gets"
    CLOSING = "EXEC or DISCARD is the last command"
    CLOSED = "EXEC or DISCARD was answered"


class Step(enum.Enum):
    """What takes an atomic batch from one state to the next."""

    FRAMED = "one command does not hold the batch, or the server has no MSETEX"
    ACCEPTED = "MULTI was answered with OK"
    REFUSED = "MULTI was answered with an error"
    ENCODED = "all items are encoded, and what they were encoded into is sent"
    ANSWERED = "EXEC or DISCARD was answered"
    REPEATED = "all goes again, over another connection or in other commands"


TRANSITIONS = {
    (State.SINGLE, Step.FRAMED): State.OPENING,
    (State.OPENING, Step.ACCEPTED): State.OPEN,
    (State.OPENING, Step.REFUSED): State.CLOSING,
    (State.OPEN, Step.ENCODED): State.CLOSING,
    (State.CLOSING, Step.ANSWERED): State.CLOSED,
    (State.OPENING, Step.REPEATED): State.OPENING,
    (State.OPEN, Step.REPEATED): State.OPENING,
    (State.CLOSING, Step.REPEATED): State.OPENING,
}


def _frame(command: Command, position: int) -> InFlightChunk:
    """Return MULTI, EXEC or DISCARD as a chunk that carries no items."""
    chunk = Chunk(command)
    chunk.seal()
    return InFlightChunk(chunk, position)


def _item_failed() -> FastBatchError:
    return FastBatchError("not written: another item of the atomic batch failed")


class AtomicFlight(WriteFlight):
    """A batch of writes that is carried out as a whole. Its arguments are those of WriteFlight."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._state = State.SINGLE
        # Why nothing of the batch is written; None while it may be.
        self._refusal: Exception | None = None
        self._queued: list[InFlightChunk] = []

    def _step(self, step: Step) -> None:
        self._state = TRANSITIONS[self._state, step]

    @property
    def _ended(self) -> bool:
        """Whether no further item is taken from the source."""
        return self._writer.exhausted or self._halted is not None

    @property
    def _full(self) -> bool:
        # If MULTI is refused, the server carries out at once whatever was sent after it.
        opening = self._state is State.OPENING and bool(self._in_flight)
        return opening or super()._full

    # From items to chunks.

    def poll(self, budget: int | None = None) -> Send | Event:
        event = super().poll(budget)
        if self._state is State.OPEN and self._ended and not self._ready and not self._full:
            self._ready.append(_frame(EXEC if self._refusal is None else DISCARD, self._taken))
            self._step(Step.ENCODED)
            return super().poll(budget)
        return event

    @property
    def flush_seconds(self) -> float | None:
        # Nothing is written before EXEC, so it does not help to send early.
        return None

    def _fill(self, chunk: Chunk, budget: int | None) -> None:
        self._writer.fill_some(chunk, NO_LIMIT if budget is None else budget)

    def _queue(self, filling: InFlightChunk, failed: int) -> None:
        if self._refusal is None and (failed or self.source_error is not None):
            self._refusal = _item_failed()
        if self._refusal is None:
            super()._queue(filling, failed)
            # A single command is one that holds all items.
            if self._state is State.SINGLE and self._ready and not (self._ended and filling.chunk.command.many):
                self._ready.appendleft(_frame(MULTI, 0))
                self._step(Step.FRAMED)
        elif filling.chunk.sealed:
            self._fail_all(filling, self._refusal)

    # From chunks to replies.

    def _is_queued(self, chunk: Chunk) -> bool:
        return self._state is not State.SINGLE and chunk.command not in FRAME

    def _checked(self, error: Exception) -> Exception:
        if self.wait_while_loading and isinstance(error, BusyLoadingError):
            # Where one command is refused none is carried out: all may be sent again.
            for sent in self._in_flight:
                sent.state = ChunkState.SENDING
        return super()._checked(error)

    def _settle_oldest(self) -> None:
        if self._state is State.SINGLE:
            super()._settle_oldest()
            return
        oldest = self._in_flight[0]
        command = oldest.chunk.command
        if command not in FRAME:
            self._queued.append(oldest)
        elif command is MULTI:
            self._settle_multi(oldest)
        else:
            self._settle_closing(oldest)
            self.settled += 1
        self._in_flight.popleft()
        self._bytes -= len(oldest.chunk)
        self.outcome.deliver()

    def _recycle(self, chunk: Chunk) -> None:
        # Freeing many items takes milliseconds: not here, where an event loop may be waiting.
        self._spare.append(chunk)

    def _settle_multi(self, multi: InFlightChunk) -> None:
        """Go on if MULTI was accepted. If it was refused, nothing of the batch is sent."""
        if not multi.non_ok_replies:
            self._step(Step.ACCEPTED)
            return
        error = multi.non_ok_replies[0][1]
        if not isinstance(error, Exception):
            raise InvalidResponse(f"MULTI was answered with {error!r:.80}")
        self._refusal = error
        for unsent in self._ready:
            self._fail_all(unsent, error)
        # Whatever the refusal was: the connection goes back to the pool outside any transaction.
        self._ready = deque((_frame(DISCARD, self._taken),))
        self._step(Step.REFUSED)

    def _settle_closing(self, closing: InFlightChunk) -> None:
        """Settle the queued commands by the reply to EXEC, which has an element for each, or to DISCARD."""
        refused = [reply for queued in self._queued for _, reply in queued.non_ok_replies]
        outcome = closing.non_ok_replies[0][1] if closing.non_ok_replies else None
        if closing.chunk.command is DISCARD:
            self._fail_queued(self._refusal or _item_failed())
        elif isinstance(outcome, list) and not refused:
            self._settle_outcomes(outcome)
        elif not isinstance(outcome, Exception):
            raise InvalidResponse(f"EXEC was answered with {outcome!r:.80}")
        else:
            first = next((error for error in refused if isinstance(error, Exception)), outcome)
            if self._is_msetex_lost(self._queued[0].chunk.command, first):
                self._repeat_as_sets(self._queued, Step.REPEATED)
                return
            self._fail_queued(ExecAbortError(f"the transaction was discarded: {first}"))
        self._step(Step.ANSWERED)

    def _settle_outcomes(self, outcome: list[Any]) -> None:
        if len(outcome) != sum(queued.chunk.replies for queued in self._queued):
            raise InvalidResponse(f"EXEC was answered with {len(outcome)} replies")
        replies = iter([ResponseError(str(each)) if isinstance(each, ErrorReply) else each for each in outcome])
        settled: list[tuple[InFlightChunk, int]] = []
        for queued in self._queued:
            chunk = queued.chunk
            before = self.report.total
            numbered = zip(range(chunk.replies), replies, strict=False)
            queued.non_ok_replies = [(i, reply) for i, reply in numbered if reply not in (b"OK", "OK")]
            if chunk.command.many:
                self._settle_many(queued)
            else:
                self._settle_each(queued, queued.non_ok_replies)
            settled.append((queued, self.report.total - before))
            self._recycle(chunk)
        self._call_hooks(settled)

    def _fail_queued(self, error: Exception) -> None:
        """Record what the server queued as failed: refused items for their own error, all others for `error`."""
        for queued in self._queued:
            own = {i: reply for i, reply in queued.non_ok_replies if isinstance(reply, Exception)}
            if queued.chunk.command.many:
                self._fail_all(queued, own.get(0, error))
            else:
                self._fail_all(queued, error, own)
        self._call_hooks([(queued, queued.chunk.count) for queued in self._queued])

    def _call_hooks(self, settled: list[tuple[InFlightChunk, int]]) -> None:
        """Call the progress hooks for the queued chunks, each with the number of items that it settled."""
        self._queued.clear()
        for queued, items in settled:
            self.outcome.chunk_settled(items, len(queued.chunk), queued.started, self._bytes)

    # What goes again.

    def _refuse_many(self, refused: InFlightChunk, error: Exception) -> None:
        self._fail_all(refused, error)

    def _lose_msetex(self, refused: InFlightChunk) -> None:
        self._repeat_as_sets([refused], Step.FRAMED)

    def _repeat_as_sets(self, refused: list[InFlightChunk], step: Step) -> None:
        """Send the batch again as a transaction of SETs: the server does not have MSETEX, or no longer."""
        if self._on_msetex_lost is not None:
            self._on_msetex_lost()
        sets = [InFlightChunk(each.chunk.extract(self._single), each.position) for each in refused]
        for each in refused:
            each.state = ChunkState.SETTLED
        self._ready = deque((_frame(MULTI, 0), *sets))
        self._queued = []
        self._step(step)

    def _may_repeat(self) -> bool:
        # Without EXEC the server carried out nothing.
        if self._state is not State.SINGLE:
            return not any(sent.chunk.command is EXEC for sent in self._in_flight if sent.state is ChunkState.SENT)
        return self._repeatable or not any(sent.state is ChunkState.SENT for sent in self._in_flight)

    def _start_over(self) -> None:
        """Send all of the transaction again, or the one command."""
        if self._state is State.CLOSED:
            return
        if self._state is State.SINGLE:
            super()._start_over()
            return
        self._ready = deque((_frame(MULTI, 0), *self._items_again()))
        self._queued.clear()
        self._in_flight.clear()
        self._bytes = 0
        self._step(Step.REPEATED)

    def _items_again(self) -> list[InFlightChunk]:
        """Return the chunks that carry items and are not settled, as they are to be sent once more."""
        return [
            InFlightChunk(each.chunk, each.position)
            for each in each_once(self._queued, self._in_flight, self._ready)
            if each.chunk.command not in FRAME and each.state is not ChunkState.SETTLED
        ]

    def abort(self, error: BaseException) -> None:
        self.outcome.fix_prefix(self.confirmed_prefix())
        if self._state is not State.SINGLE:
            executed = self._may_be_executed(error)
            self._ready = deque(self._items_again())
            for each in self._ready:
                each.state = ChunkState.SENT if executed else ChunkState.NEW
            self._queued.clear()
            self._in_flight.clear()
        super().abort(error)

    def _may_be_executed(self, error: BaseException) -> bool:
        """Return whether EXEC has left. If it has not, the server carried out nothing."""
        for each in self._in_flight:
            if each.chunk.command is EXEC:
                # Ctrl-C may come when EXEC has just left, before that is noted.
                return each.state is ChunkState.SENT or not isinstance(error, Exception)
        return False

    def confirmed_prefix(self) -> int:
        return min((open_chunk.position for open_chunk in self._open_chunks()), default=self._taken)

    def _open_chunks(self) -> list[InFlightChunk]:
        return each_once(self._queued, super()._open_chunks())
