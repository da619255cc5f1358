"""The commands of a redis-py pipeline in flight. See flight.py for what a flight is.

They are sent as they are packed, and their replies are collected as Python objects. redis-py decides about
everything else: when to try again, and which errors to raise.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.flight import Event, Explain, Send

SLICE_BYTES = 64 * 1024
"""How many bytes are sent at a time. Replies that have arrived are read between two slices."""


class PipelineFlight:
    """Packed commands in flight.

    Args:
        packed: the commands, as a memoryview.
        wanted: how many replies they get.
        check: called with each reply that is or contains an error.
        undecoded: the indexes of the replies whose strings stay bytes; None for no reply.

    Attributes:
        replies: the replies that have been read.
    """

    wait_while_loading = False
    awaiting_replies = False
    flush_seconds = None
    hook_raised = False

    def __init__(
        self,
        packed: Any,
        wanted: int,
        check: Callable[[Any], object],
        undecoded: Container[int] | None = None,
    ) -> None:
        self.replies: list[Any] = []
        self._packed = packed
        self._wanted = wanted
        self._check = check
        self._undecoded = undecoded
        self._sent = 0

    def poll(self, budget: int | None = None) -> Send | Event:
        if self._sent < len(self._packed):
            return Send(self._packed[self._sent : self._sent + SLICE_BYTES], self._sent > 0)
        return Event.NEED_REPLIES if self.in_flight else Event.DONE

    def started(self, chunk: Any) -> None:
        """Do nothing: redis-py tries all of a pipeline again, or nothing."""

    def finished(self, chunk: Any) -> None:
        self._sent += len(chunk)

    def receive(self, reader: Any, explain: Explain, budget: int | None = None) -> None:
        wanted = self._wanted if budget is None else min(self._wanted, len(self.replies) + budget)
        reader.objects(self.replies, wanted, explain, self._check, self._undecoded)

    def connection_lost(self) -> bool:
        return False

    def abort(self, error: BaseException) -> None:
        """Do nothing: redis-py reports the error."""

    @property
    def in_flight(self) -> bool:
        return self._sent > 0 and len(self.replies) < self._wanted

    @property
    def settled(self) -> int:
        return len(self.replies)


class TransactionFlight(PipelineFlight):
    """Packed commands in flight, with MULTI before and EXEC after them.

    Attributes:
        replies: the reply to EXEC, once it has been read.
        refused: the error replies to MULTI and the commands, each with its index. MULTI has index 0.
    """

    def __init__(self, packed: Any, queued: int, check: Callable[[Any], object]) -> None:
        super().__init__(packed, 1, check)
        self.refused: list[tuple[int, Exception]] = []
        self._queued = queued
        self._done = 0

    def receive(self, reader: Any, explain: Explain, budget: int | None = None) -> None:
        if self._done < self._queued:
            others: list[tuple[int, Any]] = []
            self._done += reader.statuses(self._queued - self._done, self._done, others)
            for index, reply in others:
                if isinstance(reply, ErrorReply):
                    error = explain(reply)
                    self._check(error)
                    self.refused.append((index, error))
            if self._done < self._queued:
                return
        super().receive(reader, explain, budget)
