"""batch_get_table with a schema: columns have its types, and values that do not fit are an error."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import uuid
from typing import Any

import msgpack
import pytest
import redis

from redis_fastbatch import DecodeError, FastBatch

numpy = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

from table_examples import EXAMPLES, stored  # noqa: E402

UTC = datetime.timezone.utc


@pytest.fixture
def batch(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


@pytest.mark.parametrize(("kind", "digits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)], ids=str)
def test_floats_must_fit_their_type(batch: FastBatch, kind: Any, digits: int) -> None:
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
def test_nulls_are_an_error_if_the_schema_has_none(
    batch: FastBatch, kind: pa.DataType, good: Any, bad: Any
) -> None:
    schema = pa.schema([pa.field("a", kind, nullable=isinstance(good, (dict, list))), pa.field("b", pa.int8())])
    keys = stored(batch, [{"a": good, "b": None}, {"a": good}, {"a": bad}, {"a": bad}])
    table = batch.batch_get_table(keys[:2], schema=schema)
    assert table.schema == schema
    assert table["a"].null_count == 0
    with pytest.raises(DecodeError, match=r"key 'k2'.*field 'a': expected .*, found null or no value"):
        batch.batch_get_table(keys, schema=schema)


def test_missing_keys_are_an_error_if_the_schema_has_no_nulls(batch: FastBatch) -> None:
    keys = stored(batch, [{"x": 5}])
    assert batch.batch_get_table(keys, schema=pa.schema([STRICT])).to_pydict() == {"x": [5]}
    with pytest.raises(DecodeError, match=r"key 'gone'.*field 'x': expected int64 not null.*, found null"):
        batch.batch_get_table([*keys, "gone"], schema=pa.schema([STRICT]))
    optional = pa.schema([pa.field("s", pa.struct([STRICT]))])
    assert batch.batch_get_table([*keys, "gone"], schema=optional).to_pydict() == {"s": [None, None]}


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
def test_dictionary_columns_are_read_with_their_schema(batch: FastBatch, kind: Any, values: list[Any]) -> None:
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


def test_dictionaries_of_extension_types_are_read_with_their_schema(batch: FastBatch) -> None:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16, b"y" * 16], pa.binary(16)))
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), uuids)
    table = pa.table({"k": range(4), "v": column, "s": pa.StructArray.from_arrays([column], ["x"])})
    batch.batch_set_table(table, key="k")
    back = batch.batch_get_table(range(4), schema=table.schema)
    assert back.schema == table.schema
    assert back.to_pylist() == table.to_pylist()


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
def test_keys_that_do_not_fit_their_column_are_an_error(
    batch: FastBatch, keys: list[Any], kind: Any, bad: Any
) -> None:
    schema = pa.schema({"key": kind, "a": pa.int64()})
    with pytest.raises(DecodeError, match=re.escape(f"field 'key': the key does not fit {kind}")) as raised:
        batch.batch_get_table(keys, schema=schema, key="key")
    assert raised.value.key == bad


def test_schemas_with_repeated_names_are_refused(batch: FastBatch) -> None:
    twice = [("a", pa.int64()), ("a", pa.int64())]
    for schema in (pa.schema(twice), pa.schema([("s", pa.struct(twice))])):
        for key in (None, "a"):
            with pytest.raises(ValueError, match="the schema has two fields 'a'"):
                batch.batch_get_table(["k"], schema=schema, key=key)


def test_a_schema_of_pandas_restores_the_frame(batch: FastBatch) -> None:
    """The schema's metadata restores pandas' index and its nullable types."""
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


def check_round_trip(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    """Write a column, read it with its schema, and check that it is equal."""
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


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=[str(kind) for kind, _ in EXAMPLES])
def test_every_type_is_read_with_its_schema(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    check_round_trip(batch, kind, values)


def makes_dictionary_of_float16() -> bool:
    """Return whether pyarrow can make a dictionary of float16. The newest one for Python 3.10 cannot."""
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
def test_more_types_are_read_with_their_schema(batch: FastBatch, kind: Any, values: list[Any]) -> None:
    check_round_trip(batch, kind, values)


def test_extension_types_are_read_with_their_schema(batch: FastBatch) -> None:
    table = pa.table({"k": [0], "value": pa.array([uuid.UUID(int=7).bytes], pa.uuid())})
    batch.batch_set_table(table, key="k", columns=["value"])
    assert batch.batch_get_table([0], key="k", schema=table.schema).equals(table)


def test_list_views_are_read_with_their_schema(batch: FastBatch) -> None:
    keys = stored(batch, [{"l": [1, 2]}, {"l": None}])
    table = batch.batch_get_table(keys, schema=pa.schema([("l", pa.list_view(pa.int8()))]))
    assert table["l"].to_pylist() == [[1, 2], None]


def test_fields_that_are_not_in_the_schema_are_skipped(batch: FastBatch) -> None:
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
def test_values_that_do_not_fit_the_schema_are_an_error(
    batch: FastBatch, kind: Any, good: Any, bad: Any, words: str
) -> None:
    keys = stored(batch, [{"a": good}, {"a": None}, {"a": bad}, {"a": good}])
    schema = pa.schema([("a", kind)])
    assert batch.batch_get_table([keys[0], keys[1]], schema=schema).num_rows == 2
    with pytest.raises(DecodeError, match=words) as caught:
        batch.batch_get_table(keys, schema=schema)
    assert caught.value.key == "k2"


def test_schemas_of_unsupported_types_are_refused(batch: FastBatch) -> None:
    for kind in (pa.month_day_nano_interval(), pa.sparse_union([pa.field("x", pa.int8())])):
        with pytest.raises(TypeError, match="column 'a': values cannot be read as"):
            batch.batch_get_table(["k"], schema=pa.schema([("a", kind)]))
