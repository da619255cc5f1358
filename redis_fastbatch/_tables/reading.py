"""Values that become the rows of an Arrow table: what is built of them, and how the table is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pyarrow as pa

from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._core.arrow.export import ExportedRows
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine import commands
from redis_fastbatch._engine.flight import COMMAND_BYTES, COMMAND_ITEMS
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.read import ReadFlight
from redis_fastbatch._tables.client import TableClient
from redis_fastbatch._tables.fit import cast, column_builder, distinct, fitted, shape_of
from redis_fastbatch._tables.write import TAG
from redis_fastbatch._transports.redispy import key_encoding
from redis_fastbatch._typing import AnyKey
from redis_fastbatch.codecs import JsonCodec, MsgpackCodec
from redis_fastbatch.errors import DecodeError, EncodeError

Row: TypeAlias = "int | None"
Encoding: TypeAlias = "tuple[str, str]"


class TableReading:
    """The plan for reading values into a table, with the builder of its columns.

    Args:
        batch: the client.
        schema: the wanted columns; None for all.
        key: as for get_table().
    """

    def __init__(self, batch: TableClient, schema: pa.Schema | None, key: str | None) -> None:
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key must be the name of the column of keys, got {type(key).__name__} {key!r:.100}")
        self._batch = batch
        self._encoding = key_encoding(batch._client)
        self._schema = schema
        self._key = key
        self._fields = None if schema is None else [field for field in distinct(schema) if field.name != key]
        self.builder = self._new_builder()

    def _new_builder(self) -> RowsBuilder:
        columns = None if self._fields is None else [column_builder(f.name, f.type) for f in self._fields]
        return _builder(self._batch, columns)

    def flight(self, keys: Any, found: list[tuple[AnyKey, Row]], pause: gc_pause.Pause) -> Any:
        """Return a flight that reads the values of keys into the columns.

        Args:
            keys: the keys.
            found: gets each key with the number of its row; None if it is missing.
            pause: the pause of the garbage collector.
        """
        return rows_flight(self._batch, keys, self.builder, found, pause)

    def table(self, found: list[tuple[AnyKey, Row]]) -> pa.Table:
        """Return the table of the keys that were read, each with the number of its row; None if it is missing."""
        try:
            return self._table(found)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise DecodeError(f"the values or their keys do not fit the schema: {error}") from error
        except pa.ArrowNotImplementedError as error:
            raise TypeError(f"values cannot be read as a type of the schema: {error}") from error

    def _table(self, found: list[tuple[AnyKey, Row]]) -> pa.Table:
        table = _placed(self.builder, [row for _, row in found])
        names = [name for name, _ in found]
        if self._schema is not None and self._fields:
            table = fitted(table, pa.schema(self._fields, self._schema.metadata), names)
        if self._key is not None:
            table = _with_keys(table, self._key, names, self._schema, self._encoding)
        return table


def arrow_schema(given: Any) -> pa.Schema | None:
    """Return the schema that the caller gave in one of several forms; None for None."""
    if given is None or isinstance(given, pa.Schema):
        return given
    expected = 'a pyarrow.Schema, a dict such as {"id": "int64"}, or an object with __arrow_c_schema__()'
    try:
        if hasattr(given, "__arrow_c_schema__"):
            return pa.schema(given)
        if isinstance(given, Mapping):
            return pa.schema([_arrow_field(name, kind) for name, kind in given.items()])
        if isinstance(given, (list, tuple)):
            return pa.schema([each if isinstance(each, pa.Field) else _arrow_pair(each) for each in given])
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise TypeError(
            f"schema must be {expected}, got {type(given).__name__} {given!r:.100}: {error}"
        ) from error
    raise TypeError(f"schema must be {expected}, got {type(given).__name__}")


def _arrow_pair(given: Any) -> pa.Field:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"a list holds pyarrow.Field or (name, type), not {type(given).__name__} {given!r:.100}")
    return _arrow_field(*given)


def _arrow_field(name: str, kind: Any) -> pa.Field:
    if not isinstance(kind, (str, pa.DataType)):
        found = kind.__name__ if isinstance(kind, type) else type(kind).__name__
        raise TypeError(f'column {name!r} needs an Arrow type or its name, such as "int64", not {found}')
    return pa.field(name, kind)


class PresentRows:
    """Values that become rows of a table, after seeds: rows that set the types of the columns.

    Args:
        batch: the client, for its codec.
        seeds: rows as MessagePack.
    """

    def __init__(self, batch: TableClient, seeds: Iterable[bytes] = ()) -> None:
        self.builder = _builder(batch, None, seeds)
        self._seeds = self.builder.rows
        self.loads = self.builder.loads

    def tables(self, rows: list[int] | None = None) -> tuple[pa.Table, pa.Table]:
        """Return the table of the seeds and the table of the rows: all, or those with these numbers."""
        table = pa.Table.from_batches([pa.record_batch(ExportedRows(self.builder))])
        seeds = table.slice(0, self._seeds)
        later = self.builder.rows - self._seeds
        if not table.num_columns:
            return seeds, _no_columns(later if rows is None else len(rows))
        if rows is None or rows == list(range(self._seeds, self.builder.rows)):
            return seeds, table.slice(self._seeds)
        return seeds, table.take(pa.array(rows, pa.int64()))


def _builder(batch: TableClient, fields: list[ColumnBuilder] | None, seeds: Iterable[bytes] = ()) -> RowsBuilder:
    """Return a builder for the client's codec that has read the seeds, which are always MessagePack."""
    from redis_fastbatch._core.toolkit.codec import ToolkitMsgpackCodec

    codec = batch._codec
    if isinstance(codec, MsgpackCodec):
        builder = RowsBuilder(fields)
        for seed in seeds:
            builder.loads(seed)
        return builder
    if isinstance(codec, JsonCodec) and codec.type is not None:
        # The objects of a type are read as maps.
        codec = JsonCodec()
    packer = MsgpackCodec()

    def as_msgpack(data: bytes) -> bytes:
        try:
            packed: bytes = packer.dumps(codec.loads(data))
        except EncodeError as error:
            raise DecodeError(f"a column cannot hold the value: {error.reason}") from error
        return packed

    reads_seeds = True

    def repacked(data: bytes) -> bytes:
        return data if reads_seeds else as_msgpack(data)

    builder = RowsBuilder(fields, TAG if isinstance(codec, ToolkitMsgpackCodec) else b"", repacked)
    for seed in seeds:
        builder.loads(seed)
    reads_seeds = False
    return builder


