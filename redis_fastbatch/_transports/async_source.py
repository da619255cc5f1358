"""Takes the items of an asynchronous source ahead of a batch, which meanwhile reads replies and sends."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

from redis_fastbatch._core.resp.encoder import SourceDry
from redis_fastbatch._engine.flight import Flight
from redis_fastbatch._engine.pacing import LINGER, MAX_BLOCK_SECONDS

_served: weakref.WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None] = weakref.WeakKeyDictionary()
"""For each task that takes from a source, the one whose batch it does that for."""


def acting_task() -> asyncio.Task[Any] | None:
    """The running task, or that for whose batch it takes items: what the one has in use is in use for both."""
    task = asyncio.current_task()
    while task is not None and task in _served:
        task = _served[task]
    return task


class AsyncSource:
    """An async iterable as an iterable that runs dry, and is waited for in between.

    A task of its own takes from the source: so a wait for the next item can end before that comes, and the source
    hears nothing of it. Items are taken once somebody waits for them, and never more than SLICE ahead.

    Args:
        source: gives the items. What it raises comes behind them.

    Attributes:
        ahead: items that were taken from the source, and from here not yet.
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
        raise SourceDry() if self._end is None else self._end

    @property
    def is_empty(self) -> bool:
        """No item is at hand, though there may be more."""
        return not self.ahead and self._end is None

    async def wait(self, seconds: float | None = None) -> None:
        """Waits for an item, or the end of the source; no longer than so many seconds, or until ring()."""
        rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def listener() -> None:
            if not rung.done():
                rung.set_result(None)

        with self.telling(listener, seconds):
            await rung

    @contextlib.contextmanager
    def telling(self, listener: Callable[[], None], seconds: float | None) -> Iterator[None]:
        """Within it a listener is called when wait() would end, which may be more than once."""
        loop = asyncio.get_running_loop()
        if self._taker is None and not self._closed:
            self._taker = loop.create_task(self._take())
        self._wanted.set()
        timer = None if seconds is None else loop.call_later(seconds, listener)
        self._listeners.add(listener)
        if not self.is_empty:
            # An eager task has taken before there was a listener, and may have come to the end.
            loop.call_soon(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)
            if timer is not None:
                timer.cancel()

    def ring(self) -> None:
        """Whoever waits looks again."""
        for listener in tuple(self._listeners):
            listener()

    async def take(self, most: int) -> list[Any]:
        """The next items: `most`, or those that come within LINGER seconds of the first. Empty at the end.

        Raises:
            BaseException: what the source raised, once all that came before it were given.
        """
        while self.is_empty:
            await self.wait()
        until = time.monotonic() + LINGER
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
        """Takes no more: a wait for the source's next item is cancelled, as the batch's own waits are.

        Being cancelled meanwhile is passed on to the source.

        Raises:
            BaseException: what the source raised on being cancelled.
        """
        self._closed = True
        taker, self._taker = self._taker, None
        if taker is None or taker.done():
            return
        taker.cancel()
        await asyncio.gather(taker, return_exceptions=True)
        # Its traceback refers to this object: in a circle, the items would stay until the garbage collector came.
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
            # KeyboardInterrupt too: from a task it would leave the event loop past the batch and its report.
            self._end = error
        finally:
            del _served[this]
            self.ring()

    async def _take_all(self) -> None:
        """Takes an item whenever one is wanted, and those that follow soon."""
        ahead, most, clock = self.ahead, self.SLICE, time.perf_counter
        later = asyncio.get_running_loop().call_later
        began, soon = clock(), later(MAX_BLOCK_SECONDS, self._ring_for_items)
        try:
            async for item in self._source:
                ahead.append(item)
                if clock() - began > MAX_BLOCK_SECONDS or len(ahead) >= most:
                    soon.cancel()
                    self._wanted.clear()
                    self.ring()
                    if self._closed:
                        return
                    await self._wanted.wait()
                    began, soon = clock(), later(MAX_BLOCK_SECONDS, self._ring_for_items)
        finally:
            soon.cancel()

    def _ring_for_items(self) -> None:
        if self.ahead:
            self.ring()


class Age:
    """How long a chunk has been half full: what a slow source has given is sent before a command is full.

    Attributes:
        late: the chunk was sent for its age: replies to those before it may have come meanwhile.
    """

    def __init__(self) -> None:
        self.late = False
        self._since: float | None = None

    def exceeded(self) -> bool:
        """Whether it is time to send the chunk that is being filled."""
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        self.late = now - self._since > LINGER
        return self.late

    @property
    def left(self) -> float:
        """Seconds until it is time."""
        since = self._since
        return LINGER if since is None else max(0.0, since + LINGER - time.perf_counter())

    def over(self) -> None:
        """The chunk was sent."""
        self.late = False
        self._since = None


async def starve(channel: Any, flight: Flight, source: AsyncSource, age: Age) -> None:
    """Waits for a source that has no item at hand, and sends what it gave before when that is old enough."""
    left: float | None = age.left
    if age.exceeded():
        flight.flush_partial()
        if not flight.has_partial_chunk:
            return
        # There is nothing to send before more has come.
        age.over()
        left = None
    if flight.in_flight:
        await channel.arrival_or_item(source, left)
    else:
        await source.wait(left)
