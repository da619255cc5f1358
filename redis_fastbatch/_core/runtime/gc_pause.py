"""Keeps the cyclic garbage collector away while a batch builds its result.

Thousands of new containers, all of them alive, make the collector run again and again for nothing: measured
on 50,000 dicts with a list in each, it takes three quarters of the time. The pause is counted, so that threads
and nested batches are right; the collector is left as it was found; and it gets its turn after every
`EVERY` items, so that other threads' garbage does not wait for the end of a long batch.
"""

from __future__ import annotations

import gc
import os

from redis_fastbatch._core.runtime import collector

EVERY = 200_000
"""Items after which the collector may run."""

YOUNG = 1
"""The generation up to which it then runs: what came to be since its last turn, traversed this once."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=collector.forget)


class Pause(collector.Hold):
    """A context in which the collector rests. One belongs to one thread.

    Args:
        enabled: False makes it do nothing.
        every: items after which the collector may run.
    """

    def __init__(self, enabled: bool = True, every: int = EVERY) -> None:
        super().__init__(enabled)
        self._enabled = enabled
        self._every = every
        self._made = 0

    def made(self, items: int) -> None:
        """Counts items, and lets the collector have its turn when there were enough."""
        self._made += items
        if self._made >= self._every:
            self.turn()

    def turn(self) -> None:
        """Lets the collector run if it wants to."""
        self._made = 0
        # Not by enabling it for a moment: when a collection then begins is up to the interpreter, and the pauses
        # of other threads would keep it away for good.
        if self._enabled and collector.was_enabled() and _is_due():
            gc.collect(YOUNG)


def _is_due() -> bool:
    threshold = gc.get_threshold()[0]
    return 0 < threshold < gc.get_count()[0]
