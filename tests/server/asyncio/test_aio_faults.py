"""AsyncFastBatch with cancellations, lost connections and a slow server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aio import Runner, report_of, runner
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import AsyncFastBatch, BatchReport
from redis_fastbatch.server import EmbeddedServer
from servers import configured, wait_until

ITEMS = {f"key:{n}": {"id": n, "text": "x" * 200} for n in range(20_000)}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@pytest.fixture
def proxy(valkey: EmbeddedServer) -> Iterator[FaultProxy]:
    with valkey.client() as client:
        client.flushall()
    with FaultProxy(valkey.port) as running:
        yield running


def connect(proxy: FaultProxy, retries: int = 0, **options: Any) -> AsyncFastBatch:
    """Return a client that connects through the proxy."""
    retry = Retry(NoBackoff(), retries)
    return AsyncFastBatch(redis.asyncio.Redis(host=proxy.host, port=proxy.port, retry=retry, **options))


def stored(server: EmbeddedServer) -> int:
    with server.client() as client:
        return int(client.dbsize())


async def cancelled_after(batch: AsyncFastBatch, seconds: float, items: Any, **options: Any) -> BatchReport:
    """Cancel a batch_set after some seconds, and return its report."""
    task = asyncio.ensure_future(batch.batch_set(items, **options))
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return report_of(caught.value)


@pytest.mark.parametrize("options", [{}, {"nx": True}, {"ex": 100}])
def test_a_cancelled_batch_reports_what_was_confirmed(
    run: Runner, valkey: EmbeddedServer, proxy: FaultProxy, options: dict[str, Any]
) -> None:
    proxy.inject(Fault(Direction.TO_SERVER, bytes_per_second=4e6))

    async def main() -> None:
        async with connect(proxy) as batch:
            report = await cancelled_after(batch, 0.3, ITEMS, **options)
            assert 0 < report.written < len(ITEMS)
            assert report.failed > 0
            assert "CancelledError" in report.first_failure()
            assert report.confirmed_prefix == report.written
            # All items reported as written exist; the others may exist.
            first = list(ITEMS)[: report.written]
            proxy.clear()
            found = await batch.batch_get(first)
            assert found == {key: ITEMS[key] for key in first}
            await batch.client.ping()

    run(main())
    assert stored(valkey) < len(ITEMS)


def test_cancelling_between_commands_keeps_the_connection(run: Runner, proxy: FaultProxy) -> None:
    async def waiting() -> AsyncIterator[tuple[str, int]]:
        for n in range(5000):
            yield f"key:{n}", n
        await asyncio.sleep(60)

    async def main() -> None:
        async with connect(proxy, max_connections=1) as batch:
            report = await cancelled_after(batch, 0.3, waiting(), chunk_size=100)
            assert report.total <= 5000
            assert await batch.client.get("key:0") == b"\x00"
            assert await batch.batch_get(["key:1"]) == {"key:1": 1}

    run(main())


def test_a_cancelled_read_leaves_the_client_usable(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connect(proxy) as batch:
            await batch.batch_set(ITEMS)
            proxy.inject_now(Fault(bytes_per_second=2e6))
            task = asyncio.ensure_future(batch.batch_get(list(ITEMS)))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await batch.batch_get(["key:1", "key:2"]) == {key: ITEMS[key] for key in ("key:1", "key:2")}

    run(main())


@pytest.mark.parametrize("then", [Then.CUT, Then.RESET])
@pytest.mark.parametrize("place", [{"after_replies": 12}, {"after_bytes": 33}])
def test_a_lost_connection_is_replaced(run: Runner, proxy: FaultProxy, then: Then, place: Any) -> None:
    async def main() -> None:
        async with connect(proxy, retries=3) as batch:
            await batch.client.ping()
            proxy.inject_now(Fault(then=then, **place))
            report = await batch.batch_set(ITEMS)
            assert (report.written, report.failed) == (len(ITEMS), 0)
            proxy.inject_now(Fault(then=then, after_bytes=300_000))
            assert await batch.batch_get(list(ITEMS)) == ITEMS
            proxy.inject_now(Fault(then=then, after_bytes=300_000))
            pairs = [pair async for pair in batch.batch_get_iter(ITEMS)]
            assert pairs == list(ITEMS.items())
            assert proxy.connections >= 4

    run(main())


def test_a_connection_that_stays_lost_ends_the_batch(
    run: Runner, valkey: EmbeddedServer, proxy: FaultProxy
) -> None:
    async def main() -> None:
        async with connect(proxy) as batch:
            await batch.client.ping()
            proxy.inject_now(Fault(then=Then.RESET, after_replies=20))
            with pytest.raises(redis.ConnectionError) as caught:
                await batch.batch_set(ITEMS)
            report: BatchReport = caught.value.report  # type: ignore[attr-defined]
            assert 0 < report.written <= stored(valkey)
            assert report.failed > 0
            assert await batch.client.ping()

    run(main())


def test_nothing_is_sent_twice_with_nx(run: Runner, valkey: EmbeddedServer, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connect(proxy, retries=5) as batch:
            await batch.client.ping()
            proxy.inject_now(Fault(then=Then.CUT, after_replies=1500))
            with pytest.raises(redis.ConnectionError) as caught:
                await batch.batch_set(ITEMS, nx=True)
            report: BatchReport = caught.value.report  # type: ignore[attr-defined]
            assert report.skipped == 0
            assert "outcome unknown" in report.first_failure()
            assert report.written <= stored(valkey) <= report.written + report.failed

    run(main())


@pytest.mark.parametrize("operation", ["set", "get"])
def test_a_server_that_does_not_answer_is_a_timeout(run: Runner, proxy: FaultProxy, operation: str) -> None:
    async def main() -> None:
        async with connect(proxy, socket_timeout=0.3) as batch:
            await batch.batch_set(ITEMS)
            proxy.inject_now(Fault(Direction.TO_CLIENT, then=Then.STALL))
            with pytest.raises(redis.TimeoutError):
                await (batch.batch_set(ITEMS) if operation == "set" else batch.batch_get(list(ITEMS)))

    run(main())


def test_large_commands_and_large_replies_do_not_deadlock(run: Runner, proxy: FaultProxy) -> None:
    """Large commands and large replies do not deadlock."""
    items = {f"{'k' * 2000}:{n}": "v" * 20_000 for n in range(2000)}

    async def main() -> None:
        async with connect(proxy) as batch:
            await batch.client.ping()
            proxy.inject_now(Fault(Direction.TO_SERVER, bytes_per_second=30e6))
            assert (await batch.batch_set(items)).written == len(items)
            assert await asyncio.wait_for(batch.batch_get(list(items)), 60) == items

    run(main())


def test_push_messages_may_arrive_between_replies(run: Runner, proxy: FaultProxy) -> None:
    push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nkey:1\r\n"

    async def main() -> None:
        async with connect(proxy, protocol=3) as batch:
            await batch.batch_set(ITEMS)
            proxy.inject_now(Fault(insert=push, after_replies=3), Fault(insert=push, after_replies=5))
            assert await batch.batch_get(list(ITEMS)) == ITEMS
            assert await batch.client.ping()

    run(main())


def test_a_cancellation_during_a_push_message_closes_the_connection(run: Runner, proxy: FaultProxy) -> None:
    """Otherwise the rest of the message would be read as the next reply."""
    push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nkey:1\r\n"
    reply = b"*1\r\n$1\r\n\x01\r\n"
    begun, rest = push[:15], push[15:]

    async def main() -> None:
        async with connect(proxy, protocol=3, max_connections=1) as batch:
            await batch.batch_set({"a": 1})
            sent = proxy.sent(Direction.TO_CLIENT)
            proxy.inject_now(Fault(insert=reply + begun, drop_replies=1))
            task = asyncio.ensure_future(batch.batch_get(["a"]))
            while proxy.sent(Direction.TO_CLIENT) == sent:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if proxy.open_connections:
                proxy.inject_now(Fault(insert=rest))
            assert await batch.client.get("a") == b"\x01"

    run(main())


def test_a_surplus_reply_is_not_read_by_the_next_batch(run: Runner, proxy: FaultProxy) -> None:
    """It arrives while the connection is idle, and the event loop has not read it when the next batch begins."""
    surplus = b"*1\r\n$1\r\n\x07\r\n"

    def has_arrived() -> bool:
        return proxy.sent(Direction.TO_CLIENT) == proxy.seen(Direction.TO_CLIENT) + len(surplus)

    async def main() -> None:
        async with connect(proxy, max_connections=1) as batch:
            await batch.batch_set({"a": 1, "b": 2})
            proxy.inject_now(Fault(after_replies=1, then=Then.STALL))
            proxy.inject_now(Fault(after_replies=1, insert=surplus))
            assert await batch.batch_get(["a"]) == {"a": 1}
            proxy.release()
            wait_until(has_arrived, "the surplus arrives")
            assert await batch.batch_get(["b"]) == {"b": 2}

    run(main())


def test_items_fail_if_the_server_is_out_of_memory(run: Runner, valkey: EmbeddedServer) -> None:
    async def main() -> None:
        async with AsyncFastBatch.from_url(valkey.url) as batch:
            report = await batch.batch_set(ITEMS, on_error="report")
            assert report.failed == len(ITEMS)
            assert isinstance(report.failures["key:0"], redis.exceptions.OutOfMemoryError)

    with valkey.client() as client, configured(client, maxmemory="1"):
        client.flushall()
        run(main())
