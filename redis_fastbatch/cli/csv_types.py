"""The types of CSV columns: infers them, and converts cells of text to them."""

from __future__ import annotations

import argparse
import functools
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import compute, csv

from redis_fastbatch._tables.write import split_key
from redis_fastbatch.cli.arrow_values import integers, null_scalar, text_scalar
from redis_fastbatch.cli.common import CliError, plain

EVERY_COLUMN = "*"
"""Stands for all columns in --type."""

_KEPT_DIGITS = integers(15)[0]
"""The number of digits of a decimal that a float64 always keeps."""

_LINE_FEED = text_scalar("\n")

DATE_FROM_YEAR_1 = -719162
"""0001-01-01 as a date32."""

TIME_LENGTH = len("2024-05-01T12:30:00")

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = f"{_YEAR}-[0-9]{{2}}-[0-9]{{2}}"
_TIME = f"{_DATE}[T ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\\.[0-9]{{1,6}})?"


@dataclass(frozen=True)
class Rule:
    """A type of a column, and the form that its cells have.

    Attributes:
        kind: the Arrow type.
        name: its name in --type.
        form: a regular expression that every cell must match; None if --type gave the type.
    """

    kind: Any
    name: str
    form: str | None = None

    def converted(self, cells: Any) -> Any:
        """Return the cells as values; None if one does not fit. Nulls stay null."""
        try:
            values = self._cast(cells)
        except pa.ArrowInvalid:
            return None
        return values if self._keeps(cells, values) else None

    def converted_one_by_one(self, cells: Any) -> tuple[Any, Any]:
        """Return the cells as values, with null for those that do not fit, and a mask of the others."""
        nothing = null_scalar(cells.type)
        fits = [True] * len(cells)
        if self.form is not None:
            # The expression finds most of those that do not fit.
            formed = compute.match_substring_regex(cells, f"^(?:{self.form})$")
            fits = compute.fill_null(formed, True).to_pylist()
            cells = compute.if_else(formed, cells, nothing)

        def find(start: int, stop: int) -> None:
            if self.converted(cells.slice(start, stop - start)) is not None:
                return
            if stop - start == 1:
                fits[start] = False
                return
            middle = (start + stop) // 2
            find(start, middle)
            find(middle, stop)

        find(0, len(cells))
        mask = pa.array(fits, pa.bool_())
        return self._cast(compute.if_else(mask, cells, nothing)), mask

    def _cast(self, cells: Any) -> Any:
        try:
            return compute.cast(cells, self.kind)
        except pa.ArrowNotImplementedError:
            return _read_as(cells, self.kind)
        except pa.ArrowInvalid:
            if self.form is not None or not _is_text(cells.type) or _is_text(self.kind):
                raise
            # With --type, cells may have blanks around them.
            return compute.cast(compute.utf8_trim_whitespace(cells), self.kind)

    def _keeps(self, cells: Any, values: Any) -> bool:
        """Return whether all cells have the form of the type. Arrow casts some that do not."""
        if self.form is None:
            return True
        if pa.types.is_integer(self.kind) or pa.types.is_boolean(self.kind):
            return _all_equal(compute.cast(values, cells.type), cells)
        if pa.types.is_date(self.kind):
            return _first_from(values.cast(pa.int32()), DATE_FROM_YEAR_1)
        if pa.types.is_timestamp(self.kind):
            # Most times have no fraction of a second. Arrow casts no other form of this length.
            lengths = compute.min_max(compute.binary_length(cells))
            whole_seconds = TIME_LENGTH + (self.kind.tz is not None)
            if lengths["min"].as_py() == whole_seconds == lengths["max"].as_py():
                return _first_from(values.cast(pa.int64()), DATE_FROM_YEAR_1 * 86_400_000_000)
        if not _all_match(cells, self.form):
            return False
        return not pa.types.is_floating(self.kind) or _floats_keep(cells, values)


TEXT = Rule(pa.string(), "string")

INFERRED = [
    Rule(pa.int64(), "int64", "-?[1-9][0-9]*|0"),
    # Many programs write 1.0 as 1.
    Rule(pa.float64(), "float64", r"-?(?:0|[1-9][0-9]*)\.[0-9]+|-?[1-9][0-9]*|0"),
    Rule(pa.bool_(), "bool", "true|false"),
    Rule(pa.date32(), "date32", _DATE),
    Rule(pa.timestamp("us"), "timestamp[us]", _TIME),
    Rule(pa.timestamp("us", "UTC"), "timestamp[us, tz=UTC]", f"{_TIME}Z"),
]
"""The types that can be inferred. The first that fits is taken."""


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _first_from(values: Any, start: int) -> bool:
    """Return whether the smallest value is at least `start`; nulls do not count."""
    first = compute.min(values).as_py()
    return first is None or first >= start


