"""Arrow tables and DataFrames to Redis, a row a key, without a Python object for any value.

A row is stored as the MessagePack map of its fields: the same bytes as batch_set() of the row's dict with the
codec `msgpack`, where `arrow_default()` stands for the types that MessagePack has not:

| Arrow | stored as |
|---|---|
| null of any type | nil |
| integers, bool | int, bool |
| float16, float32, float64 | float64 |
| string, large_string, string_view | str; bytes that are not UTF-8 let the row fail |
| binary, large_binary, binary_view, fixed_size_binary | bin |
| timestamp with a zone | MessagePack's timestamp: a point in time, the zone's name is not kept |
| timestamp without one | str, "2024-05-01T12:30:00.250000" |
| date32, date64 | str, "2024-05-01" |
| time32, time64 | str, "12:30:00.250000"; nine digits where nanoseconds need them |
| duration | str in ISO 8601 of days and seconds, "P1DT2.5S", as msgspec writes a timedelta |
| decimal32 to decimal256 | str, as str() of the decimal.Decimal |
| list, large_list, fixed_size_list | array |
| struct, map | map; a map column that has a key twice lets the row fail |
| dictionary | as its values |
| an extension type | as its storage type |

Unions, run-end-encoded columns, list views and intervals are refused before anything is sent.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import string
import sys
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgpack

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_on_error
from redis_fastbatch._core.arrow.hashes import HashWriter
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import PointInTime, Seconds, SetOptions
from redis_fastbatch._engine.flight import FIRST_COMMAND_BYTES
from redis_fastbatch._engine.hashes import HashFlight, expire_command
from redis_fastbatch._engine.outcome import OnError, RecordedBatch, WriteOutcome
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._redirections import cluster_hint, error_text
from redis_fastbatch._transports.capabilities import capabilities, has_msetex, wants_msetex
from redis_fastbatch._transports.redispy import is_cluster, key_encoding
from redis_fastbatch.codecs import AnyCodec, MsgpackCodec, ValueCodec, resolve
from redis_fastbatch.errors import BatchError, EncodeError
from redis_fastbatch.report import BatchReport, Progress, ProgressCallback, attach, make_progress

if TYPE_CHECKING:
    from redis_fastbatch._base_client import Plans
    from redis_fastbatch.client import FastBatch

__all__ = ["arrow_default", "set_table"]

TAG = b"\xc1"
"""What the codec toolkit-msgpack writes before MessagePack."""


def set_table(
    batch: FastBatch,
    table: Any,
    *,
    key: str,
    prefix: str | bytes = "",
    columns: Iterable[str] | None = None,
    ex: Seconds | None = None,
    px: Seconds | None = None,
    exat: PointInTime | None = None,
    pxat: PointInTime | None = None,
    keepttl: bool = False,
    nx: bool = False,
    xx: bool = False,
    codec: AnyCodec | None = None,
    as_: Literal["value", "hash"] = "value",
    chunk_size: int | None = None,
    progress: bool | ProgressCallback | None = None,
    on_error: OnError = "raise",
) -> BatchReport:
    """Writes a table, a row a key. This is FastBatch.batch_set_table().

    Memory stays bounded by the table's own batches, however many there are, and the GIL is free while rows
    are encoded.

    Args:
        batch: the client.
        table: anything with `__arrow_c_stream__()`: pyarrow's Table and RecordBatchReader, polars' and
            pandas' DataFrame (there, as pyarrow has it, NaN becomes null), DuckDB's results. A reader is
            consumed.
        key: the column whose values are the keys, or a template of columns, such as
            "flight:{carrier}:{number}". They are of integers, strings, binaries, decimals, dates or times. Of
            rows of the same key the last one wins. Text is written in the client's encoding, as batch_set() writes
            keys; what that has not lets its row fail.
        prefix: goes before every key.
        columns: the columns of which a row's value is made; all by default, the key's too.
        ex, px, exat, pxat, keepttl, nx, xx, chunk_size, progress: as for batch_set().
        codec: "msgpack" or "toolkit-msgpack"; the client's by default.
        as_: "value" stores a row as one value. "hash" stores it as a hash of its fields, as strings that other
            programs read: integers and floats as redis-py writes them, bools as 1 and 0, strings and binaries as
            they are, dates, times and durations in ISO 8601, decimals as str() has them. Fields that are null are
            left out, and fields that a hash has already stay, as with HSET. An expiry is set by EXPIRE when HSET
            was carried out, a round trip later; a row whose EXPIRE fails counts as failed, for its reason, though
            its hash is there. nx, xx and codec have no meaning for hashes.
        on_error: "raise", "report", or a callable that gets (row number, row as a dict, exception) of each
            failed row. Where a date or time cannot be written, the row has Arrow's number; where a text is not
            UTF-8, it has the bytes; another value that cannot be written is None. A row that is null as a whole
            is None.

    Returns:
        What was written, skipped and failed. It calls rows by their number, which begins at 0. A row fails alone
        when a column of its key is null or empty, a text is not UTF-8, a map has a key twice, or a date is not
        one that Python has.

    Raises:
        EncodeError: before anything is sent: there is no such column, or it is of a type that is not carried; a
            hash carries no nested ones.
        BatchError: rows failed, and on_error is "raise".
        TypeError, ValueError: `table` is no table, or arguments are wrong.
        redis.exceptions.RedisError: as from batch_set(). This, and what the table's own stream raises, has a
            `report` of what was done until then.
    """
    options = SetOptions(ex, px, exat, pxat, keepttl, nx, xx)
    plan = plan_table(batch, table, options, key, prefix, columns, codec, as_, chunk_size, progress, on_error)
    try:
        with batch._lease() as borrowed:
            flight = plan.flight(msetex=plan.wants_msetex and has_msetex(borrowed))
            with flight:
                borrowed.run(flight)
        return plan.outcome(flight)
    except BaseException as error:
        plan.attach_report(error)
        raise


class TablePlan:
    """How a table is to be written; nothing is sent yet.

    Args:
        batch: the client.
        rows: encodes the rows: a TableWriter, or a HashWriter.
        options: SET's.
        on_error: as set_table() takes it.
        progress: what hears of it.
    """

    def __init__(
        self, batch: Plans, rows: Any, options: SetOptions, on_error: OnError, progress: Progress | None
    ) -> None:
        self.wants_msetex = not isinstance(rows, HashWriter) and wants_msetex(options, batch._client)
        self._batch = batch
        self._rows = rows
        self._options = options
        self._on_error = on_error
        self._report = BatchReport()
        self._started = time.perf_counter()
        self._outcome = WriteOutcome(self._report, on_error, progress)

    def flight(self, *, msetex: bool) -> Any:
        """What writes the rows; `msetex` says whether the server has that."""
        rows, options, client = self._rows, self._options, self._batch._client
        if isinstance(rows, HashWriter):
            return HashFlight(rows, expire_command(options), self._outcome)
        if is_cluster(client):
            return self._batch._cluster.rows_flight(rows, options, self._outcome)
        pool = client.connection_pool
        rows.use(options.command(msetex=msetex))
        lost = functools.partial(capabilities.remember_msetex, pool, False)
        return WriteFlight(
            rows, options.single(), self._outcome, repeatable=options.repeatable, on_msetex_lost=lost
        )

    def attach_report(self, error: BaseException) -> None:
        """What ends it early gets the report."""
        self._report.seconds = time.perf_counter() - self._started
        attach(error, self._report)

    def outcome(self, flight: RecordedBatch) -> BatchReport:
        """The report, once it has been carried out. Raises what ended the table's stream, or BatchError."""
        if flight.source_error is not None:
            raise flight.source_error
        self._report.seconds = time.perf_counter() - self._started
        if self._report.failed and self._on_error == "raise":
            raise BatchError(_failure_message(self._report), self._report)
        return self._report


