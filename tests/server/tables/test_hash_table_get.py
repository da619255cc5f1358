"""batch_get_table(as_="hash") reads hashes into columns, as batch_set_table(as_="hash") writes them."""

from __future__ import annotations

import asyncio
import datetime
import decimal
from typing import Any

import pytest
import redis
import redis.asyncio

from redis_fastbatch import AsyncFastBatch, DecodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")

COUNT = 3000
KEYS = [f"row:{i}" for i in range(COUNT)]
MOMENT = datetime.datetime(2024, 5, 1, 12, 30, 0, 250_000)


def every_third(values: Any, kind: Any) -> Any:
    """Return a column whose every third value is null."""
    return pa.array([None if i % 3 == 1 else value for i, value in enumerate(values)], kind)


def whole_table() -> Any:
    """Return a table with a column of each flat type."""
    numbers = range(COUNT)
    days = [MOMENT + datetime.timedelta(i) for i in numbers]
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "int8": every_third((i % 256 - 128 for i in numbers), pa.int8()),
        "uint64": every_third((2**64 - 1 - i for i in numbers), pa.uint64()),
        "least": every_third([-(2**63)] * COUNT, pa.int64()),
        "float64": every_third((i / 7 for i in numbers), pa.float64()),
        "float32": every_third((i / 7 for i in numbers), pa.float32()),
        "float16": every_third((i / 8 for i in numbers), pa.float16()),
        "bool": every_third((i % 2 == 0 for i in numbers), pa.bool_()),
        "text": every_third((f"näme {i}\r\n" for i in numbers), pa.string()),
        "large": every_third((f"{i}" for i in numbers), pa.large_string()),
        "binary": every_third((b"\xff\0%d" % i for i in numbers), pa.binary()),
        "dictionary": every_third(("xyz"[i % 3] for i in numbers), pa.string()).dictionary_encode(),
        "date": every_third((MOMENT.date() + datetime.timedelta(i) for i in numbers), pa.date32()),
        "time": every_third((MOMENT.time() for _ in numbers), pa.time64("us")),
        "naive": every_third(days, pa.timestamp("us")),
        "utc": every_third(days, pa.timestamp("ns", "UTC")),
        "zone": every_third(days, pa.timestamp("ms", "Europe/Berlin")),
        "duration": every_third((datetime.timedelta(i, 2, 3) for i in numbers), pa.duration("us")),
        "decimal": every_third((decimal.Decimal(i) / 100 for i in numbers), pa.decimal128(10, 2)),
    }
    return pa.table(columns)


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    return FastBatch(client)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_table_of_every_type_comes_back(server: EmbeddedServer, protocol: int) -> None:
    table = whole_table()
    with redis.Redis(host=server.host, port=server.port, protocol=protocol) as client:
        client.flushall()
        batch = FastBatch(client)
        batch.batch_set_table(table, key="row:{id}", as_="hash")
        assert batch.batch_get_table(KEYS, as_="hash", schema=table.schema).equals(table)
        some = batch.batch_get_table(KEYS, as_="hash", schema=table.schema, columns=["text", "id"])
        assert some.equals(table.select(["text", "id"]))


def test_without_a_schema_columns_are_text(batch: FastBatch) -> None:
    batch.batch_hset({"a": {"x": 1, "y": 2.5}, "b": {"z": "ä", "x": 3}, "c": {"x": 1, "y": 2.5}})
    found = batch.batch_get_table(["a", "none", "b", "c"], as_="hash", key="key")
    assert found.schema == pa.schema({"key": pa.string(), "x": pa.string(), "y": pa.string(), "z": pa.string()})
    assert found.to_pylist() == [
        {"key": "a", "x": "1", "y": "2.5", "z": None},
        {"key": "none", "x": None, "y": None, "z": None},
        {"key": "b", "x": "3", "y": None, "z": "ä"},
        {"key": "c", "x": "1", "y": "2.5", "z": None},
    ]
    some = batch.batch_get_table(["b", "a"], as_="hash", columns=["z", "x"])
    assert some.to_pydict() == {"z": ["ä", None], "x": ["3", "1"]}
    assert batch.batch_get_table([], as_="hash").num_rows == 0
    assert batch.batch_get_table(["none"], as_="hash", columns=["x"]).to_pylist() == [{"x": None}]


