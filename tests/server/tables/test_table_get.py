"""batch_get_table: values that are maps, back into columns."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import math
import re
import uuid
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import DecodeError, FastBatch, MsgpackCodec
from redis_fastbatch._core.arrow.builder import RowsBuilder
from redis_fastbatch._core.arrow.export import ExportedRows
from redis_fastbatch.server import EmbeddedServer
from tiers import examples

numpy = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from table_examples import EXAMPLES  # noqa: E402

UTC = datetime.timezone.utc
EPOCH = datetime.date(1970, 1, 1)


@pytest.fixture
def batch(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


def built(rows: list[Any]) -> Any:
    """The rows as columns, without a server in between."""
    builder = RowsBuilder()
    for row in rows:
        builder.loads(msgpack.packb(row, datetime=True))
    batch = pa.record_batch(ExportedRows(builder))
    batch.validate(full=True)
    return batch


def stored(batch: FastBatch, rows: list[Any]) -> list[str]:
    """Store rows as another program's MessagePack, and return their keys.

    msgpack writes values that batch_set() refuses, such as a timestamp beyond the year 9999.
    """
    encoded = {f"k{i}": msgpack.packb(row, datetime=True) for i, row in enumerate(rows)}
    FastBatch(batch.client, "raw").batch_set(encoded)
    return [f"k{i}" for i in range(len(rows))]


def test_types_are_found_out(client: redis.Redis) -> None:
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


def test_timestamps(batch: FastBatch) -> None:
    moments = [datetime.datetime(1, 1, 1, tzinfo=UTC), None, datetime.datetime(2500, 1, 1, 0, 0, 0, 7, tzinfo=UTC)]
    table = batch.batch_get_table(stored(batch, [{"t": moment} for moment in moments]))
    assert table.schema.field("t").type == pa.timestamp("us", "UTC")
    assert table["t"].to_pylist() == moments


def test_numbers_that_differ() -> None:
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
def test_types_that_do_not_go_together(batch: FastBatch, first: Any, second: Any, words: str) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        batch.batch_get_table(stored(batch, [{"a": first}, {"a": second}, {"a": first}]))
    assert caught.value.key == "k1"


def test_timestamps_become_as_fine_as_one_needs() -> None:
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


@pytest.mark.parametrize(("kind", "digits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)], ids=str)
def test_narrow_floats(batch: FastBatch, kind: Any, digits: int) -> None:
    largest = {11: 65504.0, 24: 3.4028234663852886e38, 53: 1.7976931348623157e308}[digits]
    step = 2 ** (15 if digits == 11 else 40)
    good = [0.1, largest, -largest, math.inf, math.nan, 2**digits, -(2**digits), step, 3 * step // 2, 0, 1e-300]
    schema = pa.schema([("a", kind)])
    table = batch.batch_get_table(stored(batch, [{"a": number} for number in good]), schema=schema)
    with numpy.errstate(over="ignore"):
        expected = numpy.array(good, f"f{kind.bit_width // 8}")
    assert numpy.array_equal(table["a"].to_numpy(), expected, equal_nan=True)
    bad: list[Any] = [2**digits + 1, -(2**digits) - 1]
    if digits < 53:
        bad += [2 * largest, -2 * largest, 1e300]
    if digits == 11:
        bad += [65520.0, 65505, 65520, 2**40, 2**63]
        assert batch.batch_get_table(stored(batch, [{"a": 65519.9}]), schema=schema).to_pylist() == [
            {"a": 65504.0}
        ]
    for number in bad:
        for wanted, wrapped in ((kind, number), (pa.list_(kind), [number])):
            keys = stored(batch, [{"a": None}, {"a": wrapped}])
            with pytest.raises(
                DecodeError, match=f"field 'a.*' holds floats, found the .*float{kind.bit_width}"
            ) as raised:
                batch.batch_get_table(keys, schema=pa.schema([("a", wanted)]))
            assert raised.value.key == "k1"


def test_rows_of_other_fields() -> None:
    rows = [{"a": 1, "b": 2}, {"b": 3, "a": 4}, {"c": "x"}, {}, {"a": 5, "z" * 40: 1, "ключ": 2}, {"b": 6}]
    names = ["a", "b", "c", "z" * 40, "ключ"]
    assert built(rows).to_pylist() == [{name: row.get(name) for name in names} for row in rows]


def test_names_that_columns_cannot_have(batch: FastBatch) -> None:
    keys = stored(batch, [{"a": {"x\0y": 1}}])
    with pytest.raises(DecodeError, match="a field's name must not have a zero byte"):
        batch.batch_get_table(keys)
    assert batch.batch_get_table(keys, schema=pa.schema([("b", pa.int8())])).num_rows == 1


STRICT = pa.field("x", pa.int64(), nullable=False)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.int64(), 5, None),
        (pa.dictionary(pa.int8(), pa.string()), "x", None),
        (pa.run_end_encoded(pa.int32(), pa.string()), "x", None),
        (pa.decimal128(5, 2), "1.50", None),
        (pa.struct([STRICT]), {"x": 5}, {"x": None}),
        (pa.struct([STRICT]), {"x": 5}, {}),
        (pa.list_(STRICT), [1, 2], [1, None]),
        (pa.large_list(pa.struct([STRICT])), [{"x": 5}], [{"x": 5}, {}]),
        (pa.map_(pa.string(), STRICT), {"k": 5}, {"k": 5, "l": None}),
    ],
)
def test_nulls_where_the_schema_has_none(batch: FastBatch, kind: pa.DataType, good: Any, bad: Any) -> None:
    schema = pa.schema([pa.field("a", kind, nullable=isinstance(good, (dict, list))), pa.field("b", pa.int8())])
    keys = stored(batch, [{"a": good, "b": None}, {"a": good}, {"a": bad}, {"a": bad}])
    table = batch.batch_get_table(keys[:2], schema=schema)
    assert table.schema == schema
    assert table["a"].null_count == 0
    with pytest.raises(DecodeError, match=r"key 'k2'.*field 'a': expected .*, found null or no value"):
        batch.batch_get_table(keys, schema=schema)


def test_missing_keys_where_the_schema_has_no_nulls(batch: FastBatch) -> None:
    keys = stored(batch, [{"x": 5}])
    assert batch.batch_get_table(keys, schema=pa.schema([STRICT])).to_pydict() == {"x": [5]}
    with pytest.raises(DecodeError, match=r"key 'gone'.*field 'x': expected int64 not null.*, found null"):
        batch.batch_get_table([*keys, "gone"], schema=pa.schema([STRICT]))
    optional = pa.schema([pa.field("s", pa.struct([STRICT]))])
    assert batch.batch_get_table([*keys, "gone"], schema=optional).to_pydict() == {"s": [None, None]}


def test_many_rows(batch: FastBatch) -> None:
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


def test_key_column(batch: FastBatch) -> None:
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


DICTIONARY_VALUES: list[tuple[Any, list[Any]]] = [
    (pa.string(), ["a", "b", "a", None]),
    (pa.string_view(), ["a", "b" * 20, "a", None]),
    (pa.bool_(), [True, False, True, None]),
    (pa.float32(), [0.5, -1.0, 0.5, None]),
    (pa.timestamp("ns", "Europe/Brussels"), [1, 2, 1, None]),
    (pa.duration("ns"), [1, -2, 1, None]),
    (pa.time32("s"), [1, 2, 1, None]),
    (pa.time64("ns"), [1, 2, 1, None]),
    (pa.decimal128(5, 2), [decimal.Decimal("1.50"), decimal.Decimal("2.00"), decimal.Decimal("1.50"), None]),
    (pa.list_(pa.time64("ns")), [[1, None], [2], [1, None], None]),
    (pa.large_list(pa.string_view()), [["a"], [], ["a"], None]),
    (pa.list_(pa.int8(), 2), [[1, 2], [2, 1], [1, 2], None]),
    (pa.struct([("x", pa.int8()), ("y", pa.string())]), [{"x": 1}, {"y": "a"}, {"x": 1}, None]),
    (pa.struct([]), [{}, {}, {}, None]),
    (pa.map_(pa.string(), pa.date32()), [[("a", 1)], [("b", 1)], [("a", 1)], None]),
]
if hasattr(pa, "decimal32"):
    DICTIONARY_VALUES.append((pa.decimal32(5, 2), [decimal.Decimal("1.50"), decimal.Decimal(2), None, None]))


@pytest.mark.parametrize(("kind", "values"), DICTIONARY_VALUES, ids=[str(kind) for kind, _ in DICTIONARY_VALUES])
def test_dictionaries_come_back(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    given = pa.array([*values[:2], None], kind)
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None, 1], pa.int8()), given)
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int16()), column)
    offsets = pa.array([0, 1, 1, 2, 5, 5], pa.int32())
    absent = pa.array([False, False, True, False, False])
    table = pa.table(
        {
            "k": range(5),
            "plain": column,
            "twice": twice,
            "struct": pa.StructArray.from_arrays([column], ["x"], mask=absent),
            "list": pa.ListArray.from_arrays(offsets, column, mask=absent),
            "large": pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), column),
            "fixed": pa.FixedSizeListArray.from_arrays(column, 1),
            "map": pa.MapArray.from_arrays(offsets, pa.array(list("abcde")).dictionary_encode(), column),
            "deep": pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([column], ["x"])),
        }
    )
    batch.batch_set_table(table, key="k")
    back = batch.batch_get_table(range(5), schema=table.schema)
    back.validate(full=True)
    assert back.schema == table.schema
    for name in table.column_names:
        assert back[name].to_pylist() == table[name].to_pylist()
    assert len(back["plain"].chunk(0).dictionary) == len({repr(value) for value in values[:2]})
    assert batch.batch_get_table([], schema=table.schema).schema == table.schema


def test_dictionaries_of_extension_types_come_back(batch: FastBatch) -> None:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16, b"y" * 16], pa.binary(16)))
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), uuids)
    table = pa.table({"k": range(4), "v": column, "s": pa.StructArray.from_arrays([column], ["x"])})
    batch.batch_set_table(table, key="k")
    back = batch.batch_get_table(range(4), schema=table.schema)
    assert back.schema == table.schema
    assert back.to_pylist() == table.to_pylist()


def test_key_columns_of_large_ints(batch: FastBatch) -> None:
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


@pytest.mark.parametrize(
    ("keys", "kind", "bad"),
    [
        (["1", "one"], pa.int64(), "one"),
        ([1, 2**63], pa.int64(), 2**63),
        ([b"k", b"\xff"], pa.string(), b"\xff"),
        (["2024-05-01", "2024-05-32"], pa.date32(), "2024-05-32"),
        ([1, 300], pa.int8(), 300),
    ],
)
def test_keys_that_do_not_fit_their_column(batch: FastBatch, keys: list[Any], kind: Any, bad: Any) -> None:
    schema = pa.schema({"key": kind, "a": pa.int64()})
    with pytest.raises(DecodeError, match=re.escape(f"field 'key': the key does not fit {kind}")) as raised:
        batch.batch_get_table(keys, schema=schema, key="key")
    assert raised.value.key == bad


@contextlib.contextmanager
def encoding_itself(server: EmbeddedServer, **options: Any) -> Iterator[redis.Redis]:
    """A client whose commands are packed by Python, in its own encoding: hiredis' are in UTF-8."""
    with server.client(**options) as client:
        packer = redis.connection.PythonRespSerializer(6000, client.get_encoder().encode)
        client.connection_pool.connection_kwargs["command_packer"] = packer
        yield client


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_keys_in_the_clients_encoding(valkey: EmbeddedServer, kind: str, as_: Any) -> None:
    texts = ["é", "ascii", "ü" * 500]
    column = pa.array(texts).dictionary_encode() if kind == "dictionary" else pa.array(texts, getattr(pa, kind)())
    table = pa.table({"name": column, "n": [1, 2, 3]})
    with encoding_itself(valkey, encoding="latin-1") as client:
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


