"""A FastBatch that reads a batch with one command, as redis-toolkit does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine import commands
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.pacing import ValueSizes
from redis_fastbatch._engine.read import ReadFlight
from redis_fastbatch.client import FastBatch

NO_LIMIT = 2**62


class _AnySize(ValueSizes):
    """Value sizes so small that all values fit into one reply."""

    def keys_for(self, size: int, first: int) -> int:
        return NO_LIMIT


class SnapshotBatch(FastBatch):
    """A FastBatch that reads all keys of a batch with one MGET, so that all values are from the same moment.

    A batch that was written atomically is then read whole or not at all. A cluster cannot do this.
    """

    def _read_flight(self, keys: Any, out: Any, pause: gc_pause.Pause, options: ReadOptions) -> Any:
        if self._is_cluster:
            return super()._read_flight(keys, out, pause, options)
        outcome = ReadOutcome(
            self._codec, default=options.default, on_error=options.on_error, pause=pause, sizes=_AnySize(1.0)
        )
        writer = self._writer(keys, commands.MGET, NO_LIMIT, NO_LIMIT)
        return ReadFlight(writer, self._codec, out, outcome, replace(options, limit=NO_LIMIT))
