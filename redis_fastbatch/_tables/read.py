"""Reads values into an Arrow table: FastBatch.batch_get_table().

Each value is a map. It is decoded from the received bytes into the buffers of the columns; Python handles only its
key and the number of its row. pyarrow (the extra `arrow`) takes over the finished columns without copying them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis_fastbatch._arguments import Key
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._tables.client import SyncTableClient, TableClient

try:
    import pyarrow as pa

    from redis_fastbatch._tables.hashes import HashTableReading
    from redis_fastbatch._tables.reading import PresentRows, Row, TableReading, arrow_schema, rows_flight
except ImportError as error:
    raise ImportError("reading tables needs pyarrow: pip install 'redis-fastbatch[arrow]'") from error

__all__ = ["PresentRows", "get_present", "get_table", "table_reading"]


def get_table(
    batch: SyncTableClient,
    keys: Iterable[Key],
    *,
    schema: Any = None,
    key: str | None = None,
    as_: str = "value",
    columns: Iterable[str] | None = None,
) -> pa.Table:
    """Read values that are maps, or hashes, as the rows of a table. This is FastBatch.batch_get_table().

    Without a schema a column has the type of its values: int64 (uint64 if a value needs it), float64 (ints among
    floats become floats), bool, string, binary, timestamp[us, UTC] (ns if a value needs it), list, struct, or
    null. A missing field is null. With a schema the table has exactly its columns. Text is then read as the dates,
    times, durations and decimals that batch_set_table() writes as text.

    Args:
        batch: the client.
        keys: an iterable of str, bytes or int. A missing key gives a row of nulls.
        schema: the wanted columns: a pyarrow.Schema, a dict of each name to its Arrow type or the type's
            name ("int64"), a list of such pairs or of pyarrow.Field, or anything with `__arrow_c_schema__()`, such
            as a polars.Schema.
        key: the name of a column for the keys. It comes first, or where the schema has it. Without a schema its
            type is int64 or uint64 if all keys are such ints, binary if a key is bytes, and string otherwise.
        as_: "value" reads values, "hash" hashes. Each field of a hash is text, and is read as the type of its
            column, in the form in which batch_set_table(as_="hash") writes that type. Without a schema all
            columns are strings.
        columns: the names of the fields of hashes that are read; those of the schema by default, and without one
            all fields. The table has them in this order.

    Returns:
        A table with one row for each key, in the order of the keys.

    Raises:
        DecodeError: a value is not a map, a field has another type than the other values of its column, or a value
            or key does not fit the schema, such as a null or a missing key where the column is not nullable. It
            names the key.
        TypeError: `schema` is not a schema, or has a type that values cannot be read as.
        ValueError: the values have a field with the name of the key column, the schema has a name twice, or
            `columns` are not those of the schema.
        redis.exceptions.RedisError: as from batch_get().
    """
    reading = table_reading(batch, schema, key, as_, columns)
    found: list[tuple[Key, Row]] = []
    with gc_pause.Pause(batch._pause_gc) as pause:
        flight = reading.flight(keys, found, pause)
        with batch._lease(batch._max_value_size) as borrowed:
            borrowed.run(flight)
    read_ended(flight.outcome, "raise")
    return reading.table(found)


def table_reading(
    batch: TableClient, schema: Any, key: str | None, as_: str, columns: Iterable[str] | None
) -> TableReading:
    """Check how a table is to be read. Raise what get_table() raises before it sends anything."""
    if as_ == "hash":
        return HashTableReading(batch, schema, key, columns)
    if as_ != "value":
        raise ValueError(f'as_ must be "value" or "hash", got {as_!r}')
    if columns is not None:
        raise ValueError('columns are the fields of hashes: pass as_="hash", or a schema of the columns')
    return TableReading(batch, arrow_schema(schema), key)


def get_present(
    batch: SyncTableClient, keys: Iterable[Key], seeds: Iterable[bytes] = ()
) -> tuple[list[Key], pa.Table, pa.Table]:
    """Read as get_table() does, but leave out the keys that are missing.

    Args:
        batch: the client.
        keys: as get_table() takes them.
        seeds: rows as MessagePack that the columns must fit.

    Returns:
        The keys of the rows, their table, and the seeds' table.
    """
    rows = PresentRows(batch, seeds)
    found = [(name, row) for name, row in _read(batch, keys, rows.builder) if row is not None]
    before, table = rows.tables([row for _, row in found])
    return [name for name, _ in found], table, before


def _read(batch: SyncTableClient, keys: Iterable[Key], builder: RowsBuilder) -> list[tuple[Key, Row]]:
    """Return every key with the number of its row; None if the key is missing."""
    found: list[tuple[Key, Row]] = []
    with gc_pause.Pause(batch._pause_gc) as pause:
        flight = rows_flight(batch, keys, builder, found, pause)
        with batch._lease(batch._max_value_size) as borrowed:
            borrowed.run(flight)
    read_ended(flight.outcome, "raise")
    return found
