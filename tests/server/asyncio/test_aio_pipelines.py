"""AsyncFastBatch.pipeline(): the pipeline of redis.asyncio, with the same results, errors and state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aio import Runner, runner
from pipelines import EVERYTHING, Call, call, calls, described, queue
from redis_fastbatch import AsyncFastBatch
from redis_fastbatch._transports.redispy import async_pipeline as fast
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster, TlsServer
from tiers import examples

WAYS: list[Any] = [
    pytest.param({"protocol": 2}, id="RESP2"),
    pytest.param({"protocol": 3}, id="RESP3"),
    pytest.param({"protocol": 2, "decode_responses": True}, id="RESP2 decoded"),
    pytest.param({"protocol": 3, "decode_responses": True}, id="RESP3 decoded"),
    pytest.param({"unix": True}, id="unix socket"),
    pytest.param({"encoding": "latin-1", "decode_responses": True}, id="latin-1", marks=pytest.mark.full),
    pytest.param({"health_check_interval": 1}, id="health checks", marks=pytest.mark.full),
]

Make = Callable[..., Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each pipeline has sent through the core."""
    counts: list[int] = []
    exchange = fast.exchange

    async def counted(connection: Any, transport: Any, flight: Any, deadlines: Any) -> int:
        counts.append(flight._wanted)
        return await exchange(connection, transport, flight, deadlines)

    monkeypatch.setattr(fast, "exchange", counted)
    return counts


def connect(server: EmbeddedServer, *, unix: bool = False, **options: Any) -> redis.asyncio.Redis:
    if unix:
        return redis.asyncio.Redis(unix_socket_path=server.unix_socket_path, **options)
    return redis.asyncio.Redis(host=server.host, port=server.port, **options)


async def outcome(coroutine: Awaitable[Any]) -> Any:
    try:
        return described(await coroutine)
    except Exception as error:
        return "raised", described(error)


async def both(client: Any, work: Callable[[Make], Awaitable[Any]]) -> tuple[Any, Any]:
    """Return what `work` returns or raises with our pipeline() and redis.asyncio's, each on an emptied server."""
    found = []
    for make in (AsyncFastBatch(client).pipeline, client.pipeline):
        await client.flushall()
        found.append(await outcome(work(make)))
    return found[0], found[1]


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("raise_on_error", [False, True])
@pytest.mark.parametrize("options", WAYS)
def test_equal_results(
    run: Runner,
    valkey: EmbeddedServer,
    options: dict[str, Any],
    transaction: bool,
    raise_on_error: bool,
    sent: list[int],
) -> None:
    some = [each for each in EVERYTHING if not (transaction and each[0] == "dump")]

    async def work(make: Make) -> Any:
        async with make(transaction=transaction) as pipe:
            queue(pipe, some)
            return len(pipe), await pipe.execute(raise_on_error=raise_on_error), len(pipe)

    async def main() -> None:
        async with connect(valkey, **options) as client:
            ours, theirs = await both(client, work)
            assert ours == theirs
            assert sent == [1 if transaction else len(some)]
            assert await client.echo("in step") in ("in step", b"in step")

    run(main())


@pytest.mark.parametrize("transaction", [False, True])
@given(some=st.lists(calls, max_size=12), raise_on_error=st.booleans(), protocol=st.sampled_from([2, 3]))
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_commands(
    valkey: EmbeddedServer, transaction: bool, some: list[Call], raise_on_error: bool, protocol: int
) -> None:
    async def work(make: Make) -> Any:
        pipe = make(transaction)
        queue(pipe, some)
        stack = described(pipe.command_stack)
        return stack, await outcome(pipe.execute(raise_on_error)), len(pipe), pipe.watching

    async def main() -> None:
        async with connect(valkey, protocol=protocol) as client:
            ours, theirs = await both(client, work)
            assert ours == theirs

    asyncio.run(main())


def test_it_is_a_pipeline(valkey: EmbeddedServer) -> None:
    client = connect(valkey)
    pipe = AsyncFastBatch(client).pipeline()
    assert isinstance(pipe, redis.asyncio.client.Pipeline)
    assert pipe
    queue(pipe, EVERYTHING)
    theirs = client.pipeline()
    queue(theirs, EVERYTHING)
    assert pipe.command_stack == theirs.command_stack
    assert len(pipe) == len(theirs)


