"""Values read back into an Arrow table: what `FastBatch.batch_get_table()` does.

Each value, a map, goes from the received bytes into the columns' buffers; Python sees a key and a row's number.
Needs pyarrow (the extra `arrow`), which takes the finished columns over without copying them.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from redis_fastbatch import gcpause, strategy
from redis_fastbatch._core.arrow_builder import ColumnBuilder, RowsBuilder
from redis_fastbatch._core.arrow_export import ExportedRows
from redis_fastbatch.codecs import MsgpackCodec
from redis_fastbatch.errors import DecodeError, EncodeError
from redis_fastbatch.flight import COMMAND_BYTES, COMMAND_ITEMS
from redis_fastbatch.plans import Key, Plans, read_ended
from redis_fastbatch.read_flight import ReadFlight
from redis_fastbatch.table import TAG
from redis_fastbatch.transport import is_cluster, lease

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as error:
    raise ImportError("reading tables needs pyarrow: pip install 'redis-fastbatch[arrow]'") from error

if TYPE_CHECKING:
    from redis_fastbatch.client import FastBatch

Row: TypeAlias = "int | None"

EPOCH = datetime.date(1970, 1, 1)

_UNITS = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?")
_DURATION = re.compile(r"(-?)P(?:(\d+)D)?(?:T(\d+)(?:\.(\d{1,9}))?S)?")


def get_table(
    batch: FastBatch,
    keys: Iterable[Key],
    *,
    schema: pa.Schema | None = None,
    key: str | None = None,
) -> pa.Table:
    """Reads values that are maps as the rows of a table. This is FastBatch.batch_get_table().

    Without a schema a column has the type of its values: int64 (uint64 where that does not do), float64 (ints
    among floats become floats), bool, string, binary, timestamp[us, UTC] (ns where one needs it), list, struct, or
    null; a field that a row has not is null there. With a schema there are its columns and no others; text is read
    as the dates, times, durations and decimals that batch_set_table() writes so.

    Args:
        batch: the client.
        keys: str, bytes or int. A key that is missing gives a row of nulls.
        schema: the columns that are wanted.
        key: the name of a column for the keys; it comes first, or where the schema has it. By default it is of
            strings; of ints where all keys are ints that int64 or uint64 holds; of binaries where one key is
            bytes.

    Returns:
        A row a key, in the order of the keys.

    Raises:
        DecodeError: a value is no map, is of another type than its column's other values, or does not fit
            the schema, be it a null, or a missing key's, where that is not nullable; or the key does not fit
            its column. It names the key.
        TypeError: a type in the schema that nothing is read as.
        ValueError: the data has a field of the key column's name; the schema has a name twice.
        redis.exceptions.RedisError: as from batch_get().
    """
    reading = TableReading(batch, schema, key)
    return reading.table(_read(batch, keys, reading.builder))


class TableReading:
    """How values are to be read into a table, and the columns that they go into.

    Args:
        batch: the client.
        schema, key: as get_table() takes them.
    """

    def __init__(self, batch: Plans, schema: pa.Schema | None, key: str | None) -> None:
        self._encoder: Any = batch._client.get_encoder()
        self._schema = schema
        self._key = key
        self._fields = None if schema is None else [field for field in _distinct(schema) if field.name != key]
        columns = None if self._fields is None else [_column(f.name, f.type) for f in self._fields]
        self.builder = _builder(batch, columns)

    def table(self, found: list[tuple[Key, Row]]) -> pa.Table:
        """The table of what was read: every key with the number of its row, None where it is missing."""
        try:
            return self._table(found)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise DecodeError(f"the values or their keys do not fit the schema: {error}") from error
        except pa.ArrowNotImplementedError as error:
            raise TypeError(f"nothing is read as a type of the schema: {error}") from error

    def _table(self, found: list[tuple[Key, Row]]) -> pa.Table:
        table = _placed(self.builder, [row for _, row in found])
        names = [name for name, _ in found]
        if self._schema is not None and self._fields:
            table = _fitted(table, pa.schema(self._fields, self._schema.metadata), names)
        if self._key is not None:
            table = _with_keys(table, self._key, names, self._schema, self._encoder)
        return table


def get_present(batch: FastBatch, keys: Iterable[Key], *, key: str | None = None) -> pa.Table:
    """Reads as get_table() does, but leaves out the keys that are missing."""
    builder = _builder(batch, None)
    found = [(name, row) for name, row in _read(batch, keys, builder) if row is not None]
    table = _placed(builder, [row for _, row in found])
    if key is None:
        return table
    return _with_keys(table, key, [name for name, _ in found], None, batch.client.get_encoder())


def _builder(batch: Plans, fields: list[ColumnBuilder] | None) -> RowsBuilder:
    """The builder for the client's codec."""
    from redis_fastbatch._core.toolkit_json import ToolkitMsgpackCodec

    codec = batch._codec
    if isinstance(codec, MsgpackCodec):
        return RowsBuilder(fields)
    packer = MsgpackCodec()

    def as_msgpack(data: bytes) -> bytes:
        try:
            packed: bytes = packer.dumps(codec.loads(data))
        except EncodeError as error:
            raise DecodeError(f"no column holds it: {error.reason}") from error
        return packed

    return RowsBuilder(fields, TAG if isinstance(codec, ToolkitMsgpackCodec) else b"", as_msgpack)


