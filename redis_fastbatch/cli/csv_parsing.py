"""Rows of CSV: where they end, and their cells as text, by Arrow and by the standard library."""

from __future__ import annotations

import csv
import io
import secrets
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from redis_fastbatch.cli.csv_types import ColumnTypes


class OpenQuoteError(Exception):
    """Rows end within quotes."""


class Parser:
    """Cells of whole rows, by Arrow.

    Args:
        types: of the columns.
        delimiter: what is between them.
        nulls: cells that are null unless they are in quotes.
    """

    def __init__(self, types: ColumnTypes, delimiter: str, nulls: list[str]) -> None:
        self._types = types.read_as()
        self._delimiter = delimiter
        self._nulls = nulls
        # A row that stands after the last one only if no quote is left open there.
        self._mark = f"end-{secrets.token_hex(8)}"
        self._last_row = (self._mark + delimiter * (len(types.names) - 1) + "\n").encode()

    def read(self, data: bytes) -> Any:
        """Return a record batch of the cells as text; None where a row has too few or too many, or is not UTF-8.

        Raises:
            OpenQuoteError: the last row ends within quotes.
        """
        import pyarrow as pa
        from pyarrow import csv

        whole = data + (b"" if data[-1:] in b"\r\n" else b"\n") + self._last_row
        try:
            table = csv.read_csv(
                pa.BufferReader(whole),
                # In one block: nothing is cut.
                csv.ReadOptions(column_names=list(self._types), block_size=len(whole)),
                csv.ParseOptions(delimiter=self._delimiter),
                csv.ConvertOptions(
                    column_types=self._types,
                    null_values=self._nulls,
                    strings_can_be_null=bool(self._nulls),
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            return None
        (batch,) = table.combine_chunks().to_batches()
        if batch.column(0)[-1].as_py() not in (self._mark, self._mark.encode()):
            raise OpenQuoteError
        return batch.slice(0, batch.num_rows - 1)


class SplitRow(NamedTuple):
    """A row as the standard library reads it.

    Attributes:
        cells: its cells, a character for each byte; none of an empty line.
        start, end: where it is in the data.
    """

    cells: list[str]
    start: int
    end: int


class SplitRows:
    """The rows of CSV data and where they are, by the standard library: slower than Arrow.

    Attributes:
        open_row: where the last row begins, if it ends within quotes; known at the end. It is not among the rows.
    """

    def __init__(self, data: bytes, delimiter: str) -> None:
        self.open_row: int | None = None
        self._data = data
        self._delimiter = delimiter
        self._end = 0
        self._over = False

    def __iter__(self) -> Iterator[SplitRow]:
        """Yield the rows."""
        # No longer cells than 128 KiB is the module's default.
        csv.field_size_limit(2**31 - 1)
        start = 0
        for cells in csv.reader(self._lines(), delimiter=self._delimiter):
            if self._over:
                self.open_row = None if cells == ["", _OVER] else start
                return
            yield SplitRow(cells, start, self._end)
            start = self._end

    def _lines(self) -> Iterator[str]:
        text = self._data.decode("latin-1")
        if sys.version_info < (3, 11):
            # Where the module does not take zero bytes.
            text = text.replace("\0", "\1")
        for line in io.StringIO(text, newline=""):
            self._end += len(line)
            yield line
        self._over = True
        yield self._delimiter + _OVER


_OVER = "over"
"""In a line after the last one, which is a row of its own unless a quote is left open."""


def cell_bytes(cell: str) -> bytes:
    return cell.encode("latin-1")


def likely_row_end(data: bytes) -> int:
    """Return where the last row of the data ends, if quotes are only where they should be; 0 where no row ends."""
    for line_end in b"\n", b"\r":
        # A carriage return at the very end may be half of a line's end.
        end = data.rfind(line_end, 0, len(data) if line_end == b"\n" else len(data) - 1) + 1
        if not data.count(b'"', 0, end) % 2:
            if end:
                return end
            continue
        # It is in quotes, and the last of them opens a cell; before that is text without quotes.
        quote = data.rfind(b'"', 0, end)
        while quote >= 0:
            before = data.rfind(b'"', 0, quote)
            end = data.rfind(line_end, before + 1, quote) + 1
            if end:
                return end
            quote = data.rfind(b'"', 0, before) if before >= 0 else -1
    return 0
