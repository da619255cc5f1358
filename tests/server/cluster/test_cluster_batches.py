"""FastBatch does the same over a RedisCluster as over one server."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.connection import Connection

from cluster_changes import calls, reading, wait_until_replicated
from redis_fastbatch import BatchError, DecodeError, EncodeError, FastBatch
from servers import Cluster

ITEMS = {f"key:{n}": {"id": n, "name": f"näme {n}", "tags": [n, None, True]} for n in range(20_000)}

SOURCES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "dict": lambda items: items,
    "generator": lambda items: (pair for pair in items.items()),
}


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


@pytest.mark.parametrize("protocol", [2, pytest.param(3, marks=pytest.mark.full)])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"nx": True}, {"chunk_size": 3}])
def test_written_items_are_read(cluster: Cluster, protocol: int, source: str, options: dict[str, Any]) -> None:
    cluster.flush()
    with cluster.client(protocol=protocol) as client:
        batch = FastBatch(client)
        report = batch.batch_set(SOURCES[source](ITEMS), **options)
        assert (report.written, report.skipped, report.failed) == (len(ITEMS), 0, 0)
        assert report.confirmed_prefix == len(ITEMS)
        found = batch.batch_get(list(ITEMS))
        assert found == ITEMS
        assert list(found) == list(ITEMS)
        assert batch.batch_get(key for key in ITEMS) == ITEMS
        if "ex" in options:
            assert 0 < client.ttl("key:77") <= 100


def test_items_are_spread_over_all_masters(cluster: Cluster, cluster_client: redis.RedisCluster) -> None:
    FastBatch(cluster_client).batch_set(ITEMS)
    for master in cluster.masters:
        with master.client() as client:
            assert client.dbsize() > len(ITEMS) / 4
    assert cluster_client.get("key:5") == FastBatch(cluster_client)._codec.dumps(ITEMS["key:5"])


def test_keys_may_be_of_all_kinds_or_missing(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    batch.batch_set({"text": 1, b"bytes": 2, 3: 3, "schlüssel": 4, "{tag}a": 5})
    cluster_client.rpush("list", "a")
    keys = ["text", b"bytes", 3, "schlüssel", "{tag}a", "missing", "list"]
    assert list(batch.batch_get(keys, default=0).items()) == list(zip(keys, (1, 2, 3, 4, 5, 0, 0), strict=True))


def test_keys_are_written_as_redis_py_writes_them(cluster: Cluster) -> None:
    # The other client uses UTF-8, as redis-py sends the keys of other encodings to the wrong node.
    with cluster.client(encoding="latin-1") as client, cluster.client() as other:
        batch = FastBatch(client, "raw")
        batch.batch_set({"schlüssel": b"1"})
        assert other.get("schlüssel") == b"1"
        other.set("clé", b"2")
        assert batch.batch_get(["schlüssel", "clé"]) == {"schlüssel": b"1", "clé": b"2"}


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100_000])
def test_iteration_keeps_the_order_and_repeated_keys(
    cluster_client: redis.RedisCluster, chunk_size: int | None
) -> None:
    keys = [f"key:{n % 500}" for n in range(1200)]
    batch = FastBatch(cluster_client)
    batch.batch_set(ITEMS)
    assert list(batch.batch_get_iter(keys, chunk_size=chunk_size)) == [(key, ITEMS[key]) for key in keys]


def test_large_values_are_written_and_read(cluster_client: redis.RedisCluster) -> None:
    items = {f"big:{n}": b"%d" % n * 2**20 for n in range(20)}
    batch = FastBatch(cluster_client)
    assert batch.batch_set(items).written == len(items)
    assert batch.batch_get(list(items)) == items
    assert dict(batch.batch_get_iter(items)) == items


def test_conditions_apply_to_each_key(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    batch.batch_set({"a": 1, "b": 1})
    report = batch.batch_set({"a": 2, "c": 2}, nx=True)
    assert (report.written, report.skipped, report.skipped_keys) == (1, 1, ["a"])
    report = batch.batch_set({"b": 3, "d": 3}, xx=True)
    assert (report.written, report.skipped, report.skipped_keys) == (1, 1, ["d"])
    assert batch.batch_get("abcd"[n] for n in range(4)) == {"a": 1, "b": 3, "c": 2, "d": None}


def test_the_last_of_equal_keys_wins(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    pairs = [(f"key:{n % 100}", n) for n in range(50_000)]
    assert batch.batch_set(iter(pairs)).written == len(pairs)
    assert batch.batch_get(dict(pairs)) == dict(pairs)


def test_keys_are_scanned_and_deleted(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    batch.batch_set(ITEMS)
    assert {key.decode() for key in batch.scan("key:*")} == set(ITEMS)
    assert batch.batch_delete([*list(ITEMS)[:3000], "missing"]) == 3000
    assert batch.batch_delete(ITEMS) == len(ITEMS) - 3000
    assert list(batch.scan()) == []


def test_an_atomic_batch_needs_one_slot(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    items = {f"{{tag}}:{n}": n for n in range(5000)}
    assert batch.batch_set(items, atomic=True).written == len(items)
    assert batch.batch_set(iter(items.items()), atomic=True, ex=100).written == len(items)
    assert batch.batch_set(items, atomic=True, nx=True).skipped == len(items)
    assert batch.batch_get(list(items)) == items
    with pytest.raises(ValueError, match=r"'a' is in slot 15495, 'b' in 3300.*\{tag\}"):
        batch.batch_set({"a": 1, "b": 2}, atomic=True)
    with pytest.raises(TypeError, match="got one str"):
        batch.batch_set("ab", atomic=True)
    with pytest.raises(BatchError) as caught:
        batch.batch_set({**items, "{tag}": object()}, atomic=True)
    assert caught.value.report.failed == len(items) + 1
    assert batch.batch_get(["a", "b", "{tag}"]) == {"a": None, "b": None, "{tag}": None}


def test_an_item_that_cannot_be_encoded_fails_alone(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    failures: list[Any] = []
    items: dict[Any, Any] = {**ITEMS, "bad": object(), None: 1, "last": 2}
    report = batch.batch_set(items, on_error=lambda *failure: failures.append(failure))
    assert (report.written, report.failed, report.confirmed_prefix) == (len(items) - 2, 2, len(items))
    assert [key for key, _, _ in failures] == ["bad", None]
    with pytest.raises(BatchError, match="bad"):
        batch.batch_set(items)
    with pytest.raises(EncodeError):
        batch.batch_get(["a", None])


def test_a_value_that_cannot_be_decoded_follows_on_error(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client)
    batch.batch_set({"a": 1, "c": 3})
    cluster_client.set("b", b"\xc1")
    with pytest.raises(DecodeError, match="'b'"):
        batch.batch_get(["a", "b", "c"])
    assert batch.batch_get(["a", "b", "c"], on_error="report") == {"a": 1, "b": None, "c": 3}


def test_an_error_of_the_source_has_a_report(cluster_client: redis.RedisCluster) -> None:
    def failing() -> Any:
        for n in range(2345):
            yield f"key:{n}", n
        raise LookupError("no more")

    batch = FastBatch(cluster_client)
    with pytest.raises(LookupError, match="no more") as caught:
        batch.batch_set(failing())
    report = caught.value.report  # type: ignore[attr-defined]
    assert report.written == report.confirmed_prefix == 2345
    with pytest.raises(LookupError):
        batch.batch_get(key for key, _ in failing())
    with pytest.raises(LookupError):
        batch.batch_delete(key for key, _ in failing())


def test_a_custom_connection_class_can_be_used(cluster: Cluster) -> None:
    cluster.flush()
    with redis.RedisCluster.from_url(cluster.url, connection_class=PlainConnection) as client:
        pool = client.get_redis_connection(client.get_primaries()[0]).connection_pool
        assert pool.connection_class is PlainConnection
        batch = FastBatch(client)
        assert batch.batch_set(ITEMS).written == len(ITEMS)
        assert batch.batch_get(list(ITEMS)) == ITEMS
        assert batch.batch_delete(ITEMS) == len(ITEMS)


@pytest.mark.filterwarnings("ignore:Call to:DeprecationWarning")
@pytest.mark.parametrize("strategy", ["round_robin", "round_robin_replicas", "random_replica"])
def test_replicas_are_read_if_the_client_reads_from_replicas(cluster: Cluster, strategy: str) -> None:
    cluster.flush()
    with cluster.client() as client:
        FastBatch(client).batch_set(ITEMS)
    for master in cluster.masters:
        wait_until_replicated(master)
    before = [calls(node, "get") for node in cluster.nodes]
    with cluster.client(**reading(strategy)) as client:
        assert FastBatch(client).batch_get(list(ITEMS)) == ITEMS
    reads = [calls(node, "get") - count for node, count in zip(cluster.nodes, before, strict=True)]
    of_masters, of_replicas = sum(reads[:3]), sum(reads[3:])
    assert of_masters + of_replicas == len(ITEMS)
    assert of_replicas > len(ITEMS) / 3
    assert (of_masters == 0) == (strategy != "round_robin")


def test_masters_are_read_by_default(cluster: Cluster, cluster_client: redis.RedisCluster) -> None:
    before = [calls(node, "get") for node in cluster.replicas]
    FastBatch(cluster_client).batch_get(list(ITEMS))
    assert [calls(node, "get") for node in cluster.replicas] == before


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_workers_may_share_a_client(cluster_client: redis.RedisCluster, workers: int) -> None:
    batch = FastBatch(cluster_client)
    problems: list[BaseException] = []

    def run(n: int) -> None:
        try:
            items = {f"{n}:{key}": value for key, value in ITEMS.items()}
            assert batch.batch_set(items, workers=workers).written == len(items)
            assert batch.batch_get(list(items), workers=workers) == items
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_a_client_can_be_pickled(cluster: Cluster) -> None:
    with FastBatch.from_url(cluster.url, cluster=True) as batch:
        batch.batch_set({"a": 1, "b": 2})
        with pickle.loads(pickle.dumps(batch)) as other:
            assert isinstance(other.client, redis.RedisCluster)
            assert other.batch_get(["a", "b"]) == {"a": 1, "b": 2}


def test_progress_and_on_chunk_are_called(cluster_client: redis.RedisCluster) -> None:
    steps: list[tuple[int, int | None]] = []
    chunks: list[Any] = []
    FastBatch(cluster_client).batch_set(ITEMS, progress=lambda *step: steps.append(step), on_chunk=chunks.append)
    assert steps[-1] == (len(ITEMS), len(ITEMS))
    assert sum(stats.items for stats in chunks) == len(ITEMS)


def test_an_unnamed_index_of_pandas_is_left_out(cluster_client: redis.RedisCluster) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    batch = FastBatch(cluster_client)
    batch.batch_set_table(pandas.DataFrame({"id": [1, 2]}, index=["x", "y"]), key="id", prefix="unnamed:")
    assert batch.batch_get(["unnamed:1", "unnamed:2"]) == {"unnamed:1": {"id": 1}, "unnamed:2": {"id": 2}}


def test_tables_are_written_and_read(cluster_client: redis.RedisCluster) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(5000), "name": [f"n{n}" for n in range(5000)]})
    batch = FastBatch(cluster_client)
    assert batch.batch_set_table(table, key="row:{id}", ex=100).written == 5000
    keys = [f"row:{n}" for n in range(5000)]
    assert batch.batch_get(keys[:2]) == {"row:0": {"id": 0, "name": "n0"}, "row:1": {"id": 1, "name": "n1"}}
    assert batch.batch_get_table(keys) == table
    assert batch.batch_get_table([*keys[:3], "missing"], key="key").num_rows == 4
    report = batch.batch_set_table(table, key="row:{id}", nx=True)
    assert (report.skipped, report.skipped_keys[:1] != []) == (5000, True)


@pytest.mark.parametrize("options", [{}, {"ex": 100}], ids=["lasting", "expiring"])
def test_rows_are_written_as_hashes(cluster_client: redis.RedisCluster, options: dict[str, Any]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(3000), "name": [f"n{n}" if n % 7 else None for n in range(3000)]})
    cluster_client.set("row:8", "a string")
    failed: list[Any] = []
    report = FastBatch(cluster_client).batch_set_table(
        table, key="row:{id}", as_="hash", on_error=lambda *failure: failed.append(failure), **options
    )
    assert (report.written, list(report.failures), report.confirmed_prefix) == (2999, [8], 3000)
    assert [failure[:2] for failure in failed] == [(8, {b"id": b"8", b"name": b"n8"})]
    assert cluster_client.hgetall("row:7") == {b"id": b"7"}
    assert cluster_client.hgetall("row:2999") == {b"id": b"2999", b"name": b"n2999"}
    assert (cluster_client.ttl("row:2999") > 0) == bool(options)


def test_a_client_of_one_node_writes_only_keys_of_that_node(cluster: Cluster) -> None:
    """Valkey accepts MSETEX with keys of other nodes, so the package must not send it there."""
    cluster.flush()
    items = {f"k{i}": i for i in range(300)}
    with cluster.masters[0].client() as client:
        for options in ({}, {"ex": 60}):
            with pytest.raises(BatchError, match=r"\d+ 127\.0\.0\.1") as caught:
                FastBatch(client).batch_set(items, **options)
            report = caught.value.report
            assert report.written == client.dbsize() > 0
            assert report.written + report.failed == 300
    with cluster.client() as client:
        found = FastBatch(client).batch_get(items)
    assert {key for key, value in found.items() if value is None} == set(report.failures)


@pytest.mark.parametrize("options", [{"ex": 60}, {"nx": True}], ids=str)
@pytest.mark.parametrize("count", [2, 3000])
def test_an_atomic_batch_fails_if_transactions_are_forbidden(
    cluster: Cluster, options: dict[str, Any], count: int
) -> None:
    """If MULTI is refused, the SETs must not be executed on their own."""
    cluster.flush()
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", "alone", "on", ">pass", "~*", "&*", "+@all", "-multi")
    try:
        with cluster.client(username="alone", password="pass") as client:
            items = {f"{{t}}{i}": i for i in range(count)}
            with pytest.raises(BatchError, match="permission") as caught:
                FastBatch(client).batch_set(items, atomic=True, **options)
            assert (caught.value.report.written, caught.value.report.failed) == (0, count)
            assert set(FastBatch(client).batch_get(items).values()) == {None}
    finally:
        for node in cluster.nodes:
            with node.client() as admin:
                admin.execute_command("ACL", "DELUSER", "alone")
