"""Carrying out batches in an event loop: what the methods of AsyncFastBatch share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.pacing import FLUSH_SECONDS, MAX_BLOCK_SECONDS, Slices
from redis_fastbatch._transports.async_source import AsyncSource
from redis_fastbatch._transports.asyncio import AsyncLease
from redis_fastbatch._transports.loop_budget import FIRST_ITEMS, FirstSlices, LoopBudget, loop_pace
from redis_fastbatch._typing import AnyKey, AsyncKeys

PAIRS = 100
"""Pairs that batch_get_iter() yields between two looks at the clock."""


class LoopPause(gc_pause.Pause):
    """A pause of the garbage collector during which other tasks of the event loop run and make garbage.

    So the collector runs more often, for few objects at a time, and at least every tenth of a second. It takes
    about a microsecond for ten objects, during which nothing else runs.
    """

    OBJECTS = 10_000
    SECONDS = 0.1

    def __init__(self, enabled: bool = True) -> None:
        super().__init__(enabled)
        self._timer: asyncio.TimerHandle | None = None

    def made(self, items: int) -> None:
        """Let the collector run if there are many new objects, however few items have made them."""
        if gc.get_count()[0] >= self.OBJECTS:
            self.turn()

    def __enter__(self) -> LoopPause:
        super().__enter__()
        self._wind_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().__exit__(kind, error, trace)

    def _wind_up(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.SECONDS, self._ring)

    def _ring(self) -> None:
        self.turn()
        self._wind_up()


async def fill(writer: BatchWriter, chunk: Chunk, slices: FirstSlices, borrowed: AsyncLease) -> None:
    """Encode items until the chunk is full or the writer has no more. Give the loop turns if it takes long."""
    budget = LoopBudget()
    writer.fill_some(chunk, slices.encoding)
    if chunk.sealed:
        return
    borrowed.waited()
    pace = loop_pace(slices.encoding)
    pace.took(budget.spent)
    while not chunk.sealed:
        await budget.yield_if_spent()
        began = time.perf_counter()
        writer.fill_some(chunk, pace.items)
        pace.took(time.perf_counter() - began)
    slices.encoding = min(pace.items, FIRST_ITEMS)
    await budget.yield_if_spent()


async def carry_out(borrowed: AsyncLease, flight: Any, source: AsyncSource | None) -> None:
    """Carry out a flight, then close its source."""
    try:
        await borrowed.run(flight, source)
    finally:
        if source is not None:
            await source.aclose()


async def write_with(
    lease: contextlib.AbstractAsyncContextManager[Any],
    begin: Callable[[Any], Awaitable[Any]],
    source: AsyncSource | None,
) -> None:
    """Carry out a batch of writes. If it ends early, items that were taken ahead count as not sent.

    Args:
        lease: lends a connection, or those of a cluster's nodes.
        begin: awaited with what is lent. Returns the batch's flight; None if the batch is done already.
        source: the source of the items, if it is asynchronous.

    Raises:
        BaseException: what has ended the source of the items.
    """
    async with lease as borrowed:
        flight = await begin(borrowed)
        if flight is None:
            return
        with flight:
            ended: BaseException | None = None
            try:
                await carry_out(borrowed, flight, source)
                ended = flight.source_error
            except BaseException as error:
                ended = error
                raise
            finally:
                if source is not None and ended is not None:
                    flight.ended_before(source.ahead, ended)
    # Outside the lease: its context manager fails with exceptions whose attributes cannot be set.
    if flight.source_error is not None:
        raise flight.source_error


def async_source(items: Any) -> AsyncSource | None:
    """Return an AsyncSource of an async iterable; None for anything else."""
    return AsyncSource(items) if hasattr(items, "__aiter__") else None


async def rounds_of(keys: AsyncKeys[Any], size: int) -> AsyncGenerator[list[AnyKey], None]:
    """Yield lists of up to `size` keys, shorter if they come slowly. `keys` may raise after the last list."""
    if not isinstance(keys, AsyncIterable):
        async for some in _rounds_of_slices(Slices(keys, MAX_BLOCK_SECONDS), size):
            yield some
        return
    async with contextlib.aclosing(AsyncSource(keys)) as source:
        while some := await source.take(size):
            yield some


async def _rounds_of_slices(slices: Slices, size: int) -> AsyncIterator[list[AnyKey]]:
    budget = LoopBudget()
    some: list[AnyKey] = []
    began = time.monotonic()
    while taken := slices.take(size - len(some)):
        some += taken
        if len(some) == size or time.monotonic() - began > FLUSH_SECONDS:
            yield some
            some, began = [], time.monotonic()
        await budget.yield_if_spent()
    if some:
        yield some
    if slices.error is not None:
        raise slices.error