def test_text_that_the_clients_encoding_has_not(valkey: EmbeddedServer) -> None:
    table = pa.table({"name": ["é", "Ж", "b"], "n": [1, 2, 3]})
    with encoding_itself(valkey, encoding="latin-1") as client:
        client.flushdb()
        report = FastBatch(client).batch_set_table(table, key="name", on_error="report")
        assert (report.written, list(report.failures)) == (2, [1])
        assert "row 1: the key cannot be encoded: 'latin-1' codec" in str(report.failures[1])
    with encoding_itself(valkey, encoding="latin-1", encoding_errors="replace") as client:
        FastBatch(client).batch_set_table(table, key="name")
        assert client.exists(b"?")
    with (
        encoding_itself(valkey, encoding="utf-16") as client,
        pytest.raises(ValueError, match="must keep ASCII as it is, got 'utf-16'"),
    ):
        FastBatch(client).batch_set_table(table, key="name")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(pa.time32("s"), datetime.time(1, 2, 3)), (pa.time64("ns"), datetime.time(1, 2, 3, 4)), (pa.date32(), EPOCH)],
)
def test_key_columns_of_times(batch: FastBatch, kind: Any, value: Any) -> None:
    table = pa.table({"key": pa.array([value], kind), "a": [1]})
    batch.batch_set_table(table, key="key", columns=["a"])
    assert batch.batch_get_table([value.isoformat()], schema=table.schema, key="key").equals(table)


