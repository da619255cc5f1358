"""batch_get_table reads values that are maps as columns."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import DecodeError, FastBatch, MsgpackCodec
from redis_fastbatch._core.arrow.export import ExportedRows
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch.server import EmbeddedServer
from tiers import examples

numpy = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from table_examples import stored  # noqa: E402

UTC = datetime.timezone.utc
EPOCH = datetime.date(1970, 1, 1)


@pytest.fixture
def batch(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


def built(rows: list[Any]) -> Any:
    """Return the rows as columns, without a server."""
    builder = RowsBuilder()
    for row in rows:
        builder.loads(msgpack.packb(row, datetime=True))
    batch = pa.record_batch(ExportedRows(builder))
    batch.validate(full=True)
    return batch


def test_types_are_inferred(client: redis.Redis) -> None:
    batch = FastBatch(client)
    rows = [
        {"i": 1, "f": 1.5, "b": True, "s": "ä", "z": b"\0", "n": None, "l": [1, None], "d": {"x": 1}},
        {"i": None, "f": None, "b": None, "s": None, "z": None, "n": None, "l": None, "d": None},
        {"i": -5, "f": 0.0, "b": False, "s": "", "z": b"", "n": None, "l": [], "d": {"x": None}},
    ]
    table = batch.batch_get_table(stored(batch, rows))
    assert table.to_pylist() == rows
    assert [str(field.type) for field in table.schema] == [
        *("int64", "double", "bool", "string", "binary", "null", "list<item: int64>", "struct<x: int64>")
    ]
    table.validate(full=True)


def test_timestamps_are_read_as_microseconds_in_utc(batch: FastBatch) -> None:
    moments = [datetime.datetime(1, 1, 1, tzinfo=UTC), None, datetime.datetime(2500, 1, 1, 0, 0, 0, 7, tzinfo=UTC)]
    table = batch.batch_get_table(stored(batch, [{"t": moment} for moment in moments]))
    assert table.schema.field("t").type == pa.timestamp("us", "UTC")
    assert table["t"].to_pylist() == moments


def test_numbers_of_different_types_share_a_column() -> None:
    assert built([{"a": 1}, {"a": 2**64 - 1}]).schema.field("a").type == pa.uint64()
    assert built([{"a": None}, {"a": 2**63}, {"a": 5}]).to_pydict() == {"a": [None, 2**63, 5]}
    assert built([{"a": 1}, {"a": None}, {"a": 2.5}, {"a": 3}]).to_pydict() == {"a": [1.0, None, 2.5, 3.0]}
    assert built([{"a": 2.5}, {"a": 2**60}, {"a": 2**63}]).to_pydict() == {"a": [2.5, 2.0**60, 2.0**63]}
    assert built([{"a": 2**63}, {"a": 2**60}, {"a": 2.5}]).to_pydict() == {"a": [2.0**63, 2.0**60, 2.5]}
    floats = built([{"a": msgpack.unpackb(msgpack.packb(0.5, use_single_float=True))}, {"a": -(2**53)}])
    assert floats.to_pydict() == {"a": [0.5, -(2.0**53)]}


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (1, "x", "field 'a' holds ints, found strings"),
        ("x", 1, "field 'a' holds strings, found the int 1"),
        ("x", b"x", "field 'a' holds strings, found binaries"),
        (True, 1, "field 'a' holds bools, found the int 1"),
        (1, True, "field 'a' holds ints, found bools"),
        ([1], 1, "field 'a' holds lists, found the int 1"),
        ([1], ["x"], "field 'a' holds ints, found strings"),
        ({"x": 1}, [1], "field 'a' holds maps, found lists"),
        ({"x": 1}, {"x": "y"}, "field 'x' holds ints, found strings"),
        (-1, 2**63, "field 'a' holds ints, found the int 9223372036854775808"),
        (2**63, -1, "field 'a' holds ints, found the int -1"),
        (0.5, 2**53 + 1, "which float64 cannot hold exactly"),
        (2**53 + 1, 0.5, "found a float; ints in it are too large"),
        (2**64 - 1, 0.5, "found a float; ints in it are too large"),
        (0.5, 2**63 - 1, "which float64 cannot hold exactly"),
        (0.5, 2**64 - 1, "found the int 18446744073709551615"),
        (1, msgpack.ExtType(5, b"x"), "found extension type 5"),
        (1, msgpack.Timestamp(1), "field 'a' holds ints, found timestamps"),
        (msgpack.Timestamp(2**40), msgpack.Timestamp(1, 1), "others in it are out of the range"),
        (msgpack.Timestamp(-(2**40)), msgpack.Timestamp(1, 1), "others in it are out of the range"),
        (msgpack.Timestamp(1, 1), msgpack.Timestamp(2**40), "out of the range of the column's unit"),
    ],
)
def test_types_that_cannot_share_a_column_are_an_error(
    batch: FastBatch, first: Any, second: Any, words: str
) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        batch.batch_get_table(stored(batch, [{"a": first}, {"a": second}, {"a": first}]))
    assert caught.value.key == "k1"


def test_timestamps_become_nanoseconds_if_one_needs_them() -> None:
    stamps = [msgpack.Timestamp(1, 1000), None, msgpack.Timestamp(-5), msgpack.Timestamp(1, 1)]
    coarse = built([{"a": stamp, "b": [stamp]} for stamp in stamps[:3]])
    assert coarse.schema.field("a").type == pa.timestamp("us", "UTC")
    fine = built([{"a": stamp, "b": [stamp]} for stamp in stamps])
    assert fine.schema.field("a").type == pa.timestamp("ns", "UTC")
    assert fine.schema.field("b").type == pa.list_(pa.timestamp("ns", "UTC"))
    ticks = [1_000_001_000, None, -5_000_000_000, 1_000_000_001]
    assert fine["a"].cast(pa.int64()).to_pylist() == ticks
    assert [each[0].value for each in fine["b"]] == ticks
    furthest = [pa.scalar(ticks, pa.timestamp("ns", "UTC")) for ticks in (2**63 - 1, -(2**63))]
    rows = [{"a": msgpack.Timestamp(*divmod(stamp.value, 10**9))} for stamp in furthest]
    assert built(rows)["a"].to_pylist() == [stamp.as_py() for stamp in furthest]


def test_rows_may_have_different_fields() -> None:
    rows = [{"a": 1, "b": 2}, {"b": 3, "a": 4}, {"c": "x"}, {}, {"a": 5, "z" * 40: 1, "ключ": 2}, {"b": 6}]
    names = ["a", "b", "c", "z" * 40, "ключ"]
    assert built(rows).to_pylist() == [{name: row.get(name) for name in names} for row in rows]


def test_field_names_with_a_zero_byte_are_an_error(batch: FastBatch) -> None:
    keys = stored(batch, [{"a": {"x\0y": 1}}])
    with pytest.raises(DecodeError, match="a field's name must not have a zero byte"):
        batch.batch_get_table(keys)
    assert batch.batch_get_table(keys, schema=pa.schema([("b", pa.int8())])).num_rows == 1


def test_many_rows_are_read(batch: FastBatch) -> None:
    rows = [{"id": i, "name": f"name {i}", "tags": [str(i)] * (i % 3), "half": i / 2} for i in range(20_000)]
    table = batch.batch_get_table(stored(batch, rows))
    assert table.to_pylist() == rows
    table.validate(full=True)


def test_missing_keys_are_rows_of_nulls(batch: FastBatch) -> None:
    keys = stored(batch, [{"a": i, "l": [i]} for i in range(3)])
    batch.client.lpush("wrong type", 1)
    table = batch.batch_get_table(["no", *keys, "wrong type", keys[0]])
    assert table["a"].to_pylist() == [None, 0, 1, 2, None, 0]
    assert table["l"].to_pylist() == [None, [0], [1], [2], None, [0]]
    assert batch.batch_get_table(["no", "neither"], schema=pa.schema([("a", pa.int8())])).to_pylist() == [
        {"a": None},
        {"a": None},
    ]


def test_keys_can_be_a_column(batch: FastBatch) -> None:
    keys = stored(batch, [{"a": 1}, {"a": 2}])
    assert batch.batch_get_table(keys, key="key").to_pylist() == [{"key": "k0", "a": 1}, {"key": "k1", "a": 2}]
    assert batch.batch_get_table([b"k1", "k0"], key="key").to_pylist() == [
        {"key": b"k1", "a": 2},
        {"key": b"k0", "a": 1},
    ]
    schema = pa.schema([("a", pa.int8()), ("key", pa.large_string())])
    table = batch.batch_get_table([b"k1", "k0", 5], key="key", schema=schema)
    assert table.schema == schema
    assert table.to_pylist() == [{"a": 2, "key": "k1"}, {"a": 1, "key": "k0"}, {"a": None, "key": "5"}]
    batch.batch_set({1: {"a": 1}})
    assert batch.batch_get_table([1], key="n").schema.field("n").type == pa.int64()
    with pytest.raises(ValueError, match="have a field 'a'"):
        batch.batch_get_table(keys, key="a")


def test_the_key_column_fits_large_ints(batch: FastBatch) -> None:
    for keys, kind in (
        ([2**63, 1], pa.uint64()),
        ([-(2**63), 1], pa.int64()),
        ([2**64, 1], pa.string()),
        ([2**63, -1], pa.string()),
    ):
        batch.batch_set({key: {"a": 1} for key in keys})
        table = batch.batch_get_table(keys, key="key")
        assert table.schema.field("key").type == kind
        assert [int(key) for key in table["key"].to_pylist()] == keys
        assert table["a"].to_pylist() == [1, 1]


@contextlib.contextmanager
def packing_in_python(server: EmbeddedServer, **options: Any) -> Iterator[redis.Redis]:
    """Connect with a client that packs commands in Python, in its own encoding. hiredis packs them in UTF-8."""
    with server.client(**options) as client:
        packer = redis.connection.PythonRespSerializer(6000, client.get_encoder().encode)
        client.connection_pool.connection_kwargs["command_packer"] = packer
        yield client


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_keys_have_the_clients_encoding(valkey: EmbeddedServer, kind: str, as_: Any) -> None:
    texts = ["é", "ascii", "ü" * 500]
    column = pa.array(texts).dictionary_encode() if kind == "dictionary" else pa.array(texts, getattr(pa, kind)())
    table = pa.table({"name": column, "n": [1, 2, 3]})
    with packing_in_python(valkey, encoding="latin-1") as client:
        client.flushdb()
        batch = FastBatch(client)
        batch.batch_set_table(table, key="ö{name}", prefix="ä", as_=as_)
        keys = [f"äö{text}" for text in texts]
        assert set(client.scan_iter()) == {key.encode("latin-1") for key in keys}
        if as_ == "hash":
            assert client.hget(keys[0], "name") == "é".encode()
            return
        assert batch.batch_get(keys) == dict(zip(keys, table.to_pylist(), strict=True))
        for given in (keys, [key.encode("latin-1") for key in keys]):
            schema = pa.schema({"key": pa.string(), "n": pa.int64()})
            assert batch.batch_get_table(given, key="key", schema=schema)["key"].to_pylist() == keys
        mixed = batch.batch_get_table([keys[0], b"none"], key="key")
        assert mixed["key"].to_pylist() == [keys[0].encode("latin-1"), b"none"]


def test_keys_that_the_clients_encoding_lacks_fail(valkey: EmbeddedServer) -> None:
    table = pa.table({"name": ["é", "Ж", "b"], "n": [1, 2, 3]})
    with packing_in_python(valkey, encoding="latin-1") as client:
        client.flushdb()
        report = FastBatch(client).batch_set_table(table, key="name", on_error="report")
        assert (report.written, list(report.failures)) == (2, [1])
        assert "row 1: the key cannot be encoded: 'latin-1' codec" in str(report.failures[1])
    with packing_in_python(valkey, encoding="latin-1", encoding_errors="replace") as client:
        FastBatch(client).batch_set_table(table, key="name")
        assert client.exists(b"?")
    with (
        packing_in_python(valkey, encoding="utf-16") as client,
        pytest.raises(ValueError, match="must keep ASCII as it is, got 'utf-16'"),
    ):
        FastBatch(client).batch_set_table(table, key="name")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(pa.time32("s"), datetime.time(1, 2, 3)), (pa.time64("ns"), datetime.time(1, 2, 3, 4)), (pa.date32(), EPOCH)],
)
def test_the_key_column_may_have_dates_and_times(batch: FastBatch, kind: Any, value: Any) -> None:
    table = pa.table({"key": pa.array([value], kind), "a": [1]})
    batch.batch_set_table(table, key="key", columns=["a"])
    assert batch.batch_get_table([value.isoformat()], schema=table.schema, key="key").equals(table)


def test_every_key_is_a_row_even_without_columns(batch: FastBatch) -> None:
    batch.batch_set({"empty": {}})
    for schema in (None, pa.schema([]), pa.schema([("key", pa.string())])):
        for keys in (["empty", "no"], ["no"], ["empty"]):
            found = batch.batch_get_table(keys, schema=schema, key="key")
            assert found.to_pylist() == [{"key": key} for key in keys]
            assert batch.batch_get_table(keys, schema=pa.schema([])).num_rows == len(keys)


def test_without_keys_the_table_is_empty(batch: FastBatch) -> None:
    assert batch.batch_get_table([]).num_rows == 0
    schema = pa.schema([("a", pa.int8()), ("k", pa.string())])
    assert batch.batch_get_table([], schema=schema, key="k").schema == schema


@pytest.mark.parametrize("value", [1, "text", [1], None, 1.5, True, b"x"])
def test_values_that_are_not_maps_are_an_error(batch: FastBatch, value: Any) -> None:
    batch.batch_set({"good": {"a": 1}, "bad": value})
    with pytest.raises(DecodeError, match="a row must be a map, found") as caught:
        batch.batch_get_table(["good", "bad", "good"])
    assert caught.value.key == "bad"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        b"\x81\xa1",
        b"\x81\xa1a",
        b"\x81\xa1a\xcf\0",
        b"\x81\xa1a\xcb\0",
        b"\x81\xa1a\xca\0",
        b"\x81\xa1a\xa5abc",
        b"\x81\xa1a\xd9",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a\xc7\x05\xff",
        b"\x81\xa1a\xc1",
        b"\x81\xa1a\xa1\xff",
        b"\x81\xa1\xff\x01",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\x01\x02",
        b"\x81\xa1a\x01\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xd6\xff\0\0",
        b"\x81\xa1a\xd4\xff\0",
        b"\x81\xa1a\xd7\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x81\xa1a" + b"\x91" * 200 + b"\x01",
    ],
)
def test_invalid_bytes_are_an_error(batch: FastBatch, data: bytes) -> None:
    batch.client.set("bad", data)
    batch.batch_set({"good": {"a": 1}})
    for schema in (None, pa.schema([]), pa.schema([("b", pa.string())])):
        if schema is not None and data in (
            b"\x82\xa1a\x01\xa1a\x02",
            b"\x81\xa1a\xa1\xff",
            b"\x81\xa1a\xd4\xff\0",
        ):
            # Fields that are not in the schema are not checked.
            continue
        if schema is not None and len(data) > 100:
            continue
        if schema is not None and b"\xd7\xff" in data:
            continue
        with pytest.raises(DecodeError) as caught:
            batch.batch_get_table(["bad"], schema=schema)
        assert caught.value.key == "bad"


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
    ),
    lambda items: st.one_of(st.lists(items, max_size=3), st.dictionaries(st.text(max_size=2), items, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3), max_size=4))
def test_any_rows_are_read_or_refused(rows: list[dict[str, Any]]) -> None:
    try:
        batch = built(rows)
    except DecodeError:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    assert batch.schema.names == names
    for column, name in zip(batch.columns, names, strict=True):
        for value, row in zip(column.to_pylist(), rows, strict=True):
            assert agrees(row.get(name), value)


def agrees(written: Any, read: Any) -> bool:
    """Return whether a read value equals a written one, except for new nulls and ints that became floats."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(agrees(written.get(name), value) for name, value in read.items())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(agrees, written, read))
    return bool(written == read) or (written != written and read != read)