def test_names_that_share_an_end_are_not_mixed_up(batch: FastBatch) -> None:
    names = ("é", "x" * 31, "y" * 32, "z" * 300)
    rows = {key: {name: f"{key} {i}" for i, name in enumerate(names)} for key in ("a", "b")}
    batch.batch_hset(rows)
    found = batch.batch_get_table(["a", "b"], as_="hash").to_pylist()
    assert found == list(rows.values())
    batch.client.hset("c", b"\xa9", 1)
    with pytest.raises(DecodeError, match=r"key 'c'.*expected UTF-8 in the name of a field"):
        batch.batch_get_table(["a", "c"], as_="hash")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("int64", "1.5", "field 'f', at byte 0: an integer of 64 bits was expected, found b'1.5'"),
        ("int64", str(2**63), "field 'f' holds ints, found the int 9223372036854775808"),
        ("int64", "-9223372036854775809", "an integer of 64 bits was expected"),
        ("uint64", str(2**64), "an integer of 64 bits was expected"),
        ("uint64", "-1", "field 'f' holds ints, found the int -1"),
        ("int8", "200", "field 'f'.*200.*int8"),
        ("float64", "x", "field 'f', at byte 0: a float was expected, found b'x'"),
        ("bool_", "true", "field 'f', at byte 0: 1 or 0 was expected, found b'true'"),
        ("string", b"a\xff", "field 'f', at byte 1: expected UTF-8 in a str"),
        ("date32", "2024-13-01", "field 'f'.*2024-13-01"),
        ("null", "1", "field 'f', at byte 0: no value was expected"),
    ],
)
def test_a_value_that_does_not_fit_names_its_key_and_field(
    batch: FastBatch, kind: str, value: Any, message: str
) -> None:
    batch.client.hset("good", "other", 1)
    batch.client.hset("bad", "f", value)
    schema = {"f": getattr(pa, kind)()}
    with pytest.raises(DecodeError, match=message) as caught:
        batch.batch_get_table(["good", "bad", "good"], as_="hash", schema=schema)
    assert str(caught.value).startswith("key 'bad', ")
    assert batch.batch_get_table(["good"], as_="hash").to_pydict() == {"other": ["1"]}


def test_a_key_of_another_type_is_an_error_that_names_it(batch: FastBatch) -> None:
    batch.client.set("string", 1)
    batch.batch_hset({"a": {"x": 1}})
    with pytest.raises(redis.ResponseError, match=r"^key 'string': WRONGTYPE"):
        batch.batch_get_table(["a", "string"], as_="hash")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"as_": "list"}, 'as_ must be "value" or "hash"'),
        ({"columns": ["x"]}, 'columns are the fields of hashes: pass as_="hash"'),
        ({"as_": "hash", "columns": "x"}, "columns must be a list of names"),
        ({"as_": "hash", "columns": []}, "the table needs a column"),
        (
            {"as_": "hash", "columns": ["y"], "schema": {"x": "int64"}},
            "columns must be columns of the schema",
        ),
        ({"as_": "hash", "schema": {"x": pa.list_(pa.int64())}}, "a hash holds no nested values"),
        ({"as_": "hash", "schema": {"key": "string"}, "key": "key"}, "the table needs a column besides"),
    ],
)
def test_wrong_arguments_are_refused(valkey_client: redis.Redis, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        FastBatch(valkey_client).batch_get_table(["key"], **arguments)


class PlainConnection(redis.Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_connection_of_another_class_is_used_by_its_public_methods(
    valkey: EmbeddedServer, valkey_client: redis.Redis, protocol: int
) -> None:
    table = whole_table().slice(0, 50)
    FastBatch(valkey_client).batch_set_table(table, key="row:{id}", as_="hash")
    pool = redis.ConnectionPool(PlainConnection, host=valkey.host, port=valkey.port, protocol=protocol)
    with redis.Redis(connection_pool=pool) as client:
        batch = FastBatch(client)
        assert batch.batch_get_table(KEYS[:50], as_="hash", schema=table.schema).equals(table)
        texts = batch.batch_get_table(["row:0", "none"], as_="hash", columns=["id", "bool"])
        assert texts.to_pydict() == {"id": ["0", None], "bool": ["1", None]}
        assert set(batch.batch_get_table(["row:5"], as_="hash", schema={"id": "int8"})["id"].to_pylist()) == {5}
        with pytest.raises(DecodeError, match="key 'row:5'"):
            batch.batch_get_table(["row:5"], as_="hash")


@pytest.mark.parametrize("where", ["valkey_client", "cluster_client"])
def test_asyncio_and_clusters_read_tables_of_hashes(request: pytest.FixtureRequest, where: str) -> None:
    client: Any = request.getfixturevalue(where)
    table = whole_table()
    batch = FastBatch(client)
    batch.batch_set_table(table, key="row:{id}", as_="hash")
    assert batch.batch_get_table(KEYS, as_="hash", schema=table.schema).equals(table)

    async def main() -> Any:
        kind: Any = redis.asyncio.Redis if where == "valkey_client" else redis.asyncio.RedisCluster
        server = request.getfixturevalue("valkey" if where == "valkey_client" else "cluster")
        address = server if where == "valkey_client" else server.masters[0]
        async with AsyncFastBatch(kind(host=address.host, port=address.port)) as asynchronous:
            return await asynchronous.batch_get_table(KEYS, as_="hash", schema=table.schema)

    assert asyncio.run(main()).equals(table)
