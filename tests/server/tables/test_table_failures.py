"""batch_set_table: rows that fail, and streams that raise."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from redis_fastbatch import BatchError, FastBatch

pa = pytest.importorskip("pyarrow")

from table_examples import people  # noqa: E402


@pytest.fixture
def valkey_batch(valkey_client: redis.Redis) -> FastBatch:
    return FastBatch(valkey_client)


def test_rows_with_null_keys_fail(valkey_batch: FastBatch) -> None:
    table = pa.concat_tables(
        [pa.table({"k": ["a", None], "v": [0, 1]}), pa.table({"k": ["b", None, "c"], "v": [2, 3, None]})]
    )
    failed: list[Any] = []
    report = valkey_batch.batch_set_table(table, key="k", on_error=lambda *failure: failed.append(failure))
    assert (report.written, report.failed, report.confirmed_prefix) == (3, 2, 5)
    assert list(report.failures) == [1, 3]
    assert str(report.failures[3]) == "row 3: the key column 'k' is null"
    assert [(row, value) for row, value, _ in failed] == [(1, {"k": None, "v": 1}), (3, {"k": None, "v": 3})]
    with pytest.raises(
        BatchError, match=r"^2 of 5 rows were not written; the first: row 1: the key column 'k' is null$"
    ):
        valkey_batch.batch_set_table(table, key="{k}")
    assert valkey_batch.batch_get(["a", "b", "c"]) == {
        "a": {"k": "a", "v": 0},
        "b": {"k": "b", "v": 2},
        "c": {"k": "c", "v": None},
    }


def test_many_failed_rows_are_counted(valkey_batch: FastBatch) -> None:
    table = pa.table({"k": pa.array([None] * 5000 + [1], pa.int64())})
    report = valkey_batch.batch_set_table(table, key="k", on_error="report")
    assert (report.written, report.failed, len(report.failures)) == (1, 5000, 1000)


def test_rows_with_dates_outside_the_years_1_to_9999_fail(valkey_batch: FastBatch) -> None:
    table = pa.table({"k": [1, 2, 3], "d": pa.array([0, 4_000_000, 1], pa.int32()).cast(pa.date32())})
    report = valkey_batch.batch_set_table(table, key="k", on_error="report")
    assert (report.written, report.failed) == (2, 1)
    assert "row 1: column 'd': a date must be in the years 1 to 9999" in str(report.failures[1])
    for kind in ("timestamp", "time"):
        made = pa.timestamp("s", "UTC") if kind == "timestamp" else pa.time64("us")
        table = pa.table({"k": [1], "d": pa.array([2**60]).cast(made, safe=False)})
        assert valkey_batch.batch_set_table(table, key="k", on_error="report").failed == 1


def test_rows_before_an_error_of_the_stream_are_written(valkey_batch: FastBatch) -> None:
    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        raise OSError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises((OSError, ValueError), match="the disk is gone") as caught:
        valkey_batch.batch_set_table(reader, key="id")
    assert caught.value.report.written == 3  # type: ignore[attr-defined]
    assert valkey_batch.client.dbsize() == 3


def test_ctrl_c_in_a_stream_raises_keyboard_interrupt(valkey_batch: FastBatch) -> None:
    """The C interface passes only the text of an error, which pyarrow raises as ValueError."""

    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        signal.raise_signal(signal.SIGINT)
        yield people(3).to_batches()[0]

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises(KeyboardInterrupt) as caught:
        valkey_batch.batch_set_table(reader, key="id")
    assert caught.value.report.written == 3  # type: ignore[attr-defined]
    assert valkey_batch.client.dbsize() == 3


@pytest.mark.parametrize(
    "text", ["unknown column: KeyboardInterrupt", "KeyboardInterrupt", "a\nKeyboardInterrupt"]
)
def test_an_error_whose_text_mentions_ctrl_c_is_raised_unchanged(valkey_batch: FastBatch, text: str) -> None:
    def batches() -> Iterator[Any]:
        yield people(3).to_batches()[0]
        raise ValueError(text)

    reader = pa.RecordBatchReader.from_batches(people().schema, batches())
    with pytest.raises(ValueError, match="KeyboardInterrupt"):
        valkey_batch.batch_set_table(reader, key="id")


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_null_rows_fail_alone(valkey_batch: FastBatch, as_: Any) -> None:
    """A stream of structs is a stream of rows. Values inside a null struct are ignored."""
    columns = [pa.array([1, 2, 3, 4]), pa.array(["a", "b", "c", "d"])]
    mask = pa.array([False, False, True, False])
    rows = pa.chunked_array([pa.StructArray.from_arrays(columns, names=["id", "name"], mask=mask).slice(1)])
    failed: list[Any] = []
    report = valkey_batch.batch_set_table(
        rows, key="id", as_=as_, on_error=lambda *failure: failed.append(failure)
    )
    assert report.written == 2
    assert sorted(valkey_batch.client.keys()) == [b"2", b"4"]
    assert [(number, row, str(error)) for number, row, error in failed] == [
        (1, None, "row 1: the whole row is null")
    ]


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_on_error_gets_rows_that_cannot_be_written(valkey_batch: FastBatch, as_: Any) -> None:
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
    valkey_batch.batch_set_table(
        pa.table(columns), key="k", as_=as_, on_error=lambda *failure: failed.append(failure)
    )
    numbers = {"n": 1, "far": 2**62, "day": 2**30, "time": 86400, "word": 2**62}
    if as_ == "value":
        row: Any = {"k": "a", **numbers, "null": None, "nested": None}
    else:
        row = {b"k": b"a", **{name.encode(): b"%d" % number for name, number in numbers.items()}}
    assert [failure[:2] for failure in failed] == [(0, row)]
    assert "column 'far': a date must be in the years 1 to 9999" in str(failed[0][2])


def test_rows_with_invalid_offsets_fail(valkey_batch: FastBatch) -> None:
    """Arrow does not check offsets. Those that can be checked at no cost are checked."""
    np = pytest.importorskip("numpy")

    def fails(column: Any, offsets: Any, at: int, wrong: int) -> None:
        # pyarrow only accepts valid offsets, so they are changed afterwards.
        table = pa.table({"k": ["a", "b"], "v": column})
        before, offsets[at] = int(offsets[at]), wrong
        report = valkey_batch.batch_set_table(table, key="k", on_error="report")
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


def test_an_error_with_a_read_only_report_is_raised_unchanged(valkey_batch: FastBatch) -> None:
    class Closed(Exception):
        report = property(lambda self: None)

    def listener(*failure: Any) -> None:
        raise Closed("enough")

    table = pa.table({"k": ["a", None]})
    with pytest.raises(Closed, match="enough"):
        valkey_batch.batch_set_table(table, key="k", on_error=listener)


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
