"""Event loops for the tests of the asyncio client: asyncio's own and, where it is installed, uvloop's."""

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
        """Runs a coroutine to its end."""
        if self.kind == "asyncio":
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def runner(kind: str) -> Runner:
    """A Runner of the kind "asyncio" or "uvloop"; the test is skipped where that is not installed."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    return Runner(kind)


def report_of(error: BaseException) -> BatchReport:
    """The report that an error carries which came out of a task."""
    # Up to Python 3.10 whoever awaits a cancelled task gets another CancelledError, whose context the task's is.
    found = error if hasattr(error, "report") else error.__context__
    report: BatchReport = found.report  # type: ignore[union-attr]
    return report


async def streamed(items: Iterable[T], every: int = 0) -> AsyncIterator[T]:
    """The items as an async iterable, which lets the loop go round before every so many of them."""
    for index, item in enumerate(items):
        if every and index % every == 0:
            await asyncio.sleep(0)
        yield item


async def gathered(items: AsyncIterable[T]) -> list[T]:
    """All that an async iterable gives."""
    return [item async for item in items]
