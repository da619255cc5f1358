"""Reads CSV as a stream of record batches, in blocks of whole rows."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import functools
import itertools
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis_fastbatch._tables.write import split_key
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.cli.csv_parsing import OpenQuoteError, Parser, SplitRows, cell_bytes, likely_row_end
from redis_fastbatch.cli.encoding import refuse_other_encodings
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.report import BatchReport

if TYPE_CHECKING:
    from redis_fastbatch.cli.csv_types import ColumnTypes
    from redis_fastbatch.cli.streams import Pipe

CSV_HEAD = 8 * 1024 * 1024
"""Bytes at the start of a file that decide the types of columns; also the largest size of a row."""

CSV_BLOCK = 1024 * 1024
"""Bytes read at a time after the start."""

BLOCKS_AHEAD = 2
"""Blocks that are read and converted while earlier rows are written."""

DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
"""Other delimiters that a message may suggest."""


def open_csv(
    stream: Any, pipe: Pipe | None, options: argparse.Namespace, stack: contextlib.ExitStack, *, tabs: bool
) -> CsvRows:
    """Open a CSV file.

    Args:
        stream: the file's bytes.
        pipe: their source, if that is standard input.
        options: the options of the command.
        stack: ends the reading ahead.
        tabs: whether the file's name says that tabs separate columns.

    Raises:
        CliError: the file does not fit the options.
    """
    rows = CsvRows(stream, pipe, options, _delimiter(options.delimiter, tabs=tabs))
    stack.callback(rows.end)
    return rows


@dataclass
class FailedRow:
    """A row of the file that cannot be written.

    Attributes:
        line: the line where it begins, counted from 1.
        item: its cells.
        reason: why it failed.
        before: the number of rows before it in its block that did not fail.
    """

    line: int
    item: Any
    reason: str
    before: int


@dataclass
class Block:
    """Some rows of the file.

    Attributes:
        rows: a record batch of the rows that can be written.
        first_line: the line where the first row begins.
        lines: the lines where rows begin, packed; None if each row is one line.
        failed: the rows that cannot be written.
    """

    rows: Any
    first_line: int
    lines: bytes | None = None
    failed: list[FailedRow] = field(default_factory=list)


class CsvRows:
    """The rows of a CSV file.

    Each block that Arrow gets begins and ends with a row, so that no cell is cut. A thread reads and converts
    blocks ahead of the threads that write them.

    Args:
        stream: the file's bytes.
        pipe: their source, if that is standard input.
        options: the options of the command.
        delimiter: the character between columns.

    Attributes:
        report: counts the rows that fail before they are written, by line.
        on_failure: is called with each of them.
        schema: the schema of the rows.

    Raises:
        CliError: the file does not fit the options.
    """

    def __init__(self, stream: Any, pipe: Pipe | None, options: argparse.Namespace, delimiter: str) -> None:
        self.report = BatchReport()
        self.on_failure: Callable[[Any, Any, Exception], None] = lambda line, item, error: None
        self._stops = getattr(options, "on_error", "report") == "stop"
        self._file: str = options.file
        self._stream = stream
        self._pipe = pipe
        self._delimiter = delimiter
        self._rest = b""
        self._all_read = False
        self._ended = False
        self._pool = ThreadPoolExecutor(1, "redis-fastbatch-csv")
        self._firsts: list[int] = []
        self._blocks: list[tuple[int, bytes | None]] = []
        self._rows = 0

        self._fill(CSV_HEAD)
        refuse_other_encodings(self._rest[:4], self._file, "tsv" if delimiter == "\t" else "csv")
        self._rest = self._rest.removeprefix(codecs.BOM_UTF8)
        # Classic Mac OS ended lines with only a carriage return.
        self._line_end = b"\n" if b"\n" in self._rest else b"\r"
        self._types, self._line = self._header(options)
        self._parser = Parser(self._types, delimiter, options.nulls)
        self._first = self._next_block()
        self.schema = self._types.schema

    @property
    def columns(self) -> str:
        """The columns and their types in one line of text."""
        return self._types.described()

    def line_of(self, row: int) -> int:
        """Return the line, from 1, where a row begins. Rows are counted from 0, without the failed ones."""
        place = bisect_right(self._firsts, row) - 1
        first_line, lines = self._blocks[place]
        row -= self._firsts[place]
        return first_line + row if lines is None else first_line + _unpacked(lines)[row]

    def __iter__(self) -> Iterator[Any]:
        """Yield record batches of the rows that can be written.

        Raises:
            CliError: the file ends within quotes, or has a row that is too long.
        """
        ahead: deque[Future[Block | None]] = deque()
        block = self._first
        while block is not None:
            while len(ahead) < BLOCKS_AHEAD:
                ahead.append(self._pool.submit(self._next_block))
            yield from self._settled(block)
            block = ahead.popleft().result()

    def end(self) -> None:
        """End the reading ahead, and return when no thread reads the stream."""
        self._ended = True
        if self._pipe is not None:
            self._pipe.end()
        self._pool.shutdown(cancel_futures=True)

    def _settled(self, block: Block) -> Iterator[Any]:
        """Yield the rows of a block, and report its failed rows."""
        rows = block.rows
        if block.failed and self._stops:
            # Only the rows before the first failure are written.
            del block.failed[1:]
            rows = rows.slice(0, block.failed[0].before)
        self._firsts.append(self._rows)
        self._blocks.append((block.first_line, block.lines))
        self._rows += rows.num_rows
        if self._stops and rows.num_rows:
            yield rows
        for failed in block.failed:
            error = EncodeError(f"line {failed.line}: {failed.reason}")
            self.report.add_failure(failed.line, error)
            self.on_failure(failed.line, failed.item, error)
        if not self._stops and rows.num_rows:
            yield rows

    def _fill(self, size: int) -> None:
        """Read until `size` bytes are waiting for a block, or the stream ends."""
        pieces = [self._rest]
        missing = size - len(self._rest)
        while missing > 0 and not self._all_read:
            piece = self._stream.read(missing)
            self._all_read = not piece
            missing -= len(piece)
            pieces.append(piece)
        self._rest = b"".join(pieces)

    def _header(self, options: argparse.Namespace) -> tuple[ColumnTypes, int]:
        """Remove the header from the data; return its columns, and the line after it."""
        from redis_fastbatch.cli.csv_types import ColumnTypes

        split = SplitRows(self._rest, self._delimiter)
        header = next((row for row in split if row.cells), None)
        if header is None and split.open_row is None:
            raise CliError(f"{self._file}: expected a CSV header, found an empty file")
        if header is None or (header.end == len(self._rest) and not self._all_read):
            raise CliError(f"{self._file}: the header has no end: close the quote that is open in it")
        names = []
        for name in map(cell_bytes, header.cells):
            try:
                names.append(name.decode())
            except UnicodeDecodeError:
                raise CliError(f"{self._file}: the header is not UTF-8: {name!r:.80}") from None
        self._refuse_other_header(names, options)
        line = 1 + self._rest.count(self._line_end, 0, header.end)
        self._rest = self._rest[header.end :]
        return ColumnTypes(names, options), line

    def _refuse_other_header(self, names: list[str], options: argparse.Namespace) -> None:
        """Raise CliError if the key's columns are missing and the header shows why."""
        keys = [column for _, column in split_key(options.key) if column is not None]
        missing = [key for key in keys if key not in names]
        if missing and any(character < " " and character not in "\t\r\n" for character in "".join(names)):
            raise CliError(
                f"{self._file}: expected a CSV header with {missing[0]!r}, found {','.join(names)!r:.80}: say "
                "with --format what the file is"
            )
        for other, name in DELIMITERS.items():
            if missing and len(names) == 1 and set(keys) <= set(names[0].split(other)):
                given = "'\\t'" if other == "\t" else f"'{other}'"
                raise CliError(
                    f"column {missing[0]!r}: there is no such column; there is one, {names[0]!r:.200}, with "
                    f"{name} in its name: give --delimiter {given}"
                )

    def _next_block(self) -> Block | None:
        """Return the next rows; None at the end."""
        if self._ended:
            return None
        try:
            return self._read_block()
        except BaseException:
            self._ended = True
            raise

    def _read_block(self) -> Block | None:
        first = self._types.schema is None
        size = CSV_HEAD if first else CSV_BLOCK
        while True:
            self._fill(size)
            if self._all_read:
                block = self._block(self._rest) if self._rest or first else None
                if self._rest and block is None:
                    raise self._open_quote()
                self._rest = b""
                return block
            for row_end in likely_row_end, self._row_end:
                end = row_end(self._rest)
                block = self._block(self._rest[:end]) if end else None
                if block is not None:
                    self._rest = self._rest[end:]
                    return block
            if len(self._rest) >= CSV_HEAD:
                raise CliError(
                    f"{self._file}: the row that begins in line {self._line} is longer than {CSV_HEAD:,} bytes, "
                    "or a quote is left open in it"
                )
            # The size doubles, so that a long row is not searched again for each further block.
            size = min(2 * max(len(self._rest), CSV_BLOCK), CSV_HEAD)

    def _row_end(self, data: bytes) -> int:
        """Return where the last whole row ends."""
        split = SplitRows(data, self._delimiter)
        # The last row may continue in the next block.
        return max((row.start for row in split), default=0) if split.open_row is None else split.open_row

    def _open_quote(self) -> CliError:
        """Return the error for a last row without an end."""
        split = SplitRows(self._rest, self._delimiter)
        deque(split, 0)
        line = self._line + self._rest.count(self._line_end, 0, split.open_row)
        return CliError(
            f"{self._file}: the file ends within quotes, which begin in the row of line {line} and are not closed"
        )

    def _block(self, data: bytes) -> Block | None:
        """Return the rows of some whole lines; None if they end within quotes."""
        try:
            cells = self._parser.read(data)
        except OpenQuoteError:
            return None
        offsets: Any = None
        failed: list[FailedRow] = []
        if cells is None:
            sorted_out = self._sorted_out(data)
            if sorted_out is None:
                return None
            cells, offsets, failed = sorted_out
        line_ends = data.count(self._line_end)
        # The last line of a file may lack its end.
        lines = line_ends + (data[-1:] not in (b"", self._line_end))
        if offsets is None and (cells.num_rows != lines or self._has_other_line_ends(data)):
            offsets = self._offsets(data, cells, lines)
        rows, bad = self._types.convert(cells)
        if bad:
            offsets = range(cells.num_rows) if offsets is None else offsets
            for row, reason in bad.items():
                item = dict(zip(self._types.names, (column[row].as_py() for column in cells.columns), strict=True))
                failed.append(FailedRow(self._line + offsets[row], item, reason, row))
            failed.sort(key=lambda row: row.line)
            numbers = sorted(bad)
            for entry in failed:
                entry.before -= bisect_left(numbers, entry.before)
            offsets = [offset for row, offset in enumerate(offsets) if row not in bad]
        block = Block(rows, self._line, None if offsets is None else _packed(offsets), failed)
        self._line += line_ends
        return block

    def _sorted_out(self, data: bytes) -> tuple[Any, list[int], list[FailedRow]] | None:
        """Separate rows that have a wrong number of cells, or are not UTF-8, from the others.

        Returns:
            The cells of the good rows, the lines where they begin, counted from the first line of the data, and
            the failed rows; None if the last row ends within quotes.
        """
        good: list[bytes] = []
        offsets: list[int] = []
        failed: list[FailedRow] = []
        split = SplitRows(data, self._delimiter)
        line = start = 0
        for row in split:
            if not row.cells:
                continue
            line, start = line + data.count(self._line_end, start, row.start), row.start
            cells = list(map(cell_bytes, row.cells))
            reason = self._types.fault(cells)
            if reason is None:
                good.append(data[row.start : row.end])
                offsets.append(line)
            else:
                item = [cell.decode("utf-8", "backslashreplace") for cell in cells]
                failed.append(FailedRow(self._line + line, item, reason, len(good)))
        if split.open_row is not None:
            return None
        read = self._parser.read(b"".join(good))
        if read is None or read.num_rows != len(good):
            raise CliError(f"{self._file}: Arrow cannot read lines {self._line} to {self._line + line}")
        return read, offsets, failed

    def _has_other_line_ends(self, data: bytes) -> bool:
        """Return whether a row may end with a line end that is not counted as one."""
        if self._line_end == b"\r":
            return b"\n" in data
        return b"\r" in data and data.count(b"\r") != data.count(b"\r\n")

    def _offsets(self, data: bytes, cells: Any, lines: int) -> list[int]:
        """Return the lines where rows begin, counted from that of the first row."""
        from redis_fastbatch.cli.csv_types import substrings

        if not self._has_other_line_ends(data):
            # This is exact unless there are lines that belong to no row.
            within = substrings(cells, self._line_end.decode())
            if len(within) + sum(within) == lines:
                return list(itertools.accumulate((1 + more for more in within[:-1]), initial=0))
        offsets = []
        line = start = 0
        for row in SplitRows(data, self._delimiter):
            if row.cells:
                line, start = line + data.count(self._line_end, start, row.start), row.start
                offsets.append(line)
        return offsets


def _packed(offsets: Iterable[int]) -> bytes:
    steps = array("q", (after - before for before, after in itertools.pairwise((0, *offsets))))
    return zlib.compress(steps.tobytes(), 1)


@functools.lru_cache(4)
def _unpacked(packed: bytes) -> list[int]:
    steps = array("q")
    steps.frombytes(zlib.decompress(packed))
    return list(itertools.accumulate(steps))


def _delimiter(given: str | None, *, tabs: bool) -> str:
    text = {None: "\t" if tabs else ",", "\\t": "\t"}.get(given, given or "")
    if len(text) != 1 or not text.isascii() or text in '"\r\n':
        raise CliError(f"--delimiter must be one ASCII character, not a quote or a line end, got {text!r}")
    return text