def test_a_row_a_key_without_columns_too(batch: FastBatch) -> None:
    batch.batch_set({"empty": {}})
    for schema in (None, pa.schema([]), pa.schema([("key", pa.string())])):
        for keys in (["empty", "no"], ["no"], ["empty"]):
            found = batch.batch_get_table(keys, schema=schema, key="key")
            assert found.to_pylist() == [{"key": key} for key in keys]
            assert batch.batch_get_table(keys, schema=pa.schema([])).num_rows == len(keys)


def test_schemas_with_a_name_twice(batch: FastBatch) -> None:
    twice = [("a", pa.int64()), ("a", pa.int64())]
    for schema in (pa.schema(twice), pa.schema([("s", pa.struct(twice))])):
        for key in (None, "a"):
            with pytest.raises(ValueError, match="the schema has two fields 'a'"):
                batch.batch_get_table(["k"], schema=schema, key=key)


def test_what_pandas_notes_in_a_schema(batch: FastBatch) -> None:
    """Its index and its types that have nulls come back by the schema's metadata."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"n": pandas.array([1, None], "Int64"), "c": pandas.Categorical(["x", "y"])},
        index=pandas.Index(["a", "b"], name="name"),
    )
    batch.batch_set_table(frame, key="name")
    schema = pa.Schema.from_pandas(frame)
    for key in (None, "name"):
        pandas.testing.assert_frame_equal(
            batch.batch_get_table(["a", "b"], schema=schema, key=key).to_pandas(), frame
        )


def test_no_keys(batch: FastBatch) -> None:
    assert batch.batch_get_table([]).num_rows == 0
    schema = pa.schema([("a", pa.int8()), ("k", pa.string())])
    assert batch.batch_get_table([], schema=schema, key="k").schema == schema


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=[str(kind) for kind, _ in EXAMPLES])
def test_what_was_written_comes_back(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    """Every type that batch_set_table takes, through the server and back into the same type."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    array = pa.array(values, plain)
    table = pa.table(
        {"k": range(len(values)), "value": array if plain == kind else array.dictionary_encode().cast(kind)}
    )
    batch.batch_set_table(table, key="k", columns=["value"])
    back = batch.batch_get_table(list(range(len(values))), key="k", schema=table.schema)
    assert back.schema == table.schema
    back.validate(full=True)
    if pa.types.is_dictionary(kind):
        assert back["value"].to_pylist() == values
    else:
        assert back.equals(table)


