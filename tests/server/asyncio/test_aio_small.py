"""Small batches of AsyncFastBatch: those of one command, which go a short way over the connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import msgpack
import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.event import AsyncAfterConnectionReleasedEvent, AsyncEventListenerInterface

from aio import Runner, report_of, runner
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import AsyncFastBatch, BatchError, DecodeError
from redis_fastbatch._transports.redispy import connection_counts
from redis_fastbatch.server import EmbeddedServer
from servers import configured

ITEMS = {f"key:{n}": {"id": n, "name": f"user {n}"} for n in range(20)}
KEYS = list(ITEMS)
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nkey:1\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@pytest.fixture
def emptied(valkey: EmbeddedServer) -> EmbeddedServer:
    with valkey.client() as client:
        client.flushall()
    return valkey


@pytest.fixture
def proxy(emptied: EmbeddedServer) -> Iterator[FaultProxy]:
    with FaultProxy(emptied.port) as running:
        yield running


def connected(server: EmbeddedServer | FaultProxy, retries: int = 0, **options: Any) -> AsyncFastBatch:
    retry = Retry(NoBackoff(), retries)
    return AsyncFastBatch(redis.asyncio.Redis(host=server.host, port=server.port, retry=retry, **options))


async def warm(batch: AsyncFastBatch) -> None:
    """Let the client connect, and learn the size of the values."""
    assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
    assert await batch.batch_get(KEYS) == ITEMS


def counts(batch: AsyncFastBatch) -> tuple[int, int]:
    """Return how many connections of the pool are free, and how many are in use."""
    return connection_counts(batch.client.connection_pool)[1:]


class Calls:
    """Counts the calls of Python and C functions while a coroutine runs."""

    def __init__(self) -> None:
        self.number = 0

    async def of(self, make: Callable[[], Awaitable[Any]]) -> int:
        """Return how many calls it takes to await what `make` returns."""
        self.number = 0
        sys.setprofile(self._count)
        try:
            await make()
        finally:
            sys.setprofile(None)
        return self.number

    def _count(self, frame: FrameType, event: str, _: Any) -> None:
        self.number += event in ("call", "c_call")


@pytest.mark.parametrize("size", [1, 20])
def test_a_small_batch_takes_fewer_calls_than_one_command_of_redis_py(emptied: EmbeddedServer, size: int) -> None:
    items = dict(list(ITEMS.items())[:size])
    keys = list(items)

    async def main() -> None:
        async with connected(emptied) as batch:
            await warm(batch)
            calls, client = Calls(), batch.client
            encoded = {key: msgpack.packb(value) for key, value in items.items()}
            assert await calls.of(lambda: batch.batch_set(items)) < await calls.of(lambda: client.mset(encoded))
            assert await calls.of(lambda: batch.batch_get(keys)) < await calls.of(lambda: client.mget(keys))

    asyncio.run(main())


def test_connections_are_taken_and_given_back(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied, max_connections=3) as batch:
            await warm(batch)
            assert counts(batch) == (1, 0)
            results = await asyncio.gather(*(batch.batch_get(KEYS) for _ in range(3)))
            assert results == [ITEMS] * 3
            assert counts(batch) == (3, 0)
            with pytest.raises(BatchError):
                await batch.batch_set({"bad": object()})
            await batch.client.set("key:3", b"\xc1")
            with pytest.raises(DecodeError, match="'key:3'"):
                await batch.batch_get(KEYS)
            assert counts(batch) == (3, 0)

    run(main())


def test_a_reply_in_pieces_and_one_that_is_longer_than_expected(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connected(proxy) as batch:
            await warm(batch)
            large = dict.fromkeys(KEYS, "x" * 100000)
            assert (await batch.batch_set(large)).written == len(KEYS)
            proxy.inject_now(Fault(bytes_per_second=20_000_000))
            assert await batch.batch_get(KEYS) == large
            proxy.inject_now(Fault(bytes_per_second=20_000))
            await batch.batch_set(ITEMS)
            assert await batch.batch_get(KEYS) == ITEMS

    run(main())


def test_push_messages_before_and_after_the_reply(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connected(proxy, protocol=3, max_connections=1) as batch:
            await warm(batch)
            for after_bytes in (0, None):
                place = {"after_replies": 1} if after_bytes is None else {"after_bytes": after_bytes}
                proxy.inject_now(Fault(insert=PUSH, **place))
                assert await batch.batch_get(KEYS) == ITEMS
                proxy.inject_now(Fault(insert=PUSH, **place))
                assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
            assert await batch.client.get("key:1")
            assert counts(batch) == (1, 0)

    run(main())


def test_a_refused_command_is_reported(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            report = await batch.batch_set(ITEMS, on_error="report")
            assert report.failed == len(ITEMS)
            assert isinstance(report.failures["key:0"], redis.exceptions.OutOfMemoryError)
            assert counts(batch) == (1, 0)

    with emptied.client() as client, configured(client, maxmemory="1"):
        run(main())


@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"nx": True}])
def test_a_cancelled_write_has_an_unknown_outcome(
    run: Runner, proxy: FaultProxy, emptied: EmbeddedServer, options: dict[str, Any]
) -> None:
    async def main() -> None:
        async with connected(proxy, max_connections=1) as batch:
            await batch.batch_set({"other": 1}, **options)
            proxy.inject_now(Fault(then=Then.STALL))
            task = asyncio.ensure_future(batch.batch_set(ITEMS, **options))
            with emptied.client() as client:
                while not client.exists("key:19"):
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            report = report_of(caught.value)
            assert (report.written, report.failed, report.confirmed_prefix) == (0, len(ITEMS), 0)
            assert "outcome unknown" in report.first_failure()
            # The reply to the cancelled batch would otherwise be read as the next one.
            proxy.release()
            assert await batch.batch_get(KEYS) == ITEMS
            assert counts(batch) == (1, 0)

    run(main())


def test_a_cancelled_read_leaves_the_client_usable(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connected(proxy, max_connections=1) as batch:
            await warm(batch)
            before = proxy.seen(Direction.TO_SERVER)
            proxy.inject_now(Fault(then=Then.STALL))
            task = asyncio.ensure_future(batch.batch_get(KEYS))
            while proxy.seen(Direction.TO_SERVER) == before:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.release()
            assert await batch.batch_get(["key:7"]) == {"key:7": ITEMS["key:7"]}
            assert counts(batch) == (1, 0)

    run(main())


def test_a_batch_that_is_cancelled_before_it_sends_leaves_the_connection_open(
    run: Runner, emptied: EmbeddedServer
) -> None:
    async def main() -> None:
        async with connected(emptied, max_connections=1) as batch:
            await warm(batch)
            first = await batch.client.client_id()
            task = asyncio.ensure_future(batch.batch_get(KEYS))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await batch.client.client_id() == first
            assert counts(batch) == (1, 0)

    run(main())


def test_a_server_that_does_not_answer_is_a_timeout(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connected(proxy, socket_timeout=0.2, max_connections=1) as batch:
            await warm(batch)
            proxy.inject_now(Fault(then=Then.STALL))
            with pytest.raises(redis.TimeoutError):
                await batch.batch_get(KEYS)
            assert await batch.batch_get(KEYS) == ITEMS
            proxy.inject_now(Fault(then=Then.STALL))
            with pytest.raises(redis.TimeoutError) as caught:
                await batch.batch_set(ITEMS)
            assert "outcome unknown" in report_of(caught.value).first_failure()
            assert counts(batch) == (1, 0)

    run(main())


def test_batches_at_the_same_time_have_their_own_timeouts(run: Runner, proxy: FaultProxy) -> None:
    async def main() -> None:
        async with connected(proxy, socket_timeout=0.3) as batch:
            await warm(batch)
            results = await asyncio.gather(*(batch.batch_get(KEYS) for _ in range(3)))
            assert results == [ITEMS] * 3
            proxy.inject_now(Fault(then=Then.STALL))

            async def later(seconds: float) -> Any:
                await asyncio.sleep(seconds)
                return await batch.batch_get(KEYS)

            ended = await asyncio.gather(*(later(n / 10) for n in range(3)), return_exceptions=True)
            assert [type(error) for error in ended] == [redis.TimeoutError] * 3
            assert await batch.batch_get(KEYS) == ITEMS
            assert counts(batch) == (3, 0)

    run(main())


def test_timeouts_hold_in_a_second_event_loop(run: Runner, proxy: FaultProxy) -> None:
    batch = connected(proxy, socket_timeout=0.2)

    async def first() -> None:
        await warm(batch)
        await batch.aclose()

    async def second() -> None:
        await warm(batch)
        proxy.inject_now(Fault(then=Then.STALL))
        with pytest.raises(redis.TimeoutError):
            await batch.batch_get(KEYS)
        await batch.aclose()

    run(first())
    run(second())


@pytest.mark.parametrize("then", [Then.CUT, Then.RESET])
@pytest.mark.parametrize(
    "fault", [{"after_bytes": 0}, {"after_bytes": 3}, {"direction": Direction.TO_SERVER, "after_bytes": 100}]
)
def test_a_lost_connection_is_replaced_if_the_retry_policy_allows_it(
    run: Runner, proxy: FaultProxy, then: Then, fault: Any
) -> None:
    async def main() -> None:
        async with connected(proxy, retries=1) as batch:
            await warm(batch)
            proxy.inject_now(Fault(then=then, **fault))
            assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
            proxy.inject_now(Fault(then=then, **fault))
            assert await batch.batch_get(KEYS) == ITEMS
            proxy.inject_now(Fault(then=then, **fault))
            with pytest.raises(redis.ConnectionError) as caught:
                await batch.batch_set(ITEMS, nx=True)
            report = report_of(caught.value)
            assert (report.skipped, report.failed) == (0, len(ITEMS))
            assert "outcome unknown" in report.first_failure()

    run(main())


def test_an_idle_connection_that_was_closed_is_replaced_without_a_retry(
    run: Runner, emptied: EmbeddedServer
) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await warm(batch)
            with emptied.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            assert await batch.batch_get(KEYS) == ITEMS

    run(main())


class Pool(redis.asyncio.ConnectionPool):
    """A pool of the user's, which counts what its connections are used for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.taken = 0
        self.released = 0

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        self.taken += 1
        return await super().get_connection(*arguments, **options)

    async def release(self, connection: Any) -> None:
        self.released += 1
        await super().release(connection)


