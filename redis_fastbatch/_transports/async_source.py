"""Takes items from an asynchronous source ahead of a batch, which reads replies and sends meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

from redis_fastbatch._core.resp.encoder import SourcePending
from redis_fastbatch._engine.pacing import FLUSH_SECONDS, MAX_BLOCK_SECONDS

_served: weakref.WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None] = weakref.WeakKeyDictionary()
"""For each task that takes items from a source, the task whose batch they are for."""


def acting_task() -> asyncio.Task[Any] | None:
    """Return the running task or, if it takes items for the batch of another task, that one."""
    task = asyncio.current_task()
    while task is not None and task in _served:
        task = _served[task]
    return task


class AsyncSource:
    """An async iterable as an iterable. While no item is ready it raises SourcePending, and can be waited for.

    Another task takes the items from the source. So a wait for the next item can end before that arrives, and the
    source does not notice. Items are taken once a batch waits for them, and at most SLICE of them ahead.

    Args:
        source: gives the items. What it raises is raised after them.

    Attributes:
        ahead: the items that were taken from the source and not yet from here.
    """

    SLICE = 1000

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self.ahead: deque[Any] = deque()
        self._source = source
        self._end: BaseException | None = None
        self._wanted = asyncio.Event()
        self._listeners: set[Callable[[], None]] = set()
        self._taker: asyncio.Task[None] | None = None
        self._batch = asyncio.current_task()
        self._closed = False

    def __iter__(self) -> AsyncSource:
        return self

    def __next__(self) -> Any:
        if self.ahead:
            return self.ahead.popleft()
        raise SourcePending() if self._end is None else self._end

    @property
    def is_empty(self) -> bool:
        """Whether no item is ready, although more may come."""
        return not self.ahead and self._end is None

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for an item or the end of the source, or until wake(), for `seconds` at most."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def listener() -> None:
            if not woken.done():
                woken.set_result(None)

        with self.notifying(listener, seconds):
            await woken

    @contextlib.contextmanager
    def notifying(self, listener: Callable[[], None], seconds: float | None) -> Iterator[None]:
        """Call a listener, within the context, whenever wait() would end."""
        loop = asyncio.get_running_loop()
        if self._taker is None and not self._closed:
            self._taker = loop.create_task(self._take())
        self._wanted.set()
        timer = None if seconds is None else loop.call_later(seconds, listener)
        self._listeners.add(listener)
        if not self.is_empty:
            # An eager task may have taken items, or reached the end, before there was a listener.
            loop.call_soon(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End every wait()."""
        for listener in tuple(self._listeners):
            listener()

    async def take(self, most: int) -> list[Any]:
        """Return the next items: `most`, or those that arrive within FLUSH_SECONDS of the first; [] at the end.

        Raises:
            BaseException: what the source has raised, after all items before it were returned.
        """
        while self.is_empty:
            await self.wait()
        until = time.monotonic() + FLUSH_SECONDS
        taken: list[Any] = []
        while len(self.ahead) < most - len(taken):
            taken += self.ahead
            self.ahead.clear()
            if self._end is not None or (left := until - time.monotonic()) <= 0:
                break
            await self.wait(left)
        else:
            taken += [self.ahead.popleft() for _ in range(most - len(taken))]
        if not taken and not isinstance(self._end, StopIteration | None):
            raise self._end
        return taken

    async def aclose(self) -> None:
        """Take no more items, and cancel a wait for the source's next one.

        If this task is cancelled meanwhile, the source is cancelled again.

        Raises:
            BaseException: what the source has raised when it was cancelled.
        """
        self._closed = True
        taker, self._taker = self._taker, None
        if taker is None or taker.done():
            return
        taker.cancel()
        await asyncio.gather(taker, return_exceptions=True)
        # Its traceback refers to this object: a cycle, in which the items would live until the collector ran.
        end, self._end = self._end, None
        if not isinstance(end, asyncio.CancelledError | StopIteration | None):
            raise end

    async def _take(self) -> None:
        this = asyncio.current_task()
        assert this is not None
        _served[this] = self._batch
        try:
            await self._take_all()
            self._end = StopIteration()
        except BaseException as error:
            # KeyboardInterrupt too: raised from a task it would end the event loop before the batch had a report.
            self._end = error
        finally:
            del _served[this]
            self.wake()

    async def _take_all(self) -> None:
        """Take an item whenever one is wanted, and those that follow soon."""
        ahead, most, clock = self.ahead, self.SLICE, time.perf_counter
        later = asyncio.get_running_loop().call_later
        began, soon = clock(), later(MAX_BLOCK_SECONDS, self._wake_for_items)
        try:
            async for item in self._source:
                ahead.append(item)
                if clock() - began > MAX_BLOCK_SECONDS or len(ahead) >= most:
                    soon.cancel()
                    self._wanted.clear()
                    self.wake()
                    if self._closed:
                        return
                    await self._wanted.wait()
                    began, soon = clock(), later(MAX_BLOCK_SECONDS, self._wake_for_items)
        finally:
            soon.cancel()

    def _wake_for_items(self) -> None:
        if self.ahead:
            self.wake()
