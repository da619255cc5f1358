"""AsyncFastBatch sends any commands as FastBatch does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import Connection

from aio import streamed
from redis_fastbatch import AsyncFastBatch, BatchError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

COMMANDS: list[Any] = [
    ("SET", "a", "\u00e9"),
    ("ZADD", "board", 1.5, "amina", 2, "ben"),
    ("INCR", "n"),
    ("GET", "a"),
    ("ZRANGE", "board", 0, -1, "WITHSCORES"),
    ("HSET", "h", "f", "v"),
    ("HGETALL", "h"),
    ("GET", "none"),
]


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        await super().send_packed_command(*arguments, **options)


def client_of(server: EmbeddedServer, kind: Any = Connection, **options: Any) -> redis.asyncio.Redis:
    pool = redis.asyncio.ConnectionPool(connection_class=kind, host=server.host, port=server.port, **options)
    return redis.asyncio.Redis.from_pool(pool)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", [Connection, PlainConnection], ids=["transport", "public methods"])
@pytest.mark.parametrize("source", [list, iter, streamed])
def test_replies_are_those_of_the_synchronous_client(
    valkey: EmbeddedServer, protocol: int, decode: bool, kind: Any, source: Any
) -> None:
    options = {"protocol": protocol, "decode_responses": decode}
    with valkey.client(**options) as plain:
        plain.flushall()
        expected = list(FastBatch(plain).batch_execute_iter(COMMANDS))
        plain.flushall()

        async def run() -> list[Any]:
            async with client_of(valkey, kind, **options) as client:
                fast = AsyncFastBatch(client)
                found = [reply async for reply in fast.batch_execute_iter(source(COMMANDS))]
                report = await fast.batch_execute(source(COMMANDS))
                assert (report.written, report.confirmed_prefix) == (len(COMMANDS), len(COMMANDS))
                return found

        assert asyncio.run(run()) == expected
        assert int(plain.get("n") or 0) == 2


def test_many_commands(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    async def run() -> list[Any]:
        async with client_of(valkey) as client:
            fast = AsyncFastBatch(client)
            report = await fast.batch_execute(("RPUSH", "list", i) for i in range(30_000))
            assert report.written == 30_000
            return [reply async for reply in fast.batch_execute_iter(("LINDEX", "list", i) for i in range(12_000))]

    assert asyncio.run(run()) == [b"%d" % i for i in range(12_000)]


def test_failures(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    commands = [("SET", "a", "x"), ("INCR", "a"), ("GET", None), ("MULTI",)]

    async def run() -> None:
        async with client_of(valkey) as client:
            fast = AsyncFastBatch(client)
            with pytest.raises(BatchError, match=r"3 of 4 commands failed; the first: command 1 \(INCR a\)"):
                await fast.batch_execute(commands)
            received: list[Any] = []
            await fast.batch_execute(streamed(commands), on_error=lambda *failure: received.append(failure[:2]))
            assert sorted(received, key=str) == [(1, commands[1]), (2, commands[2]), (3, commands[3])]
            kinds = [type(one) async for one in fast.batch_execute_iter(commands, raise_on_error=False)]
            assert kinds == [bytes, redis.ResponseError, EncodeError, EncodeError]
            with pytest.raises(redis.ResponseError, match=r"^command 1 \(INCR a\)"):
                async for _ in fast.batch_execute_iter(commands):
                    pass
            with pytest.raises(TypeError, match="got one command"):
                await fast.batch_execute(("GET", "a"))

    asyncio.run(run())


def test_a_slow_source(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    async def commands() -> AsyncIterator[Any]:
        for i in range(4):
            yield "RPUSH", "list", i
            await asyncio.sleep(0.08)

    async def run() -> None:
        async with client_of(valkey) as client:
            fast = AsyncFastBatch(client)
            replies = fast.batch_execute_iter(commands())
            assert await anext(replies) == 1
            # Replies come while the source still has commands.
            assert valkey_client.llen("list") < 4
            assert [reply async for reply in replies] == [2, 3, 4]
            assert (await fast.batch_execute(commands())).written == 4

    asyncio.run(run())


def test_a_cancelled_batch_says_what_is_unknown(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    async def run() -> None:
        async with client_of(valkey) as client:
            fast = AsyncFastBatch(client)
            task = asyncio.ensure_future(fast.batch_execute([("INCR", "n"), ("BLPOP", "none", 0)]))
            while not valkey_client.get("n"):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            error: Any = caught.value if hasattr(caught.value, "report") else caught.value.__context__
            assert (error.report.written, list(error.report.failures)) == (1, [1])
            assert "outcome unknown: CancelledError" in error.report.first_failure()
            assert await client.ping()

    asyncio.run(run())


@pytest.mark.parametrize("source", [list, streamed])
def test_over_a_cluster(cluster: Cluster, cluster_client: redis.RedisCluster, source: Any) -> None:
    commands = [("SET", f"key:{i}", i) for i in range(3000)]
    reading = [("GET", f"key:{i}") for i in range(3000)]

    async def run() -> None:
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.masters[0].port) as client:
            fast = AsyncFastBatch(client)
            assert (await fast.batch_execute(source(commands))).written == 3000
            found = [reply async for reply in fast.batch_execute_iter(source(reading))]
            assert found == [b"%d" % i for i in range(3000)]
            report = await fast.batch_execute([("PING",), ("GET", "a")], on_error="report")
            assert (report.written, list(report.failures)) == (1, [0])

    asyncio.run(run())
