"""Event loops for the tests of the asyncio client: asyncio's and, if it is installed, uvloop's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

import pytest

from redis_fastbatch import BatchReport

T = TypeVar("T")


class Runner:
    """Runs coroutines, each on a new event loop of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        if self.kind == "asyncio":
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def runner(kind: str) -> Runner:
    """Return a Runner of the kind "asyncio" or "uvloop". Skip the test if uvloop is not installed."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    return Runner(kind)


def report_of(error: BaseException) -> BatchReport:
    """Return the report of an error that a task raised."""
    # Up to Python 3.10, awaiting a cancelled task raises a new CancelledError; its context is the task's error.
    found = error if hasattr(error, "report") else error.__context__
    report: BatchReport = found.report  # type: ignore[union-attr]
    return report


async def streamed(items: Iterable[T], every: int = 0) -> AsyncIterator[T]:
    """Yield the items asynchronously. Let the event loop run other tasks before every `every`-th item."""
    for index, item in enumerate(items):
        if every and index % every == 0:
            await asyncio.sleep(0)
        yield item


async def gathered(items: AsyncIterable[T]) -> list[T]:
    """Return all items of an async iterable."""
    return [item async for item in items]
