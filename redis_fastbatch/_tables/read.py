"""Reads values into an Arrow table: FastBatch.batch_get_table().

Each value is a map. It is decoded from the received bytes into the buffers of the columns; Python handles only its
key and the number of its row. pyarrow (the extra `arrow`) takes over the finished columns without copying them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._tables.client import SyncTableClient, TableClient
from redis_fastbatch._typing import AnyKey

try:
    import pyarrow as pa

    from redis_fastbatch._tables.hashes import HashTableReading
    from redis_fastbatch._tables.reading import PresentRows, Row, TableReading, arrow_schema, rows_flight
except ImportError as error:
    raise ImportError("reading tables needs pyarrow: pip install 'redis-fastbatch[arrow]'") from error

__all__ = ["PresentRows", "get_present", "get_table", "table_reading"]


def get_table(
    batch: SyncTableClient,
    keys: Iterable[AnyKey],
    *,
    schema: Any = None,
    key: str | None = None,
    as_: str = "value",
    columns: Iterable[str] | None = None,
) -> pa.Table:
    """Read values that are maps, or hashes, as the rows of a table, see FastBatch.batch_get_table()."""
    reading = table_reading(batch, schema, key, as_, columns)
    found: list[tuple[AnyKey, Row]] = []
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
    batch: SyncTableClient, keys: Iterable[AnyKey], seeds: Iterable[bytes] = ()
) -> tuple[list[AnyKey], pa.Table, pa.Table]:
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


def _read(batch: SyncTableClient, keys: Iterable[AnyKey], builder: RowsBuilder) -> list[tuple[AnyKey, Row]]:
    """Return every key with the number of its row; None if the key is missing."""
    found: list[tuple[AnyKey, Row]] = []
    with gc_pause.Pause(batch._pause_gc) as pause:
        flight = rows_flight(batch, keys, builder, found, pause)
        with batch._lease(batch._max_value_size) as borrowed:
            borrowed.run(flight)
    read_ended(flight.outcome, "raise")
    return found
