"""The lines of an NDJSON file as pairs of key and row, for batch_set()."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from redis_fastbatch._tables.write import split_key
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.report import BatchReport

ROWS_LOOKED_AT = 1000
"""Rows that are looked through for the columns asked for before any is given."""


class Failures(Protocol):
    """What hears of failures.

    Attributes:
        stopped: no more rows are wanted.
    """

    stopped: bool

    def __call__(self, key: Any, value: Any, error: Exception) -> None:
        """Takes a failed row: its number, what its line holds, and why."""


class JsonRows:
    """Keys and rows of NDJSON; lines that are no rows or have no key are failures.

    Args:
        lines: of the file.
        key, prefix: of what keys are made, as batch_set_table() takes them.
        columns: the fields of a row; None for all that it has.
        failures: hears of lines that are failures.

    Attributes:
        report: counts those lines.
    """

    def __init__(
        self, lines: Iterable[bytes], key: str, prefix: str, columns: list[str] | None, failures: Failures
    ) -> None:
        self.report = BatchReport()
        self._lines = lines
        self._key = _key_maker(key, prefix)
        self._columns = columns
        self._failures = failures

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The pairs, each row with the columns that were asked for.

        Raises:
            CliError: no row has one of them. In a file of few rows that shows before the first is given.
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
            raise CliError(f"column {name!r}: no row has it")

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        loads = _json_loads()
        for number, line in enumerate(self._lines):
            if self._failures.stopped:
                return
            if not line.strip():
                continue
            row: Any = None
            try:
                row = loads(line)
                if not isinstance(row, dict):
                    raise EncodeError(f"a line of NDJSON is an object, not {plain_json(line)}")
                key = self._key(row)
            except (ValueError, RecursionError) as error:
                self._fail(number, plain_json(line), EncodeError(f"row {number}: no JSON: {error}"))
                continue
            except EncodeError as error:
                self._fail(number, row, EncodeError(f"row {number}: {error}"))
                continue
            yield key, row

    def _fail(self, number: int, value: Any, error: Exception) -> None:
        self.report.add_failure(number, error)
        self._failures(number, value, error)


def plain_json(line: bytes) -> str:
    """A line for a message."""
    text = line.decode("utf-8", "backslashreplace").strip()
    return text if len(text) <= 100 else f"{text[:100]}..."


def _json_loads() -> Callable[[bytes], Any]:
    """json.loads, behind msgspec where that is installed, which is faster. What is read does not depend on it."""
    try:
        import msgspec
    except ImportError:
        return json.loads

    def loads(line: bytes) -> Any:
        try:
            return msgspec.json.decode(line)
        except (ValueError, RecursionError):
            # It takes no NaN, no infinity and no byte order mark.
            return json.loads(line)

    return loads


def _key_maker(key: str, prefix: str) -> Callable[[dict[str, Any]], str]:
    """Makes a row's key, by the rules of batch_set_table()."""
    fields = split_key(key)

    def make(row: dict[str, Any]) -> str:
        parts = (text + (_key_text(row, column) if column is not None else "") for text, column in fields)
        return prefix + "".join(parts)

    return make


def _key_text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    if value is None:
        raise EncodeError(f"the key column {column!r} is null or missing")
    raise EncodeError(
        f"the key column {column!r} holds {type(value).__name__}: a key is made of strings and integers"
    )