def _read(batch: FastBatch, keys: Iterable[Key], builder: RowsBuilder) -> list[tuple[Key, Row]]:
    """Every key with the number of its row, None where it is missing."""
    found: list[tuple[Key, Row]] = []
    with gcpause.Pause(batch._pause_gc) as pause:
        flight = rows_flight(batch, keys, builder, found, pause)
        with lease(batch.client, batch._max_value_size) as borrowed:
            borrowed.run(flight)
    read_ended(flight, "raise")
    return found


def rows_flight(
    batch: Plans, keys: Any, builder: RowsBuilder, found: list[tuple[Key, Row]], pause: gcpause.Pause
) -> ReadFlight:
    """What reads the values of keys into columns, and puts the numbers of their rows into `found`."""
    ways: dict[str, Any] = {"limit": COMMAND_ITEMS, "pause": pause}
    if is_cluster(batch._client):
        flight: ReadFlight = batch._cluster.read_flight(keys, found, {**ways, "default": None}, builder)
        return flight
    return ReadFlight(batch._writer(keys, strategy.MGET, COMMAND_ITEMS, COMMAND_BYTES), builder, found, **ways)


def _placed(builder: RowsBuilder, rows: list[Row]) -> pa.Table:
    """The built rows in the order of the keys: some are missing, some were read twice after a lost connection."""
    built = builder.rows
    table = pa.Table.from_batches([pa.record_batch(ExportedRows(builder))])
    if not table.num_columns:
        # take() would lose the rows: there is no column to count them by.
        return pa.Table.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
    if len(rows) == built and (not rows or (rows[-1] == built - 1 and rows == list(range(built)))):
        return table
    return table.take(pa.array(rows, pa.int64()))


def _with_keys(table: pa.Table, key: str, names: list[Key], schema: pa.Schema | None, encoder: Any) -> pa.Table:
    if key in table.column_names:
        raise ValueError(f"the values have a field {key!r} of their own: the column of keys needs another name")
    if schema is None or key not in schema.names:
        return table.add_column(0, key, _key_column(key, names, _kind_of_keys(names), encoder))
    field = schema.field(key)
    return table.add_column(schema.names.index(key), field, _key_column(key, names, field.type, encoder))


def _kind_of_keys(names: list[Key]) -> pa.DataType:
    if any(isinstance(name, (bytes, bytearray, memoryview)) for name in names):
        return pa.binary()
    if not names or not all(isinstance(name, int) for name in names):
        return pa.string()
    least, largest = min(names), max(names)
    if least >= -(2**63) and largest < 2**63:
        return pa.int64()
    return pa.uint64() if least >= 0 and largest < 2**64 else pa.string()


def _key_column(key: str, names: list[Key], kind: pa.DataType, encoder: Any) -> pa.Array | pa.ChunkedArray:
    """The keys as a column: those given as str as they were given, bytes in the encoding of the client's keys."""
    try:
        return _keys_as(names, kind, encoder)
    except (pa.ArrowInvalid, UnicodeError) as misfit:
        for name in names:
            try:
                _keys_as([name], kind, encoder)
            except (pa.ArrowInvalid, UnicodeError) as error:
                raise DecodeError(f"field {key!r}: the key does not fit {kind} ({error})", 0, name) from error
        raise DecodeError(f"field {key!r}: the keys do not fit {kind} ({misfit})") from misfit


