"""Writes the rows of Arrow tables and DataFrames to Redis, one key for each row, without Python objects.

A row is stored as the MessagePack map of its fields. The bytes are those of batch_set() for the row's dict, with
the codec `msgpack`, and with `arrow_default()` for types that MessagePack does not have:

| Arrow | stored as |
|---|---|
| null of any type | nil |
| integers, bool | int, bool |
| float16, float32, float64 | float64 |
| string, large_string, string_view | str; if it is not UTF-8, the row fails |
| binary, large_binary, binary_view, fixed_size_binary | bin |
| timestamp with a zone | MessagePack's timestamp, a point in time; the zone's name is lost |
| timestamp without one | str, "2024-05-01T12:30:00.250000" |
| date32, date64 | str, "2024-05-01" |
| time32, time64 | str, "12:30:00.250000"; nine digits if nanoseconds need them |
| duration | str in ISO 8601, in days and seconds, "P1DT2.5S", as msgspec writes a timedelta |
| decimal32 to decimal256 | str, as str() of the decimal.Decimal |
| list, large_list, fixed_size_list | array |
| struct, map | map; if it has a key twice, the row fails |
| dictionary | as its values |
| an extension type | as its storage type |

Unions, run-end-encoded columns, list views and intervals are refused before anything is sent.
"""

from __future__ import annotations

import datetime
import decimal
import string
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_on_error
from redis_fastbatch._common_types import iso_duration
from redis_fastbatch._core.arrow.hashes import HashWriter
from redis_fastbatch._core.arrow.json_rows import JsonTableWriter
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import ColumnOfTimes, SetOptions
from redis_fastbatch._engine.flight import FIRST_COMMAND_BYTES
from redis_fastbatch._engine.hashes import HashFlight, expire_command, hset_command
from redis_fastbatch._engine.outcome import OnError, RecordedBatch, WriteOutcome
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._redirections import cluster_hint, error_text
from redis_fastbatch._tables.client import SyncTableClient, TableClient
from redis_fastbatch._transports.capabilities import has_msetex
from redis_fastbatch._transports.redispy import is_cluster, key_encoding
from redis_fastbatch.codecs import AnyCodec, JsonCodec, MsgpackCodec, ValueCodec, resolve
from redis_fastbatch.errors import BatchError, EncodeError
from redis_fastbatch.report import BatchReport, Progress, ProgressCallback, attach, make_progress

__all__ = ["TableOptions", "arrow_default", "set_table"]

TAG = b"\xc1"
"""The prefix that the codec toolkit-msgpack writes before MessagePack."""


@dataclass(frozen=True)
class TableOptions:
    """How a table is written. The attributes are the arguments of FastBatch.batch_set_table()."""

    key: str
    set: SetOptions
    prefix: str | bytes = ""
    columns: Iterable[str] | None = None
    codec: AnyCodec | None = None
    as_: str = "value"
    chunk_size: int | None = None
    progress: bool | ProgressCallback | None = None
    on_error: OnError = "raise"


def table_expiry(ex: Any = None, px: Any = None, exat: Any = None, pxat: Any = None, **more: Any) -> SetOptions:
    """Return the options of batch_set_table(), whose expiries may be names of columns."""
    given = {"ex": ex, "px": px, "exat": exat, "pxat": pxat}
    for name, expiry in given.items():
        if callable(expiry):
            raise TypeError(f"{name} must be a time or the name of a column with each row's time, got a callable")
        if isinstance(expiry, str):
            given[name] = ColumnOfTimes(expiry)
    return SetOptions(**given, **more)


