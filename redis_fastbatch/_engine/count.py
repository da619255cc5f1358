"""Batches of commands that are each answered with a number, in flight. See flight.py for what a flight is."""

from __future__ import annotations

from redis.exceptions import BusyLoadingError, InvalidResponse

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import ChunkState, Explain, InFlightChunk, ServerFlight
from redis_fastbatch._engine.outcome import CountOutcome
from redis_fastbatch._engine.pacing import FlushTimer

COUNT_WINDOW = 6
"""The most commands that are in flight at the same time. Each keeps the server busy for up to a millisecond."""


class CountFlight(ServerFlight):
    """A batch of commands in flight that each say how many keys they found, such as UNLINK.

    Args:
        writer: encodes the keys.
        outcome: adds up the numbers.
    """

    def __init__(self, writer: BatchWriter, outcome: CountOutcome) -> None:
        super().__init__(writer, outcome)
        self.outcome = outcome
        self._timer = self._flush_timer = FlushTimer()

    @property
    def _takes_items(self) -> bool:
        return not self._writer.exhausted and self.outcome.error is None

    @property
    def _full(self) -> bool:
        return len(self._in_flight) >= COUNT_WINDOW

    def _encode(self, budget: int | None) -> None:
        filling = self._filling = self._filling or InFlightChunk(Chunk(self._writer.command), 0)
        self._timer.fill(self._writer, filling.chunk, budget)
        self.outcome.record_unencoded(self._writer)
        if filling.chunk.sealed:
            if filling.chunk.count:
                self._ready.append(filling)
            self._filling = None

    def begin_with(self, chunk: Chunk, state: ChunkState) -> None:
        """Take the first command over, whose keys were encoded before the flight was made.

        Args:
            chunk: the command, sealed.
            state: NEW, or its state if it was sent already. Its reply has not been read.
        """
        self.outcome.record_unencoded(self._writer)
        if chunk.count:
            queue = self._ready if state is ChunkState.NEW else self._in_flight
            queue.append(InFlightChunk(chunk, 0))

    def started(self, chunk: Chunk) -> None:
        self._in_flight.append(self._ready.popleft())

    def finished(self, chunk: Chunk) -> None:
        """Do nothing: a command may be sent again whether all of it has left or not."""

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        while self._in_flight:
            whole = reader.reply()
            if whole is None:
                return
            reply = whole[0]
            if isinstance(reply, ErrorReply):
                error = explain(reply)
                if self.wait_while_loading and isinstance(error, BusyLoadingError):
                    raise error
                self.outcome.end_with(error)
            elif type(reply) is int and 0 <= reply <= self._in_flight[0].chunk.count:
                self.outcome.total += reply
            else:
                raise InvalidResponse(f"a number of keys was expected, got {reply!r:.80}")
            self._in_flight.popleft()
            self.settled += 1

    def connection_lost(self) -> bool:
        while self._in_flight:
            self._ready.appendleft(self._in_flight.pop())
        return True

    def abort(self, error: BaseException) -> None:
        self._in_flight.clear()
        self._ready.clear()
