"""Reads hashes for `dump`. Their values are text, so that every column of Parquet or CSV is one of strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from redis_fastbatch.cli.failed_values import FailedValues
from redis_fastbatch.client import FastBatch
from redis_fastbatch.errors import DecodeError

ADVICE = "a field's value is not UTF-8, expected text: dump as NDJSON with --lossy, which writes base64"


class Hashes:
    """Reads hashes as rows.

    Args:
        batch: the client.
        failures: receives the hashes that cannot be written.
        columns: the fields to read; None for all. A hash that has none of them is counted as gone: HMGET does not
            tell it from a missing key.

    Attributes:
        rows: the number of hashes that were read.
    """

    def __init__(self, batch: FastBatch, failures: FailedValues, columns: list[str] | None) -> None:
        self._batch = batch
        self._failures = failures
        self._columns = columns
        self.rows = 0
        self._places: dict[str, int] = {}

    def dicts(
        self, keys: list[bytes], *, bytes_as: Callable[[dict[Any, Any]], Any] | None = None
    ) -> dict[bytes, Any]:
        """Return the hashes by key, as dicts of text.

        Args:
            keys: the keys.
            bytes_as: makes a row of a hash that is not UTF-8. By default such a hash fails.
        """
        failed: dict[bytes, Exception] = {}

        def fail(key: bytes, _: bytes | None, error: Exception) -> None:
            # A hash may be read twice after a lost connection.
            failed[key] = error

        found = self._read(keys, types=str, on_error=fail)
        undecoded = [key for key, error in failed.items() if isinstance(error, DecodeError)]
        raw = self._read(undecoded, on_error=fail) if undecoded and bytes_as is not None else {}
        for key, error in failed.items():
            if bytes_as is not None and raw.get(key) is not None:
                found[key] = bytes_as(raw[key])
                continue
            del found[key]
            self._failures.add(key, None, DecodeError(ADVICE) if isinstance(error, DecodeError) else error)
        rows = {key: row for key, row in found.items() if row is not None}
        self._failures.gone += len(found) - len(rows)
        self.rows += len(rows)
        return rows

    def _read(self, keys: list[bytes], **options: Any) -> dict[bytes, Any]:
        if self._columns is None:
            return self._batch.batch_hgetall(keys, **options)
        return self._batch.batch_hmget(keys, self._columns, **options)

    def table(self, keys: list[bytes]) -> tuple[list[bytes], Any]:
        """Return the keys of the hashes that are there, and their fields as a table of strings."""
        import pyarrow as pa

        try:
            names, table = keys, self._batch.batch_get_table(keys, as_="hash", columns=self._columns)
        except (DecodeError, ResponseError):
            # One of them cannot be written. The others are read again without it.
            rows = self.dicts(keys)
            fields = self._columns or list(dict.fromkeys(name for row in rows.values() for name in row))
            columns = [pa.array([row.get(name) for row in rows.values()], pa.string()) for name in fields]
            return list(rows), self._in_order(pa.table(columns, names=fields))
        names, table = self._present(names, table)
        self.rows += len(names)
        return names, self._in_order(table)

    def _present(self, names: list[bytes], table: Any) -> tuple[list[bytes], Any]:
        """Return the rows that have a field. The keys of the others are gone."""
        import pyarrow as pa
        from pyarrow import compute

        if any(column.null_count == 0 for column in table.columns):
            return names, table
        there = [False] * len(names)
        for column in table.columns:
            for row in compute.indices_nonzero(column.is_valid()).to_pylist():
                there[row] = True
        kept = [row for row, is_there in enumerate(there) if is_there]
        self._failures.gone += len(names) - len(kept)
        return [names[row] for row in kept], table.take(pa.array(kept, pa.int64()))

    def _in_order(self, table: Any) -> Any:
        """Return a table whose columns are in the order in which they were first found."""
        for name in table.column_names:
            self._places.setdefault(name, len(self._places))
        return table.select(sorted(table.column_names, key=self._places.__getitem__))