def _all_equal(texts: Any, cells: Any) -> bool:
    return bool(compute.all(compute.equal(texts, cells), min_count=0).as_py())


def _all_match(cells: Any, form: str) -> bool:
    """Return whether all cells match. None may have a line feed; cells that were cast have none.

    They are joined, because one match over all of them takes a third of the time of one match for each.
    """
    cells = cells.drop_null()
    lists = pa.ListArray.from_arrays(integers(0, len(cells)), cells)
    lines = compute.binary_join(lists, _LINE_FEED)
    matches = compute.match_substring_regex(lines, f"^(?:(?:{form})(?:\n(?:{form}))*)?$")
    return bool(matches[0].as_py())


def _floats_keep(cells: Any, values: Any) -> bool:
    """Return whether float64 keeps the digits of all cells."""
    long = compute.greater(compute.binary_length(cells), _KEPT_DIGITS)
    if not compute.any(long, min_count=0).as_py():
        return True
    cells, values = cells.filter(long), values.filter(long)
    # Floats that are formatted as their cells keep the digits. Those with zeros at the end, or exponents, are
    # compared one by one.
    others = compute.not_equal(compute.cast(values, pa.string()), cells)
    pairs = zip(cells.filter(others).to_pylist(), values.filter(others).to_pylist(), strict=True)
    return all(Decimal(cell) == Decimal(repr(value)) for cell, value in pairs)


def _read_as(cells: Any, kind: Any) -> Any:
    """Return the cells as values, read by Arrow's CSV reader. It knows some types that cast() does not."""
    if not len(cells):
        return pa.array([], kind)
    text = io.BytesIO()
    csv.write_csv(pa.table([cells], names=["0"]), text, csv.WriteOptions(include_header=False))
    parse = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    convert = csv.ConvertOptions(column_types={"0": kind}, null_values=[""])
    read = csv.ReadOptions(column_names=["0"], block_size=max(text.tell(), 1))
    return csv.read_csv(io.BytesIO(text.getvalue()), read, parse, convert).column(0).combine_chunks()


class ColumnTypes:
    """The types of all columns of a file.

    Args:
        names: the names of the columns, in order.
        options: the options of the command.

    Attributes:
        schema: the schema of the rows; None until the first rows are converted.
    """

    def __init__(self, names: list[str], options: argparse.Namespace) -> None:
        self.names = names
        types = given_types(options.types)
        for name in types:
            if name not in names and name != EVERY_COLUMN:
                raise CliError(f"--type {name}: there is no such column; there are {', '.join(names)}")
        self.keys = {column for _, column in split_key(options.key) if column is not None}
        wanted = None if getattr(options, "columns", None) is None else {*options.columns, *self.keys}
        text_only = getattr(options, "as_", "value") == "hash"
        self._rules: list[Rule | None] = []
        for name in names:
            rule = types.get(name)
            if rule is None and (name in self.keys or text_only or not (wanted is None or name in wanted)):
                rule = TEXT
            self._rules.append(rule or types.get(EVERY_COLUMN))
        self.schema: Any = None

    def read_as(self) -> dict[str, Any]:
        """Return the types in which columns are read before they are converted, by number."""
        return {
            str(i): pa.binary() if rule is not None and _is_bytes(rule.kind) else pa.string()
            for i, rule in enumerate(self._rules)
        }

    def fault(self, cells: list[bytes]) -> str | None:
        """Return why these cells are not a row; None if they are."""
        if len(cells) != len(self.names):
            return f"expected {len(self.names)} cells, as the header has, found {len(cells)}"
        for name, rule, cell in zip(self.names, self._settled(), cells, strict=True):
            if not _is_bytes(rule.kind):
                try:
                    cell.decode()
                except UnicodeDecodeError:
                    return (
                        f"column {name!r}: expected UTF-8, found {cell!r:.100}: convert the file, such as with "
                        f"iconv -f latin1 -t utf-8, or keep the bytes with --type {name}=binary"
                    )
        return None

    def described(self) -> str:
        """Return the columns and their types in one line."""
        return ", ".join(f"{name} {rule.name}" for name, rule in zip(self.names, self._settled(), strict=True))

    def convert(self, cells: Any) -> tuple[Any, dict[int, str]]:
        """Convert rows of text to the types of the columns. The first call infers the types that are not given.

        Returns:
            The rows that fit, and the reasons for the others, by their number.
        """
        columns = []
        bad: dict[int, str] = {}
        for i, (name, column) in enumerate(zip(self.names, cells.columns, strict=True)):
            rule = self._rules[i]
            if rule is None:
                self._rules[i], values = _inferred(column)
            else:
                values = self._converted(name, rule, column, bad)
            columns.append(values)
        if self.schema is None:
            named = zip(self.names, self._settled(), strict=True)
            self.schema = pa.schema([pa.field(name, rule.kind) for name, rule in named])
        rows = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if bad:
            rows = rows.filter(pa.array([row not in bad for row in range(len(rows))], pa.bool_()))
        return rows, bad

    def _converted(self, name: str, rule: Rule, column: Any, bad: dict[int, str]) -> Any:
        """Return a column's cells as values; add the rows whose cell does not fit to `bad`."""
        if rule is TEXT:
            return _without_empty(column) if name in self.keys else column
        cells = column if _is_text(rule.kind) else _without_empty(column)
        values = rule.converted(cells)
        if values is None:
            values, fits = rule.converted_one_by_one(cells)
            for row in compute.indices_nonzero(compute.invert(fits)).to_pylist():
                bad.setdefault(row, _misfit(name, rule, column[row].as_py()))
        return values

    def _settled(self) -> list[Rule]:
        return [rule or TEXT for rule in self._rules]


