"""batch_set: what arrives in the server, from every kind of input, on every server."""

from __future__ import annotations

import collections
import enum
import gc
import json
import pickle
import tracemalloc
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import FastBatch, MsgpackCodec
from redis_fastbatch.codecs import RawCodec, ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until
from tiers import examples


def record(i: int) -> dict[str, Any]:
    return {"id": i, "name": f"name {i}", "score": i / 7, "tags": ["a", "b"], "active": i % 2 == 0}


ROWS = {f"row:{i}": record(i) for i in range(2500)}


def stored(client: redis.Redis, keys: Any) -> list[Any]:
    return [None if data is None else msgpack.unpackb(data) for data in client.mget(list(keys))]


class OwnMapping(Mapping[str, Any]):
    """A mapping that is no dict."""

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
def test_thousands_of_rows(client: redis.Redis, options: dict[str, Any]) -> None:
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
def test_every_form_of_items(valkey_client: redis.Redis, form: Callable[[Any], Any]) -> None:
    report = FastBatch(valkey_client).batch_set(form(ROWS))
    assert report.written == valkey_client.dbsize() == 2500
    assert stored(valkey_client, ["row:0", "row:2499"]) == [record(0), record(2499)]


def test_nothing(client: redis.Redis) -> None:
    for nothing in ({}, [], iter(())):
        for options in ({}, {"ex": 5}, {"nx": True}, {"atomic": True}):
            report = FastBatch(client).batch_set(nothing, **options)
            assert (report.total, report.bytes_sent, report.confirmed_prefix) == (0, 0, 0)
    assert client.dbsize() == 0


