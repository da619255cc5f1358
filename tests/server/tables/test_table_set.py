"""batch_set_table: keys, failures, options, and streams that fail."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from redis_fastbatch import AsyncFastBatch, BatchError, DecodeError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    return FastBatch(client)


@pytest.fixture
def one(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


def people(count: int = 5) -> Any:
    return pa.table({"id": range(count), "name": [f"n{i}" for i in range(count)]})


def test_rows_have_the_bytes_of_batch_set(batch: FastBatch) -> None:
    table = people(5000)
    report = batch.batch_set_table(table, key="id", prefix="user:")
    assert (report.written, report.failed, report.confirmed_prefix) == (5000, 0, 5000)
    raw = batch.client.mget([f"user:{i}" for i in range(5000)])
    batch.batch_set({f"user:{row['id']}": row for row in table.to_pylist()})
    assert batch.client.mget([f"user:{i}" for i in range(5000)]) == raw
    assert batch.batch_get(["user:4999"]) == {"user:4999": {"id": 4999, "name": "n4999"}}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [-128, 0, 127]),
        (pa.uint64(), [2**64 - 1, 0, 7]),
        (pa.int64(), [-(2**63), 2**63 - 1, 0]),
        (pa.string(), ["a", "ü" * 200, "c"]),
        (pa.large_string(), ["a", "b", "c"]),
        (pa.string_view(), ["a", "b" * 20, "c"]),
        (pa.binary(), [b"\0", b"\xff\r\n", b"c"]),
        (pa.large_binary(), [b"x", b"y", b"z"]),
        (pa.binary_view(), [b"x" * 13, b"y", b"z"]),
        (pa.binary(2), [b"ab", b"cd", b"ef"]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "c"]),
    ],
)
def test_key_columns_may_be_integers_text_or_bytes(one: FastBatch, kind: Any, values: list[Any]) -> None:
    one.batch_set_table(pa.table({"k": pa.array(values, kind), "n": [0, 1, 2]}), key="k", columns=["n"])
    keys = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    assert one.batch_get(keys) == {key: {"n": i} for i, key in enumerate(keys)}


def test_a_template_joins_columns_and_text(one: FastBatch) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "d": pa.array([0, 1], pa.date32())})
    one.batch_set_table(table, key="{{{a}}}:{b}:{d}", prefix=b"p:", columns=["a"])
    assert sorted(one.client.keys()) == [b"p:{1}:x:1970-01-01", b"p:{2}:y:1970-01-02"]
    one.batch_set_table(table, key="{a}{a}", columns=["b"])
    assert one.batch_get(["11", "22"]) == {"11": {"b": "x"}, "22": {"b": "y"}}


def test_prefixes_and_templates_are_encoded_as_redis_py_encodes_keys(server: EmbeddedServer) -> None:
    with server.client(encoding="latin-1") as client:
        client.flushall()
        batch = FastBatch(client)
        batch.batch_set_table(pa.table({"k": ["ö"], "n": [1]}), key="ü:{k}", prefix="é:", columns=["n"])
        assert batch.batch_get(["é:ü:ö"]) == {"é:ü:ö": {"n": 1}}
        assert client.exists("é:ü:ö") == 1


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ("missing", EncodeError, "column 'missing': there is no such column; there are 'id', 'name'"),
        ("x:{missing}", EncodeError, "column 'missing': there is no such column"),
        ("x:{", ValueError, "key template 'x:{'"),
        ("x:{}", ValueError, "only names of columns"),
        ("x:{id!r}", ValueError, "only names of columns"),
        ("x:{id:>5}", ValueError, "only names of columns can be between braces, without formats"),
        (
            "{a:b}",
            ValueError,
            "a column with a colon, an exclamation mark or a brace in its name cannot be used",
        ),
        ("a{b", ValueError, "a column with an opening brace in its name cannot be the key"),
        ("x:{{id}}", ValueError, "must name a column"),
        (5, TypeError, "a column's name or a template"),
    ],
)
def test_invalid_key_arguments_are_refused(one: FastBatch, key: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        one.batch_set_table(people(), key=key)
    assert one.client.dbsize() == 0


@pytest.mark.parametrize("prefix", [0, 5, None, bytearray(b"x")])
def test_invalid_prefixes_are_refused(one: FastBatch, prefix: Any) -> None:
    with pytest.raises(TypeError, match="prefix must be str or bytes, got"):
        one.batch_set_table(people(), key="id", prefix=prefix)
    assert one.client.dbsize() == 0


@pytest.mark.parametrize(
    ("array", "kind"),
    [([0.5], r"float64 \(double\)"), ([True], "bool"), ([[1]], "a list"), ([{"a": 1}], "a struct")],
)
def test_key_columns_of_other_types_are_refused(one: FastBatch, array: Any, kind: str) -> None:
    words = rf"column 'k': the columns of a key must be of .*, found {kind}; cast .* --type k=string$"
    with pytest.raises(EncodeError, match=words):
        one.batch_set_table(pa.table({"k": array}), key="k")


def test_columns_selects_and_orders_the_fields(one: FastBatch) -> None:
    table = pa.table({"a": [1], "b": [2], "c": [3]})
    one.batch_set_table(table, key="a", columns=["c", "b"])
    assert list(one.batch_get(["1"])["1"].items()) == [("c", 3), ("b", 2)]
    one.batch_set_table(table, key="a", columns=[])
    assert one.batch_get(["1"]) == {"1": {}}
    with pytest.raises(EncodeError, match="column 'b': each name must be there once, found it 2 times"):
        one.batch_set_table(table, key="a", columns=["b", "b"])
    with pytest.raises(TypeError, match="a list of names"):
        one.batch_set_table(table, key="a", columns="abc")


def test_columns_of_the_same_name_are_refused(one: FastBatch) -> None:
    table = pa.table([[1], [2], [3]], names=["a", "b", "b"])
    with pytest.raises(EncodeError, match="column 'b': each name must be there once, found it 2 times"):
        one.batch_set_table(table, key="a")
    one.batch_set_table(table, key="a", columns=["a"])
    assert one.batch_get(["1"]) == {"1": {"a": 1}}


def test_rows_with_null_keys_fail(one: FastBatch) -> None:
    table = pa.concat_tables(
        [pa.table({"k": ["a", None], "v": [0, 1]}), pa.table({"k": ["b", None, "c"], "v": [2, 3, None]})]
    )
    failed: list[Any] = []
    report = one.batch_set_table(table, key="k", on_error=lambda *failure: failed.append(failure))
    assert (report.written, report.failed, report.confirmed_prefix) == (3, 2, 5)
    assert list(report.failures) == [1, 3]
    assert str(report.failures[3]) == "row 3: the key column 'k' is null"
    assert [(row, value) for row, value, _ in failed] == [(1, {"k": None, "v": 1}), (3, {"k": None, "v": 3})]
    with pytest.raises(
        BatchError, match=r"^2 of 5 rows were not written; the first: row 1: the key column 'k' is null$"
    ):
        one.batch_set_table(table, key="{k}")
    assert one.batch_get(["a", "b", "c"]) == {
        "a": {"k": "a", "v": 0},
        "b": {"k": "b", "v": 2},
        "c": {"k": "c", "v": None},
    }


def test_many_failed_rows_are_counted(one: FastBatch) -> None:
    table = pa.table({"k": pa.array([None] * 5000 + [1], pa.int64())})
    report = one.batch_set_table(table, key="k", on_error="report")
    assert (report.written, report.failed, len(report.failures)) == (1, 5000, 1000)


def test_rows_with_dates_outside_the_years_1_to_9999_fail(one: FastBatch) -> None:
    table = pa.table({"k": [1, 2, 3], "d": pa.array([0, 4_000_000, 1], pa.int32()).cast(pa.date32())})
    report = one.batch_set_table(table, key="k", on_error="report")
    assert (report.written, report.failed) == (2, 1)
    assert "row 1: column 'd': a date must be in the years 1 to 9999" in str(report.failures[1])
    for kind in ("timestamp", "time"):
        made = pa.timestamp("s", "UTC") if kind == "timestamp" else pa.time64("us")
        table = pa.table({"k": [1], "d": pa.array([2**60]).cast(made, safe=False)})
        assert one.batch_set_table(table, key="k", on_error="report").failed == 1


def test_the_last_row_of_equal_keys_wins(batch: FastBatch) -> None:
    table = pa.table({"k": ["a", "b"] * 5000, "n": range(10000)})
    assert batch.batch_set_table(table, key="k").written == 10000
    assert batch.batch_get(["a", "b"]) == {"a": {"k": "a", "n": 9998}, "b": {"k": "b", "n": 9999}}


def test_every_row_expires(batch: FastBatch) -> None:
    batch.batch_set_table(people(3000), key="id", ex=100)
    assert all(90 < batch.client.ttl(str(i)) <= 100 for i in (0, 1500, 2999))
    batch.batch_set_table(people(3000), key="id", keepttl=True)
    assert 90 < batch.client.ttl("0") <= 100
    batch.batch_set_table(people(3000), key="id", px=50_000)
    assert 40 < batch.client.ttl("2999") <= 50
    with pytest.raises(ValueError, match="exclude each other"):
        batch.batch_set_table(people(), key="id", ex=1, px=1)


def test_conditions_apply_to_each_row(batch: FastBatch) -> None:
    batch.client.set("1", "old")
    report = batch.batch_set_table(people(4), key="id", nx=True)
    assert (report.written, report.skipped, report.skipped_keys) == (3, 1, [1])
    assert batch.client.get("1") == b"old"
    report = batch.batch_set_table(people(5), key="id", xx=True)
    assert (report.written, report.skipped_keys) == (4, [4])


def test_an_empty_table_writes_nothing(one: FastBatch) -> None:
    for table in (people(0), people().slice(5), pa.RecordBatchReader.from_batches(people().schema, [])):
        report = one.batch_set_table(table, key="id")
        assert (report.written, report.total, report.bytes_sent) == (0, 0, 0)


def test_a_reader_is_consumed_once(one: FastBatch) -> None:
    reader = people().to_reader()
    assert one.batch_set_table(reader, key="id").written == 5
    assert one.batch_set_table(reader, key="id").total == 0
    capsule = people().__arrow_c_stream__()

    class Once:
        def __arrow_c_stream__(self) -> object:
            return capsule

    assert one.batch_set_table(Once(), key="id").written == 5
    with pytest.raises(ValueError, match="consumed before"):
        one.batch_set_table(Once(), key="id")


def test_other_objects_than_tables_are_refused(one: FastBatch) -> None:
    for thing in ({}, [], None, "text"):
        with pytest.raises(TypeError, match="a table must have __arrow_c_stream__"):
            one.batch_set_table(thing, key="id")
    with pytest.raises(ValueError, match="found single columns"):
        one.batch_set_table(pa.chunked_array([[1]]), key="id")

    class Liar:
        def __arrow_c_stream__(self) -> object:
            return object()

    with pytest.raises(TypeError, match="must return a PyCapsule arrow_array_stream"):
        one.batch_set_table(Liar(), key="id")


def test_rows_before_an_error_of_the_stream_are_written(one: FastBatch) -> None:
    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        raise OSError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises((OSError, ValueError), match="the disk is gone") as caught:
        one.batch_set_table(reader, key="id")
    assert caught.value.report.written == 3  # type: ignore[attr-defined]
    assert one.client.dbsize() == 3


def test_ctrl_c_in_a_stream_raises_keyboard_interrupt(one: FastBatch) -> None:
    """The C interface passes only the text of an error, which pyarrow raises as ValueError."""

    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        signal.raise_signal(signal.SIGINT)
        yield people(3).to_batches()[0]

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises(KeyboardInterrupt) as caught:
        one.batch_set_table(reader, key="id")
    assert caught.value.report.written == 3  # type: ignore[attr-defined]
    assert one.client.dbsize() == 3


@pytest.mark.parametrize(
    "text", ["unknown column: KeyboardInterrupt", "KeyboardInterrupt", "a\nKeyboardInterrupt"]
)
def test_an_error_whose_text_mentions_ctrl_c_is_raised_unchanged(one: FastBatch, text: str) -> None:
    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        raise ValueError(text)

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises(ValueError, match="KeyboardInterrupt"):
        one.batch_set_table(reader, key="id")


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_null_rows_fail_alone(one: FastBatch, as_: Any) -> None:
    """A stream of structs is a stream of rows. Values inside a null struct are ignored."""
    columns = [pa.array([1, 2, 3, 4]), pa.array(["a", "b", "c", "d"])]
    mask = pa.array([False, False, True, False])
    rows = pa.chunked_array([pa.StructArray.from_arrays(columns, names=["id", "name"], mask=mask).slice(1)])
    failed: list[Any] = []
    report = one.batch_set_table(rows, key="id", as_=as_, on_error=lambda *failure: failed.append(failure))
    assert report.written == 2
    assert sorted(one.client.keys()) == [b"2", b"4"]
    assert [(number, row, str(error)) for number, row, error in failed] == [
        (1, None, "row 1: the whole row is null")
    ]


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_on_error_gets_rows_that_cannot_be_written(one: FastBatch, as_: Any) -> None:
    """on_error gets the row as far as it can be converted, because only one field may be wrong."""
    far = pa.array([2**62, 0], pa.timestamp("us"))
    columns = {
        "k": ["a", "b"],
        "n": [1, 2],
        "far": far,
        "day": pa.array([2**30, 0], pa.date32()),
        "time": pa.array([86400, 0], pa.int32()).view(pa.time32("s")),
        "word": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), far),
        "null": pa.nulls(2),
    }
    if as_ == "value":
        columns["nested"] = pa.StructArray.from_arrays([far], ["x"])
    failed: list[Any] = []
    one.batch_set_table(pa.table(columns), key="k", as_=as_, on_error=lambda *failure: failed.append(failure))
    numbers = {"n": 1, "far": 2**62, "day": 2**30, "time": 86400, "word": 2**62}
    if as_ == "value":
        row: Any = {"k": "a", **numbers, "null": None, "nested": None}
    else:
        row = {b"k": b"a", **{name.encode(): b"%d" % number for name, number in numbers.items()}}
    assert [failure[:2] for failure in failed] == [(0, row)]
    assert "column 'far': a date must be in the years 1 to 9999" in str(failed[0][2])


def test_rows_with_invalid_offsets_fail(one: FastBatch) -> None:
    """Arrow does not check offsets. Those that can be checked at no cost are checked."""
    np = pytest.importorskip("numpy")

    def fails(column: Any, offsets: Any, at: int, wrong: int) -> None:
        # pyarrow only accepts valid offsets, so they are changed afterwards.
        table = pa.table({"k": ["a", "b"], "v": column})
        before, offsets[at] = int(offsets[at]), wrong
        report = one.batch_set_table(table, key="k", on_error="report")
        offsets[at] = before
        assert (report.written, list(report.failures)) == (1, [1])
        assert "points outside its data" in str(report.failures[1])

    offsets = np.array([0, 2, 3], np.int32)
    column = pa.ListArray.from_buffers(
        pa.list_(pa.int64()), 2, [None, pa.py_buffer(offsets)], children=[pa.array([1, 2, 3])]
    )
    fails(column, offsets, 2, 99)
    fails(column, offsets, 2, 1)
    column = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(b"abc"))
    fails(column, offsets, 2, 1)
    indices = np.array([0, 0], np.int8)
    column = pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int8(), 2, [None, pa.py_buffer(indices)]), ["x"]
    )
    fails(column, indices, 1, 1)
    fails(column, indices, 1, -1)
    views = np.zeros(8, np.int32)
    views[4:] = (20, 0, 0, 0)
    column = pa.Array.from_buffers(pa.string_view(), 2, [None, pa.py_buffer(views), pa.py_buffer(b"x" * 20)])
    for at, wrong in ((4, -1), (4, 21), (6, 1), (6, -1), (7, 1), (7, -1)):
        fails(column, views, at, wrong)


@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
def test_any_chunk_size_writes_all_rows(one: FastBatch, size: int) -> None:
    assert one.batch_set_table(people(50), key="id", chunk_size=size).written == 50
    assert one.client.dbsize() == 50


def test_progress_counts_rows(one: FastBatch) -> None:
    steps: list[Any] = []
    one.batch_set_table(people(5000), key="id", progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (5000, 5000)
    steps.clear()
    one.batch_set_table(people(5000).to_reader(), key="id", progress=lambda *step: steps.append(step))
    assert steps[-1] == (5000, None)


@pytest.mark.parametrize(("library", "total"), [("pandas", 3), ("polars", 3), ("duckdb", None)])
def test_tables_of_other_libraries_are_written(one: FastBatch, library: str, total: int | None) -> None:
    module = pytest.importorskip(library)
    if library == "duckdb":
        table = module.sql("select range as id, 'n' || range as name from range(3)")
        if not hasattr(table, "__arrow_c_stream__"):
            pytest.skip("this DuckDB has no __arrow_c_stream__")
    else:
        table = module.DataFrame(people(3).to_pydict())
    steps: list[Any] = []
    one.batch_set_table(table, key="id", progress=lambda *step: steps.append(step))
    assert one.batch_get(["0", "1", "2"]) == {f"{i}": {"id": i, "name": f"n{i}"} for i in range(3)}
    assert steps[-1] == (3, total)


def test_a_named_index_of_pandas_is_a_column(one: FastBatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"score": [0.5, 1.5]}, index=pandas.Index(["x", "y"], name="id"))
    assert one.batch_set_table(frame, key="id").written == 2
    ranged = pandas.DataFrame({"score": [0.5, 1.5]}, index=pandas.RangeIndex(2, name="id"))
    with pytest.raises(EncodeError, match="column 'id': there is no such column"):
        one.batch_set_table(ranged, key="id")
    assert one.batch_set_table(ranged.reset_index(), key="id").written == 2


def unnamed_indexes(pandas: Any) -> list[Any]:
    """Return tables of the same two rows. pyarrow makes columns from some of their indexes."""
    frame = pandas.DataFrame({"id": [1, 2, 3, 4], "score": [0.5, 1.5, 2.5, 3.5]})
    # An index of integers in equal steps is a RangeIndex.
    two = frame.iloc[[1, 2]]
    return [
        two,
        two.set_axis(["x", "y"]),
        two.set_axis(pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        frame.set_axis([10, 5, 7, 7]).query("2 <= id <= 3"),
        pa.Table.from_pandas(two.set_axis(["x", "y"])),
    ]


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_an_unnamed_index_of_pandas_is_left_out(one: FastBatch, as_: Any) -> None:
    """pyarrow makes it a column or not, depending on the rows that a filter leaves."""
    pandas = pytest.importorskip("pandas")
    for table in unnamed_indexes(pandas):
        one.client.flushdb()
        assert one.batch_set_table(table, key="id", as_=as_).written == 2
        if as_ == "hash":
            assert one.client.hgetall("3") == {b"id": b"3", b"score": b"2.5"}
        else:
            assert one.batch_get(["2", "3"]) == {"2": {"id": 2, "score": 1.5}, "3": {"id": 3, "score": 2.5}}
    frame = unnamed_indexes(pandas)[1]
    index = "__index_level_0__"
    assert one.batch_set_table(frame, key="i:{__index_level_0__}").written == 2
    assert one.batch_set_table(frame, key="id", prefix="named:", columns=["score", index]).written == 2
    assert one.batch_get(["i:x", "named:3"]) == {
        "i:x": {"id": 2, "score": 1.5},
        "named:3": {"score": 2.5, index: "y"},
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_an_unnamed_index_is_left_out_on_asyncio(valkey: Any, protocol: int) -> None:
    pandas = pytest.importorskip("pandas")
    frame = unnamed_indexes(pandas)[1]

    async def work() -> dict[Any, Any]:
        url = f"redis://{valkey.host}:{valkey.port}?protocol={protocol}"
        async with AsyncFastBatch.from_url(url) as batch:
            await batch.batch_set_table(frame, key="id", prefix="aio:")
            return await batch.batch_get(["aio:2"])

    assert asyncio.run(work()) == {"aio:2": {"id": 2, "score": 1.5}}


def test_an_error_with_a_read_only_report_is_raised_unchanged(one: FastBatch) -> None:
    class Closed(Exception):
        report = property(lambda self: None)

    def listener(*failure: Any) -> None:
        raise Closed("enough")

    table = pa.table({"k": ["a", None]})
    with pytest.raises(Closed, match="enough"):
        one.batch_set_table(table, key="k", on_error=listener)


def test_the_codec_of_a_table_is_msgpack_or_toolkit_msgpack(valkey_client: redis.Redis) -> None:
    tagged = FastBatch(valkey_client, codec="toolkit-msgpack")
    tagged.batch_set_table(people(2), key="id")
    assert valkey_client.get("1")[:1] == b"\xc1"  # type: ignore[index]
    assert tagged.batch_get(["1"]) == {"1": {"id": 1, "name": "n1"}}
    with pytest.raises(DecodeError):
        FastBatch(valkey_client).batch_get(["1"])
    as_json = FastBatch(valkey_client, codec="json")
    with pytest.raises(ValueError, match="the codec of a table must be"):
        as_json.batch_set_table(people(2), key="id")
    as_json.batch_set_table(people(2), key="id", codec="msgpack")
    assert FastBatch(valkey_client).batch_get(["1"]) == {"1": {"id": 1, "name": "n1"}}
    with pytest.raises(ValueError, match=r"codec must be one of .* got 'pickle'"):
        as_json.batch_set_table(people(2), key="id", codec="pickle")


def test_rows_that_the_server_refuses_fail_alone(acl_server: Any) -> None:
    """The rows of a refused MSET are sent again as SETs, so only forbidden rows fail."""
    with acl_server.client() as client:
        failed: list[Any] = []
        table = pa.table({"k": ["allowed:1", "forbidden:2", "allowed:3"], "v": [1, 2, 3]})
        report = FastBatch(client).batch_set_table(
            table, key="k", on_error=lambda *failure: failed.append(failure)
        )
        assert (report.written, report.failed) == (2, 1)
        assert [(row, value) for row, value, _ in failed] == [(1, {"k": "forbidden:2", "v": 2})]
        with pytest.raises(BatchError, match="1 of 3 rows were not written: row 1: "):
            FastBatch(client).batch_set_table(table, key="k")


def test_huge_values_are_written(one: FastBatch) -> None:
    table = pa.table({"k": ["a" * 1000, "b"], "v": ["x" * 3_000_000, "y"]})
    assert one.batch_set_table(table, key="k").written == 2
    assert one.batch_get(["b"])["b"]["v"] == "y"
    assert len(one.batch_get(["a" * 1000])["a" * 1000]["v"]) == 3_000_000


def test_threads_may_write_the_same_table(valkey: EmbeddedServer, one: FastBatch) -> None:
    table = people(3000)
    threads = [
        threading.Thread(target=one.batch_set_table, args=(table,), kwargs={"key": "id", "prefix": f"{n}:"})
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.client.dbsize() == 12000


def test_a_client_may_decode_responses(valkey: EmbeddedServer) -> None:
    with valkey.client(decode_responses=True) as client:
        client.flushall()
        batch = FastBatch(client)
        batch.batch_set_table(people(3), key="id")
        assert batch.batch_get(["2"]) == {"2": {"id": 2, "name": "n2"}}


def test_objects_of_polars_are_refused(server: EmbeddedServer) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"k": ["a"], "o": polars.Series([object()], dtype=polars.Object)})
    with FastBatch.from_url(server.url) as batch:
        for wanted in ({"key": "k"}, {"key": "o", "columns": ["k"]}, {"key": "k", "as_": "hash"}):
            with pytest.raises(EncodeError, match="column 'o': Python objects cannot be written"):
                batch.batch_set_table(frame, **wanted)
        assert batch.batch_set_table(frame, key="k", columns=["k"]).written == 1
        assert batch.batch_get(["a"]) == {"a": {"k": "a"}}
