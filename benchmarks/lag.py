"""How long a batch holds its event loop at a time: `python -m benchmarks lag`.

Another task of the loop asks for a turn all the time, and measures how long it waits. It tells what
holds the loop: a slice of work, a run of Python's garbage collector over the new objects, one over all objects, or
freeing the result. The first turn of a read makes the dict of its result.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import redis.asyncio

from benchmarks import shapes
from benchmarks.servers import BINARIES, Endpoint, apart, running
from benchmarks.tables import table
from redis_fastbatch import AsyncFastBatch

OLDEST = 2
"""The collector's generation of all objects."""

HEADERS = (
    "",
    "values",
    "turns",
    "first turn",
    "longest slice",
    "collector, new objects",
    "collector, all objects",
    "freeing the result",
)


def _with_lists(count: int) -> dict[str, Any]:
    return {f"user:{n}": {"id": n, "name": f"user {n}", "score": n / 7, "tags": ["a", n]} for n in range(count)}


VALUES: dict[str, Callable[[int], dict[str, Any]]] = {
    "dict of 5 fields": lambda count: shapes.make("dict5", count),
    "dict with a list": _with_lists,
}
"""Python's collector does not look at dicts that hold only numbers and strings. It does at those with a list."""


class Lag:
    """Measures, within the context, how long other tasks hold the loop at a time.

    Attributes:
        turns: the processor time of each turn, without that of the collector, in seconds.
        collected: the processor time of each run of the collector, by generation.
    """

    def __init__(self) -> None:
        self.turns: list[float] = []
        self.collected: dict[int, list[float]] = {0: [], 1: [], OLDEST: []}
        self._began = 0.0
        self._collecting = 0.0

    async def __aenter__(self) -> Lag:
        gc.callbacks.append(self._note)
        self._task = asyncio.ensure_future(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The collector may run after the batch, because of the objects that it has made.
        await asyncio.sleep(0.01)
        self._task.cancel()
        gc.callbacks.remove(self._note)

    async def _watch(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.turns.append(now - before - self._collecting)
            self._collecting = 0.0
            before = now

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            took = time.thread_time() - self._began
            self.collected[info["generation"]].append(took)
            self._collecting += took


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")


def run(options: argparse.Namespace) -> int:
    """Measure and print the table."""
    rows: list[tuple[Any, ...]] = []
    with running(options.server) as endpoint, apart(endpoint):
        for name, make in VALUES.items():
            rows += asyncio.run(_measured(endpoint, name, make(options.items), options.rounds))
    print("Processor time in ms, the median of the rounds.")
    print(table(HEADERS, rows, numbers=set(range(2, len(HEADERS)))))
    return 0


async def _measured(endpoint: Endpoint, values: str, items: dict[str, Any], rounds: int) -> list[tuple[Any, ...]]:
    keys = list(items)
    async with AsyncFastBatch(redis.asyncio.Redis(host=endpoint.host, port=endpoint.port)) as batch:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "batch_set": lambda: batch.batch_set(items),
            "batch_get": lambda: batch.batch_get(keys),
        }
        return [(name, values, *await _round_of(call, rounds)) for name, call in calls.items()]


async def _round_of(call: Callable[[], Awaitable[Any]], rounds: int) -> list[str]:
    measured: list[list[float]] = []
    for _ in range(rounds):
        gc.collect()
        async with Lag() as lag:
            result = await call()
        began = time.thread_time()
        del result
        freeing = time.thread_time() - began
        first, *others = lag.turns
        young = max(lag.collected[0] + lag.collected[1], default=0.0)
        everything = max(lag.collected[OLDEST], default=0.0)
        measured.append([len(lag.turns), first, max(others), young, everything, freeing])
    middle = [sorted(column)[rounds // 2] for column in zip(*measured, strict=True)]
    return [f"{middle[0]:,.0f}", *(f"{seconds * 1000:.1f}" for seconds in middle[1:])]
