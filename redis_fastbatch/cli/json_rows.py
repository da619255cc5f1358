"""Turns the values of a JSON file into pairs of key and row, for batch_set()."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from redis_fastbatch._tables.write import split_key
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.cli.failed_rows import FailedRows
from redis_fastbatch.cli.json_lines import json_text
from redis_fastbatch.cli.json_values import JsonValue, excerpt
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.report import BatchReport

ROWS_LOOKED_AT = 1000
"""Rows that are searched for the wanted columns before the first row is yielded."""


class JsonRows:
    """Pairs of key and row. Values that are not rows, or have no key, are failures.

    Args:
        values: the values of the file.
        key, prefix: as in batch_set_table().
        columns: the fields to write; None for all.
        failures: receives the values that are failures.

    Attributes:
        report: counts these failures, by line number.
    """

    def __init__(
        self, values: Iterable[JsonValue], key: str, prefix: str, columns: list[str] | None, failures: FailedRows
    ) -> None:
        self.report = BatchReport()
        self._values = values
        self._key = _key_maker(key, prefix)
        self._columns = columns
        self._failures = failures

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the pairs, each row with the wanted columns.

        Raises:
            CliError: no row has one of the columns. In a short file this is raised before the first row is
            yielded.
        """
        rows = self._rows()
        if self._columns is None:
            yield from rows
            return
        missing = set(self._columns)
        head = []
        for key, row in rows:
            head.append((key, row))
            missing -= row.keys()
            if not missing or len(head) == ROWS_LOOKED_AT:
                break
        else:
            self._refuse(missing if head else set())
        for key, row in chain(head, rows):
            if missing:
                missing -= row.keys()
            yield key, {name: row.get(name) for name in self._columns}
        self._refuse(missing if head else set())

    def _refuse(self, missing: set[str]) -> None:
        if missing and not self._failures.stopped:
            name = next(name for name in self._columns or () if name in missing)
            raise CliError(f"column {name!r}: no row has it: check the names in --columns")

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        failures, key_of = self._failures, self._key
        for line, value, error in self._values:
            if failures.stopped:
                return
            if error is None:
                try:
                    if not isinstance(value, dict):
                        raise EncodeError(f"expected an object, found {excerpt(json_text(value))}")
                    key = key_of(value)
                except EncodeError as no_row:
                    error = no_row
                else:
                    yield key, value
                    continue
            self._fail(line, value, EncodeError(f"line {line}: {error.reason}"))

    def _fail(self, line: int, value: Any, error: Exception) -> None:
        self.report.add_failure(line, error)
        self._failures(line, value, error)


def _key_maker(key: str, prefix: str) -> Callable[[dict[str, Any]], str]:
    """Return a function that makes a row's key, by the rules of batch_set_table()."""
    fields = split_key(key)
    (text, column), *others = fields
    if column is not None and not others:
        before, name = prefix + text, column
        return lambda row: before + _key_text(row, name)

    def make(row: dict[str, Any]) -> str:
        parts = (text + (_key_text(row, column) if column is not None else "") for text, column in fields)
        return prefix + "".join(parts)

    return make


def _key_text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        raise EncodeError(f"the key column {column!r} is null or missing")
    raise EncodeError(
        f"the key column {column!r} holds {type(value).__name__}: keys are made of strings and integers"
    )