def makes_dictionary_of_float16() -> bool:
    """The newest pyarrow for Python 3.10 does not."""
    try:
        pa.array([1.5], pa.float16()).dictionary_encode()
    except pa.ArrowNotImplementedError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            pa.decimal128(38, 10),
            [decimal.Decimal("-1.5"), None, decimal.Decimal("12345678901234567890.0123456789")],
        ),
        (pa.decimal256(76, 40), [decimal.Decimal("1E-40"), decimal.Decimal(0)]),
        (pa.float16(), [1.5, None, float("inf")]),
        pytest.param(
            pa.dictionary(pa.int8(), pa.float16()),
            [1.5, None, 1.5],
            marks=pytest.mark.skipif(
                not makes_dictionary_of_float16(), reason="this pyarrow makes no dictionary of float16"
            ),
        ),
        (pa.dictionary(pa.int16(), pa.duration("ms")), [datetime.timedelta(seconds=1.5), None]),
        (pa.dictionary(pa.uint8(), pa.time64("us"), ordered=True), [datetime.time(1, 2), None]),
        (pa.dictionary(pa.int8(), pa.timestamp("us", "UTC")), [datetime.datetime(2024, 1, 1, tzinfo=UTC), None]),
        (pa.dictionary(pa.int8(), pa.decimal128(9, 2)), [decimal.Decimal("1.25"), None]),
        (pa.list_(pa.duration("s")), [[1, None], None]),
        (pa.struct([("t", pa.time64("us")), ("d", pa.date32())]), [{"t": datetime.time(1, 2), "d": None}, None]),
        (pa.map_(pa.date32(), pa.decimal128(9, 2)), [[(datetime.date(2024, 1, 1), decimal.Decimal("1.25"))]]),
        (pa.list_(pa.timestamp("ms")), [[datetime.datetime(2024, 1, 1, 0, 0, 0, 5000)], None]),
    ],
)
def test_more_types_come_back(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    test_what_was_written_comes_back(batch, kind, values)


def test_extension_types_come_back(batch: FastBatch) -> None:
    table = pa.table({"k": [0], "value": pa.array([uuid.UUID(int=7).bytes], pa.uuid())})
    batch.batch_set_table(table, key="k", columns=["value"])
    assert batch.batch_get_table([0], key="k", schema=table.schema).equals(table)


def test_list_views_come_back(batch: FastBatch) -> None:
    keys = stored(batch, [{"l": [1, 2]}, {"l": None}])
    table = batch.batch_get_table(keys, schema=pa.schema([("l", pa.list_view(pa.int8()))]))
    assert table["l"].to_pylist() == [[1, 2], None]


def test_fields_that_are_not_asked_for(batch: FastBatch) -> None:
    rows = [
        {"junk": [1, {"x": b"y"}, 1.5, None, True, "t" * 300, -5, 2**40, b"z" * 70000], "a": 1, "more": 2**64 - 1},
        {"a": 2, "junk": {"deep": [[[]]]}, "ext": msgpack.ExtType(9, b"123"), "t": msgpack.Timestamp(5)},
        {
            "a": 3,
            "long": [0] * 70000,
            "map": {str(i): i for i in range(70000)},
            "e": msgpack.ExtType(1, b"x" * 20),
        },
    ]
    keys = stored(batch, rows)
    table = batch.batch_get_table(keys, schema=pa.schema([("a", pa.int16()), ("absent", pa.string())]))
    assert table.to_pylist() == [{"a": i, "absent": None} for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "words"),
    [
        (pa.int8(), 1, 300, "300 does not fit int8"),
        (pa.int64(), 1, 1.5, "field 'a' holds ints, found the float 1.5"),
        (pa.uint64(), 1, -1, "holds ints, found the int -1"),
        (pa.string(), "x", 1, "holds strings, found the int 1"),
        (pa.date32(), "2024-01-01", "tomorrow", "'tomorrow' does not fit date32"),
        (pa.time32("s"), "12:00:00", "12:00:00.500000", "does not fit time32"),
        (pa.timestamp("s"), "2024-01-01T00:00:00", "2024-01-01T00:00:00.500000", "does not fit timestamp"),
        (pa.duration("s"), "P1D", "PT0.5S", "'PT0.5S' does not fit duration"),
        (pa.duration("s"), "P1D", "1 day", "'1 day' does not fit duration"),
        (pa.decimal128(5, 2), "1.25", "1.255", "does not fit decimal128"),
        (pa.decimal128(5, 2), "1.25", "x", "does not fit decimal128"),
        (pa.binary(2), b"ab", b"abc", "does not fit fixed_size_binary"),
        (pa.list_(pa.int64(), 2), [1, 2], [1], "does not fit fixed_size_list"),
        (pa.list_(pa.int64()), [1], ["x"], "holds ints, found strings"),
        (pa.struct([("x", pa.int8())]), {"x": 1}, {"x": 1000}, "does not fit struct"),
        (pa.map_(pa.string(), pa.int8()), {"x": 1}, {1: 1}, "field 'a, a key' holds strings, found the int 1"),
        (pa.map_(pa.string(), pa.int8()), {"x": 1}, {None: 1}, "the key of a map must not be null"),
        (pa.null(), None, 1, "holds nulls, found ints"),
        (pa.timestamp("s", "UTC"), msgpack.Timestamp(1), msgpack.Timestamp(1, 5), "finer than the column's unit"),
        (
            pa.timestamp("ns", "UTC"),
            msgpack.Timestamp(1),
            msgpack.Timestamp(2**40),
            "out of the range of the column's unit",
        ),
    ],
)
def test_values_that_do_not_fit_the_schema(batch: FastBatch, kind: Any, good: Any, bad: Any, words: str) -> None:
    keys = stored(batch, [{"a": good}, {"a": None}, {"a": bad}, {"a": good}])
    schema = pa.schema([("a", kind)])
    assert batch.batch_get_table([keys[0], keys[1]], schema=schema).num_rows == 2
    with pytest.raises(DecodeError, match=words) as caught:
        batch.batch_get_table(keys, schema=schema)
    assert caught.value.key == "k2"


