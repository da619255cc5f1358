"""Reads Parquet as a stream of record batches with pyarrow, without changing a value."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from redis_fastbatch.cli.common import CliError

PARQUET_ROWS = 16 * 1024
"""Rows decoded at a time."""

_NS_SECONDS, _US_SECONDS = 9_223_372_036, 9_223_372_036_854
"""The seconds before and after 1970 that Arrow can hold in nanoseconds and in microseconds."""


def open_parquet(stream: Any, options: argparse.Namespace) -> tuple[Any, Iterator[Any], int]:
    """Return the schema of a Parquet file, its record batches, and the number of its rows.

    Args:
        stream: the file's bytes; it must be seekable.
        options: the options of the command.

    Raises:
        CliError: a column has a type that pyarrow would change.
    """
    import pyarrow as pa

    file = _opened(stream, "us")
    schema = file.schema_arrow
    wanted = _needed(schema.names, options)
    _refuse_intervals(file, wanted)
    fine = _opened(stream, "ns")
    timed = [
        field.name
        for field, other in zip(schema, fine.schema_arrow, strict=True)
        # The unit has an effect on INT96 only.
        if field.type != other.type and field.name in wanted
    ]
    exact = _with_nanoseconds(stream, timed) if timed else set()
    rest = [name for name in wanted if name not in exact]
    if not exact:
        return _only(schema, wanted), _batches(file, wanted), file.metadata.num_rows
    given = _only(pa.schema([_field(name, fine if name in exact else file) for name in schema.names]), wanted)
    batches = _batches(fine, [name for name in wanted if name in exact])
    if rest:
        batches = _beside(_batches(file, rest), batches, given)
    return given, batches, file.metadata.num_rows


def _opened(stream: Any, unit: str) -> Any:
    """Return the file, which reads INT96 in this unit.

    pyarrow reads INT96 in nanoseconds by default, which changes the years before 1677 and after 2262. By default
    it does not check the checksums of pages either.
    """
    from pyarrow import parquet

    # Without pre_buffer a row group is read while it is decoded, not as a whole before that.
    return parquet.ParquetFile(
        stream,
        coerce_int96_timestamp_unit=unit,
        page_checksum_verification=True,
        pre_buffer=False,
        buffer_size=1 << 20,
    )


def _needed(names: list[str], options: argparse.Namespace) -> list[str]:
    """Return the columns to decode: those of --columns and of the key, or all if there is no --columns."""
    if not options.columns:
        return names
    return [
        name for name in names if name in options.columns or name == options.key or f"{{{name}}}" in options.key
    ]


def _field(name: str, file: Any) -> Any:
    schema = file.schema_arrow
    return schema.field(schema.names.index(name))


def _only(columns: Any, wanted: list[str]) -> Any:
    """Return the schema with only the wanted columns."""
    import pyarrow as pa

    return pa.schema([field for field in columns if field.name in wanted])


def _batches(file: Any, wanted: list[str]) -> Iterator[Any]:
    """Yield the record batches with only the wanted columns."""
    if wanted == file.schema_arrow.names:
        yield from file.iter_batches(PARQUET_ROWS)
        return
    for batch in file.iter_batches(PARQUET_ROWS, columns=wanted):
        # The reader takes a dot in a name for a step into a struct, and so may return more columns.
        yield batch.select([i for i, name in enumerate(batch.schema.names) if name in wanted])


def _refuse_intervals(file: Any, wanted: list[str]) -> None:
    """Refuse columns of INTERVAL (months, days, milliseconds), which Arrow reads as twelve bytes."""
    for i in range(len(file.schema)):
        leaf = file.schema.column(i)
        if "INTERVAL" not in (leaf.logical_type.type, leaf.converted_type):
            continue
        names = [name for name in wanted if leaf.path == name or leaf.path.startswith(f"{name}.")]
        if names:
            raise CliError(
                f"column {names[0]!r} is of Parquet's type INTERVAL, which cannot be loaded: write the file with "
                "another type, such as a string, or leave the column out with --columns"
            )


def _with_nanoseconds(stream: Any, names: list[str]) -> set[str]:
    """Return the INT96 columns that must be read in nanoseconds, because microseconds would cut off digits.

    All values are read for this, in seconds, which fit every date, and in nanoseconds, which change dates outside
    of the years 1677 to 2262. The difference shows the digits for these dates too.

    Raises:
        CliError: a column has both nanoseconds and far dates, or values that do not fit microseconds.
    """
    spans = {name: _Span() for name in names}
    coarse, fine = (_batches(_opened(stream, unit), names) for unit in ("s", "ns"))
    for seconds, nanoseconds in zip(coarse, fine, strict=True):
        for name in names:
            for pair in _int96_leaves(seconds[name], nanoseconds[name]):
                spans[name].add(*pair)
    for name, span in spans.items():
        if not -_US_SECONDS < span.first <= span.last < _US_SECONDS:
            raise CliError(
                f"column {name!r}, of Parquet's type INT96, holds a point in time more than 292,277 years from "
                "1970, which does not fit 64 bits in microseconds: leave the column out with --columns"
            )
        if span.nanoseconds and not -_NS_SECONDS < span.first <= span.last < _NS_SECONDS:
            raise CliError(
                f"column {name!r}, of Parquet's type INT96, holds both nanoseconds and dates outside of the years "
                "1678 to 2261, which Arrow has no type for: write the file with microseconds, or leave the column "
                "out with --columns"
            )
    return {name for name, span in spans.items() if span.nanoseconds}


class _Span:
    """The range and the precision of an INT96 column.

    Attributes:
        first, last: the earliest and the latest value, in seconds since 1970.
        nanoseconds: whether some values are finer than microseconds.
    """

    def __init__(self) -> None:
        self.first = self.last = 0
        self.nanoseconds = False

    def add(self, seconds: Any, nanoseconds: Any) -> None:
        """Add values, which were read in both units."""
        import pyarrow as pa
        from pyarrow import compute

        seconds, nanoseconds = seconds.cast(pa.int64()), nanoseconds.cast(pa.int64())
        ends = compute.min_max(seconds)
        if not ends["min"].is_valid:
            return
        self.first = min(self.first, ends["min"].as_py())
        self.last = max(self.last, ends["max"].as_py())
        # Both wrap around, so the difference is the fraction of the second for every date.
        part = compute.subtract(nanoseconds, compute.multiply(seconds, 10**9))
        whole = compute.multiply(compute.divide(part, 1000), 1000)
        self.nanoseconds = self.nanoseconds or compute.any(compute.not_equal(part, whole)).as_py()


def _int96_leaves(column: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of arrays of times in two readings of a column."""
    import pyarrow as pa

    kind = column.type
    if kind == other.type:
        return
    if pa.types.is_timestamp(kind):
        yield column, other
    elif pa.types.is_map(kind):
        yield from _int96_leaves(column.keys, other.keys)
        yield from _int96_leaves(column.items, other.items)
    else:
        inner = (column.flatten(), other.flatten())
        pairs = zip(*inner, strict=True) if pa.types.is_struct(kind) else [inner]
        for pair in pairs:
            yield from _int96_leaves(*pair)


def _beside(batches: Iterable[Any], others: Iterator[Any], schema: Any) -> Iterator[Any]:
    """Yield the batches with the columns of `others` added. The two may be cut at different rows."""
    import pyarrow as pa

    held = next(others)
    for batch in batches:
        while held.num_rows < batch.num_rows:
            held = pa.concat_batches([held, next(others)])
        part, held = held.slice(0, batch.num_rows), held.slice(batch.num_rows)
        columns = [(part if name in part.schema.names else batch)[name] for name in schema.names]
        yield pa.record_batch(columns, schema=schema)