def test_watch(valkey: EmbeddedServer) -> None:
    async def main() -> None:
        async with connect(valkey) as client:
            await client.flushall()
            async with AsyncFastBatch(client).pipeline() as pipe:
                await pipe.watch("a")
                assert await pipe.get("a") is None
                pipe.multi()
                assert pipe.set("a", 3) is pipe
                assert await pipe.execute() == [True]
                await pipe.watch("a")
                await client.set("a", 4)
                pipe.multi()
                pipe.set("a", 5)
                with pytest.raises(redis.WatchError, match="Watched variable changed"):
                    await pipe.execute()
            assert await client.get("a") == b"4"

    asyncio.run(main())


def test_callbacks_that_are_awaited(valkey: EmbeddedServer) -> None:
    async def later(reply: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        if reply == b"bad":
            raise redis.ResponseError("refused")
        return "later", reply

    async def work(make: Make) -> Any:
        some = [call("set", "a", 1), call("get", "a"), call("set", "b", "bad"), call("get", "b")]
        found = []
        for transaction in (False, True):
            pipe = make(transaction)
            queue(pipe, some)
            found.append(await outcome(pipe.execute()))
        return found

    async def main() -> None:
        async with connect(valkey) as client:
            client.set_response_callback("GET", later)
            ours, theirs = await both(client, work)
            assert ours == theirs

    asyncio.run(main())


@pytest.mark.parametrize("transaction", [False, True])
def test_many_commands(run: Runner, valkey: EmbeddedServer, transaction: bool, sent: list[int]) -> None:
    async def work(make: Make) -> Any:
        pipe = make(transaction)
        for i in range(3000):
            pipe.set(f"key:{i}", f"value {i}" * 10)
            pipe.get(f"key:{i}")
        return await pipe.execute()

    async def main() -> None:
        async with connect(valkey) as client:
            ours, theirs = await both(client, work)
            assert ours == theirs
            assert sent

    run(main())


def test_pipelines_at_the_same_time(valkey: EmbeddedServer) -> None:
    async def one(batch: AsyncFastBatch, number: int) -> Any:
        pipe = batch.pipeline(transaction=number % 2 == 0)
        for i in range(200):
            pipe.set(f"{number}:{i}", f"{number} {i}").get(f"{number}:{i}")
        return (await pipe.execute())[1::2]

    async def main() -> None:
        async with connect(valkey) as client:
            batch = AsyncFastBatch(client)
            found = await asyncio.gather(*(one(batch, number) for number in range(20)))
        assert found == [[f"{number} {i}".encode() for i in range(200)] for number in range(20)]

    asyncio.run(main())


def test_cancelled(valkey: EmbeddedServer) -> None:
    """A cancelled pipeline closes its connection: no later command gets its replies."""

    async def main() -> None:
        async with connect(valkey, max_connections=1) as client:
            pipe = AsyncFastBatch(client).pipeline(transaction=False)
            pipe.blpop("no such list", 5).echo("late")
            task = asyncio.create_task(pipe.execute())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.echo("in step") == b"in step"

    asyncio.run(main())


@pytest.mark.full
def test_tls(run: Runner, tls_server: TlsServer) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(tls_server.url) as client:
            pipe = AsyncFastBatch(client).pipeline(transaction=False)
            for i in range(3000):
                pipe.set(f"key:{i}", f"value {i}" * 20).get(f"key:{i}")
            wanted = [each for i in range(3000) for each in (True, f"value {i}".encode() * 20)]
            assert await pipe.execute() == wanted

    run(main())


def test_a_cluster_has_its_own(cluster: Cluster) -> None:
    async def main() -> None:
        node = cluster.masters[0]
        async with redis.asyncio.RedisCluster(host=node.host, port=node.port) as client:
            with pytest.raises(ValueError, match=r"batch_execute\(\).*client\.pipeline\(\)"):
                AsyncFastBatch(client).pipeline()

    asyncio.run(main())