def _misfit(name: str, rule: Rule, cell: str | bytes) -> str:
    if rule.form is None:
        return f"column {name!r}: expected {rule.name}, as --type says, found {cell!r:.100}"
    return (
        f"column {name!r}: expected {rule.name}, as in its first cells, found {cell!r:.100}: "
        f"--type {name}=string takes any text"
    )


def _without_empty(column: Any) -> Any:
    """Return the cells, with null for the empty ones."""
    filled = compute.cast(compute.binary_length(column), pa.bool_())
    if compute.all(filled, min_count=0).as_py():
        return column
    return compute.if_else(filled, column, null_scalar(column.type))


def _inferred(column: Any) -> tuple[Rule, Any]:
    """Return the first type that all non-empty cells fit, and the values; text if there is none."""
    cells = _without_empty(column)
    first = compute.first(cells).as_py()
    if first is not None:
        for rule in INFERRED:
            values = rule.converted(cells) if re.fullmatch(rule.form or "", first) else None
            # Whole numbers beyond 64 bits are not floats.
            too_long = pa.types.is_floating(rule.kind) and "." not in first and not _has_point(cells)
            if values is not None and not too_long:
                return rule, values
    return TEXT, column


def _has_point(cells: Any) -> bool:
    return bool(compute.any(compute.match_substring(cells, ".")).as_py())


def substrings(cells: Any, text: str) -> list[int]:
    """Return the number of times that a text is in the cells of each row."""
    found = (compute.count_substring(column, text) for column in cells.columns)
    counts = (compute.fill_null(count, 0) if count.null_count else count for count in found)
    return functools.reduce(compute.add, (compute.cast(count, pa.int64()) for count in counts)).to_pylist()  # type: ignore[no-any-return]


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def given_types(entries: list[str]) -> dict[str, Rule]:
    """Return the types that --type gives to columns.

    Raises:
        CliError: there is no such type, or text cannot be converted to it.
    """
    types = {}
    for entry in entries:
        column, equals, name = entry.rpartition("=")
        if not equals:
            raise CliError(f"--type {entry}: expected COLUMN=TYPE, such as zip=string")
        types[column] = Rule(_type(name, entry), name)
    return types


def _type(name: str, entry: str) -> Any:
    """Return the Arrow type that --type names."""
    decimal = re.fullmatch(r"decimal128\((\d+), ?(\d+)\)", name)
    zoned = re.fullmatch(r"timestamp\[(s|ms|us|ns), ?tz=(.+)\]", name)
    try:
        if decimal:
            kind = pa.decimal128(int(decimal[1]), int(decimal[2]))
        else:
            kind = pa.timestamp(zoned[1], zoned[2]) if zoned else pa.type_for_alias(name)
        # Raises if text cannot be converted to the type at all.
        Rule(kind, name).converted(pa.nulls(1, pa.binary() if _is_bytes(kind) else pa.string()))
    except (ValueError, pa.ArrowNotImplementedError) as error:
        reason = plain(error) if decimal else f"there is no type {name!r}"
        raise CliError(
            f"--type {entry}: {reason}; there are string, binary, bool, int8 to int64, uint8 to uint64, float32, "
            "float64, date32, timestamp[us], time64[us], decimal128(10,2) and others of Arrow"
        ) from None
    return kind