def plan_table(
    batch: Plans,
    table: Any,
    options: SetOptions,
    key: str,
    prefix: str | bytes,
    columns: Iterable[str] | None,
    codec: AnyCodec | None,
    as_: str,
    chunk_size: int | None,
    progress: bool | ProgressCallback | None,
    on_error: OnError,
) -> TablePlan:
    """Looks at a table and at what is asked for, which are as set_table() takes them; raises as that does."""
    encoding, errors = key_encoding(batch._client)
    layout: dict[str, Any] = {
        "columns": None if columns is None else _names(columns),
        "key": _key_parts(key, prefix, encoding, errors),
        "max_items": checked_chunk_size(chunk_size),
        "max_bytes": FIRST_COMMAND_BYTES,
        "encoding": encoding,
        "errors": errors,
    }
    checked_on_error(on_error)
    check_hook("progress", progress, unless=bool)
    _refuse_objects(table, layout["columns"], layout["key"])
    # The writers, which flights take for BatchWriters, read the schema: what is wrong with it shows before a
    # connection is borrowed.
    if as_ == "hash":
        if is_cluster(batch._client):
            raise ValueError('as_="hash" is for single servers; a cluster takes rows with as_="value"')
        expire_command(options)
        rows: Any = HashWriter(ArrowStream(table), **layout)
    elif as_ == "value":
        row_codec, tag = _row_format(batch, codec)
        rows = TableWriter(ArrowStream(table), options.single(), tag=tag, row_codec=row_codec.loads, **layout)
    else:
        raise ValueError(f'as_ is "value" or "hash", not {as_!r}')
    return TablePlan(batch, rows, options, on_error, make_progress(progress, _rows(table)))


def _failure_message(report: BatchReport) -> str:
    row, error = next(iter(report.failures.items()))
    reason = str(error) if isinstance(error, EncodeError) else f"row {row}: {error_text(error)}"
    first = "; the first" if report.failed > 1 else ""
    return f"{report.failed:,} of {report.total:,} rows were not written{first}: {reason}{cluster_hint(error)}"