@settings(max_examples=examples(500), deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Any bytes are a row or a DecodeError, and the buffers stay valid for pyarrow."""
    for start in (b"", b"\x81\xa1a", b"\x82\xa1a\x01\xa1b", b"\x81\xa1a\x93"):
        builder = RowsBuilder()
        builder.loads(msgpack.packb({"a": None}))
        try:
            builder.loads(start + data)
        except DecodeError:
            continue
        pa.record_batch(ExportedRows(builder)).validate(full=True)


def test_values_of_other_codecs_are_read(valkey_client: redis.Redis) -> None:
    rows = {f"k{i}": {"a": i, "s": "x"} for i in range(3)}
    for codec in ("json", "toolkit-msgpack", "toolkit"):
        batch = FastBatch(valkey_client, codec=codec)
        batch.batch_set(rows)
        assert batch.batch_get_table(rows).to_pylist() == list(rows.values())
    # During a migration from redis-toolkit, values of both formats exist.
    FastBatch(valkey_client, codec="toolkit-msgpack").batch_set({"k1": rows["k1"]})
    both = FastBatch(valkey_client, codec="toolkit-msgpack")
    assert both.batch_get_table(rows).to_pylist() == list(rows.values())


def test_a_column_outlives_its_table(batch: FastBatch) -> None:
    keys = stored(batch, [{"s": f"text {i}" * 10} for i in range(1000)])
    column = batch.batch_get_table(keys)["s"].slice(500)
    assert column[0].as_py() == "text 500" * 10


def test_rows_are_exported_once() -> None:
    builder = RowsBuilder()
    builder.loads(MsgpackCodec().dumps({"a": 1}))
    exported = ExportedRows(builder)
    exported.__arrow_c_array__()
    with pytest.raises(ValueError, match="exported before"):
        exported.__arrow_c_array__()


def test_values_that_pyarrow_cannot_convert_are_an_error(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    fast.batch_set({str(i): {"x": f"text {i}"} for i in range(200)})
    keys = [str(i) for i in range(200)]
    with pytest.raises(DecodeError, match="do not fit the schema"):
        fast.batch_get_table(keys, schema=pa.schema([("x", pa.dictionary(pa.int8(), pa.string()))]))
    with pytest.raises(DecodeError, match="key 'a', at byte 0: field 'k': the key does not fit int64"):
        fast.batch_get_table(["a"], schema=pa.schema([("k", pa.int64())]), key="k")
    large = FastBatch(valkey_client, "json")
    large.batch_set({"large": {"x": 2**70}})
    with pytest.raises(DecodeError, match=r"key 'large'.* a column cannot hold the value: .*found 11805916"):
        large.batch_get_table(["large"])
