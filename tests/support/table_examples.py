"""Examples of Arrow types and tables, and the bytes that batch_set_table writes for a table.

Import it after pytest.importorskip("pyarrow").
"""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import msgpack
import pyarrow as pa
from hypothesis import strategies as st

from redis_fastbatch import FastBatch, MsgpackCodec
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import MSET
from redis_fastbatch._tables.write import arrow_default

CODEC = MsgpackCodec(default=arrow_default)
UTC = datetime.timezone.utc


def parsed(message: bytes) -> list[bytes]:
    """Return the arguments of a RESP command."""
    head, _, rest = message.partition(b"\r\n")
    arguments = []
    for _ in range(int(head[1:])):
        size, _, rest = rest.partition(b"\r\n")
        arguments.append(rest[: int(size[1:])])
        rest = rest[int(size[1:]) + 2 :]
    assert rest == b""
    return arguments


def encoded(table: Any, key: list[str | bytes], columns: list[str] | None = None, **options: Any) -> list[bytes]:
    """Return the keys and values of all rows, as they are in MSET commands."""
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
    """Return the encoded values of all rows."""
    return encoded(table, [b"row"])[1::2]


def expected(table: Any) -> list[bytes]:
    """Return the values that batch_set writes for the rows as dicts."""
    if not table.num_columns:
        return [CODEC.dumps({})] * table.num_rows
    return [CODEC.dumps(row) for row in table.to_pylist(maps_as_pydicts="lossy")]


def people(count: int = 5) -> Any:
    """Return a table of ids and names."""
    return pa.table({"id": range(count), "name": [f"n{i}" for i in range(count)]})


def stored(batch: FastBatch, rows: list[Any]) -> list[str]:
    """Store rows as another program's MessagePack, and return their keys.

    msgpack writes values that batch_set() refuses, such as a timestamp beyond the year 9999.
    """
    encoded = {f"k{i}": msgpack.packb(row, datetime=True) for i, row in enumerate(rows)}
    FastBatch(batch.client, "raw").batch_set(encoded)
    return [f"k{i}" for i in range(len(rows))]


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
    """Return a strategy for lists, structs and maps of other types."""

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


# to_pylist() cannot convert nested dictionary arrays, so these occur only as the innermost type.
TYPES = st.recursive(SCALARS, nested, max_leaves=4)


@st.composite
def tables(draw: Any) -> Any:
    """Draw tables of any types. They are sliced and joined, so that all kinds of offsets occur."""
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
