"""batch_set_table: every Arrow type gives the bytes that batch_set gives for the row's dict."""

from __future__ import annotations

import datetime
import decimal
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import EncodeError, FastBatch, MsgpackCodec
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import MSET
from redis_fastbatch._tables.write import arrow_default
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")

CODEC = MsgpackCodec(default=arrow_default)
UTC = datetime.timezone.utc


def parsed(message: bytes) -> list[bytes]:
    """The arguments of a RESP command."""
    head, _, rest = message.partition(b"\r\n")
    arguments = []
    for _ in range(int(head[1:])):
        size, _, rest = rest.partition(b"\r\n")
        arguments.append(rest[: int(size[1:])])
        rest = rest[int(size[1:]) + 2 :]
    assert rest == b""
    return arguments


def encoded(table: Any, key: list[str | bytes], columns: list[str] | None = None, **options: Any) -> list[bytes]:
    """Keys and values of all rows, as they would leave in MSET commands."""
    writer = TableWriter(
        ArrowStream(table),
        MSET,
        columns=columns,
        key=key,
        tag=b"",
        row_codec=CODEC.loads,
        **{"max_items": 7, "max_bytes": 1 << 20, **options},
    )
    found = []
    while not writer.exhausted:
        chunk = writer.blank()
        writer.fill(chunk)
        assert not writer.failures
        if chunk.count:
            found += parsed(bytes(memoryview(chunk)))[1:]
    assert writer.source_error is None
    return found


def values_of(table: Any) -> list[bytes]:
    """The values of all rows under keys that do not matter."""
    return encoded(table, [b"row"])[1::2]


def expected(table: Any) -> list[bytes]:
    """What batch_set writes for the rows' dicts."""
    if not table.num_columns:
        return [CODEC.dumps({})] * table.num_rows
    return [CODEC.dumps(row) for row in table.to_pylist(maps_as_pydicts="lossy")]


def check(array: Any) -> None:
    """Whole, sliced and in chunks."""
    table = pa.table({"number": pa.array(range(len(array)), pa.int32()), "value": array})
    assert values_of(table) == expected(table)
    for start in range(min(len(array), 10)):
        part = table.slice(start, 5)
        assert values_of(part) == expected(part)
    chunked = pa.concat_tables([table.slice(1), table.slice(0, 1), table.slice(len(array))])
    assert values_of(chunked) == expected(chunked)
    # As a field of a struct whose own offset counts too.
    structs = pa.table({"outer": pa.StructArray.from_arrays([array, array], names=["a", "b"]).slice(1)})
    assert values_of(structs) == expected(structs)


