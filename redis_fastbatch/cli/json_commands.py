"""`load --command` with a JSON file: a command for each row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

from redis_fastbatch.cli.command_template import RowCommand
from redis_fastbatch.cli.failed_rows import FailedRows
from redis_fastbatch.cli.json_lines import json_text
from redis_fastbatch.cli.json_values import JsonValue, excerpt
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.report import BatchReport


class JsonCommands:
    """The commands of a JSON file's rows. Values that are not rows, or lack a column, are failures.

    Args:
        values: the values of the file.
        command: the template of the commands.
        failures: receives the values that are failures.

    Attributes:
        report: counts these failures, by line number.
    """

    def __init__(self, values: Iterable[JsonValue], command: RowCommand, failures: FailedRows) -> None:
        self.report = BatchReport()
        self._values = values
        self._words = command.words
        self._failures = failures
        # The positions of commands whose line does not follow that of the command before, and these lines.
        self._positions = [0]
        self._lines = [1]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        position, expected = 0, 1
        for line, value, error in self._values:
            if self._failures.stopped:
                return
            if error is None:
                try:
                    if not isinstance(value, dict):
                        raise EncodeError(f"expected an object, found {excerpt(json_text(value))}")
                    command = tuple(_word(parts, value) for parts in self._words)
                except EncodeError as no_row:
                    error = no_row
                else:
                    if line != expected:
                        self._positions.append(position)
                        self._lines.append(line)
                    yield command
                    position, expected = position + 1, line + 1
                    continue
            failure = EncodeError(f"line {line}: {error.reason}")
            self.report.add_failure(line, failure)
            self._failures(line, value, failure)

    def line_of(self, position: int) -> int:
        """Return the line of the row that a command was made of."""
        i = bisect_right(self._positions, position) - 1
        return self._lines[i] + position - self._positions[i]

    def named(self, position: int, error: Exception) -> tuple[int, Exception]:
        """Return the line of a failed command, and its error with that line in place of the position."""
        line = self.line_of(position)
        before, after = f"command {position} (", f"line {line}: ("
        if isinstance(error, EncodeError):
            error = EncodeError(error.reason.replace(before, after, 1))
        elif error.args and str(error.args[0]).startswith(before):
            error.args = (str(error.args[0]).replace(before, after, 1), *error.args[1:])
        return line, error


def _word(parts: list[tuple[str, str | None]], row: dict[str, Any]) -> str:
    return "".join(text if column is None else text + _text(row, column) for text, column in parts)


def _text(row: dict[str, Any], column: str) -> str:
    text = value_text(row.get(column))
    if text is None:
        raise EncodeError(f"the column {column!r} is null or missing")
    return text


def value_text(value: Any) -> str | None:
    """Return a value of JSON as the text of an argument or of a hash's field; None for null.

    Lists and maps become JSON, with null for NaN.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, (int, float)) else json_text(value)
