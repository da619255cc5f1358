"""How long a batch may hold the event loop at a time."""

from __future__ import annotations

import asyncio
import time

from redis_fastbatch._engine.pacing import MAX_BLOCK_SECONDS, Pace

FIRST_ITEMS = 64
"""Items to encode or decode at a time, while it is not known how long they take."""

MAX_ITEMS = 512


def loop_pace() -> Pace:
    """Return a Pace: how many items of one kind of work take MAX_BLOCK_SECONDS."""
    return Pace(MAX_BLOCK_SECONDS, FIRST_ITEMS, MAX_ITEMS)


class LoopBudget:
    """The time for which a task may run before it gives the event loop a turn."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def renew(self) -> None:
        """Start again: the loop has just had a turn."""
        self._since = time.perf_counter()

    async def yield_if_spent(self) -> None:
        """Give the loop a turn if the time is used up."""
        if time.perf_counter() - self._since > MAX_BLOCK_SECONDS:
            await asyncio.sleep(0)
            self.renew()