def set_table(batch: SyncTableClient, table: Any, options: TableOptions) -> BatchReport:
    """Write a table, one key for each row, as FastBatch.batch_set_table() does."""
    plan = plan_table(batch, table, options)
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
    """A table and how it is to be written. Nothing is sent yet.

    Args:
        batch: the client.
        rows: a TableWriter or HashWriter, which encodes the rows.
        options: how the rows are written.
        progress: receives the number of settled rows.
    """

    def __init__(self, batch: TableClient, rows: Any, options: TableOptions, progress: Progress | None) -> None:
        self.wants_msetex = not isinstance(rows, HashWriter) and options.set.msetex_helps and not batch._is_cluster
        self._batch = batch
        self._rows = rows
        self._options = options
        self._report = BatchReport()
        self._started = time.perf_counter()
        self._outcome = WriteOutcome(self._report, options.on_error, progress)

    def flight(self, *, msetex: bool) -> Any:
        """Return a flight that writes the rows; `msetex` says whether the server has MSETEX."""
        rows, options, client = self._rows, self._options.set, self._batch._client
        if isinstance(rows, HashWriter):
            expire = expire_command(options)
            if is_cluster(client):
                return self._batch._cluster.hash_rows_flight(rows, expire, self._outcome)
            return HashFlight(rows, expire, self._outcome)
        if is_cluster(client):
            return self._batch._cluster.rows_flight(rows, options, self._outcome)
        rows.use(options.command(msetex=msetex))
        return WriteFlight(
            rows,
            options.single,
            self._outcome,
            repeatable=options.repeatable,
            on_msetex_lost=self._batch._lose_msetex,
        )

    def attach_report(self, error: BaseException) -> None:
        """Give the report to the error that ends the batch early."""
        self._report.seconds = time.perf_counter() - self._started
        attach(error, self._report)

    def outcome(self, flight: RecordedBatch) -> BatchReport:
        """Return the report of a flight that has ended. Raise the error of the table's stream, or BatchError."""
        if flight.source_error is not None:
            raise flight.source_error
        self._report.seconds = time.perf_counter() - self._started
        if self._report.failed and self._options.on_error == "raise":
            raise BatchError(_failure_message(self._report), self._report)
        return self._report


def plan_table(batch: TableClient, table: Any, options: TableOptions) -> TablePlan:
    """Check a table and how it is to be written. Raise what batch_set_table() raises before it sends anything."""
    encoding, errors = key_encoding(batch._client)
    layout: dict[str, Any] = {
        "columns": None if options.columns is None else names_of(options.columns),
        "key": _key_parts(options.key, options.prefix, encoding, errors),
        "max_items": checked_chunk_size(options.chunk_size),
        "max_bytes": FIRST_COMMAND_BYTES,
        "encoding": encoding,
        "errors": errors,
    }
    checked_on_error(options.on_error)
    check_hook("progress", options.progress, unless=bool)
    refuse_objects(table, layout["columns"], layout["key"])
    # The writers read the schema, so that an error in it is raised before a connection is borrowed.
    if options.as_ == "hash":
        expire_command(options.set)
        rows: Any = HashWriter(ArrowStream(table), hset_command(options.set), **layout)
    elif options.as_ == "value":
        row_codec, tag = _row_format(batch, options.codec)
        form: dict[str, Any] = {"row_codec": row_codec.loads, **layout}
        if isinstance(row_codec, JsonCodec):
            rows = JsonTableWriter(ArrowStream(table), options.set.single, **form)
        else:
            rows = TableWriter(ArrowStream(table), options.set.single, tag=tag, **form)
    else:
        raise ValueError(f'as_ must be "value" or "hash", got {options.as_!r}')
    return TablePlan(batch, rows, options, make_progress(options.progress, rows_of(table)))


def _failure_message(report: BatchReport) -> str:
    row, error = next(iter(report.failures.items()))
    reason = str(error) if isinstance(error, EncodeError) else f"row {row}: {error_text(error)}"
    first = "; the first" if report.failed > 1 else ""
    return f"{report.failed:,} of {report.total:,} rows were not written{first}: {reason}{cluster_hint(error)}"


def arrow_default(value: Any) -> Any:
    """Return what a table's rows hold for a value of a type that MessagePack does not have.

    `MsgpackCodec(default=arrow_default)` gives `pyarrow_table.to_pylist(maps_as_pydicts="strict")` the same
    bytes as batch_set_table() gives the table's rows. Two types are exceptions, because to_pylist() changes them:
    it drops the nanoseconds of time64[ns], and makes a bool of arrow.bool8, which is stored as int8.

    Raises:
        TypeError: to_pylist() makes no values of this type.
    """
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        # The codec encodes a plain datetime itself. This is pandas' Timestamp, which has nanoseconds.
        stamp: Any = value
        return msgpack.Timestamp(*divmod(stamp.as_unit("ns").value, 10**9))
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return iso_duration(value)
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, uuid.UUID):
        return value.bytes
    raise TypeError(f"expected a value of an Arrow table, got {type(value).__name__}")