def _keys_as(names: list[Key], kind: pa.DataType, encoder: Any) -> pa.Array | pa.ChunkedArray:
    if _shape(kind) == "binary":
        return pa.array([bytes(encoder.encode(_plain_key(name))) for name in names], kind)
    texts = pa.array([_key_text(name, encoder) for name in names], pa.string())
    return _cast(pa.chunked_array([texts]), kind)


def _plain_key(name: Key) -> str | bytes:
    """A key of any kind as str or bytes: numbers as they are written, of which an IntEnum's repr() is none."""
    if isinstance(name, (str, bytes)):
        return name
    if isinstance(name, int):
        return int.__repr__(name)
    return float.__repr__(name) if isinstance(name, float) else bytes(name)


def _key_text(name: Key, encoder: Any) -> str:
    text: str = encoder.decode(_plain_key(name), force=True)
    return text


def _distinct(fields: Iterable[pa.Field]) -> list[pa.Field]:
    """The fields of a schema or struct: which of two of one name a value is for, nothing tells."""
    names: set[str] = set()
    for field in fields:
        if field.name in names:
            raise ValueError(f"the schema has two fields {field.name!r} side by side")
        names.add(field.name)
    return list(fields)


def _column(name: str, kind: pa.DataType) -> ColumnBuilder:
    """What builds a column that becomes one of the type."""
    shape = _shape(kind)
    if shape is not None:
        return ColumnBuilder(name, shape)
    if pa.types.is_timestamp(kind):
        return ColumnBuilder(name, "instant", None, _UNITS[kind.unit])
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _column(name, kind.value_type)
    if pa.types.is_struct(kind):
        return ColumnBuilder(name, "struct", [_column(field.name, field.type) for field in _distinct(kind)])
    if pa.types.is_map(kind):
        keys, items = _column(f"{name}, a key", kind.key_type), _column(f"{name}, a value", kind.item_type)
        return ColumnBuilder(name, "map", [keys, items])
    if isinstance(kind, pa.BaseExtensionType):
        return _column(name, kind.storage_type)
    if _is_list(kind):
        return ColumnBuilder(name, "list", [_column(f"{name}[]", kind.value_type)])
    raise TypeError(f"column {name!r}: nothing is read as {kind}")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


# In this order: a test may be true of several kinds.
_SHAPES: list[tuple[Callable[[pa.DataType], bool], str]] = [
    (pa.types.is_null, "null"),
    (pa.types.is_boolean, "bool"),
    (pa.types.is_uint64, "uint"),
    (pa.types.is_integer, "int"),
    (pa.types.is_float16, "float16"),
    (pa.types.is_float32, "float32"),
    (pa.types.is_floating, "float64"),
    (pa.types.is_decimal, "text"),
    (pa.types.is_date, "text"),
    (pa.types.is_time, "text"),
    (pa.types.is_duration, "text"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.tz is None, "text"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_string_view, "text"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_large_binary, "binary"),
    (pa.types.is_binary_view, "binary"),
    (pa.types.is_fixed_size_binary, "binary"),
]


def _shape(kind: pa.DataType) -> str | None:
    return next((shape for is_of_kind, shape in _SHAPES if is_of_kind(kind)), None)


def _fitted(table: pa.Table, schema: pa.Schema, names: list[Key]) -> pa.Table:
    """The columns in the types that were asked for."""
    for field, column in zip(schema, table.columns, strict=True):
        _refuse_nulls(column, field, names)
    columns = [_fitted_column(column, field, names) for field, column in zip(schema, table.columns, strict=True)]
    return pa.table(columns, schema=schema)


def _refuse_nulls(column: pa.ChunkedArray, field: pa.Field, names: list[Key]) -> None:
    """Arrow itself does not look whether fields that are not nullable hold nulls."""
    inside = any(_forbids_nulls(inner) for inner in _inner_fields(field.type))
    if not inside and (field.nullable or not column.null_count):
        return
    for name, value in zip(names, column.to_pylist(), strict=True):
        if _lacks(value, field):
            wanted = f"{field.type}" if field.nullable else f"{field.type} not null"
            raise DecodeError(f"field {field.name!r}: a null, or nothing, where {wanted} is asked for", 0, name)


def _inner_fields(kind: pa.DataType) -> list[pa.Field]:
    if isinstance(kind, pa.BaseExtensionType):
        return _inner_fields(kind.storage_type)
    if pa.types.is_map(kind):
        return [kind.item_field]
    return [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) or _is_list(kind) else []


