"""batch_execute_table sends, for each row, the command that its template says."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import json
from typing import Any

import hiredis
import msgpack
import pyarrow as pa
import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_fastbatch import AsyncFastBatch, BatchError, EncodeError, FastBatch, col, row
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.arrow.templates import TemplateWriter
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._tables.execute import Template
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

UTC = dt.timezone.utc
MOMENT = dt.datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)
PLAYERS = pa.table(
    {
        "region": ["eu", "us", "eu"],
        "user": ["amina", "ben", "ch\u00e9n"],
        "score": [95, 87.5, None],
        "at": pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2024, 5, 1), None, dt.date(1969, 12, 31)]),
    }
)


def commands_of(table: Any, command: list[Any], size: int = 1000) -> tuple[list[list[bytes]], list[Any]]:
    """The commands that are encoded, and the rows that cannot be."""
    template = Template(command, CommandEncoder(rules=RULES))
    stream = ArrowStream(table)
    columns: list[str] = []
    if template.row is not None:
        others = [name for name in stream.field_names() if name not in template.used]
        columns = list(template.row.columns or others)
    used = [name for name in template.used if name not in columns]
    writer = TemplateWriter(
        stream,
        template.name,
        template.arguments,
        columns=columns,
        used=used,
        routed=False,
        max_items=size,
        max_bytes=2**20,
    )
    reader, found = hiredis.Reader(), []
    chunk = writer.blank()
    while not writer.exhausted:
        writer.fill(chunk)
        data = bytes(memoryview(chunk))
        reader.feed(data)
        words = []
        while (one := reader.gets()) is not False:
            words.append(one)
        assert words == list(chunk.values)
        found += words
    assert not reader.has_data()
    return found, writer.failures


def test_columns_templates_and_constants() -> None:
    table = PLAYERS.slice(0, 2)
    assert commands_of(table, ["ZADD", "board:{region}", col("score"), col("user")])[0] == [
        [b"ZADD", b"board:eu", b"95.0", b"amina"],
        [b"ZADD", b"board:us", b"87.5", b"ben"],
    ]
    assert commands_of(table, ["xgroup create", "{{x}}{region}", b"{user}", 5, 1.5, "$", col("user")], 1)[0] == [
        [b"xgroup", b"create", b"{x}eu", b"{user}", b"5", b"1.5", b"$", b"amina"],
        [b"xgroup", b"create", b"{x}us", b"{user}", b"5", b"1.5", b"$", b"ben"],
    ]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_nulls(size: int) -> None:
    found, failures = commands_of(PLAYERS, ["ZADD", "board", col("score"), col("user")], size)
    assert [words[3] for words in found] == [b"amina", b"ben"]
    [(number, words, error)] = failures
    assert (number, words) == (2, [b"ZADD", b"board", None, "ch\u00e9n".encode()])
    assert str(error) == "row 2: column 'score': is null"
    skipped = ["XADD", "e", "*", "user", col("user"), "at", col("at", null="skip_pair"), col("day", null="skip")]
    found, failures = commands_of(PLAYERS, skipped, size)
    assert failures == []
    assert found == [
        [b"XADD", b"e", b"*", b"user", b"amina", b"at", b"2024-05-01T12:30:00.250000+00:00", b"2024-05-01"],
        [b"XADD", b"e", b"*", b"user", b"ben"],
        [
            *(b"XADD", b"e", b"*", b"user", "ch\u00e9n".encode()),
            *(b"at", b"2024-05-01T12:30:00.250000+00:00", b"1969-12-31"),
        ],
    ]
    found, _ = commands_of(PLAYERS, ["SADD", "s", col("region"), col("at", null="skip_pair")], size)
    assert found[1] == [b"SADD", b"s"]
    assert commands_of(PLAYERS, ["SADD", "s:{score}", "x"], size)[1][0][1] == [b"SADD", None, b"x"]


@pytest.mark.parametrize(
    ("kind", "value", "seconds", "milliseconds"),
    [
        (pa.timestamp("s", "UTC"), MOMENT, 1714566600, 1714566600000),
        (pa.timestamp("ms"), MOMENT.replace(tzinfo=None), 1714566600, 1714566600250),
        (pa.timestamp("us", "Asia/Tokyo"), MOMENT, 1714566600, 1714566600250),
        (pa.timestamp("ns"), MOMENT.replace(tzinfo=None), 1714566600, 1714566600250),
        (pa.timestamp("us"), dt.datetime(1969, 12, 31, 23, 59, 59, 999_999), -1, -1),
        (pa.date32(), dt.date(2024, 5, 1), 1714521600, 1714521600000),
        (pa.date32(), dt.date(1, 1, 1), -62135596800, -62135596800000),
        (pa.date64(), dt.date(2024, 5, 1), 1714521600, 1714521600000),
        (pa.dictionary(pa.int8(), pa.timestamp("ms")), MOMENT.replace(tzinfo=None), 1714566600, 1714566600250),
    ],
    ids=str,
)
def test_times_as_numbers(kind: Any, value: Any, seconds: int, milliseconds: int) -> None:
    values = pa.array([value], kind.value_type).dictionary_encode() if pa.types.is_dictionary(kind) else None
    table = pa.table({"t": pa.array([value], kind) if values is None else values})
    command = ["SET", "k", col("t", times="seconds"), col("t", times="milliseconds")]
    assert commands_of(table, command)[0] == [[b"SET", b"k", b"%d" % seconds, b"%d" % milliseconds]]


JSON_ROWS = pa.table(
    {
        "id": [1, 2],
        "name": ['quo"te \\ \n\x01\x7f', "n\u00e4me \U0001f600"],
        "n": pa.array([None, 2**64 - 1], pa.uint64()),
        "f": [1.5, -0.0],
        "ok": [True, None],
        "at": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "tags": [["a", 'b"'], []],
        "deep": [{"x": [{'y"': 1}], "z": None}, None],
        "map": pa.array([[("k", 1), ('"', 2)], None], pa.map_(pa.string(), pa.int64())),
        "kind": pa.array(["x", None]).dictionary_encode(),
    }
)


def test_the_other_columns_as_json() -> None:
    found, failures = commands_of(JSON_ROWS, ["JSON.SET", "user:{id}", "$", row()])
    assert failures == []
    expected = JSON_ROWS.drop_columns(["id"]).to_pylist(maps_as_pydicts="strict")
    for one in expected:
        one["at"] = one["at"] and one["at"].isoformat()
        one["price"] = one["price"] and str(one["price"])
    for words, values in zip(found, expected, strict=True):
        assert words[3].decode() == json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    found, _ = commands_of(JSON_ROWS, ["SET", "user:{id}", row("json", ["id", "ok"])])
    assert [words[2] for words in found] == [b'{"id":1,"ok":true}', b'{"id":2,"ok":null}']


def test_the_other_columns_as_messagepack() -> None:
    found, _ = commands_of(JSON_ROWS.select(["id", "name", "n"]), ["SET", col("id"), row("msgpack")])
    assert [msgpack.unpackb(words[2]) for words in found] == JSON_ROWS.select(["name", "n"]).to_pylist()


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.lists(st.text('a"\\\n')))))
@settings(deadline=None)
def test_any_text_as_json(drawn: list[Any]) -> None:
    rows = [{"t": text, "l": texts} for text, texts in drawn]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("t", pa.string()), ("l", pa.list_(pa.string()))]))
    found, failures = commands_of(table, ["SET", "k", row()])
    assert failures == []
    assert [words[2].decode() for words in found] == [
        json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in rows
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"id": [1], "x": [float("nan")]}, "column 'x': JSON has no NaN"),
        ({"id": [1], "x": [[float("inf")]]}, "JSON has no NaN and no infinities"),
    ],
)
def test_values_that_json_does_not_have(table: Any, reason: str) -> None:
    found, failures = commands_of(pa.table(table), ["SET", col("id"), row()])
    assert found == []
    assert reason in str(failures[0][2])


@pytest.mark.parametrize(
    ("command", "error", "reason"),
    [
        (["SET", "k", "v"], ValueError, "must have a column"),
        (["SET", "k", col("none")], EncodeError, "'none': there is no such column"),
        (["SET", "k", "{none}"], EncodeError, "'none': there is no such column"),
        (["SET", "k", "{user"], ValueError, "argument 2 '{user'"),
        (["SET", "k", "{user!r}"], ValueError, "without formats"),
        (["SET", "k", col("tags")], EncodeError, "'tags': a nested value cannot be an argument"),
        (["SET", "k", col("user", times="seconds")], EncodeError, "'user': times= is for dates and timestamps"),
        (["SET", "k", row(), row()], ValueError, "one row"),
        (["SET", "k", row("json", ["data"])], EncodeError, "'data': JSON cannot hold binary values"),
        (["SET", col("user", null="skip_pair")], ValueError, "found the name of the command"),
        (["SET", None, col("user")], EncodeError, "argument 1 must be str"),
        (["SELECT", col("user")], EncodeError, "SELECT changes the state"),
        (["CLIENT", "REPLY", col("user")], EncodeError, "CLIENT REPLY turns replies off"),
        ("SET k {user}", TypeError, "must be a list of a name and arguments"),
        ([], TypeError, "must be a list"),
        ([col("user")], EncodeError, "the name of a command must be str or bytes"),
    ],
    ids=repr,
)
def test_templates_that_are_wrong(valkey_client: redis.Redis, command: Any, error: Any, reason: str) -> None:
    table = PLAYERS.append_column("tags", [[["a"]] * 3]).append_column("data", [[b"a"] * 3])
    with pytest.raises(error, match=reason):
        FastBatch(valkey_client).batch_execute_table(table, command)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: col(5), TypeError),  # type: ignore[arg-type]
        (lambda: col("a", times="hours"), ValueError),  # type: ignore[arg-type]
        (lambda: col("a", null="drop"), ValueError),  # type: ignore[arg-type]
        (lambda: row("xml"), ValueError),  # type: ignore[arg-type]
        (lambda: row("json", "abc"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_parts_that_are_wrong(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_a_table_is_carried_out(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    numbers = pa.table({"n": range(25_000), "name": [f"user:{n}" for n in range(25_000)]})
    command = ["ZADD", "board", col("n"), col("name")]
    fast, done = FastBatch(valkey_client), list[Any]()
    report = fast.batch_execute_table(numbers, command, progress=lambda *now: done.append(now), chunk_size=600)
    assert (report.written, report.failed, report.confirmed_prefix) == (25_000, 0, 25_000)
    assert done[-1] == (25_000, 25_000)
    assert valkey_client.zscore("board", "user:24999") == 24_999

    async def run() -> None:
        async with redis.asyncio.Redis(host=valkey.host, port=valkey.port) as client:
            report = await AsyncFastBatch(client).batch_execute_table(numbers, ["RPUSH", "list", col("n")])
            assert report.written == 25_000

    asyncio.run(run())
    assert valkey_client.lrange("list", 0, -1) == [b"%d" % n for n in range(25_000)]


def test_failed_rows_are_named(valkey_client: redis.Redis) -> None:
    table = pa.table({"key": ["a", "b", None, "d"], "by": ["1", "x", "1", "2"]})
    received: list[Any] = []
    fast, command = FastBatch(valkey_client), ["INCRBY", col("key"), col("by")]
    report = fast.batch_execute_table(table, command, on_error=lambda *failure: received.append(failure))
    assert (report.written, report.failed) == (2, 2)
    assert sorted(each[:2] for each in received) == [(1, [b"INCRBY", b"b", b"x"]), (2, [b"INCRBY", None, b"1"])]
    assert str(report.failures[1]) == "row 1 (INCRBY b x): value is not an integer or out of range"
    with pytest.raises(BatchError, match=r"^the commands of 2 of 4 rows failed; the first: row 1 \(INCRBY b x\)"):
        fast.batch_execute_table(table, command)


def test_over_a_cluster(cluster: Cluster, cluster_client: redis.RedisCluster) -> None:
    table = pa.table({"id": range(3000), "other": [f"o{n}" for n in range(3000)]})
    fast = FastBatch(cluster_client)
    assert fast.batch_execute_table(table, ["HSET", "user:{id}", "other", col("other")]).written == 3000
    assert cluster_client.hget("user:77", "other") == b"o77"
    report = fast.batch_execute_table(table, ["DEL", "user:{id}", "user:77"], on_error="report")
    assert (report.written, report.failed) == (1, 2999)
    assert "DEL has keys of several slots" in str(report.failures[0])
    with pytest.raises(EncodeError, match="PING has no key"):
        fast.batch_execute_table(table, ["PING", col("id")])


def test_texts_are_in_the_encoding_of_the_client(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    table, command = pa.table({"k": ["\u00e9"]}), ["SET", "{k}\u00e8", col("k")]

    async def run() -> None:
        # redis.asyncio packs commands in Python, in the client's encoding.
        async with redis.asyncio.Redis(host=valkey.host, port=valkey.port, encoding="latin-1") as client:
            await AsyncFastBatch(client).batch_execute_table(table, command)
            assert await client.get("\u00e9\u00e8") == b"\xe9"

    asyncio.run(run())
    assert valkey_client.keys() == [b"\xe9\xe8"]
