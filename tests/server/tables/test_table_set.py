"""batch_set_table: keys, columns, options, codecs, and tables of other libraries."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis

from redis_fastbatch import AsyncFastBatch, DecodeError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")

from table_examples import people  # noqa: E402


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    return FastBatch(client)


@pytest.fixture
def valkey_batch(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


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
def test_key_columns_may_be_integers_text_or_bytes(valkey_batch: FastBatch, kind: Any, values: list[Any]) -> None:
    valkey_batch.batch_set_table(pa.table({"k": pa.array(values, kind), "n": [0, 1, 2]}), key="k", columns=["n"])
    keys = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    assert valkey_batch.batch_get(keys) == {key: {"n": i} for i, key in enumerate(keys)}


def test_a_template_joins_columns_and_text(valkey_batch: FastBatch) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "d": pa.array([0, 1], pa.date32())})
    valkey_batch.batch_set_table(table, key="{{{a}}}:{b}:{d}", prefix=b"p:", columns=["a"])
    assert sorted(valkey_batch.client.keys()) == [b"p:{1}:x:1970-01-01", b"p:{2}:y:1970-01-02"]
    valkey_batch.batch_set_table(table, key="{a}{a}", columns=["b"])
    assert valkey_batch.batch_get(["11", "22"]) == {"11": {"b": "x"}, "22": {"b": "y"}}


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
def test_invalid_key_arguments_are_refused(
    valkey_batch: FastBatch, key: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        valkey_batch.batch_set_table(people(), key=key)
    assert valkey_batch.client.dbsize() == 0


@pytest.mark.parametrize("prefix", [0, 5, None, bytearray(b"x")])
def test_invalid_prefixes_are_refused(valkey_batch: FastBatch, prefix: Any) -> None:
    with pytest.raises(TypeError, match="prefix must be str or bytes, got"):
        valkey_batch.batch_set_table(people(), key="id", prefix=prefix)
    assert valkey_batch.client.dbsize() == 0


@pytest.mark.parametrize(
    ("array", "kind"),
    [([0.5], r"float64 \(double\)"), ([True], "bool"), ([[1]], "a list"), ([{"a": 1}], "a struct")],
)
def test_key_columns_of_other_types_are_refused(valkey_batch: FastBatch, array: Any, kind: str) -> None:
    words = rf"column 'k': the columns of a key must be of .*, found {kind}; cast .* --type k=string$"
    with pytest.raises(EncodeError, match=words):
        valkey_batch.batch_set_table(pa.table({"k": array}), key="k")


def test_columns_selects_and_orders_the_fields(valkey_batch: FastBatch) -> None:
    table = pa.table({"a": [1], "b": [2], "c": [3]})
    valkey_batch.batch_set_table(table, key="a", columns=["c", "b"])
    assert list(valkey_batch.batch_get(["1"])["1"].items()) == [("c", 3), ("b", 2)]
    valkey_batch.batch_set_table(table, key="a", columns=[])
    assert valkey_batch.batch_get(["1"]) == {"1": {}}
    with pytest.raises(EncodeError, match="column 'b': each name must be there once, found it 2 times"):
        valkey_batch.batch_set_table(table, key="a", columns=["b", "b"])
    with pytest.raises(TypeError, match="a list of names"):
        valkey_batch.batch_set_table(table, key="a", columns="abc")


def test_columns_of_the_same_name_are_refused(valkey_batch: FastBatch) -> None:
    table = pa.table([[1], [2], [3]], names=["a", "b", "b"])
    with pytest.raises(EncodeError, match="column 'b': each name must be there once, found it 2 times"):
        valkey_batch.batch_set_table(table, key="a")
    valkey_batch.batch_set_table(table, key="a", columns=["a"])
    assert valkey_batch.batch_get(["1"]) == {"1": {"a": 1}}


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


def test_an_empty_table_writes_nothing(valkey_batch: FastBatch) -> None:
    for table in (people(0), people().slice(5), pa.RecordBatchReader.from_batches(people().schema, [])):
        report = valkey_batch.batch_set_table(table, key="id")
        assert (report.written, report.total, report.bytes_sent) == (0, 0, 0)


def test_a_reader_is_consumed_once(valkey_batch: FastBatch) -> None:
    reader = people().to_reader()
    assert valkey_batch.batch_set_table(reader, key="id").written == 5
    assert valkey_batch.batch_set_table(reader, key="id").total == 0
    capsule = people().__arrow_c_stream__()

    class Once:
        def __arrow_c_stream__(self) -> object:
            return capsule

    assert valkey_batch.batch_set_table(Once(), key="id").written == 5
    with pytest.raises(ValueError, match="consumed before"):
        valkey_batch.batch_set_table(Once(), key="id")


def test_other_objects_than_tables_are_refused(valkey_batch: FastBatch) -> None:
    for thing in ({}, [], None, "text"):
        with pytest.raises(TypeError, match="a table must have __arrow_c_stream__"):
            valkey_batch.batch_set_table(thing, key="id")
    with pytest.raises(ValueError, match="found single columns"):
        valkey_batch.batch_set_table(pa.chunked_array([[1]]), key="id")

    class Liar:
        def __arrow_c_stream__(self) -> object:
            return object()

    with pytest.raises(TypeError, match="must return a PyCapsule arrow_array_stream"):
        valkey_batch.batch_set_table(Liar(), key="id")


@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
def test_any_chunk_size_writes_all_rows(valkey_batch: FastBatch, size: int) -> None:
    assert valkey_batch.batch_set_table(people(50), key="id", chunk_size=size).written == 50
    assert valkey_batch.client.dbsize() == 50


def test_progress_counts_rows(valkey_batch: FastBatch) -> None:
    steps: list[Any] = []
    valkey_batch.batch_set_table(people(5000), key="id", progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (5000, 5000)
    steps.clear()
    valkey_batch.batch_set_table(people(5000).to_reader(), key="id", progress=lambda *step: steps.append(step))
    assert steps[-1] == (5000, None)


@pytest.mark.parametrize(("library", "total"), [("pandas", 3), ("polars", 3), ("duckdb", None)])
def test_tables_of_other_libraries_are_written(valkey_batch: FastBatch, library: str, total: int | None) -> None:
    module = pytest.importorskip(library)
    if library == "duckdb":
        table = module.sql("select range as id, 'n' || range as name from range(3)")
        if not hasattr(table, "__arrow_c_stream__"):
            pytest.skip("this DuckDB has no __arrow_c_stream__")
    else:
        table = module.DataFrame(people(3).to_pydict())
    steps: list[Any] = []
    valkey_batch.batch_set_table(table, key="id", progress=lambda *step: steps.append(step))
    assert valkey_batch.batch_get(["0", "1", "2"]) == {f"{i}": {"id": i, "name": f"n{i}"} for i in range(3)}
    assert steps[-1] == (3, total)


def test_a_named_index_of_pandas_is_a_column(valkey_batch: FastBatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"score": [0.5, 1.5]}, index=pandas.Index(["x", "y"], name="id"))
    assert valkey_batch.batch_set_table(frame, key="id").written == 2
    ranged = pandas.DataFrame({"score": [0.5, 1.5]}, index=pandas.RangeIndex(2, name="id"))
    with pytest.raises(EncodeError, match="column 'id': there is no such column"):
        valkey_batch.batch_set_table(ranged, key="id")
    assert valkey_batch.batch_set_table(ranged.reset_index(), key="id").written == 2


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
def test_an_unnamed_index_of_pandas_is_left_out(valkey_batch: FastBatch, as_: Any) -> None:
    """pyarrow makes it a column or not, depending on the rows that a filter leaves."""
    pandas = pytest.importorskip("pandas")
    for table in unnamed_indexes(pandas):
        valkey_batch.client.flushdb()
        assert valkey_batch.batch_set_table(table, key="id", as_=as_).written == 2
        if as_ == "hash":
            assert valkey_batch.client.hgetall("3") == {b"id": b"3", b"score": b"2.5"}
        else:
            assert valkey_batch.batch_get(["2", "3"]) == {
                "2": {"id": 2, "score": 1.5},
                "3": {"id": 3, "score": 2.5},
            }
    frame = unnamed_indexes(pandas)[1]
    index = "__index_level_0__"
    assert valkey_batch.batch_set_table(frame, key="i:{__index_level_0__}").written == 2
    assert valkey_batch.batch_set_table(frame, key="id", prefix="named:", columns=["score", index]).written == 2
    assert valkey_batch.batch_get(["i:x", "named:3"]) == {
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


def test_the_codec_of_a_table_is_msgpack_json_or_toolkit_msgpack(valkey_client: redis.Redis) -> None:
    tagged = FastBatch(valkey_client, codec="toolkit-msgpack")
    tagged.batch_set_table(people(2), key="id")
    assert valkey_client.get("1")[:1] == b"\xc1"  # type: ignore[index]
    assert tagged.batch_get(["1"]) == {"1": {"id": 1, "name": "n1"}}
    with pytest.raises(DecodeError):
        FastBatch(valkey_client).batch_get(["1"])
    raw = FastBatch(valkey_client, codec="raw")
    with pytest.raises(ValueError, match="the codec of a table must be"):
        raw.batch_set_table(people(2), key="id")
    raw.batch_set_table(people(2), key="id", codec="msgpack")
    assert FastBatch(valkey_client).batch_get(["1"]) == {"1": {"id": 1, "name": "n1"}}
    with pytest.raises(ValueError, match=r"codec must be one of .* got 'pickle'"):
        raw.batch_set_table(people(2), key="id", codec="pickle")


def test_huge_values_are_written(valkey_batch: FastBatch) -> None:
    table = pa.table({"k": ["a" * 1000, "b"], "v": ["x" * 3_000_000, "y"]})
    assert valkey_batch.batch_set_table(table, key="k").written == 2
    assert valkey_batch.batch_get(["b"])["b"]["v"] == "y"
    assert len(valkey_batch.batch_get(["a" * 1000])["a" * 1000]["v"]) == 3_000_000


def test_threads_may_write_the_same_table(valkey: EmbeddedServer, valkey_batch: FastBatch) -> None:
    table = people(3000)
    threads = [
        threading.Thread(
            target=valkey_batch.batch_set_table, args=(table,), kwargs={"key": "id", "prefix": f"{n}:"}
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert valkey_batch.client.dbsize() == 12000


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