EXAMPLES: list[tuple[Any, list[Any]]] = [
    (pa.null(), [None, None, None]),
    (pa.bool_(), [True, None, False] * 9),
    (pa.int8(), [0, 127, -128, -1, None, -33, -32]),
    (pa.int16(), [0, 128, -129, 32767, -32768, None]),
    (pa.int32(), [0, 65536, -32769, 2**31 - 1, -(2**31), None]),
    (pa.int64(), [0, 2**32, 2**63 - 1, -(2**63), -(2**31) - 1, None]),
    (pa.uint8(), [0, 127, 128, 255, None]),
    (pa.uint16(), [0, 255, 256, 65535, None]),
    (pa.uint32(), [0, 65536, 2**32 - 1, None]),
    (pa.uint64(), [0, 2**32, 2**63, 2**64 - 1, None]),
    (pa.float32(), [0.0, -0.0, 0.1, float("inf"), float("-inf"), 1e-45, None]),
    (pa.float64(), [0.0, -0.0, 0.1, 1e308, 5e-324, float("inf"), None]),
    (pa.string(), ["", "a", None, "ä€😀", "x" * 31, "y" * 32, "z" * 255, "q" * 256, "w" * 70000]),
    (pa.large_string(), ["", "a", None, "ä€😀", "x" * 300]),
    (pa.string_view(), ["", "a", None, "twelve bytes", "thirteen byte", "x" * 300]),
    (pa.binary(), [b"", b"a", None, b"\0\xff", b"x" * 255, b"y" * 256, b"z" * 70000]),
    (pa.large_binary(), [b"", b"a", None, b"\0\xff"]),
    (pa.binary_view(), [b"", b"a", None, b"twelve bytes", b"thirteen byte", b"x" * 300]),
    (pa.binary(3), [b"abc", None, b"\0\0\0"]),
    (pa.binary(0), [b"", None]),
    (pa.date32(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None, datetime.date(2024, 2, 29)]),
    (pa.date64(), [datetime.date(1969, 12, 31), None, datetime.date(2000, 3, 1), datetime.date(1900, 2, 28)]),
    (pa.time32("s"), [datetime.time(0), datetime.time(23, 59, 59), None]),
    (pa.time32("ms"), [datetime.time(0, 0, 0, 1000), datetime.time(23, 59, 59, 999000), None]),
    (pa.time64("us"), [datetime.time(1, 2, 3, 4), datetime.time(23, 59, 59, 999999), None]),
    (pa.time64("ns"), [datetime.time(1, 2, 3, 4), datetime.time(23, 59, 59, 999999), None]),
    (pa.timestamp("s"), [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59), None]),
    (pa.timestamp("ms"), [datetime.datetime(1969, 12, 31, 23, 59, 59, 999000), None]),
    (pa.timestamp("us"), [datetime.datetime(1969, 12, 31, 23, 59, 59, 999999), None]),
    (pa.timestamp("ns"), [0, 1, -1, 1000, 10**9, -(10**9) - 1, None, -(2**63) + 1, 2**63 - 1]),
    (
        pa.timestamp("s", "UTC"),
        [datetime.datetime(1, 1, 2, tzinfo=UTC), datetime.datetime(2600, 1, 1, tzinfo=UTC), None],
    ),
    (pa.timestamp("ms", "Europe/Berlin"), [datetime.datetime(2024, 7, 1, 12, 0, 0, 5000, tzinfo=UTC), None]),
    (pa.timestamp("us", "+02:00"), [-1, 0, 1, 2**34 * 10**6, None]),
    (pa.timestamp("ns", "UTC"), [0, 1, -1, 1000, None, -(2**63) + 1, 2**63 - 1]),
    (pa.duration("s"), [0, 1, -1, 86400, 86401, -86401, 999999999 * 86400, None]),
    (pa.duration("ms"), [0, 1, -1, 86400000, 86400001, None]),
    (pa.duration("us"), [0, 1, -1, 500000, -86400500000, None]),
    (pa.duration("ns"), [0, 1, -1, 1000, 86400 * 10**9 + 100, -(2**63) + 1, 2**63 - 1, None]),
    (pa.list_(pa.int64()), [[], [1], None, [1, None, 3], list(range(20)), [2] * 70000]),
    (pa.large_list(pa.string()), [[], ["a"], None, ["b", None, "c" * 300]]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0], None, [None, 3.0]]),
    (pa.list_(pa.list_(pa.string())), [[["a"], None, []], None, [[None]]]),
    (pa.list_(pa.bool_(), 0), [[], None, []]),
    (pa.struct([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    (pa.struct([]), [{}, None]),
    (pa.list_(pa.struct([("n", pa.int64()), ("t", pa.string())])), [[{"n": 1, "t": "x" * 100}] * 40, None, []]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("b", None)], None, []]),
    (pa.map_(pa.int32(), pa.list_(pa.string())), [[(1, ["x", None]), (2, None)], None, []]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None, "a"]),
    (pa.dictionary(pa.uint32(), pa.string()), ["a", "b", None, "a"]),
    (pa.dictionary(pa.int64(), pa.int64()), [5, None, 5]),
]


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=[str(kind) for kind, _ in EXAMPLES])
def test_type_has_the_bytes_of_the_dict_path(kind: Any, values: list[Any]) -> None:
    check(pa.array(values, kind))
    check(pa.array([None] * 3 + values * 3, kind))
    check(pa.array([], kind))


def test_float16() -> None:
    np = pytest.importorskip("numpy")
    # Every float16 there is. NaNs are compared apart: Python makes them of other bits.
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    check(pa.array(halves[~np.isnan(halves)][::7]))
    table = pa.table({"h": pa.array(halves)})
    assert [CODEC.loads(value)["h"] for value in values_of(table)] == pytest.approx(
        halves.astype(float).tolist(), rel=0, abs=0, nan_ok=True
    )


DECIMAL_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}


