"""Keeps the rows of a dump to Parquet or CSV in temporary files, and finds columns that fit all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from redis_fastbatch.cli.common import CliError

YEAR_1, YEAR_10000 = -62_135_596_800, 253_402_300_800
"""The starts of these years, in seconds since 1970."""

_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Parts:
    """Temporary Parquet files, one for each schema.

    Args:
        folder: the folder for the files.
        rows_at_once: the largest number of rows in a table.
    """

    def __init__(self, folder: Path, rows_at_once: int) -> None:
        self._folder = folder
        self._rows_at_once = rows_at_once
        self._files: list[Path] = []
        self._bare = 0
        self._schemas: list[Any] = []
        self._writer: Any = None

    def add(self, table: Any) -> None:
        """Append a table."""
        from pyarrow import parquet

        if not table.num_columns:
            # Parquet does not store the number of rows without columns.
            self._bare += table.num_rows
            return
        if self._writer is None or table.schema != self._schemas[-1]:
            self.close()
            self._files.append(self._folder / f"part{len(self._files)}")
            self._schemas.append(table.schema)
            self._writer = parquet.ParquetWriter(self._files[-1], table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Complete the last file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def schema(self) -> Any:
        """Return the columns that fit all tables.

        Raises:
            CliError: there are no such columns.
        """
        import pyarrow as pa

        if not self._schemas:
            if self._bare:
                raise CliError(
                    "the values are maps that are empty: Parquet and CSV have no place for them without --key; "
                    "dump as NDJSON"
                )
            return pa.schema([])
        try:
            return pa.unify_schemas(_unsigned_alike(self._schemas), promote_options="permissive")
        except pa.ArrowException as error:
            raise CliError(f"the values have no columns in common: {error}; dump them as NDJSON") from error

    def batches(self, schema: Any) -> Iterator[Any]:
        """Yield all rows, with the columns of the schema."""
        import pyarrow as pa
        from pyarrow import parquet

        for path in self._files:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(self._rows_at_once):
                    yield pa.record_batch([_column(batch, field) for field in schema], schema=schema)
        if self._bare:
            yield pa.record_batch([pa.nulls(self._bare, field.type) for field in schema], schema=schema)

    def only(self) -> Path | None:
        """Return the file if one holds all rows."""
        return self._files[0] if len(self._files) == 1 and not self._bare else None

    def write_parquet(self, file: IO[bytes]) -> None:
        """Write all rows to a Parquet file."""
        from pyarrow import parquet

        schema = self.schema()
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in self.batches(schema):
                writer.write_batch(batch)

    def write_csv(self, file: IO[bytes], delimiter: str) -> None:
        """Write all rows to a CSV file, after a header.

        Raises:
            CliError: CSV cannot hold a column.
        """
        import pyarrow as pa
        from pyarrow import csv

        schema = self.schema()
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        if nested:
            raise CliError(f"column {nested[0]!r} is nested: CSV has no place for that; dump as Parquet or NDJSON")
        alone = len(schema) == 1
        texts = pa.schema([(field.name, csv_type(field.type)) for field in schema])
        options = csv.WriteOptions(delimiter=delimiter)
        with csv.CSVWriter(file, texts, write_options=options) as writer:
            for batch in self.batches(schema):
                columns = [csv_text(name, batch[name]) for name in schema.names]
                if alone and columns[0].null_count:
                    raise CliError(
                        f"column {schema.names[0]!r} is the only one, and has a null: CSV would have a blank "
                        "line, which readers pass over; give --key for a second column, or dump as Parquet"
                    )
                writer.write_batch(pa.record_batch(columns, schema=texts))


def ticks_a_second(kind: Any) -> int:
    """Return how many units of a timestamp's type are a second."""
    return _TICKS[kind.unit]


def holds_nothing(kind: Any) -> bool:
    """Return whether a type is a struct without fields, or contains one."""
    import pyarrow as pa

    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(holds_nothing, inner))


def _unsigned_alike(schemas: list[Any]) -> list[Any]:
    """Return the schemas with uint64 instead of int64 where one of them has uint64: a number there needs it."""
    import pyarrow as pa

    unsigned = {path for schema in schemas for field in schema for path in _unsigned(field.type, (field.name,))}
    return [
        pa.schema([field.with_type(_made_unsigned(field.type, (field.name,), unsigned)) for field in schema])
        for schema in schemas
    ]


def _unsigned(kind: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of uint64 in a column's type, as tuples of field names."""
    import pyarrow as pa

    if pa.types.is_uint64(kind):
        yield path
    for i in range(kind.num_fields):
        inner = kind.field(i)
        yield from _unsigned(inner.type, (*path, inner.name))


def _made_unsigned(kind: Any, path: tuple[str, ...], unsigned: set[tuple[str, ...]]) -> Any:
    import pyarrow as pa

    if pa.types.is_int64(kind) and path in unsigned:
        return pa.uint64()
    inner = [kind.field(i) for i in range(kind.num_fields)]
    fields = [field.with_type(_made_unsigned(field.type, (*path, field.name), unsigned)) for field in inner]
    if pa.types.is_struct(kind):
        return pa.struct(fields)
    return pa.list_(fields[0]) if pa.types.is_list(kind) else kind


def _column(batch: Any, field: Any) -> Any:
    """Return a column of a batch with the type that it has in the whole dump."""
    import pyarrow as pa

    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    column = batch[field.name]
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        with contextlib.suppress(pa.ArrowException):
            # Arrow's check refuses whole numbers beyond 2^53 as floats, but floats hold some exactly, such as
            # -2^63.
            exact = column.cast(field.type, safe=False)
            if exact.cast(column.type, safe=False).equals(column):
                return exact
        raise CliError(
            f"column {field.name!r} is {field.type} in other rows, and does not fit: {error}; dump as NDJSON"
        ) from error


def csv_type(kind: Any) -> Any:
    """Return the type in which a column is written to CSV."""
    import pyarrow as pa

    becomes_text = pa.types.is_timestamp(kind) or pa.types.is_null(kind) or pa.types.is_binary(kind)
    return pa.string() if becomes_text else kind


def csv_text(name: str, column: Any) -> Any:
    """Return a column as it is written to CSV: times in ISO 8601, which `load` reads as times; others unchanged.

    Raises:
        CliError: the column has bytes that are not UTF-8, or a time outside of the years 1 to 9999.
    """
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_timestamp(column.type):
        try:
            return column.cast(csv_type(column.type))
        except pa.ArrowInvalid:
            raise CliError(
                f"column {name!r} holds bytes that are not UTF-8: CSV cannot hold them; dump as Parquet or NDJSON"
            ) from None
    ticks = compute.min_max(column.cast(pa.int64()))
    second = _TICKS[column.type.unit]
    first, last = ticks["min"].as_py(), ticks["max"].as_py()
    if first is not None and not YEAR_1 <= first // second <= last // second < YEAR_10000:
        raise CliError(
            f"column {name!r} holds a point in time that is not in the years 1 to 9999: "
            "CSV cannot hold it; dump as Parquet"
        )
    texts = compute.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    return compute.replace_substring_regex(texts, r"\.0+Z$", "Z")
