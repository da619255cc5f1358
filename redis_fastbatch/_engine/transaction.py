"""An atomic batch under way: all of it is written, or nothing. See flight.py for what a flight is.

A batch of one command goes as that. Any other is sent while it is encoded, between MULTI and EXEC: the server
keeps the commands until EXEC carries them out, and DISCARD takes its place where an item fails. (10,000 dicts of
five fields: 482 ns an item, 585 as one command encoded whole before it is sent.)
"""

from __future__ import annotations

from collections import deque
from typing import Any

from redis.exceptions import ExecAbortError, InvalidResponse, ResponseError

from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.flight import WriteFlight, _Flying
from redis_fastbatch.errors import FastBatchError

MULTI = Command(b"MULTI", many=True, with_values=False)
EXEC = Command(b"EXEC", many=True, with_values=False)
DISCARD = Command(b"DISCARD", many=True, with_values=False)
FRAME = (MULTI, EXEC, DISCARD)


def _frame(command: Command, position: int) -> _Flying:
    """MULTI, EXEC or DISCARD, as a chunk that carries no items."""
    chunk = Chunk(command)
    chunk.seal()
    return _Flying(chunk, position)


class AtomicFlight(WriteFlight):
    """A batch of writes that is carried out as a whole.

    Takes what WriteFlight takes.
    """

    def __init__(self, *arguments: Any, **flight: Any) -> None:
        super().__init__(*arguments, atomic=True, **flight)
        self._opened = False
        self._closed = False
        self._awaiting_multi = False
        self._refusal: Exception | None = None
        self._queued: list[_Flying] = []

    @property
    def _full(self) -> bool:
        # Were MULTI refused, what is sent behind it would be carried out at once.
        return self._awaiting_multi or super()._full

    def _encode(self) -> Chunk | None:
        super()._encode()
        if not self._opened and self._ready and not (self._ended and self._ready[0].chunk.command.many):
            self._ready.appendleft(_frame(MULTI, 0))
            self._opened = True
        if self._opened and self._ended and not self._closed:
            failed = self._doomed or self.source_error is not None
            self._ready.append(_frame(DISCARD if failed else EXEC, self._taken))
            self._closed = True
        return self._ready[0].chunk if self._ready else None

    def started(self, chunk: Chunk) -> None:
        if chunk.command is MULTI:
            self._awaiting_multi = True
        super().started(chunk)

    def _queues(self, chunk: Chunk) -> bool:
        return self._opened and chunk.command not in FRAME

    def _land(self) -> None:
        if not self._opened:
            super()._land()
            return
        flying = self._flying[0]
        command = flying.chunk.command
        if command is MULTI:
            self._awaiting_multi = False
            self._check_opened(flying)
        elif command not in FRAME:
            self._queued.append(flying)
        else:
            if command is DISCARD:
                self._settle_discarded()
            else:
                self._settle_executed(flying)
            # Not before: what is queued goes again with a lost connection.
            self.settled += 1
        self._flying.popleft()
        self._bytes -= len(flying.chunk)
        self._books.deliver(self._call)

    def _check_opened(self, flying: _Flying) -> None:
        """Where MULTI was refused, nothing of the batch is sent."""
        if not flying.others:
            return
        error = flying.others[0][1]
        if not isinstance(error, Exception):
            raise InvalidResponse(f"MULTI was answered with {error!r:.80}")
        self._refusal = error
        self._doomed = self._closed = True
        while self._ready:
            if self._ready[0].chunk.command not in FRAME:
                self._fail_all(self._ready[0], error)
            self._ready.popleft()
        # Whatever the refusal was: the connection goes back to the pool outside any transaction.
        self._ready.append(_frame(DISCARD, self._taken))

    def _doom(self, flying: _Flying) -> None:
        if self._refusal is None:
            super()._doom(flying)
        elif flying.chunk.sealed:
            self._fail_all(flying, self._refusal)

    def _settle_discarded(self) -> None:
        self._fail_queued(FastBatchError("not written: another item of the atomic batch failed"))

    def _settle_executed(self, flying: _Flying) -> None:
        """EXEC's reply has an element for each command."""
        refused = [reply for queued in self._queued for _, reply in queued.others]
        outcome = flying.others[0][1] if flying.others else None
        if isinstance(outcome, list) and not refused:
            self._settle_outcomes(outcome)
            return
        if not isinstance(outcome, Exception):
            raise InvalidResponse(f"EXEC was answered with {outcome!r:.80}")
        first = next((error for error in refused if isinstance(error, Exception)), outcome)
        if self._is_msetex_lost(self._queued[0].chunk.command, first):
            self._start_over_with_sets()
        else:
            self._fail_queued(ExecAbortError(f"the transaction was discarded: {first}"))

    def _settle_outcomes(self, outcome: list[Any]) -> None:
        replies = iter([ResponseError(str(each)) if isinstance(each, ErrorReply) else each for each in outcome])
        if len(outcome) != sum(queued.chunk.replies for queued in self._queued):
            raise InvalidResponse(f"EXEC was answered with {len(outcome)} replies")
        settled: list[tuple[_Flying, int]] = []
        for queued in self._queued:
            chunk = queued.chunk
            had = self.report.total
            queued.others = [
                (index, reply)
                for index, reply in zip(range(chunk.replies), replies, strict=False)
                if reply not in (b"OK", "OK")
            ]
            if chunk.command.many:
                self._settle_many(queued)
            else:
                self._settle_each(queued, queued.others)
            settled.append((queued, self.report.total - had))
        # Freeing that many items takes milliseconds: not here, where an event loop may be waiting.
        self._spare += [queued.chunk for queued in self._queued]
        self._tell_all(settled)

    def _fail_queued(self, error: Exception) -> None:
        for queued in self._queued:
            if queued.chunk.command.many:
                refused = [reply for _, reply in queued.others if isinstance(reply, Exception)]
                self._fail_all(queued, refused[0] if refused else error)
            else:
                own = {index: reply for index, reply in queued.others if isinstance(reply, Exception)}
                self._fail_all(queued, error, own)
        self._tell_all([(queued, queued.chunk.count) for queued in self._queued])

    def _tell_all(self, settled: list[tuple[_Flying, int]]) -> None:
        """Tells of the queued chunks and the items that each settled. All are in the books: a hook may raise."""
        self._queued.clear()
        for queued, items in settled:
            self._tell(queued, items)

    def _lose_msetex(self, flying: _Flying) -> None:
        """The one command that the batch was cannot be had: a transaction takes its place."""
        if self._on_msetex_lost is not None:
            self._on_msetex_lost()
        sets = _Flying(flying.chunk.extract(self._single), flying.position)
        again = deque((_frame(MULTI, 0), sets, _frame(EXEC, self._taken)))
        self._ready, flying.booked, self._opened, self._closed = again, flying.chunk.count, True, True

    def _start_over_with_sets(self) -> None:
        """The server has no MSETEX, or no longer: the whole transaction again, of the SETs that carry the same."""
        if self._on_msetex_lost is not None:
            self._on_msetex_lost()
        sets = [_Flying(queued.chunk.extract(self._single), queued.position) for queued in self._queued]
        again = [*self._ready, _frame(MULTI, 0), *sets, _frame(EXEC, self._taken)]
        self._ready, self._queued = deque(again), []

    def interrupted(self) -> bool:
        """Without EXEC the server carried out nothing: all goes again, on the next connection."""
        if not self._opened:
            return super().interrupted()
        if any(flying.whole and flying.chunk.command is EXEC for flying in self._flying):
            return False
        self._start_over()
        return True

    def _start_over(self) -> None:
        """All of the transaction goes again, or the one command."""
        if not self._opened:
            super()._start_over()
            return
        again = [flying for flying in self._under_way() if flying.chunk.command is not MULTI]
        self._ready, self._queued, self._flying = deque((_frame(MULTI, 0), *again)), [], deque()
        self._bytes = 0
        self._awaiting_multi = False

    def _under_way(self) -> list[_Flying]:
        """What was sent and what is to be, in its order, with no reply read."""
        sent = (*self._queued, *self._flying)
        fresh = [_Flying(flying.chunk, flying.position) for flying in sent if not flying.booked]
        return [*fresh, *self._ready]

    def abandon(self, error: BaseException) -> None:
        if self._opened:
            # Ctrl-C may come when EXEC has just left, before that is noted.
            noted = isinstance(error, Exception)
            leaving = [flying for flying in self._flying if flying.chunk.command is EXEC]
            executed = any(flying.whole or not noted for flying in leaving)
            every = self._under_way()
            # Where EXEC did not leave, nothing was carried out: that much is known.
            left, unsent = (every, []) if executed else ([], every)
            self._queued, self._flying, self._ready = [], deque(left), deque(unsent)
        super().abandon(error)
