"""Splits CSV into rows and cells of text, with Arrow and with the standard library."""

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
    """Raised if the last row ends within quotes."""


class Parser:
    """Reads the cells of whole rows with Arrow.

    Args:
        types: the types of the columns.
        delimiter: the character between them.
        nulls: texts that are null unless they are in quotes.
    """

    def __init__(self, types: ColumnTypes, delimiter: str, nulls: list[str]) -> None:
        self._types = types.read_as()
        self._delimiter = delimiter
        self._nulls = nulls
        # This row is appended. It comes back as a row only if no quote is left open before it.
        self._mark = f"end-{secrets.token_hex(8)}"
        self._last_row = (self._mark + delimiter * (len(types.names) - 1) + "\n").encode()

    def read(self, data: bytes) -> Any:
        """Return a record batch of text cells; None if a row has too few or too many, or is not UTF-8.

        Raises:
            OpenQuoteError: the last row ends within quotes.
        """
        import pyarrow as pa
        from pyarrow import csv

        whole = data + (b"" if data[-1:] in b"\r\n" else b"\n") + self._last_row
        try:
            table = csv.read_csv(
                pa.BufferReader(whole),
                # In one block, so that no row is cut.
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
    """A row that the standard library has read.

    Attributes:
        cells: its cells, one character for each byte; an empty line has none.
        start, end: its place in the data, in bytes.
    """

    cells: list[str]
    start: int
    end: int


class SplitRows:
    """The rows of CSV data and their places, from the standard library. It is slower than Arrow.

    Attributes:
        open_row: the place where the last row begins, if it ends within quotes. It is known at the end, and the
            row is not yielded.
    """

    def __init__(self, data: bytes, delimiter: str) -> None:
        self.open_row: int | None = None
        self._data = data
        self._delimiter = delimiter
        self._end = 0
        self._over = False

    def __iter__(self) -> Iterator[SplitRow]:
        """Yield the rows."""
        # By default the module refuses cells over 128 KiB.
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
            # Older versions of the module refuse zero bytes.
            text = text.replace("\0", "\1")
        for line in io.StringIO(text, newline=""):
            self._end += len(line)
            yield line
        self._over = True
        yield self._delimiter + _OVER


_OVER = "over"
"""The text of a line after the last one. It is a row of its own unless a quote is left open."""


def cell_bytes(cell: str) -> bytes:
    return cell.encode("latin-1")


def likely_row_end(data: bytes) -> int:
    """Return where the last row of the data ends; 0 if none does. Quotes must be where RFC 4180 has them."""
    for line_end in b"\n", b"\r":
        # A carriage return at the very end may be the first half of a line end.
        end = data.rfind(line_end, 0, len(data) if line_end == b"\n" else len(data) - 1) + 1
        if not data.count(b'"', 0, end) % 2:
            if end:
                return end
            continue
        # This line end is in quotes, and the last quote opens a cell. Before it is text outside of quotes.
        quote = data.rfind(b'"', 0, end)
        while quote >= 0:
            before = data.rfind(b'"', 0, quote)
            end = data.rfind(line_end, before + 1, quote) + 1
            if end:
                return end
            quote = data.rfind(b'"', 0, before) if before >= 0 else -1
    return 0