def test_the_methods_of_a_pool_of_the_users_are_called(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        pool = Pool(host=emptied.host, port=emptied.port)
        async with AsyncFastBatch(redis.asyncio.Redis.from_pool(pool)) as batch:
            await warm(batch)
            assert (pool.taken, pool.released) == (2, 2)

    run(main())


def test_a_blocking_pool_makes_batches_wait_for_a_connection(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        pool = redis.asyncio.BlockingConnectionPool(host=emptied.host, port=emptied.port, max_connections=1)
        async with AsyncFastBatch(redis.asyncio.Redis.from_pool(pool)) as batch:
            await warm(batch)
            assert await asyncio.gather(*(batch.batch_get(KEYS) for _ in range(5))) == [ITEMS] * 5

    run(main())


class Released(AsyncEventListenerInterface):
    """Counts released connections."""

    count = 0

    async def listen(self, event: object) -> None:
        self.count += 1


def test_listeners_to_released_connections_are_called(emptied: EmbeddedServer) -> None:
    async def main() -> None:
        listener = Released()
        async with connected(emptied) as batch:
            dispatcher = batch.client.connection_pool._event_dispatcher
            dispatcher.register_listeners({AsyncAfterConnectionReleasedEvent: [listener]})
            await warm(batch)
            assert listener.count == 2

    asyncio.run(main())


def test_a_connection_that_is_to_be_replaced_is_replaced(emptied: EmbeddedServer) -> None:
    """redis-py closes it when it is released, as after a message that the server moves."""

    async def main() -> None:
        async with connected(emptied, max_connections=1) as batch:
            await warm(batch)
            first = await batch.client.client_id()
            (connection,) = batch.client.connection_pool._available_connections
            task = asyncio.ensure_future(batch.batch_get(KEYS))
            await asyncio.sleep(0)
            connection.mark_for_reconnect()
            assert await task == ITEMS
            assert await batch.client.client_id() != first

    asyncio.run(main())
