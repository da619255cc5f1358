"""batch_hgetall() and batch_hmget() read hashes: from single servers, over clusters, and from asyncio."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import ResponseError

from aio import gathered, streamed
from redis_fastbatch import AsyncFastBatch, DecodeError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster, acl_user

ROWS = {f"u:{n}": {"id": n, "score": n / 4, "name": f"näme {n}"} for n in range(3000)}
TYPES = {"id": int, "score": float, "name": str}


def connected(server: EmbeddedServer, **options: Any) -> redis.Redis:
    return redis.Redis(host=server.host, port=server.port, **options)


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    made = FastBatch(client)
    made.batch_hset(ROWS)
    return made


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decodes", [False, True])
def test_hashes_are_those_of_redis_py(server: EmbeddedServer, protocol: int, decodes: bool) -> None:
    with connected(server, protocol=protocol, decode_responses=decodes) as client:
        client.flushall()
        batch = FastBatch(client)
        batch.batch_hset(ROWS)
        keys = [*ROWS, "missing"]
        found = batch.batch_hgetall(keys)
        assert list(found) == keys
        assert found.pop("missing") is None
        assert all(found[key] == client.hgetall(key) for key in list(ROWS)[::50])
        assert list(found["u:7"]) == list(client.hgetall("u:7"))
        some = batch.batch_hmget(keys, ["name", "nope", "id"])
        assert some.pop("missing") is None
        assert list(some["u:7"].values()) == client.hmget("u:7", ["name", "nope", "id"])
        assert list(some["u:7"]) == ["name", "nope", "id"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_values_have_the_types_that_are_asked_for(server: EmbeddedServer, protocol: int) -> None:
    with connected(server, protocol=protocol) as client:
        client.flushall()
        batch = FastBatch(client)
        batch.batch_hset(ROWS)
        assert batch.batch_hgetall(ROWS, types=TYPES) == ROWS
        found = batch.batch_hmget(list(ROWS), ["score", "id"], types=TYPES)
        assert found == {key: {"score": row["score"], "id": row["id"]} for key, row in ROWS.items()}
        found = batch.batch_hgetall(ROWS, types=str)
        assert found["u:9"] == {"id": "9", "score": "2.25", "name": "näme 9"}
        found = batch.batch_hgetall(ROWS, types={"id": int})
        assert found["u:9"] == {"id": 9, "score": b"2.25", "name": "näme 9".encode()}
        assert dict(batch.batch_hgetall_iter(iter(ROWS), types=TYPES, chunk_size=70)) == ROWS
        assert list(batch.batch_hmget_iter(["u:1", "x"], ["id"], types=TYPES, default=0)) == [
            ("u:1", {"id": 1}),
            ("x", 0),
        ]


NUMBERS: list[tuple[Any, str]] = [
    *((int, text) for text in ("0", "-0", "7", "-123456789012345678", "9223372036854775808", "9" * 400, "007")),
    *((float, text) for text in ("0", "-0.0", "1.5", "0.1", "1e300", "-2.5E-7", "5e-324", "123456789.123456789")),
    *((float, text) for text in ("0.30000000000000004", "9007199254740993", "179769313486231570e291", ".5", "5.")),
    *((float, text) for text in ("inf", "-inf", "3.14159265358979323846264338327950288")),
]


@pytest.mark.parametrize(("kind", "text"), NUMBERS, ids=lambda value: str(value)[:20])
def test_numbers_are_read_as_python_reads_them(valkey_client: redis.Redis, kind: Any, text: str) -> None:
    valkey_client.hset("h", "f", text)
    found = FastBatch(valkey_client).batch_hmget(["h"], ["f"], types=kind)["h"]["f"]
    assert (type(found), repr(found)) == (kind, repr(kind(text)))


def test_nan_and_bools_are_read(valkey_client: redis.Redis) -> None:
    valkey_client.hset("h", mapping={"nan": "nan", "yes": 1, "no": 0})
    found = FastBatch(valkey_client).batch_hgetall(["h"], types={"nan": float, "yes": bool, "no": bool})["h"]
    assert math.isnan(found.pop("nan"))
    assert found == {"yes": True, "no": False}
    assert found["yes"] is True


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        *(
            (int, text, "an int was expected, found")
            for text in ("", "-", "1.0", " 1", "1_0", "+1", "0x1", "1" * 5000)
        ),
        *((float, text, "a float was expected, found") for text in ("", "-", ".", "1 ", " 1", "1.5.2", "1e", "x")),
        *((float, text, "a float was expected, found") for text in ("1_0", "0x1p3", "1\r\n", "1\0")),
        *((bool, text, "1 or 0 was expected, found") for text in ("", "2", "true", "10")),
        (str, b"ab\xff", "found bytes that are not utf-8"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("method", ["batch_hgetall", "batch_hmget"])
def test_a_value_that_does_not_fit_names_its_key_and_field(
    valkey_client: redis.Redis, method: str, kind: Any, value: Any, message: str
) -> None:
    valkey_client.hset("good", mapping={"a": 1, "b": 0})
    valkey_client.hset("bad", mapping={"a": 1, "b": value})
    batch = FastBatch(valkey_client)
    fields = (["a", "b"],) if method == "batch_hmget" else ()
    read: Any = getattr(batch, method)
    with pytest.raises(DecodeError, match=message) as caught:
        read(["good", "bad", "good"], *fields, types={"a": int, "b": kind})
    assert str(caught.value).startswith("key 'bad', field 'b', at byte ")
    assert (caught.value.key, caught.value.field) == ("bad", "b")
    failed: list[Any] = []
    found = read(
        ["bad", "good"], *fields, types={"b": kind}, default=0, on_error=lambda *failure: failed.append(failure)
    )
    assert found["bad"] == 0
    assert found["good"]["a"] == b"1"
    [(key, data, _)] = failed
    assert (key, data) == ("bad", value.encode() if isinstance(value, str) else value)
    # The connection reads the right replies.
    assert list(batch.batch_hgetall(["good"])) == ["good"]


@pytest.mark.parametrize("method", ["batch_hgetall", "batch_hmget", "batch_hgetall_iter", "batch_hmget_iter"])
def test_a_key_of_another_type_is_an_error_that_names_it(
    batch: FastBatch, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch.client.set("string", 1)
    read: Any = getattr(batch, method)
    fields = (["id"],) if "hmget" in method else ()
    with pytest.raises(ResponseError, match=r"^key 'string': WRONGTYPE"):
        dict(read(["u:1", "string", "u:2"], *fields))
    with caplog.at_level(logging.WARNING, "redis_fastbatch"):
        found = dict(read(["u:1", "string", "u:2"], *fields, default="none", on_error="report"))
    assert (found["string"], found["u:2"][b"id" if "hgetall" in method else "id"]) == ("none", b"2")
    assert f"{method.removesuffix('_iter')}: 1 values" in caplog.text
    failed: list[Any] = []
    dict(read(["string"], *fields, on_error=lambda *failure: failed.append(failure)))
    assert failed[0][:2] == ("string", None)


def test_a_refused_key_ends_the_batch(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    with acl_user(valkey) as user, user.client() as client:
        batch = FastBatch(client)
        with pytest.raises(redis.exceptions.NoPermissionError, match="key 'other': "):
            batch.batch_hgetall(["allowed:a", "other"], on_error="report")


def test_hashes_of_different_fields_are_read(valkey_client: redis.Redis) -> None:
    rows: dict[str, dict[str, int]] = {}
    for n in range(2000):
        width = (3, 3, 3, 3, 3, 5, 1, 40)[n % 8] if n > 500 else 3
        rows[f"h:{n}"] = {f"f{(i * 7 + n % 3) % 50}": n + i for i in range(width)}
    batch = FastBatch(valkey_client)
    batch.batch_hset(rows)
    assert batch.batch_hgetall(rows, types=int) == rows
    plain = batch.batch_hgetall(rows)
    assert plain == {k: {f.encode(): b"%d" % v for f, v in row.items()} for k, row in rows.items()}


def test_rows_of_one_shape_share_their_names_and_are_their_own_dicts(batch: FastBatch) -> None:
    found = batch.batch_hgetall(ROWS, types=TYPES)
    first, last = list(found["u:100"]), list(found["u:2000"])
    assert all(one is other for one, other in zip(first, last, strict=True))
    found["u:100"]["new"] = 1
    assert "new" not in found["u:2000"]
    plain = batch.batch_hgetall(ROWS)
    assert all(one is other for one, other in zip(plain["u:1"], plain["u:2"], strict=True))


def test_a_hash_may_be_large(valkey_client: redis.Redis) -> None:
    large = {f"field:{n}": "x" * (n % 300) for n in range(30_000)}
    batch = FastBatch(valkey_client)
    batch.batch_hset({"large": large, "small": {"a": 1}})
    assert batch.batch_hgetall(["small", "large", "small"], types=str) == {"small": {"a": "1"}, "large": large}
    with pytest.raises(DecodeError, match=r"key 'large', field 'field:\d+', at byte 0: an int was expected"):
        batch.batch_hgetall(["large"], types=int)


def test_values_of_a_codec_are_read(valkey_client: redis.Redis) -> None:
    rows = {f"k:{n}": {"tags": [n, {"x": None}], "n": n} for n in range(50)}
    batch = FastBatch(valkey_client)
    batch.batch_hset(rows, codec="msgpack")
    assert batch.batch_hgetall(rows, codec="msgpack") == rows
    valkey_client.hset("k:1", "n", "12")
    found = batch.batch_hmget(["k:1"], ["tags", "n"], types={"n": int}, codec="msgpack")
    assert found == {"k:1": {"tags": [1, {"x": None}], "n": 12}}
    with pytest.raises(DecodeError, match="key 'k:1', field 'tags', at byte"):
        batch.batch_hgetall(["k:1"], codec="json")


def test_names_of_fields_may_be_of_all_kinds(valkey_client: redis.Redis) -> None:
    batch = FastBatch(valkey_client)
    batch.batch_hset({"h": {"a": 1, b"\xff": 2, 7: 3, "__class__": 4}})
    assert batch.batch_hmget(["h"], ["a", b"\xff", 7, "__class__", "a"]) == {
        "h": {"a": b"1", b"\xff": b"2", 7: b"3", "__class__": b"4"}
    }
    with pytest.raises(DecodeError, match=r"the name of a field is not utf-8, found b'\\xff'"):
        batch.batch_hgetall(["h"], types=str)
    assert batch.batch_hgetall(["h"])["h"] == {b"a": b"1", b"\xff": b"2", b"7": b"3", b"__class__": b"4"}


@pytest.mark.parametrize("method", ["batch_hgetall", "batch_hmget"])
def test_a_value_longer_than_the_limit_is_refused(
    valkey: EmbeddedServer, valkey_client: redis.Redis, method: str
) -> None:
    valkey_client.hset("h", mapping={"a": "x" * 100})
    batch = FastBatch(connected(valkey), max_value_size=50)
    with pytest.raises(DecodeError, match=r"key 'h'.*a value of 100 bytes: max_value_size is 50"):
        getattr(batch, method)(["h"], *([["a"]] if method == "batch_hmget" else []))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda batch: batch.batch_hgetall("key"), "keys must be an iterable of keys"),
        (lambda batch: batch.batch_hgetall(["key"], types=list), "types must be str, bytes, int, float or bool"),
        (lambda batch: batch.batch_hgetall(["key"], types={"a": "int"}), "types must be"),
        (lambda batch: batch.batch_hgetall(["key"], types={5: int}), "a field of types must be str or bytes"),
        (lambda batch: batch.batch_hmget(["key"], "age"), "fields must be a list of names, got str 'age'"),
        (lambda batch: batch.batch_hmget(["key"], []), "fields must have at least one name"),
        (lambda batch: batch.batch_hgetall(["key"], on_error="ignore"), "on_error must be"),
        (lambda batch: batch.batch_hgetall_iter(["key"], chunk_size=0), "chunk_size must be"),
        (lambda batch: batch.batch_hgetall_iter(7), "keys must be an iterable"),
    ],
)
def test_wrong_arguments_are_refused(valkey_client: redis.Redis, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(FastBatch(valkey_client))


def test_wrong_keys_and_fields_are_refused(valkey_client: redis.Redis) -> None:
    batch = FastBatch(valkey_client)
    with pytest.raises(EncodeError, match="a key must be str, bytes or int"):
        batch.batch_hgetall([1.5])
    with pytest.raises(EncodeError, match="must be str, bytes, int or float, found NoneType"):
        batch.batch_hmget(["a"], [None])
    assert batch.batch_hgetall([]) == {}


class PlainConnection(redis.Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_connection_of_another_class_is_used_by_its_public_methods(
    valkey: EmbeddedServer, valkey_client: redis.Redis, protocol: int
) -> None:
    FastBatch(valkey_client).batch_hset(ROWS)
    valkey_client.set("string", 1)
    pool = redis.ConnectionPool(PlainConnection, host=valkey.host, port=valkey.port, protocol=protocol)
    with redis.Redis(connection_pool=pool) as client:
        batch = FastBatch(client)
        assert batch.batch_hgetall([*ROWS, "none"], types=TYPES) == {**ROWS, "none": None}
        found = batch.batch_hmget(["u:3", "none"], ["id", "nope"], types=TYPES)
        assert found == {"u:3": {"id": 3, "nope": None}, "none": None}
        with pytest.raises(ResponseError, match="key 'string': "):
            batch.batch_hgetall(["string"])
        with pytest.raises(DecodeError, match="key 'u:5', field 'score'"):
            batch.batch_hgetall(["u:5"], types=int)
        limited = FastBatch(client, max_value_size=3)
        with pytest.raises(DecodeError, match=r"key 'u:5'.*max_value_size is 3"):
            limited.batch_hgetall(["u:5"])


@pytest.mark.parametrize("protocol", [2, 3])
def test_hashes_are_read_over_a_cluster(cluster: Cluster, protocol: int) -> None:
    cluster.flush()
    with cluster.client(protocol=protocol) as client:
        client.set("string", 1)
        batch = FastBatch(client)
        batch.batch_hset(ROWS)
        keys = [*ROWS, "none"]
        found = batch.batch_hgetall(keys, types=TYPES)
        assert list(found) == keys
        assert found == {**ROWS, "none": None}
        assert list(batch.batch_hgetall_iter(iter(keys), types=TYPES, chunk_size=500)) == list(found.items())
        assert batch.batch_hmget(["u:5", "none"], ["id"], default=0) == {"u:5": {"id": b"5"}, "none": 0}
        with pytest.raises(ResponseError, match="key 'string': "):
            batch.batch_hgetall(["u:1", "string"])
        assert batch.batch_hgetall(["u:1", "string"], types=TYPES, on_error="report")["u:1"] == ROWS["u:1"]
        with pytest.raises(DecodeError, match="key 'u:5', field 'score'"):
            batch.batch_hgetall(["u:5"], types=int)


@pytest.mark.parametrize("source", ["list", "generator", "async generator"])
@pytest.mark.parametrize("where", ["server", "cluster"])
def test_asyncio_reads_hashes(request: pytest.FixtureRequest, source: str, where: str) -> None:
    keys = [*ROWS, "none"]

    def given() -> Any:
        if source == "list":
            return keys
        return iter(keys) if source == "generator" else streamed(keys, every=100)

    async def main() -> None:
        client: Any
        if where == "server":
            server = request.getfixturevalue("valkey")
            client = redis.asyncio.Redis(host=server.host, port=server.port)
        else:
            node = request.getfixturevalue("cluster").masters[0]
            client = redis.asyncio.RedisCluster(host=node.host, port=node.port)
        async with AsyncFastBatch(client) as batch:
            await batch.batch_hset(ROWS)
            expected = {**ROWS, "none": None}
            assert await batch.batch_hgetall(given(), types=TYPES) == expected
            pairs = await gathered(batch.batch_hgetall_iter(given(), types=TYPES, chunk_size=300))
            assert pairs == list(expected.items())
            found = await batch.batch_hmget(given(), ["id", "nope"], types=TYPES)
            assert found == {**{key: {"id": row["id"], "nope": None} for key, row in ROWS.items()}, "none": None}
            some = await gathered(batch.batch_hmget_iter(given(), ["id"], types=TYPES))
            assert some[5] == ("u:5", {"id": 5})
            with pytest.raises(TypeError, match="keys must be"):
                batch.batch_hgetall_iter("key")  # type: ignore[arg-type]

    request.getfixturevalue("valkey_client" if where == "server" else "cluster_client")
    asyncio.run(main())


def test_an_error_of_the_keys_comes_after_the_hashes_before_it(batch: FastBatch) -> None:
    def broken() -> Iterator[str]:
        yield from list(ROWS)[:10]
        raise LookupError("no more")

    pairs = batch.batch_hgetall_iter(broken())
    assert [next(pairs)[0] for _ in range(10)] == list(ROWS)[:10]
    with pytest.raises(LookupError):
        next(pairs)
    with pytest.raises(LookupError):
        batch.batch_hgetall(broken())