@pytest.mark.parametrize("scale", [0, 2, 6, 7, 9, 18, 38, 76, -1, -3])
@pytest.mark.parametrize("bits", [32, 64, 128, 256])
def test_decimal(bits: int, scale: int) -> None:
    make, digits = getattr(pa, f"decimal{bits}", None), DECIMAL_DIGITS[bits]
    if make is None:
        pytest.skip("this pyarrow has no such decimals")
    if scale > digits:
        pytest.skip("no such decimal")
    numbers = [0, 1, -1, 10, -10, 12345678, -(10**digits - 1), 10**digits - 1, 10 ** (digits - 1), None]
    with decimal.localcontext(decimal.Context(prec=100)):
        whole = pa.array([None if n is None else decimal.Decimal(n) for n in numbers], make(digits, 0))
    # The same integers at another scale: from Python's values pyarrow makes none of a negative scale.
    check(pa.Array.from_buffers(make(digits, scale), len(whole), whole.buffers()))


def test_extension_types_are_written_as_their_storage() -> None:
    table = pa.table({"id": pa.array([uuid.UUID(int=5).bytes], pa.uuid())})
    assert values_of(table) == [CODEC.dumps({"id": uuid.UUID(int=5).bytes})]


def test_time_of_nanoseconds_keeps_them() -> None:
    table = pa.table({"t": pa.array([1], pa.time64("ns"))})
    assert values_of(table) == [CODEC.dumps({"t": "00:00:00.000000001"})]


def test_dictionary_with_a_null_in_it() -> None:
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
def test_any_number_of_columns(columns: int) -> None:
    table = pa.table({f"c{i}": pa.array([i, None]) for i in range(columns)} | {"key": ["a", "b"]})
    names = [f"c{i}" for i in range(columns)]
    found = encoded(table, ["key"], names)
    assert found == [
        b"a",
        CODEC.dumps({name: i for i, name in enumerate(names)}),
        b"b",
        CODEC.dumps(dict.fromkeys(names)),
    ]


def test_names_of_any_length_and_alphabet() -> None:
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
def test_types_that_are_not_carried(array: Any, words: str) -> None:
    table = pa.table({"good": [1], "bad": array()})
    with pytest.raises(EncodeError, match=rf"column 'bad': {words}"):
        values_of(table)
    with pytest.raises(EncodeError, match=rf"column 'bad': {words}"):
        encoded(table, ["good"])
    # Nobody asks for it: nobody minds.
    assert encoded(table, ["good"], ["good"]) == [b"1", CODEC.dumps({"good": 1})]


def test_a_nested_type_that_is_not_carried_is_named_with_its_path() -> None:
    kind = pa.list_(pa.struct([("when", pa.month_day_nano_interval())]))
    with pytest.raises(EncodeError, match=r"column 'list\[\]\.when': an interval"):
        values_of(pa.table({"list": pa.array([], kind)}))


def test_nesting_is_limited() -> None:
    kind = pa.int64()
    for _ in range(70):
        kind = pa.list_(kind)
    with pytest.raises(EncodeError, match="nested more than 64 levels"):
        values_of(pa.table({"deep": pa.array([], kind)}))


def test_map_with_nested_keys() -> None:
    kind = pa.map_(pa.struct([("a", pa.int64())]), pa.int64())
    with pytest.raises(EncodeError, match="a map whose keys are nested"):
        values_of(pa.table({"m": pa.array([], kind)}))


