"""batch_set_table writes the same bytes as batch_set with the rows as dicts, for every Arrow type."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from redis_fastbatch import EncodeError
from redis_fastbatch._tables.write import arrow_default
from tiers import examples

pa = pytest.importorskip("pyarrow")

from table_examples import CODEC, EXAMPLES, encoded, expected, tables, values_of  # noqa: E402


def check(array: Any) -> None:
    """Check the bytes of a column: whole, sliced, in chunks, and as a field of a struct."""
    table = pa.table({"number": pa.array(range(len(array)), pa.int32()), "value": array})
    assert values_of(table) == expected(table)
    for start in range(min(len(array), 10)):
        part = table.slice(start, 5)
        assert values_of(part) == expected(part)
    chunked = pa.concat_tables([table.slice(1), table.slice(0, 1), table.slice(len(array))])
    assert values_of(chunked) == expected(chunked)
    # The struct has an offset too, which adds to the field's.
    structs = pa.table({"outer": pa.StructArray.from_arrays([array, array], names=["a", "b"]).slice(1)})
    assert values_of(structs) == expected(structs)


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=[str(kind) for kind, _ in EXAMPLES])
def test_every_type_has_the_bytes_of_batch_set(kind: Any, values: list[Any]) -> None:
    check(pa.array(values, kind))
    check(pa.array([None] * 3 + values * 3, kind))
    check(pa.array([], kind))


def test_every_float16_is_written() -> None:
    np = pytest.importorskip("numpy")
    # Every float16. NaNs are compared by value only, because Python gives them other bits.
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    check(pa.array(halves[~np.isnan(halves)][::7]))
    table = pa.table({"h": pa.array(halves)})
    assert [CODEC.loads(value)["h"] for value in values_of(table)] == pytest.approx(
        halves.astype(float).tolist(), rel=0, abs=0, nan_ok=True
    )


DECIMAL_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}


@pytest.mark.parametrize("scale", [0, 2, 6, 7, 9, 18, 38, 76, -1, -3])
@pytest.mark.parametrize("bits", [32, 64, 128, 256])
def test_decimals_of_every_size_and_scale_are_written(bits: int, scale: int) -> None:
    make, digits = getattr(pa, f"decimal{bits}", None), DECIMAL_DIGITS[bits]
    if make is None:
        pytest.skip("this pyarrow has no decimals of this size")
    if scale > digits:
        pytest.skip("the scale is larger than the number of digits")
    numbers = [0, 1, -1, 10, -10, 12345678, -(10**digits - 1), 10**digits - 1, 10 ** (digits - 1), None]
    with decimal.localcontext(decimal.Context(prec=100)):
        whole = pa.array([None if n is None else decimal.Decimal(n) for n in numbers], make(digits, 0))
    # The same integers at another scale. pyarrow cannot make decimals of a negative scale from Python's.
    check(pa.Array.from_buffers(make(digits, scale), len(whole), whole.buffers()))


def test_extension_types_are_written_as_their_storage() -> None:
    table = pa.table({"id": pa.array([uuid.UUID(int=5).bytes], pa.uuid())})
    assert values_of(table) == [CODEC.dumps({"id": uuid.UUID(int=5).bytes})]


def test_times_keep_their_nanoseconds() -> None:
    table = pa.table({"t": pa.array([1], pa.time64("ns"))})
    assert values_of(table) == [CODEC.dumps({"t": "00:00:00.000000001"})]


def test_a_dictionary_may_contain_null() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2]), pa.array(["a", None, "c"]))
    check(array)
    check(pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["x", "a", None, "c"]).slice(1)))


def test_durations_are_what_msgspec_writes() -> None:
    msgspec = pytest.importorskip("msgspec")
    lengths = [
        datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)
        for days in (-2, -1, 0, 1, 1000)
        for seconds in (0, 1, 86399)
        for microseconds in (0, 1, 500000)
    ]
    found = values_of(pa.table({"d": pa.array(lengths, pa.duration("us"))}))
    assert found == [msgspec.msgpack.encode({"d": length}) for length in lengths]


@pytest.mark.parametrize("columns", [0, 1, 15, 16, 300])
def test_a_row_may_have_any_number_of_columns(columns: int) -> None:
    table = pa.table({f"c{i}": pa.array([i, None]) for i in range(columns)} | {"key": ["a", "b"]})
    names = [f"c{i}" for i in range(columns)]
    found = encoded(table, ["key"], names)
    assert found == [
        b"a",
        CODEC.dumps({name: i for i, name in enumerate(names)}),
        b"b",
        CODEC.dumps(dict.fromkeys(names)),
    ]


def test_column_names_may_have_any_length_and_alphabet() -> None:
    table = pa.table({name: [1] for name in ("", "a" * 31, "b" * 32, "c" * 300, "ключ", "😀")})
    assert values_of(table) == expected(table)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (lambda: pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "a sparse union"),
        (
            lambda: pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
            "a dense union",
        ),
        (lambda: pa.RunEndEncodedArray.from_arrays([1], pa.array([1])), "a run-end encoded column"),
        (lambda: pa.array([[1]], pa.list_view(pa.int64())), "a list view"),
        (lambda: pa.array([[1]], pa.large_list_view(pa.int64())), "a large list view"),
        (lambda: pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "an interval"),
        (
            lambda: pa.StructArray.from_arrays([pa.array([1]), pa.array([1])], names=["x", "x"]),
            "a struct with two fields 'x'",
        ),
    ],
)
def test_an_unsupported_type_is_refused(array: Any, words: str) -> None:
    table = pa.table({"good": [1], "bad": array()})
    with pytest.raises(EncodeError, match=rf"column 'bad': {words}"):
        values_of(table)
    with pytest.raises(EncodeError, match=rf"column 'bad': {words}"):
        encoded(table, ["good"])
    # A column that is not written may have any type.
    assert encoded(table, ["good"], ["good"]) == [b"1", CODEC.dumps({"good": 1})]


def test_an_unsupported_nested_type_is_named_with_its_path() -> None:
    kind = pa.list_(pa.struct([("when", pa.month_day_nano_interval())]))
    with pytest.raises(EncodeError, match=r"column 'list\[\]\.when': an interval"):
        values_of(pa.table({"list": pa.array([], kind)}))


def test_nesting_is_limited() -> None:
    kind = pa.int64()
    for _ in range(70):
        kind = pa.list_(kind)
    with pytest.raises(EncodeError, match="nested more than 64 levels"):
        values_of(pa.table({"deep": pa.array([], kind)}))


def test_a_map_with_nested_keys_is_refused() -> None:
    kind = pa.map_(pa.struct([("a", pa.int64())]), pa.int64())
    with pytest.raises(EncodeError, match="a map whose keys are nested"):
        values_of(pa.table({"m": pa.array([], kind)}))


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_any_table_has_the_bytes_of_batch_set(table: Any) -> None:
    assert values_of(table) == expected(table)


def test_uuids_have_the_bytes_of_batch_set() -> None:
    if not hasattr(pa, "uuid"):
        pytest.skip("this pyarrow has no arrow.uuid")
    storage = pa.array([bytes(range(16)), None, b"x" * 16], pa.binary(16))
    check(pa.ExtensionArray.from_storage(pa.uuid(), storage))


def test_a_bool8_is_written_as_its_storage() -> None:
    if not hasattr(pa, "bool8"):
        pytest.skip("this pyarrow has no arrow.bool8")
    bools = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8()))
    assert values_of(pa.table({"b": bools})) == [CODEC.dumps({"b": 1}), CODEC.dumps({"b": None})]


def test_arrow_default_refuses_types_that_arrow_lacks() -> None:
    with pytest.raises(TypeError, match="expected a value of an Arrow table, got complex"):
        arrow_default(1j)


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_tables_of_other_libraries_are_written(library: str) -> None:
    module = pytest.importorskip(library)
    rows = [{"id": 1, "name": "ä", "score": 0.5}, {"id": 2, "name": None, "score": 1.5}]
    if library == "duckdb":
        table = module.sql("select * from (values (1, 'ä', 0.5::double), (2, null, 1.5)) t(id, name, score)")
        if not hasattr(table, "__arrow_c_stream__"):
            pytest.skip("this DuckDB has no __arrow_c_stream__")
    else:
        table = module.DataFrame(rows)
    assert encoded(table, [b"u:", "id"]) == [
        b"u:1", CODEC.dumps(rows[0]), b"u:2", CODEC.dumps(rows[1])
    ]  # fmt: skip


def test_null_columns_of_polars_are_written() -> None:
    polars = pytest.importorskip("polars")
    rows = [{"id": 1, "n": None, "l": [None], "s": {"x": None}}, {"id": 2, "n": None, "l": [], "s": {"x": None}}]
    assert values_of(polars.DataFrame(rows)) == [CODEC.dumps(row) for row in rows]