def rows_flight(
    batch: TableClient, keys: Any, builder: RowsBuilder, found: list[tuple[AnyKey, Row]], pause: gc_pause.Pause
) -> Any:
    """Return a flight that reads the values of keys into columns and the numbers of their rows into `found`."""
    outcome = ReadOutcome(builder, pause=pause, sizes=batch._sizes)
    if batch._is_cluster:
        return batch._cluster.read_flight(keys, found, outcome, ReadOptions(), builder)
    writer = batch._writer(keys, commands.MGET, COMMAND_ITEMS, COMMAND_BYTES)
    return ReadFlight(writer, builder, found, outcome, ReadOptions())


def _placed(builder: RowsBuilder, rows: list[Row]) -> pa.Table:
    """Return the rows in the order of the keys: some are missing, some were read again after a lost connection."""
    built = builder.rows
    table = pa.Table.from_batches([pa.record_batch(ExportedRows(builder))])
    if not table.num_columns:
        return _no_columns(len(rows))
    if len(rows) == built and (not rows or (rows[-1] == built - 1 and rows == list(range(built)))):
        return table
    return table.take(pa.array(rows, pa.int64()))


def _no_columns(rows: int) -> pa.Table:
    """Return rows without columns: take() and slice() would lose their number."""
    return pa.Table.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _with_keys(
    table: pa.Table, key: str, names: list[AnyKey], schema: pa.Schema | None, encoding: Encoding
) -> pa.Table:
    if key in table.column_names:
        raise ValueError(f"the values have a field {key!r}: give the column of keys another name")
    if schema is None or key not in schema.names:
        return table.add_column(0, key, _key_column(key, names, _kind_of_keys(names), encoding))
    field = schema.field(key)
    return table.add_column(schema.names.index(key), field, _key_column(key, names, field.type, encoding))


def _kind_of_keys(names: list[AnyKey]) -> pa.DataType:
    if any(isinstance(name, (bytes, bytearray, memoryview)) for name in names):
        return pa.binary()
    if not names or not all(isinstance(name, int) for name in names):
        return pa.string()
    least, largest = min(names), max(names)
    if least >= -(2**63) and largest < 2**63:
        return pa.int64()
    return pa.uint64() if least >= 0 and largest < 2**64 else pa.string()


def _key_column(
    key: str, names: list[AnyKey], kind: pa.DataType, encoding: Encoding
) -> pa.Array | pa.ChunkedArray:
    """Return the keys as a column; bytes are decoded with the encoding of the client's keys."""
    try:
        return _keys_as(names, kind, encoding)
    except (pa.ArrowInvalid, UnicodeError) as misfit:
        for name in names:
            try:
                _keys_as([name], kind, encoding)
            except (pa.ArrowInvalid, UnicodeError) as error:
                raise DecodeError(f"field {key!r}: the key does not fit {kind} ({error})", 0, name) from error
        raise DecodeError(f"field {key!r}: the keys do not fit {kind} ({misfit})") from misfit


def _keys_as(names: list[AnyKey], kind: pa.DataType, encoding: Encoding) -> pa.Array | pa.ChunkedArray:
    if shape_of(kind) == "binary":
        return pa.array([_key_bytes(name, encoding) for name in names], kind)
    texts = pa.array([_key_text(name, encoding) for name in names], pa.string())
    return cast(pa.chunked_array([texts]), kind)


def _plain_key(name: AnyKey) -> str | bytes:
    """Return a key as str or bytes; an int in decimal, also if it is an IntEnum."""
    if isinstance(name, (str, bytes)):
        return name
    if isinstance(name, int):
        return int.__repr__(name)
    return float.__repr__(name) if isinstance(name, float) else bytes(name)


def _key_text(name: AnyKey, encoding: Encoding) -> str:
    plain = _plain_key(name)
    return plain if isinstance(plain, str) else plain.decode(*encoding)


def _key_bytes(name: AnyKey, encoding: Encoding) -> bytes:
    plain = _plain_key(name)
    return plain if isinstance(plain, bytes) else plain.encode(*encoding)