@pytest.mark.parametrize("count", [1, 2, 99, 100, 999, 1000, 1001, 1999, 2001])
@pytest.mark.parametrize("options", [{}, {"ex": 9}, {"xx": True}], ids=str)
def test_counts_around_the_chunks(valkey_client: redis.Redis, count: int, options: dict[str, Any]) -> None:
    valkey_client.mset({f"k{i}": "old" for i in range(count)})
    assert FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(count)}, **options).written == count
    assert stored(valkey_client, [f"k{i}" for i in range(count)]) == list(range(count))


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 1000, 5000])
def test_chunk_size_is_the_most_items_of_a_command(valkey_client: redis.Redis, chunk_size: int) -> None:
    valkey_client.config_resetstat()
    assert (
        FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(2000)}, chunk_size=chunk_size).written
        == 2000
    )
    calls = valkey_client.info("commandstats")["cmdstat_mset"]["calls"]
    assert calls >= -(-2000 // chunk_size)
    assert chunk_size > 1000 or calls == -(-2000 // chunk_size)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_a_chunk_size_below_one_is_refused(valkey_client: redis.Redis, chunk_size: int) -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        FastBatch(valkey_client).batch_set({"a": 1}, chunk_size=chunk_size)
    assert valkey_client.dbsize() == 0


def test_of_equal_keys_the_last_one_wins(client: redis.Redis) -> None:
    for options in ({}, {"ex": 50}, {"atomic": True}):
        pairs = [("k", i) for i in range(3000)]
        assert FastBatch(client).batch_set(pairs, **options).written == 3000
        assert stored(client, ["k"]) == [2999]


def test_values_replace_keys_of_other_types(client: redis.Redis) -> None:
    client.rpush("list", 1, 2)
    client.hset("hash", "a", 1)
    assert FastBatch(client).batch_set({"list": 1, "hash": 2}).written == 2
    assert stored(client, ["list", "hash"]) == [1, 2]


def test_keys_of_every_kind(client: redis.Redis) -> None:
    items = {"text": 1, b"bytes\xff\x00": 2, 17: 3, "": 4, "sp ace\r\n": 5, "naïve 語": 6, -1: 7}
    assert FastBatch(client).batch_set(items).written == 7
    names = ["text", b"bytes\xff\x00", "17", "", "sp ace\r\n", "naïve 語", "-1"]
    assert stored(client, names) == list(range(1, 8))
    assert FastBatch(client).batch_get(list(items)) == items


def test_values_of_every_size(client: redis.Redis) -> None:
    sizes = [0, 1, 31, 32, 255, 256, 4095, 4096, 32_767, 32_768, 65_535, 65_536, 1_000_000, 5_000_000]
    items = {f"v{size}": b"\x00\r\n$" * (size // 4) + b"x" * (size % 4) for size in sizes}
    for options in ({}, {"ex": 30}, {"nx": True}):
        client.flushall()
        report = FastBatch(client, "raw").batch_set(items, **options)
        assert report.written == len(sizes)
        assert report.bytes_sent > sum(sizes)
        assert [client.get(key) for key in items] == list(items.values())


def test_many_large_values(client: redis.Redis) -> None:
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
def test_any_items(
    valkey_client: redis.Redis, items: dict[Any, Any], chunk_size: int, options: dict[str, Any]
) -> None:
    valkey_client.flushall()
    distinct = {key.encode() if isinstance(key, str) else key: value for key, value in items.items()}
    report = FastBatch(valkey_client).batch_set(items, chunk_size=chunk_size, **options)
    assert report.written + report.skipped == len(items)
    assert valkey_client.dbsize() == len(distinct)
    if len(distinct) == len(items):
        assert FastBatch(valkey_client).batch_get(items) == items


# -- codecs --------------------------------------------------------------------------------------


def test_json(client: redis.Redis) -> None:
    FastBatch(client, "json").batch_set({"a": {"k": ["é", 1.5, None]}, "b": "x"}, ex=5)
    assert client.get("a") == '{"k":["é",1.5,null]}'.encode()
    assert FastBatch(client, "json").batch_get(["a", "b"]) == {"a": {"k": ["é", 1.5, None]}, "b": "x"}


def test_raw(client: redis.Redis) -> None:
    items = {"s": "é", "b": b"\xff", "i": 12, "f": 1.5, "a": bytearray(b"x"), "m": memoryview(b"y")}
    FastBatch(client, "raw").batch_set(items)
    assert client.mget(list(items)) == ["é".encode(), b"\xff", b"12", b"1.5", b"x", b"y"]
    assert client.incr("i") == 13
    assert FastBatch(client, "raw").batch_get(["s", "i"]) == {"s": "é".encode(), "i": b"13"}


class Text(str):
    pass


class Level(str, enum.Enum):
    HIGH = "höch"


class Number(enum.IntEnum):
    ONE = 1


def test_raw_subclasses(client: redis.Redis) -> None:
    items = {"s": Text("plain"), "t": Text("é"), "e": Level.HIGH, "i": Number.ONE}
    FastBatch(client, "raw").batch_set(items)
    assert client.mget(list(items)) == [b"plain", "é".encode(), "höch".encode(), b"1"]


def test_a_codec_of_ones_own(client: redis.Redis) -> None:
    class Upper:
        def dumps(self, value: str) -> bytes:
            return value.upper().encode()

        def loads(self, data: bytes) -> str:
            return data.decode().lower()

    fast = FastBatch(client, Upper())
    fast.batch_set({"k": "text"})
    assert client.get("k") == b"TEXT"
    assert fast.batch_get(["k"]) == {"k": "text"}


class Sealed(MsgpackCodec):
    def dumps(self, value: Any) -> bytes:
        return super().dumps(value)[::-1]

    def loads(self, data: Any) -> Any:
        return super().loads(data[::-1])


def test_a_subclass_of_a_codec_encodes_and_decodes_itself(client: redis.Redis) -> None:
    items = {"k": {"a": [1, "text"]}, "l": None}
    fast = FastBatch(client, Sealed())
    fast.batch_set(items, ex=9)
    assert client.get("k") == Sealed().dumps(items["k"]) == MsgpackCodec().dumps(items["k"])[::-1]
    assert fast.batch_get(items) == items
    with pytest.raises(ValueError, match="the codec of a table must be"):
        fast.batch_set_table(None, key="k")


@pytest.mark.parametrize("base", [MsgpackCodec, ToolkitCodec, ToolkitMsgpackCodec])
def test_a_subclass_need_not_call_init(client: redis.Redis, base: Any) -> None:
    class Own(base):
        def __init__(self, note: str) -> None:
            self.note = note

    items = {"k": {"a": [1, "text"]}, "l": 5}
    FastBatch(client, Own("mine")).batch_set(items)
    assert client.mget(list(items)) == [base().dumps(value) for value in items.values()]
    assert FastBatch(client, Own("mine")).batch_get(items) == items


def test_a_codec_with_hooks(client: redis.Redis) -> None:
    codec = MsgpackCodec(
        default=lambda value: msgpack.ExtType(1, json.dumps(sorted(value)).encode()),
        ext_hook=lambda code, data: set(json.loads(data)),
    )
    fast = FastBatch(client, codec)
    fast.batch_set({"k": {"tags": {1, 2}}}, ex=9)
    assert fast.batch_get(["k"]) == {"k": {"tags": {1, 2}}}


class Awaited:
    async def dumps(self, value: Any) -> bytes:
        return b""

    async def loads(self, data: bytes) -> Any:
        return data


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        (MsgpackCodec, r"such as MsgpackCodec\(\)"),
        (Sealed, r"such as Sealed\(\)"),
        (Awaited(), r"dumps\(\) must be a plain method"),
    ],
)
def test_a_codec_that_would_fail_at_every_value(valkey_client: redis.Redis, codec: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        FastBatch(valkey_client, codec)


def test_modules_and_classes_of_static_methods_are_codecs(client: redis.Redis) -> None:
    class Static:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return json.dumps(value).encode()

        @classmethod
        def loads(cls, data: bytes) -> Any:
            return json.loads(data)

    for codec in (Static, Static(), pickle, msgpack):
        FastBatch(client, codec).batch_set({"k": [1]})
        assert FastBatch(client, codec).batch_get(["k"]) == {"k": [1]}


def test_codecs_take_no_arguments_that_they_have_no_use_for() -> None:
    codec: Any = RawCodec
    with pytest.raises(TypeError, match="argument"):
        codec(1)
    with pytest.raises(TypeError, match="argument"):
        codec(encoding="latin-1")


@pytest.mark.parametrize("codec", ["nonsense", object(), None, 5])
def test_no_such_codec(valkey_client: redis.Redis, codec: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="codec"):
        FastBatch(valkey_client, codec)


# -- generators and memory -----------------------------------------------------------------------


def test_a_generator_is_sent_while_it_runs(valkey_client: redis.Redis) -> None:
    seen: list[int] = []

    def source() -> Iterator[tuple[str, str]]:
        for i in range(20_000):
            if i % 5000 == 4999:
                seen.append(valkey_client.dbsize())
            yield f"k{i}", "x" * 100

    assert FastBatch(valkey_client).batch_set(source()).written == 20_000
    assert seen[1] > 0, "nothing had arrived when a quarter was encoded"


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


def test_items_are_let_go_of(valkey_client: redis.Redis) -> None:
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


def test_one_client_many_batches(client: redis.Redis) -> None:
    fast = FastBatch(client)
    for i in range(200):
        assert fast.batch_set({f"k{j}": i for j in range(10)}, **({"ex": 9} if i % 2 else {})).written == 10
    assert stored(client, [f"k{j}" for j in range(10)]) == [199] * 10
    assert len(client.client_list()) <= 3


def test_the_client_goes_on_working_in_between(client: redis.Redis) -> None:
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


def test_scan_and_delete(client: redis.Redis) -> None:
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
