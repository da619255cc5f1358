"""Reads hashes into an Arrow table: batch_get_table(as_="hash")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._core.arrow.hash_columns import HashColumns
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.flight import COMMAND_BYTES, COMMAND_ITEMS
from redis_fastbatch._engine.hash_read import HashReadFlight, HashReadOutcome
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._tables.client import TableClient
from redis_fastbatch._tables.fit import is_vector, shape_of
from redis_fastbatch._tables.reading import Row, TableReading, arrow_schema
from redis_fastbatch._tables.write import names_of
from redis_fastbatch._typing import AnyKey

HGETALL = Command(b"HGETALL", many=False, with_values=False)


class HashTableReading(TableReading):
    """The plan for reading hashes into a table, with the builder of its columns.

    Args:
        batch: the client.
        schema, key, columns: as for get_table().
    """

    def __init__(self, batch: TableClient, schema: Any, key: str | None, columns: Iterable[str] | None) -> None:
        super().__init__(batch, _restricted(arrow_schema(schema), key, columns), key)

    def _new_builder(self) -> RowsBuilder:
        if self._fields is None:
            return RowsBuilder()
        if not self._fields:
            raise ValueError("the table needs a column besides that of the keys, found none")
        return RowsBuilder([_column_builder(field.name, field.type) for field in self._fields])

    def flight(self, keys: Any, found: list[tuple[AnyKey, Row]], pause: gc_pause.Pause) -> Any:
        batch, command = self._batch, HGETALL
        if self._fields is not None:
            names = tuple(field.name.encode("utf-8", "surrogateescape") for field in self._fields)
            command = Command(b"HMGET", many=False, with_values=False, tail=names)
        rows: Any = HashColumns(
            self.builder, wanted=self._fields is not None, max_value_size=batch._max_value_size
        )
        outcome = HashReadOutcome(rows.builder, pause=pause, sizes=batch._hash_sizes)
        options = ReadOptions()
        if batch._is_cluster:
            return batch._cluster.hash_read_flight(keys, command, rows, found, outcome, options)
        writer = batch._writer(keys, command, COMMAND_ITEMS, COMMAND_BYTES)
        return HashReadFlight(writer, rows, found, outcome, options)


def _restricted(schema: pa.Schema | None, key: str | None, columns: Iterable[str] | None) -> pa.Schema | None:
    """Return the schema of the wanted columns. Without a schema they are strings."""
    if columns is None:
        return schema
    names = names_of(columns)
    if schema is None:
        return pa.schema([pa.field(name, pa.string()) for name in names])
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise ValueError(f"columns must be columns of the schema, got {missing[0]!r}, which it does not have")
    if key is not None and key in schema.names and key not in names:
        names = [key, *names]
    return pa.schema([schema.field(name) for name in names], schema.metadata)


def _column_builder(name: str, kind: pa.DataType) -> ColumnBuilder:
    """Return the builder of a column of hashes' values that can be converted to the type."""
    shape = shape_of(kind)
    if shape is not None:
        return ColumnBuilder(name, shape)
    if pa.types.is_timestamp(kind):
        # With a zone, as text too: batch_set_table(as_="hash") writes it with its offset.
        return ColumnBuilder(name, "text")
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _column_builder(name, kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _column_builder(name, kind.storage_type)
    if is_vector(kind):
        return ColumnBuilder(name, "binary")
    raise TypeError(
        f"column {name!r}: a hash holds no nested values except vectors, so its fields cannot be read as {kind}"
    )
