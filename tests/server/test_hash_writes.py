"""batch_hset() writes mappings as hashes: to single servers, over clusters, and from asyncio."""

from __future__ import annotations

import asyncio
import collections
import datetime
import enum
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from aio import streamed
from redis_fastbatch import AsyncFastBatch, BatchError, BatchReport, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster, acl_user

ROWS = {f"u:{n}": {"id": n, "score": n / 4, "name": f"näme {n}", "raw": b"\xff\0"} for n in range(3000)}
FIVE = {b"id": b"5", b"score": b"1.25", b"name": "näme 5".encode(), b"raw": b"\xff\0"}


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    pass


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    return FastBatch(client)


@pytest.mark.parametrize("source", [dict, lambda items: iter(items.items())], ids=["dict", "iterator"])
@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"chunk_size": 7}, {"workers": 3}], ids=str)
def test_mappings_become_hashes(batch: FastBatch, source: Callable[[Any], Any], options: dict[str, Any]) -> None:
    report = batch.batch_hset(source(ROWS), **options)
    assert (report.written, report.failed, report.confirmed_prefix) == (3000, 0, 3000)
    assert batch.client.dbsize() == 3000
    assert batch.client.hgetall("u:5") == FIVE
    seconds = batch.client.ttl("u:2999")
    assert 0 < seconds <= 100 if "ex" in options else seconds == -1


@pytest.mark.parametrize(
    "value",
    [
        *("", "a\r\n", "ä" * 50, b"\0\xff", bytearray(b"x"), memoryview(b"y"), "x" * 100_000),
        *(0, -5, 2**80, 1.5, 1e300, float("inf"), -0.0, 0.1),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:10]!r}",
)
def test_values_are_those_that_redis_py_sends(valkey_client: redis.Redis, value: Any) -> None:
    fields = {"field": value, "x" if isinstance(value, bytearray) else value: "name"}
    valkey_client.hset("theirs", mapping=fields)
    FastBatch(valkey_client).batch_hset({"ours": fields})
    assert valkey_client.hgetall("ours") == valkey_client.hgetall("theirs")


def test_instances_of_subclasses_are_written_as_their_values(valkey_client: redis.Redis) -> None:
    FastBatch(valkey_client).batch_hset({"key": {Text("name"): Level.HIGH, Level.HIGH: Text("t")}})
    assert valkey_client.hgetall("key") == {b"name": b"3", b"3": b"t"}


