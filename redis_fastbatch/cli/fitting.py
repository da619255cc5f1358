"""Reads values of a dump into columns, and names those that do not fit.

A column has the type of its first value. Earlier values are not read again. Instead, two rows stand for them, the
seeds: they have every column, with its smallest and its largest value. The builder reads the seeds before the next
values, and so refuses each value that does not fit a column with the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgpack
import pyarrow as pa
from pyarrow import compute

from redis_fastbatch._tables.read import PresentRows, get_present
from redis_fastbatch.cli.parts import YEAR_1, YEAR_10000, holds_nothing, ticks_a_second
from redis_fastbatch.client import FastBatch
from redis_fastbatch.errors import DecodeError

if TYPE_CHECKING:
    from redis_fastbatch.cli.failed_values import FailedValues

BLOCK = 500
"""Values in a block after one has failed. A block is built again for each failure in it."""


class Fitting:
    """Reads values into tables whose columns fit together.

    Args:
        batch: the client.
        csv: the columns are for CSV, which holds less than Parquet.
        failures: receives the values that fit no column.
    """

    def __init__(self, batch: FastBatch, failures: FailedValues, *, csv: bool) -> None:
        self._batch = batch
        self._raw = FastBatch(batch.client, codec="raw")
        self._failures = failures
        self._csv = csv
        self._seeds: list[bytes] = []

    def read(self, keys: list[bytes]) -> tuple[list[bytes], Any, list[bytes]]:
        """Read the values of keys.

        Returns:
            The keys of the rows, the table of the rows, and the keys that are missing.
        """
        try:
            names, table, seeds = get_present(self._batch, keys, self._seeds)
            missing = _without(keys, names)
        except DecodeError:
            names, table, seeds, missing = self._one_by_one(keys)
        misfits = _misfits(table, csv=self._csv)
        if misfits:
            raw = self._raw.batch_get([names[row] for row in misfits])
            for row, reason in sorted(misfits.items()):
                self._failures.add(names[row], raw[names[row]], DecodeError(reason))
            kept = [row for row in range(len(names)) if row not in misfits]
            names = [names[row] for row in kept]
            table = _without_unfit_columns(table.take(pa.array(kept, pa.int64())), csv=self._csv)
        # Values that failed do not decide the type of a column.
        settled = [_without_unfit_columns(part, csv=self._csv) for part in (seeds, table)]
        self._seeds = seeds_of(pa.concat_tables(settled, promote_options="permissive")) or self._seeds
        return names, table, missing

    def _one_by_one(self, keys: list[bytes]) -> tuple[list[bytes], Any, Any, list[bytes]]:
        """Read the values as bytes, and build the rows that fit. The others are recorded as failed."""
        found = self._raw.batch_get(keys)
        names = [name for name, data in found.items() if data is not None]
        good: list[bytes] = []
        seeds = self._seeds
        for start in range(0, len(names), BLOCK):
            kept: list[bytes] = []
            rows = PresentRows(self._batch, seeds)
            for name in names[start : start + BLOCK]:
                try:
                    rows.loads(found[name])
                except DecodeError as error:
                    self._failures.add(name, found[name], self._explained(found[name], error))
                    rows = PresentRows(self._batch, seeds)
                    for other in kept:
                        rows.loads(found[other])
                else:
                    kept.append(name)
            good += kept
            seeds = seeds_of(pa.concat_tables(rows.tables())) or seeds
        # All at once, so that the builder finds types that fit all of them.
        rows = PresentRows(self._batch, self._seeds)
        for name in good:
            rows.loads(found[name])
        before, table = rows.tables()
        return good, table, before, _without(keys, names)

    def _explained(self, data: bytes | None, error: DecodeError) -> DecodeError:
        """Return why a value is not a row. If the codec can read it, NDJSON can hold it."""
        try:
            self._batch._codec.loads(data or b"")
        except DecodeError as unread:
            return unread
        return DecodeError(f"{error.reason}: the columns of Parquet and CSV have one type each; dump as NDJSON")


def _without(keys: Iterable[bytes], names: list[bytes]) -> list[bytes]:
    present = set(names)
    return [key for key in keys if key not in present]


def seeds_of(table: Any) -> list[bytes]:
    """Return two rows in MessagePack with the table's columns, types and ranges; none if it has no columns."""
    columns = _known(
        {name: _extremes(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    )
    if not columns:
        return []
    return [_packed({name: found[which] for name, found in columns.items()}) for which in (0, 1)]


def _known(columns: dict[str, tuple[Any, ...] | None]) -> dict[str, tuple[Any, ...]]:
    return {name: found for name, found in columns.items() if found is not None}


def _packed(value: Any) -> bytes:
    return msgpack.packb(value, unicode_errors="surrogateescape")  # type: ignore[no-any-return]


def _extremes(column: Any) -> tuple[Any, ...] | None:
    """Return the smallest and the largest value of a column, or two of its type; None for a column of nulls."""
    kind = column.type
    if pa.types.is_null(kind) or holds_nothing(kind):
        return None
    if pa.types.is_struct(kind):
        flat = [compute.struct_field(column, i) for i in range(kind.num_fields)]
        inner = _known({kind.field(i).name: _extremes(part) for i, part in enumerate(flat)})
        return tuple({name: found[which] for name, found in inner.items()} for which in (0, 1)) if inner else None
    if pa.types.is_list(kind):
        found = _extremes(compute.list_flatten(column))
        return ([], []) if found is None else (list(found), list(found))
    if pa.types.is_boolean(kind):
        return False, True
    if pa.types.is_string(kind):
        return "", ""
    if pa.types.is_binary(kind):
        return b"", b""
    timestamps = pa.types.is_timestamp(kind)
    ends = compute.min_max(column.cast(pa.int64()) if timestamps else column)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is None:
        low = high = 0.0 if pa.types.is_floating(kind) else 0
    if pa.types.is_uint64(kind):
        # Only a number that int64 does not hold makes the column unsigned.
        high = max(high, 2**63)
    if not timestamps:
        return low, high
    ticks = ticks_a_second(kind)
    low, high = (msgpack.Timestamp(end // ticks, end % ticks * (10**9 // ticks)) for end in (low, high))
    return low, high


def _misfits(table: Any, *, csv: bool) -> dict[int, str]:
    """Return the numbers of rows that the format cannot hold, and the reasons."""
    misfits: dict[int, str] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        bad, reason = _misfit(column, csv=csv)
        if bad is not None:
            for row in compute.indices_nonzero(bad.combine_chunks() if hasattr(bad, "combine_chunks") else bad):
                misfits.setdefault(row.as_py(), f"field {name!r} {reason}")
    return misfits


def _misfit(column: Any, *, csv: bool) -> tuple[Any, str]:
    kind = column.type
    if holds_nothing(kind):
        return compute.is_valid(column), (
            "holds an empty map, expected one with fields: Parquet and CSV have no place for it; dump as NDJSON"
        )
    if not csv:
        return None, ""
    if pa.types.is_nested(kind):
        return compute.is_valid(column), (
            f"holds a {'list' if pa.types.is_list(kind) else 'map'}, expected text or a number: "
            "CSV has no place for what is nested; dump as Parquet or NDJSON"
        )
    if pa.types.is_binary(kind) and not _is_text(column):
        bad = pa.array([value.as_py() is not None and not _is_utf8(value.as_py()) for value in column])
        return bad, "holds bytes that are not UTF-8, expected text: CSV has no place for them; dump as Parquet"
    if pa.types.is_timestamp(kind):
        seconds = ticks_a_second(kind)
        ticks = column.cast(pa.int64())
        early = compute.less(ticks, pa.scalar(max(YEAR_1 * seconds, -(2**63))))
        late = compute.greater_equal(ticks, pa.scalar(min(YEAR_10000 * seconds, 2**63 - 1)))
        return compute.fill_null(compute.or_(early, late), False), (
            "holds a point in time that is not in the years 1 to 9999: CSV has no place for it; dump as Parquet"
        )
    return None, ""


def _is_text(column: Any) -> bool:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_unfit_columns(table: Any, *, csv: bool) -> Any:
    """Return the table without columns of a type that the format cannot hold. They have only nulls left."""
    unfit: Callable[[Any], bool] = lambda kind: holds_nothing(kind) or (csv and pa.types.is_nested(kind))  # noqa: E731
    return table.drop_columns([field.name for field in table.schema if unfit(field.type)])