SCALARS = st.sampled_from(
    [
        (pa.bool_(), st.booleans()),
        (pa.int8(), st.integers(-128, 127)),
        (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float32(), st.floats(width=32, allow_nan=False)),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.string(), st.text(max_size=40)),
        (pa.large_string(), st.text(max_size=40)),
        (pa.string_view(), st.text(max_size=40)),
        (pa.binary(), st.binary(max_size=40)),
        (pa.binary_view(), st.binary(max_size=40)),
        (pa.binary(4), st.binary(min_size=4, max_size=4)),
        (pa.decimal128(38, 10), st.decimals(-(10**27), 10**27, places=10)),
        (pa.decimal256(76, 3), st.decimals(-(10**27), 10**27, places=3)),
        (pa.date32(), st.dates()),
        (pa.date64(), st.dates()),
        (pa.time64("us"), st.times()),
        (pa.timestamp("us"), st.datetimes()),
        (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
        (
            pa.timestamp("us", "America/New_York"),
            st.datetimes(
                datetime.datetime(2, 1, 1),
                datetime.datetime(9998, 1, 1),
                timezones=st.just(zoneinfo.ZoneInfo("America/New_York")),
            ),
        ),
        (pa.timestamp("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
        (pa.timestamp("ns", "UTC"), st.integers(-(2**63) + 1, 2**63 - 1)),
        (pa.duration("us"), st.timedeltas(datetime.timedelta(-(10**8)), datetime.timedelta(10**8))),
        (pa.duration("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
        (pa.dictionary(pa.int16(), pa.string()), st.text(max_size=3)),
        (pa.null(), st.none()),
    ]
)


def nested(kinds: Any) -> Any:
    """Lists, structs and maps of other types."""

    def wrap(pair: tuple[Any, Any]) -> Any:
        kind, values = pair
        items = st.one_of(st.none(), values)
        return st.sampled_from(
            [
                (pa.list_(kind), st.lists(items, max_size=5)),
                (pa.large_list(kind), st.lists(items, max_size=5)),
                (pa.list_(kind, 3), st.lists(items, min_size=3, max_size=3)),
                (pa.struct([("x", kind), ("y", pa.int8())]), st.fixed_dictionaries({"x": items, "y": st.just(7)})),
                (
                    pa.map_(pa.string(), kind),
                    st.dictionaries(st.text(max_size=3), items, max_size=4).map(lambda d: list(d.items())),
                ),
            ]
        )

    return kinds.flatmap(wrap)


# to_pylist() has no dictionaries inside dictionaries, so nesting has them innermost only.
TYPES = st.recursive(SCALARS, nested, max_leaves=4)


@st.composite
def tables(draw: Any) -> Any:
    """Tables of any types, cut and put together so that offsets of all kinds come up."""
    rows = draw(st.integers(0, 12))
    columns = {}
    for i in range(draw(st.integers(1, 4))):
        kind, values = draw(TYPES)
        column = draw(st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows))
        columns[f"column {i}"] = pa.array(column, kind)
    table = pa.table(columns)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    pieces = [table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
    return pa.concat_tables(draw(st.permutations(pieces))).slice(draw(st.integers(0, 3)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_any_table_has_the_bytes_of_the_dict_path(table: Any) -> None:
    assert values_of(table) == expected(table)


def test_uuids_have_the_bytes_of_the_dict_path() -> None:
    if not hasattr(pa, "uuid"):
        pytest.skip("this pyarrow has no arrow.uuid")
    storage = pa.array([bytes(range(16)), None, b"x" * 16], pa.binary(16))
    check(pa.ExtensionArray.from_storage(pa.uuid(), storage))


def test_types_of_which_to_pylist_makes_something_else() -> None:
    times = pa.table({"t": pa.array([1], pa.time64("ns"))})
    assert values_of(times) == [CODEC.dumps({"t": "00:00:00.000000001"})]
    if hasattr(pa, "bool8"):
        bools = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8()))
        assert values_of(pa.table({"b": bools})) == [CODEC.dumps({"b": 1}), CODEC.dumps({"b": None})]


def test_arrow_default_refuses_what_no_table_has() -> None:
    with pytest.raises(TypeError, match="a complex is no value of an Arrow table"):
        arrow_default(1j)


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_tables_of_other_libraries(library: str) -> None:
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


def test_objects_of_polars_are_refused(server: EmbeddedServer) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"k": ["a"], "o": polars.Series([object()], dtype=polars.Object)})
    with FastBatch.from_url(server.url) as batch:
        for wanted in ({"key": "k"}, {"key": "o", "columns": ["k"]}, {"key": "k", "as_": "hash"}):
            with pytest.raises(EncodeError, match="column 'o': Python objects cannot be written"):
                batch.batch_set_table(frame, **wanted)
        assert batch.batch_set_table(frame, key="k", columns=["k"]).written == 1
        assert batch.batch_get(["a"]) == {"a": {"k": "a"}}


def test_null_columns_of_polars_have_a_bitmap() -> None:
    polars = pytest.importorskip("polars")
    rows = [{"id": 1, "n": None, "l": [None], "s": {"x": None}}, {"id": 2, "n": None, "l": [], "s": {"x": None}}]
    assert values_of(polars.DataFrame(rows)) == [CODEC.dumps(row) for row in rows]