def test_the_clients_encoding_is_used(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    with redis.Redis(host=valkey.host, port=valkey.port, encoding="latin-1") as client:
        client.hset("theirs", mapping={"ä": "ö"})
        FastBatch(client).batch_hset({"ours": {"ä": "ö"}})
    assert valkey_client.hgetall("ours") == valkey_client.hgetall("theirs")


@pytest.mark.parametrize(
    "fields",
    [collections.OrderedDict(a=1), collections.ChainMap({"a": 1}), types.MappingProxyType({"a": 1})],
    ids=lambda fields: type(fields).__name__,
)
def test_any_mapping_has_fields(valkey_client: redis.Redis, fields: Any) -> None:
    assert FastBatch(valkey_client).batch_hset({"key": fields}).written == 1
    assert valkey_client.hgetall("key") == {b"a": b"1"}


BAD: dict[str, tuple[Any, str]] = {
    "empty": ({}, "a hash must have at least one field, found an empty mapping"),
    "no mapping": (None, "must be a mapping, such as a dict, found NoneType None"),
    "pairs": ([("a", 1)], "must be a mapping, such as a dict, found list"),
    "nested": ({"a": 1, "tags": ["x"]}, "field 'tags' must be str, bytes, int or float, found list ['x']"),
    "none": ({"a": None}, "field 'a' must be str, bytes, int or float, found NoneType"),
    "bool": ({"a": True}, "field 'a' must be str, bytes, int or float, found bool True"),
    "name": ({None: 1}, "the name of a field must be str, bytes, int or float, found NoneType"),
    "surrogate": ({"a": "\ud800"}, "field 'a' cannot be encoded"),
    "digits": ({"a": 10**5000}, "field 'a' is an int of 16610 bits"),
    "chain": (collections.ChainMap({"b": 1}, {"a": {}}), "field 'a' must be str, bytes, int or float, found dict"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("options", [{}, {"ex": 50}], ids=str)
def test_an_item_that_cannot_be_written_fails_alone(
    valkey_client: redis.Redis, name: str, options: dict[str, Any]
) -> None:
    fields, message = BAD[name]
    items = {"before": {"a": 1}, "bad": fields, "after": {"a": 2}}
    failed: list[Any] = []
    report = FastBatch(valkey_client).batch_hset(
        items, on_error=lambda *failure: failed.append(failure), **options
    )
    assert (report.written, report.failed, report.confirmed_prefix) == (2, 1, 3)
    assert failed == [("bad", fields, report.failures["bad"])]
    assert isinstance(failed[0][2], EncodeError)
    assert message in str(failed[0][2])
    assert str(failed[0][2]).startswith("key 'bad': ")
    assert sorted(valkey_client.keys()) == [b"after", b"before"]
    assert valkey_client.hgetall("after") == {b"a": b"2"}


def test_a_dict_that_changes_while_it_is_written_fails_alone(valkey_client: redis.Redis) -> None:
    class Codec:
        def dumps(self, value: Any) -> bytes:
            fields[f"new {len(fields)}"] = 1
            return b"x"

        def loads(self, data: bytes) -> Any:
            return data

    fields: dict[str, Any] = {"a": 1, "b": 2}
    batch = FastBatch(valkey_client)
    good = collections.ChainMap({"a": 1})
    report = batch.batch_hset({"bad": fields, "good": good}, codec=Codec(), on_error="report")
    assert "changed size while it was written" in str(report.failures["bad"])
    assert report.written == 1


def test_a_key_of_another_type_is_left_alone(batch: FastBatch) -> None:
    batch.client.set("b", "a string", ex=5000)
    with pytest.raises(BatchError, match=r"1 of 3 items were not written: key 'b': WRONGTYPE") as caught:
        batch.batch_hset({"a": {"f": 1}, "b": {"f": 1}, "c": {"f": 1}}, ex=60)
    assert (caught.value.report.written, list(caught.value.report.failures)) == (2, ["b"])
    assert batch.client.get("b") == b"a string"
    assert batch.client.ttl("b") > 60
    assert 0 < batch.client.ttl("c") <= 60


def test_other_fields_and_their_expiry_stay(batch: FastBatch) -> None:
    batch.client.hset("h", mapping={"old": 1})
    batch.client.expire("h", 5000)
    batch.batch_hset({"h": {"new": 2}})
    assert batch.client.hgetall("h") == {b"old": b"1", b"new": b"2"}
    assert batch.client.ttl("h") > 1000


@pytest.mark.parametrize(
    "expiry",
    [
        {"ex": 100},
        {"ex": datetime.timedelta(seconds=100)},
        {"px": 100_000},
        {"exat": int(time.time()) + 100_000},
        {"pxat": (int(time.time()) + 100_000) * 1000},
    ],
    ids=lambda expiry: next(iter(expiry)),
)
def test_each_kind_of_expiry_is_set(batch: FastBatch, expiry: dict[str, Any]) -> None:
    batch.batch_hset({"a": {"f": 1}, "b": {"f": 1}}, **expiry)
    assert all(90 < batch.client.ttl(key) <= 100_000 for key in "ab")


def test_values_go_through_a_codec(valkey_client: redis.Redis) -> None:
    batch = FastBatch(valkey_client)
    bad = {"f": [1, {"deep": object()}]}
    report = batch.batch_hset(
        {"a": {"f": [1, {"x": None}], 5: "t"}, "bad": bad, "b": {"f": True}}, codec="json", on_error="report"
    )
    assert valkey_client.hgetall("a") == {b"f": b'[1,{"x":null}]', b"5": b'"t"'}
    assert valkey_client.hgetall("b") == {b"f": b"true"}
    assert list(report.failures) == ["bad"]
    assert "['f'][1]['deep']" in str(report.failures["bad"])
    report = batch.batch_hset({"bad": bad}, codec="msgpack", on_error="report")
    assert "['f'][1]['deep']" in str(report.failures["bad"])


def test_hooks_are_called(valkey_client: redis.Redis) -> None:
    done: list[Any] = []
    chunks: list[Any] = []
    batch = FastBatch(valkey_client)
    batch.batch_hset(ROWS, ex=60, progress=lambda *args: done.append(args), on_chunk=chunks.append, chunk_size=500)
    assert done[-1] == (3000, 3000)
    assert sum(chunk.items for chunk in chunks) == 3000


def test_an_error_of_the_source_has_a_report(valkey_client: redis.Redis) -> None:
    def broken() -> Iterator[tuple[str, Any]]:
        yield from list(ROWS.items())[:50]
        raise LookupError("no more")

    with pytest.raises(LookupError) as caught:
        FastBatch(valkey_client).batch_hset(broken(), ex=60)
    report: BatchReport = caught.value.report  # type: ignore[attr-defined]
    assert (report.written, report.confirmed_prefix) == (50, 50)
    assert all(valkey_client.ttl(f"u:{n}") > 0 for n in range(50))


@pytest.mark.parametrize("kind", ["sync", "cluster"])
def test_no_hash_waits_for_its_expiry_until_a_slow_source_goes_on(
    request: pytest.FixtureRequest, kind: str
) -> None:
    client = request.getfixturevalue("valkey_client" if kind == "sync" else "cluster_client")
    seen: list[int] = []

    def slow() -> Iterator[tuple[str, Any]]:
        # A cluster takes 128 items at a time.
        for n in range(500):
            if n % 100 == 0:
                time.sleep(0.06)
                seen.extend(client.ttl(f"slow:{m}") for m in range(n))
            yield f"slow:{n}", {"f": n}

    FastBatch(client).batch_hset(slow(), ex=60)
    assert max(seen) > 0
    # A missing hash was not sent yet: its time to live is -2.
    assert -1 not in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ex": 5, "px": 5}, "ex and px exclude each other"),
        ({"ex": 0}, "ex must be positive"),
        ({"workers": 0}, "workers must be"),
        ({"codec": 5}, "codec must be"),
        ({"chunk_size": 0}, "chunk_size must be"),
        ({"on_error": "ignore"}, "on_error must be"),
    ],
)
def test_wrong_arguments_are_refused(valkey_client: redis.Redis, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FastBatch(valkey_client).batch_hset({"a": {"f": 1}}, **arguments)


def test_items_that_are_not_a_batch_are_refused(valkey_client: redis.Redis) -> None:
    with pytest.raises(TypeError, match="items must be a mapping or an iterable"):
        FastBatch(valkey_client).batch_hset("key")  # type: ignore[arg-type]


class PlainConnection(redis.Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_connection_of_another_class_is_used_by_its_public_methods(
    valkey: EmbeddedServer, valkey_client: redis.Redis, protocol: int
) -> None:
    pool = redis.ConnectionPool(PlainConnection, host=valkey.host, port=valkey.port, protocol=protocol)
    with redis.Redis(connection_pool=pool) as client:
        client.set("string", 1)
        report = FastBatch(client).batch_hset({"string": {"f": 1}, **ROWS}, ex=60, on_error="report")
        assert (report.written, list(report.failures)) == (3000, ["string"])
    assert valkey_client.hgetall("u:5") == FIVE
    assert valkey_client.ttl("u:5") > 0


@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"workers": 2}], ids=str)
def test_hashes_are_written_over_a_cluster(
    cluster: Cluster, cluster_client: redis.RedisCluster, options: dict[str, Any]
) -> None:
    cluster_client.set("string", 1)
    report = FastBatch(cluster_client).batch_hset({"string": {"f": 1}, **ROWS}, on_error="report", **options)
    assert (report.written, list(report.failures), report.confirmed_prefix) == (3000, ["string"], 3001)
    assert cluster_client.hgetall("u:5") == FIVE
    assert (cluster_client.ttl("u:2999") > 0) == ("ex" in options)
    assert cluster_client.ttl("string") == -1
    for master in cluster.masters:
        with master.client() as node:
            assert node.dbsize() > 500