def arrow_default(value: Any) -> Any:
    """What a table's rows hold for values of types that MessagePack has not.

    `MsgpackCodec(default=arrow_default)` gives `pyarrow_table.to_pylist(maps_as_pydicts="strict")` the same
    bytes as batch_set_table() gives the table's rows, but for two types of which to_pylist() makes something else:
    it drops the nanoseconds of time64[ns], and arrow.bool8, stored as the int8 that it is, becomes a bool.

    Raises:
        TypeError: another type than those that to_pylist() makes.
    """
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        # Not a datetime itself, whose bytes the codec knows: pandas' Timestamp, which has nanoseconds.
        stamp: Any = value
        return msgpack.Timestamp(*divmod(stamp.as_unit("ns").value, 10**9))
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _iso_duration(value)
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, uuid.UUID):
        return value.bytes
    raise TypeError(f"a {type(value).__name__} is no value of an Arrow table")


def _iso_duration(value: datetime.timedelta) -> str:
    """Days and seconds in ISO 8601; pandas' Timedelta with its nanoseconds."""
    if hasattr(value, "as_unit"):
        nanoseconds = value.as_unit("ns").value
    else:
        nanoseconds = value // datetime.timedelta(microseconds=1) * 1000
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    days, seconds = divmod(seconds, 86400)
    text = f"{sign}P{days}D" if days or not nanoseconds else f"{sign}P"
    if seconds or fraction:
        text += f"T{seconds}"
        if fraction:
            text += f".{fraction:09}".rstrip("0")
        text += "S"
    return text


def _row_format(batch: Plans, codec: AnyCodec | None) -> tuple[ValueCodec, bytes]:
    """The codec that reads a row's value again, and what goes before the value's MessagePack."""
    from redis_fastbatch._core.toolkit.codec import ToolkitMsgpackCodec

    resolved = batch._codec if codec is None else resolve(codec)
    if isinstance(resolved, MsgpackCodec):
        return resolved, b""
    if isinstance(resolved, ToolkitMsgpackCodec):
        return resolved, TAG
    name = codec if isinstance(codec, str) else type(resolved).__name__
    raise ValueError(f'rows are written with the codec "msgpack" or "toolkit-msgpack", not {name}')


def _names(columns: Iterable[str]) -> list[str]:
    if isinstance(columns, str):
        raise TypeError(f"columns is a list of names, not the str {columns!r}")
    if not isinstance(columns, Iterable):
        raise TypeError(f"columns must be a list of names, got {type(columns).__name__}")
    return list(columns)


def _key_parts(key: str, prefix: str | bytes, encoding: str, errors: str) -> list[str | bytes]:
    """What a key is made of: bytes as they are, and names of columns."""
    if not isinstance(key, str):
        raise TypeError(f"key is a column's name or a template, not {key!r}")
    if not isinstance(prefix, (str, bytes)):
        raise TypeError(f"prefix is str or bytes, not {type(prefix).__name__}")
    parts: list[str | bytes] = []
    if prefix:
        parts.append(prefix.encode(encoding, errors) if isinstance(prefix, str) else prefix)
    for text, column in split_key(key):
        if text:
            parts.append(text.encode(encoding, errors))
        if column is not None:
            parts.append(column)
    return parts


def split_key(key: str) -> list[tuple[str, str | None]]:
    """Takes a key, a column's name or a template, apart: pairs of text and the column behind it.

    Raises:
        ValueError: it is no template, or one without columns.
    """
    if "{" not in key:
        return [("", key)]
    try:
        fields = list(string.Formatter().parse(key))
    except ValueError as error:
        raise ValueError(
            f"the key template {key!r}: {error}; a column whose name has an opening brace in it cannot be the key"
        ) from None
    if any(column == "" or form or conversion for _, column, form, conversion in fields):
        raise ValueError(
            f"the key template {key!r}: only names of columns stand between braces, without formats; "
            "a column whose name has a colon, an exclamation mark or a brace in it cannot stand there"
        )
    if not any(column for _, column, _, _ in fields):
        raise ValueError(f"the key template {key!r} names no column: every row would have the same key")
    return [(text, column) for text, column, _, _ in fields]


def _refuse_objects(table: Any, columns: list[str] | None, key: list[str | bytes]) -> None:
    """Polars exports Python objects as their addresses in memory, and the Arrow schema does not tell."""
    polars: Any = sys.modules.get("polars")
    if polars is None or not isinstance(table, polars.DataFrame):
        return
    for name, kind in table.schema.items():
        if kind == polars.Object and (columns is None or name in columns or name in key):
            raise EncodeError(f"column {name!r}: Python objects cannot be written")


def _rows(table: Any) -> int | None:
    """How many rows a table says that it has; None where it does not know."""
    rows = getattr(table, "num_rows", None)
    # Not of whatever has a length: for that of a DuckDB relation its query is run once more.
    if rows is None and type(table).__module__.partition(".")[0] in ("pandas", "polars"):
        rows = len(table)
    return rows if isinstance(rows, int) else None