def _forbids_nulls(field: pa.Field) -> bool:
    return not field.nullable or any(map(_forbids_nulls, _inner_fields(field.type)))


def _lacks(value: Any, field: pa.Field) -> bool:
    """Whether a value is, or has in it, a null that its field does not allow."""
    if value is None:
        return not field.nullable
    inner = _inner_fields(field.type)
    if isinstance(value, dict):
        return any(_lacks(value.get(of.name), of) for of in inner)
    if pa.types.is_map(field.type):
        return any(_lacks(item, inner[0]) for _, item in value)
    return any(_lacks(item, of) for of in inner for item in value)


def _fitted_column(column: pa.ChunkedArray, field: pa.Field, names: list[Key]) -> pa.ChunkedArray:
    try:
        if pa.types.is_dictionary(field.type):
            # pyarrow makes dictionaries of more types of columns than it does of Python's values.
            values = _fitted_column(column, field.with_type(field.type.value_type), names)
            return values.dictionary_encode().cast(field.type)
        return _cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return _cast_by_value(column, field, names)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if isinstance(kind, pa.BaseExtensionType):
        storage = _cast(column, kind.storage_type)
        return pa.chunked_array([kind.wrap_array(chunk) for chunk in storage.chunks], kind)
    if pa.types.is_string(column.type) and pa.types.is_time(kind):
        # pyarrow reads no times, but points in time.
        moments = pc.binary_join_element_wise(f"{EPOCH}T", column, "")
        fine = "ns" if kind.unit == "ns" else "us"
        return moments.cast(pa.timestamp(fine)).cast(pa.time64(fine)).cast(kind)
    if pa.types.is_string(column.type) and pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return column.cast(pa.timestamp("us")).cast(kind)
    return column.cast(kind)


def _cast_by_value(column: pa.ChunkedArray, field: pa.Field, names: list[Key]) -> pa.ChunkedArray:
    """The slow way, for types that pyarrow does not cast to; and the way to the value that does not fit."""
    values = column.to_pylist()
    try:
        return pa.chunked_array([pa.array([_value(value, field.type) for value in values], field.type)])
    except (ValueError, TypeError, ArithmeticError):
        for name, value in zip(names, values, strict=True):
            try:
                pa.array([_value(value, field.type)], field.type)
            except (ValueError, TypeError, ArithmeticError) as error:
                reason = f"field {field.name!r}: {value!r:.100} does not fit {field.type} ({error})"
                raise DecodeError(reason, 0, name) from error
        raise


def _value(value: Any, kind: pa.DataType) -> Any:
    """A value as pa.array() takes it for the type."""
    if value is None:
        return None
    if isinstance(value, str) and not pa.types.is_dictionary(kind):
        return _value_of_text(value, kind)
    if pa.types.is_struct(kind):
        return {field.name: _value(value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_value(key, kind.key_type), _value(item, kind.item_type)) for key, item in value]
    if _is_list(kind):
        return [_value(item, kind.value_type) for item in value]
    return value


def _value_of_text(text: str, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        return decimal.Decimal(text)
    if pa.types.is_duration(kind):
        return _ticks(_duration(text), kind.unit)
    if pa.types.is_time(kind):
        return _ticks(_time_of_day(text), kind.unit)
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        day, _, time = text.partition("T")
        days = datetime.date.fromisoformat(day).toordinal() - EPOCH.toordinal()
        return _ticks(days * 86400 * 10**9 + _time_of_day(time), kind.unit)
    return text


def _ticks(nanoseconds: int, unit: str) -> int:
    ticks, rest = divmod(nanoseconds * _UNITS[unit], 10**9)
    if rest:
        raise ValueError(f"finer than {unit}")
    return ticks


def _duration(text: str) -> int:
    """A duration as table.arrow_default() writes it, in nanoseconds."""
    match = _DURATION.fullmatch(text)
    if match is None or text.endswith("P"):
        raise ValueError("no duration in days and seconds")
    sign, days, seconds, fraction = match.groups()
    nanoseconds = (int(days or 0) * 86400 + int(seconds or 0)) * 10**9 + _fraction(fraction)
    return -nanoseconds if sign else nanoseconds


def _time_of_day(text: str) -> int:
    """HH:MM:SS and a fraction, in nanoseconds. Python's own fromisoformat() cuts fractions off."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("no time of day")
    hours, minutes, seconds, fraction = match.groups()
    whole = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return int(whole.total_seconds()) * 10**9 + _fraction(fraction)


def _fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))
