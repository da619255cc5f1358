"""AsyncFastBatch does the same as FastBatch, on every server and on both event loops."""

from __future__ import annotations

import asyncio
import datetime
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import Connection

from aio import Runner, gathered, runner, streamed
from redis_fastbatch import (
    AsyncFastBatch,
    BatchError,
    BatchReport,
    DecodeError,
    EncodeError,
    FastBatch,
    FastBatchError,
)
from redis_fastbatch._engine.pacing import FLUSH_SECONDS
from redis_fastbatch.server import EmbeddedServer
from servers import TlsServer

ITEMS = {f"key:{n}": {"id": n, "name": f"näme {n}", "tags": [n, None, True], "score": n / 7} for n in range(5000)}


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        await super().send_packed_command(*arguments, **options)


class OwnWriter:
    """The methods of a StreamWriter that redis-py's connections use."""

    def __init__(self, writer: Any) -> None:
        for name in ("write", "writelines", "drain", "close", "wait_closed"):
            setattr(self, name, getattr(writer, name))


class OwnStreams(Connection):
    """A connection whose writer is not a StreamWriter."""

    async def _connect(self) -> None:
        await super()._connect()
        self._writer = OwnWriter(self._writer)  # type: ignore[assignment]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def emptied(server: EmbeddedServer) -> EmbeddedServer:
    """Empty a server, and return it."""
    with server.client() as client:
        client.flushall()
    return server


@asynccontextmanager
async def connected(server: EmbeddedServer, **options: Any) -> AsyncIterator[AsyncFastBatch]:
    options = {"host": server.host, "port": server.port, **options}
    async with AsyncFastBatch(redis.asyncio.Redis(**options)) as batch:
        yield batch


SOURCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": lambda items: items,
    "generator": lambda items: (pair for pair in items.items()),
    "async generator": lambda items: streamed(items.items()),
    "async generator that waits": lambda items: streamed(items.items(), every=7),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "options", [{}, {"ex": 100}, {"nx": True}, {"atomic": True}, {"atomic": True, "px": 90000}]
)
def test_written_items_are_read(
    run: Runner, emptied: EmbeddedServer, protocol: int, source: str, options: dict[str, Any]
) -> None:
    async def main() -> None:
        async with connected(emptied, protocol=protocol) as batch:
            report = await batch.batch_set(SOURCES[source](ITEMS), **options)
            assert (report.written, report.skipped, report.failed) == (len(ITEMS), 0, 0)
            assert report.confirmed_prefix == len(ITEMS)
            found = await batch.batch_get(list(ITEMS))
            assert found == ITEMS
            assert list(found) == list(ITEMS)
            if "ex" in options or "px" in options:
                assert 0 < await batch.client.ttl("key:77") <= 100

    run(main())


def test_both_clients_store_the_same_bytes(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set({f"async:{key}": value for key, value in ITEMS.items()})

    run(main())
    with emptied.client() as client:
        FastBatch(client).batch_set({f"sync:{key}": value for key, value in ITEMS.items()})
        pairs = zip(
            client.mget([f"async:{key}" for key in ITEMS]),
            client.mget([f"sync:{key}" for key in ITEMS]),
            strict=True,
        )
        assert all(one == other for one, other in pairs)


def test_keys_may_be_of_all_kinds_or_missing(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set({"text": 1, b"bytes": 2, 3: 3})
            await batch.client.rpush("list", "a")
            keys = ["text", b"bytes", 3, "missing", "list"]
            expected = {"text": 1, b"bytes": 2, 3: 3, "missing": "none", "list": "none"}
            assert await batch.batch_get(keys, default="none") == expected
            assert await batch.batch_get(streamed(keys), default="none") == expected

    run(main())


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100000])
def test_iteration_keeps_the_order_and_repeated_keys(
    run: Runner, emptied: EmbeddedServer, chunk_size: int | None
) -> None:
    keys = [f"key:{n % 500}" for n in range(1200)]

    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set(ITEMS)
            expected = [(key, ITEMS[key]) for key in keys]
            assert await gathered(batch.batch_get_iter(keys, chunk_size=chunk_size)) == expected
            assert await gathered(batch.batch_get_iter(streamed(keys), chunk_size=chunk_size)) == expected

    run(main())