def test_a_refused_expire_over_a_cluster_fails_its_hash(
    cluster: Cluster, cluster_client: redis.RedisCluster
) -> None:
    for node in cluster.masters:
        with node.client() as admin:
            admin.acl_setuser("undying", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-expire"])
    try:
        with cluster.client(username="undying", password="x") as client:
            report = FastBatch(client).batch_hset(ROWS, ex=60, on_error="report")
    finally:
        for node in cluster.masters:
            with node.client() as admin:
                admin.acl_deluser("undying")
    assert (report.written, report.failed, report.confirmed_prefix) == (0, 3000, 3000)
    assert cluster_client.hgetall("u:5") == FIVE


@pytest.mark.parametrize("source", ["dict", "generator", "async generator"])
@pytest.mark.parametrize("where", ["server", "cluster"])
def test_asyncio_writes_hashes(request: pytest.FixtureRequest, source: str, where: str) -> None:
    async def main() -> BatchReport:
        client: Any
        if where == "server":
            server = request.getfixturevalue("valkey")
            client = redis.asyncio.Redis(host=server.host, port=server.port)
        else:
            node = request.getfixturevalue("cluster").masters[0]
            client = redis.asyncio.RedisCluster(host=node.host, port=node.port)
        async with AsyncFastBatch(client) as batch:
            items: Any = {"string": {"f": 1}, "empty": {}, **ROWS}
            if source == "generator":
                items = (pair for pair in items.items())
            elif source == "async generator":
                items = streamed(items.items(), every=100)
            return await batch.batch_hset(items, ex=100, on_error="report")

    client = request.getfixturevalue("valkey_client" if where == "server" else "cluster_client")
    client.set("string", 1)
    report = asyncio.run(main())
    assert (report.written, sorted(report.failures), report.confirmed_prefix) == (3000, ["empty", "string"], 3002)
    assert client.hgetall("u:5") == FIVE
    assert client.ttl("u:2999") > 0


def test_a_user_without_expire_gets_its_error(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    with acl_user(valkey) as user, user.client() as client:
        report = FastBatch(client).batch_hset({"allowed:a": {"f": 1}, "other": {"f": 1}}, ex=60, on_error="report")
    assert (report.written, list(report.failures)) == (1, ["other"])
