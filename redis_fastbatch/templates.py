"""The parts of a command's template, for batch_execute_table()."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Column", "Row", "col", "row"]

Times = Literal["iso", "seconds", "milliseconds"]
Null = Literal["fail", "skip", "skip_pair"]


@dataclass(frozen=True)
class Column:
    """A column as an argument of a command; see col()."""

    name: str
    times: Times = "iso"
    null: Null = "fail"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"col() takes the name of a column, got {type(self.name).__name__} {self.name!r:.100}")
        if self.times not in ("iso", "seconds", "milliseconds"):
            raise ValueError(f'times must be "iso", "seconds" or "milliseconds", got {self.times!r:.100}')
        if self.null not in ("fail", "skip", "skip_pair"):
            raise ValueError(f'null must be "fail", "skip" or "skip_pair", got {self.null!r:.100}')


@dataclass(frozen=True)
class Row:
    """Several columns as one argument of a command; see row()."""

    codec: Literal["json", "msgpack"] = "json"
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.codec not in ("json", "msgpack"):
            raise ValueError(f'the codec of row() must be "json" or "msgpack", got {self.codec!r:.100}')


def col(name: str, *, times: Times = "iso", null: Null = "fail") -> Column:
    """Return a column as an argument of a command.

    Args:
        name: the column. Its values are written as batch_set_table(as_="hash") writes fields.
        times: how dates and timestamps are written: "iso" as text in ISO 8601, "seconds" or "milliseconds" as the
            number of these since 1970, rounded down.
        null: what to do where the value is null. "fail" fails the row, "skip" leaves the argument out, and
            "skip_pair" leaves out the argument before it too, such as the name of a field.

    Raises:
        TypeError, ValueError: an argument is not one of these.
    """
    return Column(name, times, null)


def row(codec: Literal["json", "msgpack"] = "json", columns: list[str] | tuple[str, ...] | None = None) -> Row:
    """Return several columns of a row as one argument of a command: a map of their values.

    Args:
        codec: "json" writes JSON text, as json.dumps() does without spaces. "msgpack" writes MessagePack.
        columns: the columns; None for all that the template does not use otherwise.

    Raises:
        TypeError, ValueError: an argument is not one of these.
    """
    if isinstance(columns, str):
        raise TypeError(f"the columns of row() must be a list of names, got the str {columns!r:.100}")
    return Row(codec, None if columns is None else tuple(columns))
