"""Several threads carry out one batch. No item is lost, and the report is the sum."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import BatchError, DecodeError, EncodeError, FastBatch, MsgpackCodec
from redis_fastbatch._transports.threads import SLICE, Share, Source
from redis_fastbatch.report import BatchReport, ChunkStats
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, Cluster, memory_left, wait_until

pytestmark = pytest.mark.timeout(60)

N = 30_000


def pairs(count: int = N) -> Iterator[tuple[str, int]]:
    return ((f"key:{i}", i) for i in range(count))


def connect(proxy: FaultProxy, **options: Any) -> redis.Redis:
    """Connect through the proxy, without retries."""
    return redis.Redis(host=proxy.host, port=proxy.port, retry=Retry(NoBackoff(), 0), **options)


def wait_for_a_loss(proxy: FaultProxy) -> Callable[[ChunkStats], None]:
    """Return a hook that waits until a connection is lost, so that no thread takes all items before."""
    return lambda _: wait_until(lambda: proxy.connections > proxy.open_connections, "a connection is lost")


def existing(client: redis.Redis, count: int = N) -> set[int]:
    """Return the numbers of the keys that exist, and check their values."""
    found = FastBatch(client).batch_get([f"key:{i}" for i in range(count)])
    assert all(value in (None, i) for i, value in enumerate(found.values()))
    return {i for i, value in enumerate(found.values()) if value is not None}


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize("options", [{}, {"ex": 1000}, {"nx": True}, {"chunk_size": 7}], ids=str)
def test_all_items_are_written_once(client: redis.Redis, workers: int, options: dict[str, Any]) -> None:
    counts: Counter[int] = Counter()
    report = FastBatch(client).batch_set(
        pairs(5000), workers=workers, on_chunk=lambda stats: counts.update(items=stats.items), **options
    )
    assert (report.written, report.skipped, report.failed, report.confirmed_prefix) == (5000, 0, 0, 5000)
    assert counts["items"] == 5000
    assert report.bytes_sent > 0
    assert report.seconds > 0
    assert existing(client, 5000) == set(range(5000))


def test_a_source_may_have_fewer_items_than_workers(client: redis.Redis) -> None:
    fb = FastBatch(client)
    assert fb.batch_set(dict(pairs(1000)), workers=3).written == 1000
    assert fb.batch_set([], workers=3) == BatchReport(seconds=pytest.approx(0, abs=60))
    assert fb.batch_set(pairs(2), workers=5).written == 2
    assert fb.batch_get([], workers=3) == {}


def test_each_worker_has_a_connection(valkey: EmbeddedServer) -> None:
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:

        def items() -> Iterator[tuple[str, int]]:
            # Threads connect before they take items.
            wait_until(lambda: proxy.connections == 4, "all threads are connected")
            yield from pairs(1000)

        assert FastBatch(client).batch_set(items(), workers=4).written == 1000
        assert proxy.connections == 4


def test_skipped_and_failed_items_are_added_up(acl_server: AclUser) -> None:
    kinds = ("allowed:old:", "allowed:new:", "forbidden:", "allowed:bad:")
    items = [(f"{kinds[i % 4]}{i}", object() if i % 4 == 3 else i) for i in range(4000)]
    with acl_server.client() as client:
        FastBatch(client).batch_set(((key, 0) for key, _ in items if "old" in key), workers=2)
        failed: list[Any] = []
        report = FastBatch(client).batch_set(
            items, nx=True, workers=4, on_error=lambda key, value, error: failed.append(key)
        )
    assert (report.written, report.skipped, report.failed) == (1000, 1000, 2000)
    assert report.total == report.confirmed_prefix == 4000
    assert sorted(failed) == sorted(key for key, _ in items if "forbidden" in key or "bad" in key)
    assert len(report.failures) == len(report.skipped_keys) == 1000


def test_failures_are_exact_if_the_server_is_out_of_memory(client: redis.Redis) -> None:
    items = {f"key:{i}": "x" * 5000 for i in range(1200)}
    with memory_left(client, 4_000_000):
        report = FastBatch(client).batch_set(items, workers=3, on_error="report")
    assert 0 < report.failed < 1000
    found = FastBatch(client).batch_get(items)
    assert {key for key, value in found.items() if value is None} == set(report.failures)


def test_hooks_are_called_by_one_thread_at_a_time(valkey_client: redis.Redis) -> None:
    inside = threading.Lock()
    done: list[int] = []
    threads = set()

    def alone(_: ChunkStats) -> None:
        assert inside.acquire(blocking=False), "two threads at once"
        threads.add(threading.get_ident())
        time.sleep(0.0005)
        inside.release()

    def progress(count: int, total: int | None) -> None:
        assert total == N
        done.append(count)

    fb = FastBatch(valkey_client)
    report = fb.batch_set(dict(pairs()), workers=3, on_chunk=alone, progress=progress, chunk_size=200)
    assert report.written == N
    assert len(threads) > 1
    assert done == sorted(done)
    assert done[-1] == N


def test_other_workers_write_what_a_lost_connection_left(valkey: EmbeddedServer) -> None:
    """Only the items in flight over that connection fail, and their outcome is unknown."""
    with valkey.client() as direct:
        direct.flushall()
        with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
            # The second connection, because the first may only ask for the server's commands.
            proxy.inject()
            proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1000, then=Then.CUT))
            failed: dict[str, Exception] = {}
            report = FastBatch(client).batch_set(
                pairs(),
                workers=3,
                chunk_size=100,
                on_error=lambda key, _, error: failed.update({key: error}),
                on_chunk=wait_for_a_loss(proxy),
            )
        assert 0 < report.failed == len(failed) < N / 2
        assert report.written == N - len(failed)
        assert all("outcome unknown" in str(error) or "not sent" in str(error) for error in failed.values())
        missing = {f"key:{i}" for i in range(N)} - {f"key:{i}" for i in existing(direct)}
        assert missing <= failed.keys()
        # The items of the lost connection are not settled.
        assert report.confirmed_prefix <= min(int(key[4:]) for key in failed)


def test_a_lost_connection_of_one_worker_is_a_batch_error(valkey: EmbeddedServer) -> None:
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        proxy.inject()
        proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1000, then=Then.CUT))
        with pytest.raises(BatchError, match="of 30,000 items were not written") as caught:
            FastBatch(client).batch_set(pairs(), workers=2, chunk_size=100, on_chunk=wait_for_a_loss(proxy))
    assert caught.value.report.written + caught.value.report.failed == N


def test_a_batch_whose_connections_are_all_lost_can_be_resumed(valkey: EmbeddedServer) -> None:
    items = [(f"key:{i}", f"{i:0200}") for i in range(N)]
    with valkey.client() as direct:
        direct.flushall()
        with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
            proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1_200_000, then=Then.CUT), connections=None)
            with pytest.raises(redis.ConnectionError) as caught:
                FastBatch(client).batch_set(items, workers=3, on_error="report")
        report = caught.value.report  # type: ignore[attr-defined]
        found = FastBatch(direct).batch_get([key for key, _ in items])
        done = [found[key] == value for key, value in items]
        assert 0 < report.written <= sum(done) < N
        assert 0 < report.confirmed_prefix < N
        assert all(done[: report.confirmed_prefix])
        # The batch can resume from there.
        rest = items[report.confirmed_prefix :]
        assert FastBatch(direct).batch_set(rest, workers=3).written == len(rest)
        assert FastBatch(direct).batch_get([key for key, _ in items]) == dict(items)


def test_a_closed_port_is_a_connection_error() -> None:
    with EmbeddedServer() as server:
        client = server.client(retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError) as caught:
        FastBatch(client).batch_set(pairs(10), workers=2)
    assert caught.value.report.written == caught.value.report.confirmed_prefix == 0  # type: ignore[attr-defined]
    with pytest.raises(redis.ConnectionError):
        FastBatch(client).batch_get(["key:1"], workers=2)


def test_workers_that_get_no_connection_are_not_needed(valkey_client: redis.Redis) -> None:
    options = valkey_client.connection_pool.connection_kwargs
    with redis.Redis.from_pool(redis.ConnectionPool(max_connections=4, **options)) as client:
        pool = client.connection_pool
        borrowed = [pool.get_connection() for _ in range(3)]
        assert FastBatch(client).batch_set(pairs(), workers=4).written == N
        for connection in borrowed:
            pool.release(connection)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_pool_may_have_fewer_connections_than_workers(valkey_client: redis.Redis, pool: Any, most: int) -> None:
    options = valkey_client.connection_pool.connection_kwargs
    with redis.Redis.from_pool(pool(max_connections=most, **options)) as client:
        assert FastBatch(client).batch_set(pairs(), workers=4).written == N
        assert list(FastBatch(client).batch_get([key for key, _ in pairs()], workers=4).values()) == list(range(N))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_refuse_the_same_keys(client: redis.Redis, workers: int) -> None:
    for keys in (["a", ["l"]], ["a", None]):
        with pytest.raises(EncodeError, match=r"a key must be str, bytes or int, found (list|NoneType)"):
            FastBatch(client).batch_get(keys, workers=workers)
        with pytest.raises(EncodeError, match=r"a key must be str, bytes or int, found (list|NoneType)"):
            FastBatch(client).batch_get(iter(keys), workers=workers)


@pytest.mark.parametrize("most", [1, 2])
def test_a_cluster_may_allow_fewer_connections_than_workers(cluster: Cluster, most: int) -> None:
    cluster.flush()
    with cluster.client(max_connections=most) as client:
        assert FastBatch(client).batch_set(pairs(), workers=4).written == N
        assert list(FastBatch(client).batch_get([key for key, _ in pairs()], workers=4).values()) == list(range(N))


@pytest.mark.parametrize("error", [ValueError("row 7001"), KeyboardInterrupt()])
def test_items_before_an_error_of_the_source_are_written(valkey_client: redis.Redis, error: BaseException) -> None:

    def items() -> Iterator[tuple[str, int]]:
        yield from pairs(7001)
        raise error

    with pytest.raises(type(error)) as caught:
        FastBatch(valkey_client).batch_set(items(), workers=3)
    assert caught.value is error
    report = error.report  # type: ignore[union-attr]
    assert (report.written, report.confirmed_prefix, report.failed) == (7001, 7001, 0)
    assert existing(valkey_client) == set(range(7001))


def test_a_hook_that_raises_ends_the_batch(valkey_client: redis.Redis) -> None:
    def monitor(stats: ChunkStats) -> None:
        raise RuntimeError("the monitor is down")

    with pytest.raises(RuntimeError, match="the monitor is down") as caught:
        FastBatch(valkey_client).batch_set(pairs(300_000), workers=2, on_chunk=monitor)
    report = caught.value.report  # type: ignore[attr-defined]
    assert report.total < 300_000
    assert set(range(report.confirmed_prefix)) <= existing(valkey_client, report.confirmed_prefix)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_or_interrupt_in_a_codec_ends_the_batch(valkey_client: redis.Redis, error: BaseException) -> None:
    """Only an Exception fails an item; these errors end the batch."""

    def default(value: Any) -> Any:
        raise error

    items = {f"key:{i}": object() if i == 1100 else i for i in range(N)}
    with pytest.raises(type(error)) as caught:
        FastBatch(valkey_client, MsgpackCodec(default=default)).batch_set(items, workers=2)
    assert caught.value is error
    report = error.report  # type: ignore[union-attr]
    assert report.confirmed_prefix <= 1100
    assert set(range(report.confirmed_prefix)) <= existing(valkey_client)
    assert report.written == len(existing(valkey_client))


# Reading


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_read_the_same_as_one_thread(client: redis.Redis, workers: int) -> None:
    fb = FastBatch(client)
    fb.batch_set(pairs())
    keys: list[Any] = [f"key:{i}" for i in range(0, 2 * N, 3)]
    found = fb.batch_get(keys, default="none", workers=workers)
    assert found == fb.batch_get(keys, default="none")
    assert list(found) == keys


def test_a_value_that_cannot_be_decoded_follows_on_error(client: redis.Redis) -> None:
    fb = FastBatch(client)
    fb.batch_set(pairs(5000))
    client.set("key:777", b"\xc1")
    keys = [f"key:{i}" for i in range(5000)]
    with pytest.raises(DecodeError, match="key:777"):
        fb.batch_get(keys, workers=3)
    refused: list[Any] = []
    found = fb.batch_get(keys, workers=3, on_error=lambda key, data, error: refused.append((key, data)))
    assert refused == [("key:777", b"\xc1")]
    assert found == {key: None if key == "key:777" else i for i, key in enumerate(keys)}


def test_a_lost_connection_is_raised_while_reading(valkey: EmbeddedServer) -> None:
    with valkey.client() as direct:
        FastBatch(direct).batch_set(pairs())
    keys = [f"key:{i}" for i in range(N)]
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        # The connections of both threads, because one thread may read everything.
        proxy.inject(Fault(Direction.TO_CLIENT, after_bytes=20_000, then=Then.CUT), connections=2)
        with pytest.raises(redis.ConnectionError):
            FastBatch(client).batch_get(keys, workers=2)
        # With retries, all values are read.
        again = redis.Redis(host=proxy.host, port=proxy.port, retry=Retry(NoBackoff(), 1))
        proxy.inject(Fault(Direction.TO_CLIENT, after_bytes=20_000, then=Then.CUT), connections=2)
        with again:
            assert list(FastBatch(again).batch_get(keys, workers=2).values()) == list(range(N))


# Positions of items in the source


def test_a_share_forgets_settled_slices() -> None:
    """A batch that runs for hours must not remember every slice."""
    share, settled = Share(Source(range(100 * SLICE))), 0
    share.settled = lambda: max(0, settled - 3 * SLICE)
    for number in share:
        assert number == settled
        settled += 1
        assert len(share._slices) <= 5
    assert share.position(settled - 1) == settled - 1
    assert share.position(settled - 3 * SLICE) == settled - 3 * SLICE
    assert share.position(settled) is None


def test_the_first_item_not_begun_is_known_while_threads_give_items_back() -> None:
    source = Source([])

    class Position(int):
        """Gives more items back whenever it is compared, as another thread may."""

        def __lt__(self, other: int) -> bool:
            source.give_back(9, ["late"])
            return int(self) < int(other)

    source.give_back(Position(7), ["a"])
    source.give_back(Position(5), ["b"])
    assert source.unbegun == 5


def test_shares_know_the_positions_of_their_items() -> None:
    source = Source(range(4 * SLICE + 10))
    one, other = Share(source), Share(source)
    first, second = iter(one), iter(other)
    assert next(first) == 0
    assert next(second) == SLICE
    assert [next(first) for _ in range(SLICE)][-1] == 2 * SLICE
    assert one.position(SLICE) == 2 * SLICE
    assert other.position(0) == SLICE
    one.give_back()
    assert source.unbegun == 2 * SLICE + 1
    rest = list(second)
    assert sorted(rest) == [*range(SLICE + 1, 2 * SLICE), *range(2 * SLICE + 1, 4 * SLICE + 10)]
    assert other.position(len(rest)) is not None
    assert not source.left_over
