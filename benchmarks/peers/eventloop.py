"""Run asyncio clients from synchronous benchmarks, all on one event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

Client = TypeVar("Client")
Result = TypeVar("Result")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    # One loop for all: valkey-glide delivers its replies to the loop of the process's first client, and a second
    # client on another loop would wait forever.
    return asyncio.new_event_loop()


class OpenClient(Generic[Client]):
    """An asyncio client that stays open between calls.

    Attributes:
        client: the client, entered as its context manager.
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._loop = _loop()
        self._closing = asyncio.Event()
        opened: asyncio.Future[Client] = self._loop.create_future()
        self._owner = self._loop.create_task(self._hold(open_client, opened))
        either: list[asyncio.Future[Any]] = [opened, self._owner]
        self._loop.run_until_complete(asyncio.wait(either, return_when="FIRST_COMPLETED"))
        if self._owner.done():
            self._owner.result()
        self.client = opened.result()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end."""
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Close the client."""
        self._closing.set()
        self._loop.run_until_complete(self._owner)

    async def _hold(
        self,
        open_client: Callable[[], AbstractAsyncContextManager[Client]],
        opened: asyncio.Future[Client],
    ) -> None:
        # One task enters and leaves the client: coredis keeps a task group open in between, and anyio lets only
        # the task that entered a group leave it.
        async with open_client() as client:
            opened.set_result(client)
            await self._closing.wait()
