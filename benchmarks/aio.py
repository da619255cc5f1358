"""AsyncFastBatch against FastBatch and the asyncio clients: `python -m benchmarks aio`.

All do the same work on one server, in turns: ours synchronously, ours on asyncio's event loop and on uvloop,
pipelines of redis.asyncio and coredis, and their MSET and MGET.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import redis.asyncio

from benchmarks import shapes
from benchmarks.equality import same
from benchmarks.measure import Contender, frozen_heap, interleaved
from benchmarks.peers import coredis
from benchmarks.peers.base import OURS
from benchmarks.results import Cell
from benchmarks.serializers import MSGSPEC
from benchmarks.servers import BINARIES, Endpoint, apart, running
from redis_fastbatch import AsyncFastBatch, FastBatch

SYNCHRONOUS = f"{OURS}, synchronous"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=lambda text: [int(n) for n in text.split(",")], default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default="dict5,flight", type=lambda text: text.split(","))
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield a cell for each shape, size and operation, as soon as it is measured."""
    with running(options.server) as endpoint, apart(endpoint):
        for shape in options.shapes:
            for count in options.items:
                items = shapes.make(shape, count)
                for operation in ("set", "get"):
                    with frozen_heap(), _contenders(endpoint, operation, items) as contenders:
                        timings = interleaved(contenders, options.rounds)
                    yield Cell(options.server, operation, shape, count, shapes.value_bytes(items), timings)


class _contenders(ExitStack):
    """The contenders for one operation; a context manager that closes their clients."""

    def __init__(self, endpoint: Endpoint, operation: str, items: dict[str, Any]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._operation = operation
        self._items = items
        self._all: list[Contender] = []

    def __enter__(self) -> list[Contender]:  # type: ignore[override]
        super().__enter__()
        FastBatch(self._endpoint.client()).batch_set(self._items)
        self._sync()
        self._on_loop(OURS, asyncio.new_event_loop(), _ours)
        try:
            import uvloop
        except ImportError:
            print("uvloop is not installed")
        else:
            self._on_loop(f"{OURS}, uvloop", uvloop.new_event_loop(), _ours)
            self._on_loop("redis.asyncio pipeline, uvloop", uvloop.new_event_loop(), _pipeline)
        self._on_loop("redis.asyncio pipeline", asyncio.new_event_loop(), _pipeline)
        self._on_loop("redis.asyncio mset / mget", asyncio.new_event_loop(), _one_command)
        for peer in (coredis.Pipeline(self._endpoint, MSGSPEC), coredis.OneCommand(self._endpoint, MSGSPEC)):
            self.callback(peer.close)
            work = functools.partial(peer.set, self._items)
            if self._operation == "get":
                work = functools.partial(peer.get, list(self._items))
            self._add(peer.name, "peer", work)
        return self._all

    def _sync(self) -> None:
        fast, keys = FastBatch(self._endpoint.client()), list(self._items)
        self.callback(fast.close)
        set_, get = (lambda: fast.batch_set(self._items)), (lambda: fast.batch_get(keys))
        self._add(SYNCHRONOUS, "ours", set_ if self._operation == "set" else get)

    def _on_loop(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[Any, str, dict[str, Any]], Callable[[], Awaitable[Any]]],
    ) -> None:
        client = redis.asyncio.Redis(host=self._endpoint.host, port=self._endpoint.port)
        self.callback(loop.close)
        self.callback(lambda: loop.run_until_complete(client.aclose()))
        work = make(client, self._operation, self._items)
        self._add(name, "ours" if name.startswith(OURS) else "peer", lambda: loop.run_until_complete(_call(work)))

    def _add(self, name: str, role: Any, work: Callable[[], Any]) -> None:
        def check() -> None:
            found = work()
            if self._operation == "set":
                found = FastBatch(self._endpoint.client()).batch_get(list(self._items))
            if not same(self._items, found):
                raise AssertionError("not what was written")

        self._all.append(Contender(name, role, work, check))


async def _call(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


def _ours(client: Any, operation: str, items: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
    fast, keys = AsyncFastBatch(client), list(items)
    if operation == "set":
        return lambda: fast.batch_set(items)
    return lambda: fast.batch_get(keys)


def _pipeline(client: Any, operation: str, items: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
    dumps, loads = MSGSPEC.dumps, MSGSPEC.loads

    async def write() -> None:
        async with client.pipeline(transaction=False) as pipe:
            for key, value in items.items():
                pipe.set(key, dumps(value))
            await pipe.execute()

    async def read() -> dict[str, Any]:
        async with client.pipeline(transaction=False) as pipe:
            for key in items:
                pipe.get(key)
            return {key: loads(value) for key, value in zip(items, await pipe.execute(), strict=True)}

    return write if operation == "set" else read


def _one_command(client: Any, operation: str, items: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
    dumps, loads, keys = MSGSPEC.dumps, MSGSPEC.loads, list(items)

    async def write() -> None:
        await client.mset({key: dumps(value) for key, value in items.items()})

    async def read() -> dict[str, Any]:
        return {key: loads(value) for key, value in zip(keys, await client.mget(keys), strict=True)}

    return write if operation == "set" else read