def test_keys_are_scanned_and_deleted(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set(ITEMS)
            assert {key.decode() for key in await gathered(batch.scan("key:*"))} == set(ITEMS)
            assert await batch.batch_delete([*list(ITEMS)[:3000], "missing"]) == 3000
            assert await batch.batch_delete(streamed(ITEMS)) == 2000
            assert await gathered(batch.scan()) == []

    run(main())


def test_conditions_apply_to_each_key(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set({"a": 1, "b": 1})
            report = await batch.batch_set({"a": 2, "c": 2}, nx=True)
            assert (report.written, report.skipped, report.skipped_keys) == (1, 1, ["a"])
            report = await batch.batch_set({"b": 3, "d": 3}, xx=True, ex=datetime.timedelta(minutes=1))
            assert (report.written, report.skipped, report.skipped_keys) == (1, 1, ["d"])
            assert await batch.batch_get("abcd"[n] for n in range(4)) == {"a": 1, "b": 3, "c": 2, "d": None}

    run(main())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("atomic", [False, True])
def test_an_item_that_cannot_be_encoded_is_reported(
    run: Runner, emptied: EmbeddedServer, source: str, atomic: bool
) -> None:
    items: dict[str, Any] = {**ITEMS, "bad": object(), "key:2": 2}
    failures: list[Any] = []

    async def main() -> None:
        async with connected(emptied) as batch:
            with pytest.raises(BatchError, match="bad") as caught:
                await batch.batch_set(SOURCES[source](items), atomic=atomic)
            report = await batch.batch_set(
                SOURCES[source](items), atomic=atomic, on_error=lambda *failure: failures.append(failure)
            )
            for each in (caught.value.report, report):
                assert isinstance(each.failures["bad"], EncodeError)
                assert each.failed == (len(items) if atomic else 1)
                assert each.total == len(items) == each.confirmed_prefix
            assert len(failures) == report.failed
            assert await batch.client.dbsize() == (0 if atomic else len(ITEMS))

    run(main())


def test_an_error_of_the_source_has_a_report(run: Runner, emptied: EmbeddedServer) -> None:
    async def failing() -> AsyncIterator[tuple[str, int]]:
        for n in range(2345):
            yield f"key:{n}", n
        raise LookupError("no more")

    async def main() -> None:
        async with connected(emptied) as batch:
            with pytest.raises(LookupError, match="no more") as caught:
                await batch.batch_set(failing())
            report: BatchReport = caught.value.report  # type: ignore[attr-defined]
            assert report.written == report.confirmed_prefix == await batch.client.dbsize() == 2345
            with pytest.raises(LookupError):
                await batch.batch_get(key async for key, _ in failing())

    run(main())


def test_items_of_a_slow_source_are_sent_at_once(run: Runner, emptied: EmbeddedServer) -> None:
    counts: list[int] = []

    async def main() -> None:
        async with connected(emptied) as batch, redis.asyncio.Redis(port=emptied.port) as other:

            async def slow() -> AsyncIterator[tuple[str, int]]:
                for n in range(30):
                    await asyncio.sleep(0.02)
                    counts.append(await other.dbsize())
                    yield f"key:{n}", n

            steps: list[int] = []
            await batch.batch_set(slow(), progress=lambda done, _: steps.append(done))
            assert steps[-1] == 30
            assert len(steps) > 3

    run(main())
    assert counts[-1] > 15


def test_pairs_come_one_at_a_time_for_a_slow_source_of_keys(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set({str(i): i for i in range(10)})
            taken = 0

            async def slow() -> AsyncIterator[str]:
                nonlocal taken
                for i in range(10):
                    taken = i
                    await asyncio.sleep(FLUSH_SECONDS)
                    yield str(i)
                raise LookupError

            found = []

            async def read() -> None:
                async for pair in batch.batch_get_iter(slow()):
                    found.append(pair)
                    assert taken < len(found) + 2

            with pytest.raises(LookupError):
                await read()
            assert found == [(str(i), i) for i in range(10)]

    run(main())


@pytest.mark.parametrize(
    "over_cluster",
    [
        pytest.param(False, id="one server"),
        pytest.param(True, id="cluster", marks=pytest.mark.xdist_group("cluster")),
    ],
)
def test_a_client_of_another_event_loop_is_refused(
    over_cluster: bool, valkey: EmbeddedServer, request: pytest.FixtureRequest
) -> None:
    """The replies would go to the first loop, so the second one would wait for them forever."""
    observer = request.getfixturevalue("cluster_client" if over_cluster else "valkey_client")
    if over_cluster:
        node = request.getfixturevalue("cluster").masters[0]
        client: Any = redis.asyncio.RedisCluster(host=node.host, port=node.port, socket_timeout=None)
    else:
        client = redis.asyncio.Redis(port=valkey.port, socket_timeout=None)
    batch = AsyncFastBatch(client)
    assert asyncio.run(batch.batch_set({"loop": 1})).written == 1
    for call in (lambda: batch.batch_set({"loop": 2}), lambda: batch.batch_get(["loop"])):
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            asyncio.run(asyncio.wait_for(call(), 20))
    assert FastBatch(observer).batch_get(["loop"]) == {"loop": 1}


def test_a_value_that_cannot_be_decoded_follows_on_error(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set({"a": 1, "c": 3})
            await batch.client.set("b", b"\xc1")
            with pytest.raises(DecodeError, match="'b'"):
                await batch.batch_get(["a", "b", "c"])
            assert await batch.batch_get(["a", "b", "c"], on_error="report") == {"a": 1, "b": None, "c": 3}

    run(main())


@pytest.mark.parametrize("kind", [PlainConnection, OwnStreams])
def test_a_custom_connection_class_can_be_used(
    run: Runner, emptied: EmbeddedServer, kind: type[Connection]
) -> None:
    async def main() -> None:
        pool = redis.asyncio.ConnectionPool(connection_class=kind, host=emptied.host, port=emptied.port)
        batch = AsyncFastBatch(redis.asyncio.Redis.from_pool(pool))
        assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
        assert (await batch.batch_set(streamed(ITEMS.items()), nx=True)).skipped == len(ITEMS)
        assert await batch.batch_get(list(ITEMS)) == ITEMS
        assert await batch.batch_delete(list(ITEMS)) == len(ITEMS)
        await batch.close()

    run(main())


def test_concurrent_batches_take_turns_with_a_single_connection(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied, single_connection_client=True) as batch:
            await asyncio.gather(*(batch.batch_set({f"{n}:{key}": n for key in ITEMS}) for n in range(3)))
            assert await batch.client.dbsize() == 3 * len(ITEMS)

    run(main())


def test_a_source_cannot_use_the_single_connection(run: Runner, emptied: EmbeddedServer) -> None:
    """A source that uses the single connection would wait for the batch, which waits for the source."""

    async def main() -> None:
        async with connected(emptied, single_connection_client=True) as batch:
            await batch.batch_set(ITEMS)
            scanned = ((key, 1) async for key in batch.scan("*"))
            for source in (batch.batch_get_iter(list(ITEMS)), scanned):
                with pytest.raises(FastBatchError, match="single connection"):
                    await asyncio.wait_for(batch.batch_set(source), 20)
            assert await batch.batch_get(list(ITEMS)) == ITEMS

    run(main())


def test_batches_and_commands_may_run_concurrently(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:

            async def other() -> None:
                for n in range(200):
                    assert await batch.client.set("counter", n)
                    assert await batch.client.get("counter") == b"%d" % n

            some = [{f"{n}:{key}": value for key, value in ITEMS.items()} for n in range(4)]
            await asyncio.gather(other(), *(batch.batch_set(items) for items in some))
            got = await asyncio.gather(other(), *(batch.batch_get(list(items)) for items in some))
            assert got[1:] == some

    run(main())


def test_values_of_a_megabyte_are_written_and_read(run: Runner, emptied: EmbeddedServer) -> None:
    items = {f"big:{n}": b"%d" % n * 2**20 for n in range(9)}

    async def main() -> None:
        async with connected(emptied) as batch:
            assert (await batch.batch_set(items)).written == len(items)
            assert await batch.batch_get(list(items)) == items
            assert (await batch.batch_set(items, atomic=True)).written == len(items)

    run(main())


def test_tls_connections_can_be_used(run: Runner, tls_server: TlsServer) -> None:
    async def main() -> None:
        async with AsyncFastBatch.from_url(tls_server.url) as batch:
            assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
            assert await batch.batch_get(list(ITEMS)) == ITEMS
            assert await batch.batch_delete(ITEMS) == len(ITEMS)

    run(main())


def test_redis_py_can_use_the_connection_after_a_batch(run: Runner, emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied, max_connections=1) as batch:
            for n in range(3):
                await batch.batch_set(ITEMS)
                assert await batch.client.incr("count") == n + 1
                assert await batch.client.get("key:1")

    run(main())


def test_only_a_client_made_from_a_url_can_be_pickled(emptied: EmbeddedServer) -> None:
    async def main() -> None:
        batch = AsyncFastBatch.from_url(emptied.url)
        await batch.batch_set({"a": 1})
        async with pickle.loads(pickle.dumps(batch)) as other:
            assert await other.batch_get(["a"]) == {"a": 1}
        await batch.aclose()
        with pytest.raises(TypeError, match="from_url"):
            pickle.dumps(AsyncFastBatch(redis.asyncio.Redis()))

    asyncio.run(main())


def test_progress_and_on_chunk_are_called(emptied: EmbeddedServer) -> None:
    steps: list[tuple[int, int | None]] = []
    chunks: list[Any] = []

    async def main() -> None:
        async with connected(emptied) as batch:
            await batch.batch_set(
                ITEMS, progress=lambda *step: steps.append(step), on_chunk=chunks.append, chunk_size=500
            )

    asyncio.run(main())
    assert steps[-1] == (len(ITEMS), len(ITEMS))
    assert len(chunks) == len(steps) >= 10


def test_wrong_arguments_are_refused_before_anything_is_sent(emptied: EmbeddedServer) -> None:
    async def main() -> None:
        async with connected(emptied) as batch:
            with pytest.raises(ValueError, match="chunk_size"):
                await batch.batch_set({"a": 1}, chunk_size=0)
            with pytest.raises(ValueError, match="on_error"):
                await batch.batch_get(["a"], on_error="ignore")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await batch.batch_set("abc")
            assert await batch.client.dbsize() == 0

    asyncio.run(main())


def test_tables_are_written_and_read(run: Runner, emptied: EmbeddedServer) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(5000), "name": [f"n{n}" for n in range(5000)]})

    async def main() -> None:
        async with connected(emptied) as batch:
            report = await batch.batch_set_table(table, key="row:{id}", ex=100)
            assert (report.written, report.failed) == (5000, 0)
            keys = [f"row:{n}" for n in range(5000)]
            assert await batch.batch_get(keys[:1]) == {"row:0": {"id": 0, "name": "n0"}}
            assert await batch.batch_get_table(keys) == table
            assert await batch.batch_get_table(streamed(keys)) == table
            assert (await batch.batch_set_table(table, key="hash:{id}", as_="hash")).written == 5000
            with pytest.raises(EncodeError, match="nothing"):
                await batch.batch_set_table(table, key="nothing")

    run(main())
