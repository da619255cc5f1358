"""batch_set writes items from every kind of source, to every server."""

from __future__ import annotations

import collections
import gc
import tracemalloc
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until
from tiers import examples


def record(i: int) -> dict[str, Any]:
    return {"id": i, "name": f"name {i}", "score": i / 7, "tags": ["a", "b"], "active": i % 2 == 0}


ROWS = {f"row:{i}": record(i) for i in range(2500)}


def stored(client: redis.Redis, keys: Any) -> list[Any]:
    return [None if data is None else msgpack.unpackb(data) for data in client.mget(list(keys))]


class OwnMapping(Mapping[str, Any]):
    """A mapping that is not a dict."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


@pytest.mark.parametrize(
    "options", [{}, {"ex": 100}, {"nx": True}, {"atomic": True}, {"atomic": True, "ex": 100}], ids=str
)
def test_thousands_of_rows_are_written(client: redis.Redis, options: dict[str, Any]) -> None:
    report = FastBatch(client).batch_set(ROWS, **options)
    assert (report.written, report.skipped, report.failed) == (2500, 0, 0)
    assert report.confirmed_prefix == report.total == 2500
    assert client.dbsize() == 2500
    assert stored(client, ROWS) == list(ROWS.values())
    assert all(ttl == -1 or 0 < ttl <= 100 for ttl in (client.ttl("row:0"), client.ttl("row:2499")))
    assert (client.ttl("row:7") > 0) == ("ex" in options)


@pytest.mark.parametrize(
    "form",
    [
        dict,
        OwnMapping,
        types.MappingProxyType,
        collections.OrderedDict,
        lambda rows: list(rows.items()),
        lambda rows: rows.items(),
        lambda rows: iter(rows.items()),
        lambda rows: ([key, value] for key, value in rows.items()),
        lambda rows: zip(rows.keys(), rows.values(), strict=True),
    ],
    ids=["dict", "Mapping", "proxy", "OrderedDict", "list", "view", "iterator", "generator", "zip"],
)
def test_items_may_be_any_mapping_or_iterable_of_pairs(
    valkey_client: redis.Redis, form: Callable[[Any], Any]
) -> None:
    report = FastBatch(valkey_client).batch_set(form(ROWS))
    assert report.written == valkey_client.dbsize() == 2500
    assert stored(valkey_client, ["row:0", "row:2499"]) == [record(0), record(2499)]


def test_an_empty_batch_writes_nothing(client: redis.Redis) -> None:
    for nothing in ({}, [], iter(())):
        for options in ({}, {"ex": 5}, {"nx": True}, {"atomic": True}):
            report = FastBatch(client).batch_set(nothing, **options)
            assert (report.total, report.bytes_sent, report.confirmed_prefix) == (0, 0, 0)
    assert client.dbsize() == 0


@pytest.mark.parametrize("count", [1, 2, 99, 100, 999, 1000, 1001, 1999, 2001])
@pytest.mark.parametrize("options", [{}, {"ex": 9}, {"xx": True}], ids=str)
def test_any_number_of_items_is_written(valkey_client: redis.Redis, count: int, options: dict[str, Any]) -> None:
    valkey_client.mset({f"k{i}": "old" for i in range(count)})
    assert FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(count)}, **options).written == count
    assert stored(valkey_client, [f"k{i}" for i in range(count)]) == list(range(count))


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 1000, 5000])
def test_chunk_size_limits_the_items_of_a_command(valkey_client: redis.Redis, chunk_size: int) -> None:
    valkey_client.config_resetstat()
    assert (
        FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(2000)}, chunk_size=chunk_size).written
        == 2000
    )
    calls = valkey_client.info("commandstats")["cmdstat_mset"]["calls"]
    assert calls >= -(-2000 // chunk_size)
    assert chunk_size > 1000 or calls == -(-2000 // chunk_size)


def test_the_last_of_equal_keys_wins(client: redis.Redis) -> None:
    for options in ({}, {"ex": 50}, {"atomic": True}):
        pairs = [("k", i) for i in range(3000)]
        assert FastBatch(client).batch_set(pairs, **options).written == 3000
        assert stored(client, ["k"]) == [2999]


def test_values_replace_keys_of_other_types(client: redis.Redis) -> None:
    client.rpush("list", 1, 2)
    client.hset("hash", "a", 1)
    assert FastBatch(client).batch_set({"list": 1, "hash": 2}).written == 2
    assert stored(client, ["list", "hash"]) == [1, 2]


def test_keys_may_be_str_bytes_or_int(client: redis.Redis) -> None:
    items = {"text": 1, b"bytes\xff\x00": 2, 17: 3, "": 4, "sp ace\r\n": 5, "naïve 語": 6, -1: 7}
    assert FastBatch(client).batch_set(items).written == 7
    names = ["text", b"bytes\xff\x00", "17", "", "sp ace\r\n", "naïve 語", "-1"]
    assert stored(client, names) == list(range(1, 8))
    assert FastBatch(client).batch_get(list(items)) == items


def test_values_of_every_size_are_written(client: redis.Redis) -> None:
    sizes = [0, 1, 31, 32, 255, 256, 4095, 4096, 32_767, 32_768, 65_535, 65_536, 1_000_000, 5_000_000]
    items = {f"v{size}": b"\x00\r\n$" * (size // 4) + b"x" * (size % 4) for size in sizes}
    for options in ({}, {"ex": 30}, {"nx": True}):
        client.flushall()
        report = FastBatch(client, "raw").batch_set(items, **options)
        assert report.written == len(sizes)
        assert report.bytes_sent > sum(sizes)
        assert [client.get(key) for key in items] == list(items.values())


def test_many_large_values_are_written(client: redis.Redis) -> None:
    items = {f"big{i}": b"%d" % i * 200_000 for i in range(100)}
    for options in ({}, {"px": 60_000}, {"atomic": True}):
        assert FastBatch(client, "raw").batch_set(items, **options).written == 100
        assert client.strlen("big7") == 200_000
        assert client.get("big99") == items["big99"]


@given(
    items=st.dictionaries(
        st.text(min_size=1, max_size=20) | st.binary(min_size=1, max_size=20),
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=50) | st.lists(st.booleans(), max_size=3),
        max_size=50,
    ),
    chunk_size=st.integers(1, 60),
    options=st.sampled_from([{}, {"ex": 100}, {"nx": True}, {"atomic": True}, {"atomic": True, "px": 99_999}]),
)
@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_items_are_written(
    valkey_client: redis.Redis, items: dict[Any, Any], chunk_size: int, options: dict[str, Any]
) -> None:
    valkey_client.flushall()
    distinct = {key.encode() if isinstance(key, str) else key: value for key, value in items.items()}
    report = FastBatch(valkey_client).batch_set(items, chunk_size=chunk_size, **options)
    assert report.written + report.skipped == len(items)
    assert valkey_client.dbsize() == len(distinct)
    if len(distinct) == len(items):
        assert FastBatch(valkey_client).batch_get(items) == items


# -- generators and memory -----------------------------------------------------------------------


def test_items_of_a_generator_are_sent_while_it_runs(valkey_client: redis.Redis) -> None:
    sizes: list[int] = []

    def source() -> Iterator[tuple[str, str]]:
        for i in range(20_000):
            if i % 5000 == 4999:
                sizes.append(valkey_client.dbsize())
            yield f"k{i}", "x" * 100

    assert FastBatch(valkey_client).batch_set(source()).written == 20_000
    assert sizes[1] > 0, "no item had arrived when half were encoded"


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}], ids=str)
def test_memory_is_bounded_by_the_window(valkey_client: redis.Redis, options: dict[str, Any]) -> None:
    def source() -> Iterator[tuple[str, bytes]]:
        for i in range(60_000):
            yield f"k{i % 50}", b"%d" % i * 100

    fast = FastBatch(valkey_client, "raw")
    fast.batch_set({"warm": b"up"}, **options)
    gc.collect()
    tracemalloc.start()
    try:
        report = fast.batch_set(source(), **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.bytes_sent > 25_000_000
    assert peak < 6_000_000


def test_written_items_are_freed(valkey_client: redis.Redis) -> None:
    alive = 0
    most = 0

    class Value(str):
        def __init__(self, _: str) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def source() -> Iterator[tuple[str, Value]]:
        nonlocal most
        for i in range(30_000):
            most = max(most, alive)
            yield f"k{i % 9}", Value("x" * 200)

    FastBatch(valkey_client).batch_set(source())
    assert most < 8000
    assert alive == 0


# -- many batches --------------------------------------------------------------------------------


def test_many_batches_use_few_connections(client: redis.Redis) -> None:
    # By their name, because other tests' connections may still be closing.
    settings = {**client.connection_pool.connection_kwargs, "client_name": "many-batches"}
    with redis.Redis(connection_pool=redis.ConnectionPool(**settings)) as named:
        fast = FastBatch(named)
        for i in range(200):
            assert fast.batch_set({f"k{j}": i for j in range(10)}, **({"ex": 9} if i % 2 else {})).written == 10
        assert stored(client, [f"k{j}" for j in range(10)]) == [199] * 10
        assert sum(each["name"] == "many-batches" for each in client.client_list()) <= 3


def test_the_client_may_be_used_between_batches(client: redis.Redis) -> None:
    fast = FastBatch(client)
    for i in range(20):
        fast.batch_set({"a": i})
        assert msgpack.unpackb(client.get("a")) == i
        client.set("b", msgpack.packb([i]))
        assert fast.batch_get(["a", "b"]) == {"a": i, "b": [i]}


def test_the_context_manager_closes_the_client(valkey: EmbeddedServer) -> None:
    with valkey.client() as watcher:
        name = "closed-with-its-context"
        with FastBatch.from_url(valkey.url, client_name=name) as fast:
            fast.batch_set({"a": 1})
            assert fast.client.ping()
            assert name in {one["name"] for one in watcher.client_list()}
        wait_until(lambda: name not in {one["name"] for one in watcher.client_list()}, "the connection closes")


def test_keys_are_scanned_and_deleted(client: redis.Redis) -> None:
    fast = FastBatch(client)
    fast.batch_set({f"user:{i}": i for i in range(3000)})
    fast.batch_set({f"other:{i}": i for i in range(10)})
    found = set(fast.scan("user:*", count=500))
    assert found == {b"user:%d" % i for i in range(3000)}
    assert fast.batch_delete(fast.scan("user:*")) == 3000
    assert fast.batch_delete(found) == 0
    assert fast.batch_delete([]) == 0
    assert fast.batch_delete(iter(["other:1", b"other:2", "none"])) == 2
    assert client.dbsize() == 8
    assert len(list(fast.scan())) == 8
