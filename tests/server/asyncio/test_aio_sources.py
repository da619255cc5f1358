"""Asynchronous sources of AsyncFastBatch: slow ones, and sources of batches that end early."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import Connection

from aio import Runner, gathered, report_of, runner, streamed
from redis_fastbatch import AsyncFastBatch, BatchReport, DecodeError
from servers import Cluster

WAIT_SECONDS = 20
"""Seconds after which a test fails because nothing happens."""


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        await super().send_packed_command(*arguments, **options)


class Halt(BaseException):
    """An error that is not an Exception."""


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@pytest.fixture(params=["one server", "custom connection class", "cluster"])
def connect(request: pytest.FixtureRequest) -> Callable[[], AsyncFastBatch]:
    """Empty a server or cluster, and return a function that makes a client of it."""
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.flush()
        node = cluster.masters[0]
        return lambda: AsyncFastBatch(redis.asyncio.RedisCluster(host=node.host, port=node.port))  # type: ignore[abstract]
    server = request.getfixturevalue("valkey")
    with server.client() as client:
        client.flushall()
    kind = Connection if request.param == "one server" else PlainConnection

    def connected() -> AsyncFastBatch:
        pool = redis.asyncio.ConnectionPool(connection_class=kind, host=server.host, port=server.port)
        return AsyncFastBatch(redis.asyncio.Redis.from_pool(pool))

    return connected


async def stored(batch: AsyncFastBatch, keys: Iterable[str]) -> int:
    """Return how many of the keys exist."""
    found = await batch.batch_get(list(keys))
    return sum(value is not None for value in found.values())


class Taken:
    """An async iterable of pairs. It remembers the keys of the pairs taken from it."""

    def __init__(self, count: int) -> None:
        self.keys: list[str] = []
        self.cancelled = 0
        self._count = count

    async def __aiter__(self) -> AsyncIterator[tuple[str, int]]:
        for n in range(self._count):
            self.keys.append(f"key:{n}")
            yield self.keys[-1], n
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_items_are_confirmed_while_the_source_waits(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    """The source waits until its items are confirmed, so they must be sent while it waits."""
    done = 0

    async def source(confirmed: asyncio.Event) -> AsyncIterator[tuple[str, int]]:
        for burst in range(3):
            for n in range(5):
                yield f"key:{burst}:{n}", n
            await confirmed.wait()
            confirmed.clear()

    async def main() -> BatchReport:
        confirmed = asyncio.Event()

        def progress(items: int, _: int | None) -> None:
            nonlocal done
            if items % 5 == 0 and items > done:
                done = items
                confirmed.set()

        async with connect() as batch:
            return await asyncio.wait_for(batch.batch_set(source(confirmed), progress=progress), WAIT_SECONDS)

    report = run(main())
    assert report.written == report.confirmed_prefix == 15


def test_a_batch_can_be_cancelled_while_its_source_waits(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    async def main() -> None:
        async with connect() as batch:
            source, confirmed = Taken(7), asyncio.Event()

            def progress(items: int, _: int | None) -> None:
                if items == 7:
                    confirmed.set()

            task = asyncio.ensure_future(batch.batch_set(source, progress=progress))
            await asyncio.wait_for(confirmed.wait(), WAIT_SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            report = report_of(caught.value)
            assert (report.written, report.failed, report.confirmed_prefix) == (7, 0, 7)
            assert source.cancelled == 1
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_pairs_are_returned_while_the_source_of_keys_waits(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    async def main() -> None:
        async with connect() as batch:
            await batch.batch_set({"a": 1, "b": 2, "c": 3})
            read = asyncio.Event()

            async def keys() -> AsyncIterator[str]:
                yield "a"
                yield "b"
                await read.wait()
                yield "c"

            found = []

            async def iterate() -> None:
                async for pair in batch.batch_get_iter(keys()):
                    found.append(pair)
                    if len(found) == 2:
                        read.set()

            await asyncio.wait_for(iterate(), WAIT_SECONDS)
            assert found == [("a", 1), ("b", 2), ("c", 3)]

    run(main())


def test_an_atomic_batch_waits_for_a_slow_source(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    async def source() -> AsyncIterator[tuple[str, int]]:
        for n in range(3):
            yield f"{{tag}}{n}", n
            await asyncio.sleep(0.1)

    async def main() -> None:
        async with connect() as batch:
            assert (await batch.batch_set(source(), atomic=True)).written == 3
            assert await batch.batch_delete(key async for key, _ in source()) == 3

    run(main())


def test_all_taken_items_are_counted_if_a_hook_raises(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    """Items that were taken ahead of the writer count too."""
    dead: list[str] = []
    chunks = 0

    def hook(_: object) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise LookupError("enough")

    async def main() -> None:
        async with connect() as batch:
            source = Taken(50_000)
            with pytest.raises(LookupError) as caught:
                await batch.batch_set(source, on_chunk=hook, on_error=lambda key, *_: dead.append(key))
            report = report_of(caught.value)
            assert report.total == len(source.keys) < 50_000
            assert len({*dead}) == len(dead) == report.failed
            assert await stored(batch, {*source.keys} - {*dead}) == report.written
            assert await stored(batch, source.keys[: report.confirmed_prefix]) == report.confirmed_prefix

    run(main())


def test_all_taken_items_are_counted_if_the_batch_is_cancelled(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    async def main() -> None:
        async with connect() as batch:
            source = Taken(200_000)
            task = asyncio.ensure_future(batch.batch_set(source, chunk_size=10))
            while len(source.keys) < 5000:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            report = report_of(caught.value)
            assert report.total == len(source.keys) < 200_000
            assert report.failed
            assert report.confirmed_prefix <= report.written

    run(main())


def test_items_taken_ahead_are_counted_even_if_they_are_not_pairs(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    async def main() -> None:
        async with connect() as batch:
            taken = 0

            async def source() -> AsyncIterator[Any]:
                nonlocal taken
                for n in range(10_000):
                    taken += 1
                    yield (f"key:{n}", n) if n < 50 else n

            with pytest.raises(TypeError, match="as a tuple or list of two, got int 50") as caught:
                await batch.batch_set(source())
            report = report_of(caught.value)
            # The refused one ends the batch and does not count.
            assert (report.written, report.total, report.confirmed_prefix) == (50, taken - 1, 50)
            assert list(report.failures) == list(range(51, 51 + len(report.failures)))

    run(main())


@pytest.mark.parametrize("error", [LookupError("no more"), Halt(), asyncio.CancelledError()], ids=repr)
def test_items_before_an_error_of_the_source_are_written(
    run: Runner, connect: Callable[[], AsyncFastBatch], error: BaseException
) -> None:
    async def source() -> AsyncIterator[tuple[str, int]]:
        for n in range(1500):
            yield f"key:{n}", n
        raise error

    async def main() -> None:
        async with connect() as batch:
            with pytest.raises(type(error)) as caught:
                await batch.batch_set(source())
            report = report_of(caught.value)
            assert report.written == report.confirmed_prefix == 1500
            with pytest.raises(type(error)):
                await batch.batch_get(key async for key, _ in source())

    run(main())


def test_a_batch_that_ends_early_leaves_no_task(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    pytest.importorskip("pyarrow")
    cleaned_up = 0

    async def keys(names: list[str]) -> AsyncIterator[str]:
        nonlocal cleaned_up
        for name in names:
            yield name
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            cleaned_up += 1

    async def main() -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        async with connect() as batch:
            await batch.client.set("foreign", b"\xc1")
            for read in (batch.batch_get, batch.batch_get_table):
                with pytest.raises(DecodeError):
                    await asyncio.wait_for(read(keys(["foreign"])), WAIT_SECONDS)
            pairs = batch.batch_get_iter(keys(["missing"]))
            assert await asyncio.wait_for(pairs.__anext__(), WAIT_SECONDS) == ("missing", None)
            await pairs.aclose()  # type: ignore[attr-defined]
            assert cleaned_up == 3
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not unhandled

    run(main())


def test_a_source_may_raise_another_error_when_it_is_cancelled(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    async def source() -> AsyncIterator[tuple[str, int]]:
        yield "a", 1
        try:
            await asyncio.sleep(600)
        finally:
            raise LookupError("while cleaning up")

    async def main() -> None:
        async with connect() as batch:
            confirmed = asyncio.Event()
            task = asyncio.ensure_future(batch.batch_set(source(), progress=lambda *_: confirmed.set()))
            await asyncio.wait_for(confirmed.wait(), WAIT_SECONDS)
            task.cancel()
            with pytest.raises(LookupError, match="cleaning up") as caught:
                await task
            assert report_of(caught.value).written == 1

    run(main())


def test_a_source_may_ignore_its_cancellation(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    """The batch ends anyway. Items that the source yields after the cancellation are counted."""

    async def source() -> AsyncIterator[tuple[str, int]]:
        yield "a", 1
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            yield "b", 2
        yield "c", 3

    async def main() -> None:
        async with connect() as batch:
            confirmed = asyncio.Event()
            task = asyncio.ensure_future(batch.batch_set(source(), progress=lambda *_: confirmed.set()))
            await asyncio.wait_for(confirmed.wait(), WAIT_SECONDS)
            task.cancel()
            assert await asyncio.wait([task], timeout=WAIT_SECONDS) == ({task}, set())
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            report = report_of(caught.value)
            assert (report.written, list(report.failures)) == (1, ["b"])

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks need Python 3.12")
def test_eager_tasks_can_be_used(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        async with connect() as batch:
            for count in (3000, 1):
                pairs = [(f"key:{n}", n) for n in range(count)]
                written = await asyncio.wait_for(batch.batch_set(streamed(pairs)), WAIT_SECONDS)
                assert written.written == count
                read = batch.batch_get_iter(streamed([key for key, _ in pairs]))
                assert await asyncio.wait_for(gathered(read), WAIT_SECONDS) == pairs

    run(main())


def test_one_task_takes_all_items(run: Runner, connect: Callable[[], AsyncFastBatch]) -> None:
    """A context that a source enters, such as asyncio.timeout(), must be left in the same task."""

    async def main() -> None:
        async with connect() as batch:
            tasks = set()

            async def source() -> AsyncIterator[tuple[str, int]]:
                async for pair in streamed([(f"key:{n}", n) for n in range(5000)], every=700):
                    tasks.add(asyncio.current_task())
                    yield pair

            assert (await batch.batch_set(source())).written == 5000
            assert len(tasks) == 1

    run(main())


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    line: int


def test_a_frozen_error_of_the_source_is_raised_without_a_report(
    run: Runner, connect: Callable[[], AsyncFastBatch]
) -> None:
    """Setting the report of a frozen error raises FrozenInstanceError, which must not replace the error."""

    async def source() -> AsyncIterator[tuple[str, int]]:
        yield "a", 1
        raise FrozenError(7)

    async def main() -> None:
        async with connect() as batch:
            with pytest.raises(FrozenError):
                await batch.batch_set(source())
            assert await batch.batch_get(["a"]) == {"a": 1}

    run(main())