def test_schemas_that_nothing_is_read_as(batch: FastBatch) -> None:
    for kind in (pa.month_day_nano_interval(), pa.sparse_union([pa.field("x", pa.int8())])):
        with pytest.raises(TypeError, match="column 'a': values cannot be read as"):
            batch.batch_get_table(["k"], schema=pa.schema([("a", kind)]))


@pytest.mark.parametrize("value", [1, "text", [1], None, 1.5, True, b"x"])
def test_values_that_are_no_rows(batch: FastBatch, value: Any) -> None:
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
def test_bytes_that_are_no_rows(batch: FastBatch, data: bytes) -> None:
    batch.client.set("bad", data)
    batch.batch_set({"good": {"a": 1}})
    for schema in (None, pa.schema([]), pa.schema([("b", pa.string())])):
        if schema is not None and data in (
            b"\x82\xa1a\x01\xa1a\x02",
            b"\x81\xa1a\xa1\xff",
            b"\x81\xa1a\xd4\xff\0",
        ):
            # Nobody looks at what was not asked for.
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
def test_any_rows_come_back_or_are_refused(rows: list[dict[str, Any]]) -> None:
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
def test_any_bytes(data: bytes) -> None:
    """Anything at all is a row or a DecodeError, and leaves buffers that pyarrow finds valid."""
    for start in (b"", b"\x81\xa1a", b"\x82\xa1a\x01\xa1b", b"\x81\xa1a\x93"):
        builder = RowsBuilder()
        builder.loads(msgpack.packb({"a": None}))
        try:
            builder.loads(start + data)
        except DecodeError:
            continue
        pa.record_batch(ExportedRows(builder)).validate(full=True)


def test_other_codecs(valkey_client: redis.Redis) -> None:
    rows = {f"k{i}": {"a": i, "s": "x"} for i in range(3)}
    for codec in ("json", "toolkit-msgpack", "toolkit"):
        batch = FastBatch(valkey_client, codec=codec)
        batch.batch_set(rows)
        assert batch.batch_get_table(rows).to_pylist() == list(rows.values())
    # Values of a fleet on its way from redis-toolkit: both formats side by side.
    FastBatch(valkey_client, codec="toolkit-msgpack").batch_set({"k1": rows["k1"]})
    both = FastBatch(valkey_client, codec="toolkit-msgpack")
    assert both.batch_get_table(rows).to_pylist() == list(rows.values())


def test_the_table_outlives_everything(batch: FastBatch) -> None:
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


def test_what_pyarrow_itself_does_not_fit(valkey_client: redis.Redis) -> None:
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
