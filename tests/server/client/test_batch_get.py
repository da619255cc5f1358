"""batch_get and batch_get_iter return the values for keys of every kind, from every server."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import DecodeError, EncodeError, FastBatch
from redis_fastbatch._engine.read import FIRST_KEYS, READ_WINDOW
from tiers import examples


def packed(items: dict[Any, Any]) -> dict[Any, bytes]:
    return {key: msgpack.packb(value) for key, value in items.items()}


def test_thousands_of_rows_are_read_in_order(client: redis.Redis) -> None:
    rows = {f"row:{i}": {"id": i, "name": f"n{i}", "tags": [i, str(i)]} for i in range(5000)}
    client.mset(packed(rows))
    found = FastBatch(client).batch_get(rows)
    assert found == rows
    assert list(found) == list(rows)
    assert list(FastBatch(client).batch_get_iter(rows)) == list(rows.items())


@pytest.mark.parametrize("count", [0, 1, 2, FIRST_KEYS - 1, FIRST_KEYS, FIRST_KEYS + 1, 1000, 1001, 4000, 4001])
def test_any_number_of_keys_is_read(valkey_client: redis.Redis, count: int) -> None:
    rows = {f"k{i}": i for i in range(count)}
    if rows:
        valkey_client.mset(packed(rows))
    fast = FastBatch(valkey_client)
    assert fast.batch_get(rows) == rows
    assert list(fast.batch_get_iter(iter(rows))) == list(rows.items())


def test_a_missing_key_has_the_default(client: redis.Redis) -> None:
    client.mset(packed({f"k{i}": i for i in range(0, 3000, 2)}))
    fast = FastBatch(client)
    keys = [f"k{i}" for i in range(3000)]
    assert fast.batch_get(keys) == {f"k{i}": None if i % 2 else i for i in range(3000)}
    missing = object()
    found = fast.batch_get(keys, default=missing)
    assert [value is missing for value in found.values()] == [bool(i % 2) for i in range(3000)]
    assert sum(value == "none" for _, value in fast.batch_get_iter(keys, default="none")) == 1500


def test_a_stored_none_is_not_missing(client: redis.Redis) -> None:
    client.set("null", msgpack.packb(None))
    assert FastBatch(client).batch_get(["null", "gone"], default="default") == {"null": None, "gone": "default"}


def test_a_key_of_another_type_has_the_default(client: redis.Redis) -> None:
    client.rpush("list", 1)
    client.hset("hash", "f", 1)
    client.sadd("set", 1)
    client.zadd("zset", {"m": 1})
    client.xadd("stream", {"f": 1})
    client.set("text", msgpack.packb("v"))
    keys = ["list", "hash", "text", "set", "zset", "stream"]
    assert FastBatch(client).batch_get(keys, default=0) == {**dict.fromkeys(keys, 0), "text": "v"}


def test_the_result_has_the_keys_as_given(client: redis.Redis) -> None:
    client.mset(packed({"a": 1, b"b\xff": 2, "17": 3, "": 4, "é": 5}))
    keys = ["a", b"b\xff", 17, "", "é", "é".encode()]
    found = FastBatch(client).batch_get(keys)
    assert found == dict(zip(keys, [1, 2, 3, 4, 5, 5], strict=True))
    assert list(found) == keys


def test_repeated_keys_may_be_read(client: redis.Redis) -> None:
    client.mset(packed({"a": 1, "b": 2}))
    fast = FastBatch(client)
    assert fast.batch_get(["a", "b", "a", "a"]) == {"a": 1, "b": 2}
    assert list(fast.batch_get_iter(["a", "b", "a"])) == [("a", 1), ("b", 2), ("a", 1)]
    assert fast.batch_get(["a"] * 5000) == {"a": 1}


@pytest.mark.parametrize("form", [list, tuple, set, iter, dict.fromkeys, lambda keys: (key for key in keys)])
def test_keys_may_be_any_iterable(valkey_client: redis.Redis, form: Any) -> None:
    valkey_client.mset(packed({"a": 1, "b": 2}))
    assert FastBatch(valkey_client).batch_get(form(["a", "b"])) == {"a": 1, "b": 2}


@pytest.mark.parametrize("keys", ["text", b"bytes", bytearray(b"x")])
def test_a_string_is_refused_as_keys(valkey_client: redis.Redis, keys: Any) -> None:
    fast = FastBatch(valkey_client)
    for call in (fast.batch_get, fast.batch_delete):
        with pytest.raises(TypeError, match="keys must be an iterable of keys, got one "):
            call(keys)


def test_a_string_is_refused_as_keys_of_iteration_and_workers(valkey_client: redis.Redis) -> None:
    with pytest.raises(TypeError, match="keys must be an iterable of keys, got one "):
        list(FastBatch(valkey_client).batch_get_iter("text"))
    with pytest.raises(TypeError, match="keys must be an iterable of keys, got one "):
        FastBatch(valkey_client).batch_get("text", workers=2)


@pytest.mark.parametrize("key", [None, True, ("a",), 1j])
def test_a_key_of_a_wrong_type_is_an_encode_error(client: redis.Redis, key: Any) -> None:
    client.set("a", msgpack.packb(1))
    fast = FastBatch(client)
    with pytest.raises(EncodeError, match=type(key).__name__):
        fast.batch_get(["a", key, "b"])
    with pytest.raises(EncodeError, match=type(key).__name__):
        list(fast.batch_get_iter(["a", key, "b"]))
    with pytest.raises(EncodeError, match=type(key).__name__):
        fast.batch_delete(["b", key])
    assert fast.batch_get(["a"]) == {"a": 1}
    assert client.ping()


def test_an_error_of_the_source_of_keys_is_raised(client: redis.Redis) -> None:
    def source() -> Iterator[str]:
        yield from (f"k{i}" for i in range(500))
        raise LookupError("no more keys")

    fast = FastBatch(client)
    for call in (fast.batch_get, fast.batch_delete, lambda keys: list(fast.batch_get_iter(keys))):
        with pytest.raises(LookupError, match="no more keys"):
            call(source())
    assert client.ping()
    assert fast.batch_get(["k1"]) == {"k1": None}


def test_values_of_every_size_are_read(client: redis.Redis) -> None:
    sizes = [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 65_535, 65_536, 131_072, 1_000_000, 9_000_000]
    items = {f"v{size}": bytes(range(256)) * (size // 256) + b"\r" * (size % 256) for size in sizes}
    client.mset(items)
    fast = FastBatch(client, "raw")
    assert fast.batch_get(items) == items
    assert list(fast.batch_get_iter(items, chunk_size=2)) == list(items.items())
    backwards = list(reversed(items))
    assert list(fast.batch_get(backwards)) == backwards


def test_many_large_values_are_read(client: redis.Redis) -> None:
    items = {f"big{i}": bytes([i]) * 300_000 for i in range(100)}
    client.mset(items)
    assert FastBatch(client, "raw").batch_get(items) == items


@given(
    items=st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.text(max_size=300)
            | st.binary(max_size=2000),
            lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
            max_leaves=10,
        ),
        max_size=300,
    ),
    extra=st.lists(st.text(min_size=1, max_size=3), max_size=30),
    chunk_size=st.integers(1, 400),
)
@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_read(
    valkey_client: redis.Redis, items: dict[str, Any], extra: list[str], chunk_size: int
) -> None:
    valkey_client.flushall()
    fast = FastBatch(valkey_client)
    fast.batch_set(items)
    keys = [*items, *extra]
    expected = [(key, items.get(key, "missing")) for key in keys]
    assert fast.batch_get(keys, default="missing") == dict(expected)
    assert list(fast.batch_get_iter(keys, default="missing", chunk_size=chunk_size)) == expected


def test_a_value_longer_than_max_value_size_is_refused(client: redis.Redis) -> None:
    client.mset({"short": b"x" * 100, "long": b"y" * 101, "after": b"z"})
    fast = FastBatch(client, "raw", max_value_size=100)
    with pytest.raises(DecodeError, match="max_value_size") as caught:
        fast.batch_get(["short", "long", "after"])
    assert caught.value.key == "long"
    assert fast.batch_get(["short", "after"]) == {"short": b"x" * 100, "after": b"z"}
    assert client.get("after") == b"z"


def test_a_value_longer_than_max_value_size_is_refused_with_a_custom_connection(client: redis.Redis) -> None:
    class Logged(redis.Connection):
        def send_packed_command(self, *arguments: Any, **options: Any) -> None:
            super().send_packed_command(*arguments, **options)

    client.mset({"short": b"x" * 100, "long": b"y" * 101})
    address = client.connection_pool.connection_kwargs
    pool = redis.ConnectionPool(connection_class=Logged, host=address["host"], port=address["port"])
    fast = FastBatch(redis.Redis(connection_pool=pool), "raw", max_value_size=100)
    with pytest.raises(DecodeError, match="a value of 101 bytes: max_value_size is 100") as caught:
        fast.batch_get(["short", "long"])
    assert caught.value.key == "long"
    assert fast.batch_get(["short"]) == {"short": b"x" * 100}
    pool.disconnect()


def test_iteration_returns_its_connection_between_rounds(valkey_client: redis.Redis) -> None:
    valkey_client.mset(packed({f"k{i}": i for i in range(100)}))
    pool = valkey_client.connection_pool
    for _, value in FastBatch(valkey_client).batch_get_iter([f"k{i}" for i in range(100)], chunk_size=10):
        assert len(pool._in_use_connections) == 0
        valkey_client.set("seen", value)
    assert valkey_client.get("seen") == b"99"


def test_iteration_may_stop_early(valkey_client: redis.Redis) -> None:
    valkey_client.mset(packed({f"k{i}": i for i in range(100)}))
    taken: list[str] = []

    def keys() -> Iterator[str]:
        for i in range(100):
            taken.append(f"k{i}")
            yield f"k{i}"

    rows = FastBatch(valkey_client).batch_get_iter(keys(), chunk_size=10)
    assert [next(rows) for _ in range(3)] == [("k0", 0), ("k1", 1), ("k2", 2)]
    assert len(taken) == 10
    rows.close()  # type: ignore[attr-defined]
    assert FastBatch(valkey_client).batch_get(["k5"]) == {"k5": 5}


def test_iteration_takes_bounded_memory(valkey_client: redis.Redis) -> None:
    valkey_client.mset({f"k{i}": b"x" * 10_000 for i in range(50)})
    fast = FastBatch(valkey_client, "raw")
    list(fast.batch_get_iter(["k0"]))
    gc.collect()
    tracemalloc.start()
    try:
        total = sum(
            len(value) for _, value in fast.batch_get_iter((f"k{i % 50}" for i in range(5000)), chunk_size=100)
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 50_000_000
    assert peak < 8_000_000


def test_commands_have_fewer_keys_if_values_are_large(valkey_client: redis.Redis) -> None:
    calls = []
    for size in (10, 10_000):
        valkey_client.flushall()
        FastBatch(valkey_client, "raw").batch_set((f"k{i}", b"x" * size) for i in range(1500))
        valkey_client.config_resetstat()
        assert len(FastBatch(valkey_client, "raw").batch_get([f"k{i}" for i in range(1500)])) == 1500
        calls.append(valkey_client.info("commandstats")["cmdstat_mget"]["calls"])
    # The first commands are sent before any size is known.
    assert calls[0] <= READ_WINDOW + 2
    assert calls[1] > READ_WINDOW + (1500 - READ_WINDOW * FIRST_KEYS) / 10


def test_rows_share_no_mutable_objects(client: redis.Redis) -> None:
    client.mset(packed({f"k{i}": {"list": [1], "inner": {"a": 1}, "text": "same"} for i in range(500)}))
    found = FastBatch(client).batch_get([f"k{i}" for i in range(500)])
    found["k0"]["list"].append(2)
    found["k0"]["inner"]["a"] = 2
    found["k0"]["new"] = 3
    del found["k1"]["text"]
    assert all(found[f"k{i}"] == {"list": [1], "inner": {"a": 1}, "text": "same"} for i in range(2, 500))


def test_values_are_those_that_redis_py_and_msgpack_read(client: redis.Redis) -> None:
    values = [None, 1, -1, 2**63, 1.5, "x", "é", b"raw", [1, [2]], {"a": {"b": None}}, True, "x" * 5000]
    fast = FastBatch(client)
    fast.batch_set({f"k{i}": value for i, value in enumerate(values)})
    keys = [f"k{i}" for i in range(len(values) + 1)]
    theirs = [None if data is None else msgpack.unpackb(data) for data in client.mget(keys)]
    assert list(fast.batch_get(keys).values()) == theirs == [*values, None]
