"""CSV as a stream of record batches, by pyarrow: in blocks, with its types, and whole or not at all."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from redis_fastbatch._tables.write import split_key
from redis_fastbatch.cli.common import CliError, file_reason, plain

if TYPE_CHECKING:
    from redis_fastbatch.cli.inputs import Pipe

CSV_HEAD = 8 * 1024 * 1024
"""Bytes of CSV that the types of columns are taken from; no row is longer."""

CSV_BLOCK = 1024 * 1024
"""Bytes of CSV read at a time behind that. Arrow reads 32 blocks ahead, and decodes one for each processor."""


def open_csv(
    stream: Any, pipe: Pipe | None, options: argparse.Namespace, stack: contextlib.ExitStack, *, tabs: bool
) -> tuple[Any, Iterator[Any]]:
    """The schema of a CSV file and its record batches.

    Args:
        stream: the file's bytes.
        pipe: where they come from, where that is standard input.
        options: the command's.
        stack: ends what reads ahead.
        tabs: the file's name says that tabs are between its columns.

    Raises:
        CliError: the file is not as the options say, or has keys that would be read as numbers and change.
    """
    ending = CsvEnding(_delimiter(options.delimiter, tabs=tabs))
    blocks = CsvBlocks(stream, pipe, ending.row)
    stack.callback(blocks.end)
    stack.enter_context(_unread_rows_untold())
    types = _types(options.types)
    head = blocks.begin()
    reader = _reader(blocks, ending, options, types)
    _refuse_changed_keys(head, ending.delimiter, reader.schema, options.key, types)
    return reader.schema, _whole(reader, ending, options.file)


def _reader(blocks: CsvBlocks, ending: CsvEnding, options: argparse.Namespace, types: dict[str, Any]) -> Any:
    """Arrow's reader, whose columns are known."""
    import pyarrow as pa
    from pyarrow import csv

    convert: dict[str, Any] = {"column_types": types}
    if options.nulls:
        convert |= {"null_values": options.nulls, "strings_can_be_null": True, "quoted_strings_can_be_null": False}
    try:
        reader = csv.open_csv(
            pa.PythonFile(blocks, mode="r"),
            csv.ReadOptions(block_size=CSV_HEAD),
            csv.ParseOptions(delimiter=ending.delimiter, newlines_in_values=True, invalid_row_handler=ending.met),
            csv.ConvertOptions(**convert),
        )
        # Names become text only here.
        names = reader.schema.names
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error) and not blocks.blank:
            raise CliError(f"{options.file}: the header has no end: a quote is left open") from None
        raise
    except UnicodeDecodeError as error:
        raise CliError(f"the header is no UTF-8: {error.object!r:.80}") from None
    for name in types:
        if name not in names:
            raise CliError(f"--type {name}: there is no such column; there are {', '.join(names)}")
    return reader


def _refuse_changed_keys(head: bytes, delimiter: str, schema: Any, key: str, types: dict[str, Any]) -> None:
    """Refuses columns of keys that Arrow reads as whole numbers, and that are written otherwise: 007 would become
    7."""
    import pyarrow as pa
    from pyarrow import compute, csv

    wanted = [
        column
        for _, column in split_key(key)
        if schema.names.count(column) == 1
        and column not in types
        and pa.types.is_integer(schema.field(column).type)
    ]
    if not wanted:
        return
    texts = csv.read_csv(
        io.BytesIO(head),
        csv.ReadOptions(block_size=len(head) + 1),
        # The head may end amid a row.
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"),
        csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())),
    )
    for name, column in zip(wanted, texts.columns, strict=True):
        changed = column.filter(compute.match_substring_regex(column, _CHANGED_AS_NUMBERS))
        if len(changed):
            raise CliError(
                f"the key column {name!r} has {changed[0].as_py()!r}, and would be read as numbers, which are "
                f"written otherwise: --type {name}=string takes the text, --type {name}=int64 the number"
            )


_CHANGED_AS_NUMBERS = r"^-?0[0-9xX]|^-0$|^\s+[-0-9]|[0-9a-fA-F]\s+$"
"""Whole numbers with zeros before them, in base 16, or with blanks, all of which Arrow reads."""


class CsvEnding:
    """A row that goes behind the last one, and that Arrow takes for one only if no quote is left open there.

    It has more columns than any file. Behind a quote that is left open it is a piece of the last row's text.

    Attributes:
        row: its bytes.
        seen: Arrow took it for a row.
        wrong: the row that swallowed it had too few columns to be one.
    """

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter
        self._text = delimiter * 100_003
        self.row = f"\n{self._text}".encode()
        self.seen = False
        self.wrong = False

    def met(self, row: Any) -> str:
        """Says what becomes of a row of another number of columns than the file has."""
        if not row.text.endswith(self._text):
            return "error"
        self.seen = row.text == self._text
        self.wrong = not self.seen
        return "skip"


def _whole(batches: Iterable[Any], ending: CsvEnding, file: str) -> Iterator[Any]:
    """The batches, of which the last is given once it is known that the file does not end amid it."""
    last: list[Any] = []
    rows = 0
    for batch in batches:
        if batch.num_rows:
            yield from last
            last = [batch]
            rows += batch.num_rows
    if not ending.seen:
        row = rows if ending.wrong else rows - 1
        raise CliError(f"{file}: the file ends within quotes, which begin in row {row} and are never closed")
    yield from last