def _row_format(batch: TableClient, codec: AnyCodec | None) -> tuple[ValueCodec, bytes]:
    """Return the codec that reads a row's value, and the bytes before the value."""
    from redis_fastbatch._core.toolkit.codec import ToolkitMsgpackCodec

    resolved = batch._codec if codec is None else resolve(codec)
    if isinstance(resolved, MsgpackCodec):
        # Failed rows are reported as dicts, also to a client whose values have a type.
        return resolved if resolved.type is None else MsgpackCodec(), b""
    if isinstance(resolved, ToolkitMsgpackCodec):
        return resolved, TAG
    if isinstance(resolved, JsonCodec):
        return JsonCodec(), b""
    name = codec if isinstance(codec, str) else type(resolved).__name__
    raise ValueError(f'the codec of a table must be "msgpack", "json" or "toolkit-msgpack", got {name}')


def names_of(columns: Iterable[str]) -> list[str]:
    """Return the names of columns as a list."""
    if isinstance(columns, str):
        raise TypeError(f"columns must be a list of names, got the str {columns!r}")
    if not isinstance(columns, Iterable):
        raise TypeError(f"columns must be a list of names, got {type(columns).__name__}")
    return list(columns)


def _key_parts(key: str, prefix: str | bytes, encoding: str, errors: str) -> list[str | bytes]:
    """Return the parts of a key: bytes are literals, and a str is the name of a column."""
    if not isinstance(key, str):
        raise TypeError(f"key must be a column's name or a template, got {key!r}")
    if not isinstance(prefix, (str, bytes)):
        raise TypeError(f"prefix must be str or bytes, got {type(prefix).__name__}")
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
    """Split a key, a column's name or a template, into pairs of text and the column after it.

    Raises:
        ValueError: it is not a valid template, or has no columns.
    """
    if "{" not in key:
        return [("", key)]
    fields = split_template(key, "the key template", "cannot be the key")
    if not any(column for _, column in fields):
        raise ValueError(f"the key template {key!r} must name a column, or all rows would have the same key")
    return fields


def split_template(template: str, what: str, limit: str = "needs col()") -> list[tuple[str, str | None]]:
    """Split a text with names of columns in braces into pairs of text and the column after it.

    Args:
        template: the text.
        what: what messages call it.
        limit: what messages say of a column whose name has a brace.

    Raises:
        ValueError: it is not a valid template.
    """
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(
            f"{what} {template!r}: {error}; a column with an opening brace in its name {limit}"
        ) from None
    if any(column == "" or form or conversion for _, column, form, conversion in fields):
        raise ValueError(
            f"{what} {template!r}: only names of columns can be between braces, without formats; "
            "a column with a colon, an exclamation mark or a brace in its name cannot be used"
        )
    return [(text, column) for text, column, _, _ in fields]


def refuse_objects(table: Any, columns: list[str] | None, key: list[Any]) -> None:
    """Refuse Python objects in polars, which exports their addresses in memory as if they were numbers."""
    polars: Any = sys.modules.get("polars")
    if polars is None or not isinstance(table, polars.DataFrame):
        return
    for name, kind in table.schema.items():
        if kind == polars.Object and (columns is None or name in columns or name in key):
            raise EncodeError(f"column {name!r}: Python objects cannot be written; cast it or leave it out")


def rows_of(table: Any) -> int | None:
    """Return how many rows a table says it has; None if it does not know."""
    rows = getattr(table, "num_rows", None)
    # len() only of types where it is cheap: for a DuckDB relation it would run the query again.
    if rows is None and type(table).__module__.partition(".")[0] in ("pandas", "polars"):
        rows = len(table)
    return rows if isinstance(rows, int) else None
