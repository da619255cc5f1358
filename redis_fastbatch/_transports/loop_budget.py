"""How long a batch may hold the event loop at a time."""

from __future__ import annotations

import asyncio
import time

from redis_fastbatch._engine.pacing import MAX_BLOCK_SECONDS, Pace

FIRST_ITEMS = 32
"""Items to encode or decode at a time, while it is not known how long they take."""

MAX_ITEMS = 512


def loop_pace(first: int = FIRST_ITEMS) -> Pace:
    """Return a Pace: how many items of one kind of work take MAX_BLOCK_SECONDS; `first` at the beginning."""
    return Pace(MAX_BLOCK_SECONDS, first, MAX_ITEMS)


class FirstSlices:
    """With how many items the batches of a client begin, before they look at the clock: fewer if these are slow.

    Attributes:
        encoding: how many are encoded.
        decoding: how many are decoded.
    """

    __slots__ = ("decoding", "encoding")

    def __init__(self) -> None:
        self.encoding = FIRST_ITEMS
        self.decoding = FIRST_ITEMS

    def learn(self, encoding: Pace, decoding: Pace) -> None:
        """Learn from the paces at the end of a batch."""
        self.encoding = min(encoding.items, FIRST_ITEMS)
        self.decoding = min(decoding.items, FIRST_ITEMS)


class LoopBudget:
    """The time for which a task may run before it gives the event loop a turn."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def renew(self) -> None:
        """Start again: the loop has just had a turn."""
        self._since = time.perf_counter()

    @property
    def spent(self) -> float:
        """The seconds that are used up."""
        return time.perf_counter() - self._since

    async def yield_if_spent(self) -> None:
        """Give the loop a turn if the time is used up."""
        if self.spent > MAX_BLOCK_SECONDS:
            await asyncio.sleep(0)
            self.renew()