@contextlib.contextmanager
def _unread_rows_untold() -> Iterator[None]:
    """Keeps pyarrow from telling, traceback and all, that it cannot show CsvEnding a row that is no UTF-8. It
    raises for that row whatever CsvEnding would have said."""
    before = sys.unraisablehook

    def heard(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, UnicodeDecodeError):
            before(unraisable)

    sys.unraisablehook = heard
    try:
        yield
    finally:
        sys.unraisablehook = before


class CsvBlocks(io.RawIOBase):
    """A stream that gives Arrow a large block first, then small ones, and `ending` behind the last.

    Arrow takes the types of columns from the first block, which is why that is large. How many blocks it reads
    ahead cannot be set, only how large they are.

    It reads them in a thread of its own, and waits for that when it lets go of the reader. One that was still at
    it when Python ended would end the process with an abort.

    Attributes:
        blank: there were only empty lines so far.
    """

    def __init__(self, stream: Any, pipe: Pipe | None, ending: bytes) -> None:
        self._stream = stream
        self._pipe = pipe
        self._ending = ending
        self.blank = True
        self._size = 0
        self._first: list[bytes] = []
        self._quoted = False
        self._ended = False
        self._reading = threading.Lock()

    def begin(self) -> bytes:
        """Reads what Arrow wants before it tells the columns, and would not let itself be interrupted in.

        Returns:
            The first of it, which is what Arrow takes types from.
        """
        head, more = self._block(CSV_HEAD), self._block(CSV_HEAD)
        # A last row without a line's end is among those that types are taken from.
        self._first = [head, more] if self._ending else [head + more]
        return self._first[0]

    def readable(self) -> bool:
        """Asked by Arrow."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next block, of at most `size` bytes, the ending not counted; none at the end."""
        with self._reading:
            if self._first:
                return self._first.pop(0)
            return b"" if self._ended else self._block(size)

    def end(self) -> None:
        """There are no more blocks, whatever the stream still has; returns when nobody is reading it."""
        self._ended = True
        if self._pipe is not None:
            self._pipe.end()
        with self._reading:
            pass

    def _block(self, size: int) -> bytes:
        block: bytes = self._stream.read(min(size, self._size or size))
        self._size = CSV_BLOCK
        # Arrow gives up on a row that has no end in the block behind the one in which it begins.
        more, whole = block, has_row_end(block, quoted=self._quoted)
        while more and not whole and len(block) < size:
            more = self._stream.read(min(size - len(block), CSV_BLOCK))
            block += more
            whole = has_row_end(block, quoted=self._quoted)
        # Where no end is found, the quotes before it quoted nothing.
        self._quoted = whole and self._quoted != bool(block.count(b'"') % 2)
        # In a file of empty lines the ending would be the header.
        self.blank = self.blank and not block.removeprefix(codecs.BOM_UTF8).strip(b"\r\n")
        if not more and not self.blank:
            block, self._ending = block + self._ending, b""
        return block


def has_row_end(block: bytes, *, quoted: bool) -> bool:
    """Whether there is a line's end in a block of CSV that is not in quotes; `quoted` says how it begins."""
    start = 0
    while True:
        quote = block.find(b'"', start)
        if not quoted and block.find(b"\n", start, quote if quote >= 0 else len(block)) >= 0:
            return True
        if quote < 0:
            return False
        quoted, start = not quoted, quote + 1


def _delimiter(given: str | None, *, tabs: bool) -> str:
    text = {None: "\t" if tabs else ",", "\\t": "\t"}.get(given, given or "")
    if len(text) != 1 or not text.isascii() or text in '"\r\n':
        raise CliError(f"--delimiter is one character of ASCII, no quote and no line's end, not {text!r}")
    return text


def _types(given: list[str]) -> dict[str, Any]:
    types = {}
    for entry in given:
        column, equals, name = entry.rpartition("=")
        if not equals:
            raise CliError(f"--type {entry}: COLUMN=TYPE is expected, such as zip=string")
        types[column] = _type(name, entry)
    return types


def _type(name: str, entry: str) -> Any:
    """The Arrow type of a name."""
    import pyarrow as pa

    decimal = re.fullmatch(r"decimal128\((\d+), ?(\d+)\)", name)
    try:
        return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else pa.type_for_alias(name)
    except ValueError as error:
        reason = plain(error) if decimal else f"there is no type {name!r}"
        raise CliError(
            f"--type {entry}: {reason}; there are string, binary, bool, int8 to int64, uint8 to uint64, float32, "
            "float64, date32, timestamp[us], time64[us], decimal128(10,2) and others of Arrow"
        ) from None


def csv_reason(file: str, error: Exception) -> str:
    """What is wrong with the file, and what may help."""
    reason = file_reason(file, error)
    if "straddling object" in reason:
        return f"{file}: a row is longer than {CSV_HEAD:,} bytes, or a quote is left open"
    if "conversion error" in reason:
        return f"{reason}. The first rows had another type: give the column's with --type COLUMN=TYPE"
    return reason
