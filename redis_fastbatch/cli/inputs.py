"""The files that `redis-fastbatch load` reads: which format, which compression, and a stream of rows."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import os
import re
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis_fastbatch.cli.common import CliError, plain

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip

CSV_HEAD = 8 * 1024 * 1024
"""Bytes of CSV that the types of columns are taken from; no row is longer."""

CSV_BLOCK = 1024 * 1024
"""Bytes of CSV read at a time behind that. Arrow reads 32 blocks ahead, and decodes one for each processor."""

PARQUET_ROWS = 16 * 1024
"""Rows of Parquet decoded at a time."""


@dataclass
class Input:
    """An open file.

    Attributes:
        reader: an Arrow reader of its rows; None where there are `lines`.
        lines: lines of JSON.
        rows: how many rows there are, where that is known.
        broken: what the reader raised: those who read it through Arrow get it as a text, traceback and all.
    """

    reader: Any = None
    lines: Iterable[bytes] | None = None
    rows: int | None = None
    broken: CliError | None = None

    def read(self, schema: Any, batches: Iterable[Any], reason: Callable[[Exception], str]) -> None:
        """Makes the reader; `reason` says in one line why it broke."""
        import pyarrow as pa

        def told() -> Iterator[Any]:
            try:
                yield from batches
            except CliError as error:
                self.broken = error
                raise
            except (OSError, pa.ArrowException) as error:
                self.broken = CliError(reason(error))
                raise self.broken from error

        self.reader = pa.RecordBatchReader.from_batches(schema, told())


def add_format(parser: argparse.ArgumentParser) -> None:
    """The options that say what the file is like."""
    group = parser.add_argument_group("file format")
    group.add_argument(
        "--format",
        help="csv, tsv, ndjson or parquet, with .gz, .zst or .bz2 behind it where it is compressed, such as "
        "csv.gz (default: by the file's name)",
    )
    group.add_argument("--delimiter", help="CSV: what stands between columns (default: a comma; a tab for .tsv)")
    group.add_argument(
        "--type", action="append", default=[], metavar="COLUMN=TYPE", dest="types",
        help="CSV: a column's type, such as zip=string or price=float64, where the first rows would mislead",
    )  # fmt: skip
    group.add_argument(
        "--null", action="append", default=[], metavar="TEXT", dest="nulls",
        help="CSV: this text is a null, in columns of strings too; may be given several times",
    )  # fmt: skip


def kind_of(name: str) -> tuple[str, str | None, bool]:
    """Format, compression and whether tabs are between columns, by a file's name or what --format says.

    Raises:
        CliError: it is none of the known ones.
    """
    suffixes = [suffix.lower() for suffix in Path(f"x.{name}").suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    known = FORMATS.get(suffixes[-1]) if suffixes else None
    if known is None:
        raise CliError(f"{name!r} is neither CSV, NDJSON nor Parquet by its name: say which with --format")
    return known, compression, suffixes[-1] == ".tsv"


@contextlib.contextmanager
def open_input(options: argparse.Namespace) -> Iterator[Input]:
    """Opens the file that `load` was given.

    Raises:
        CliError: it cannot be read, or is not of its format.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise CliError("reading files needs pyarrow: pip install 'redis-fastbatch[cli]'") from None
    if options.file == "-" and not options.format:
        raise CliError("standard input has no name that tells its format: say which with --format")
    if options.file == "-" and sys.stdin is None:
        raise CliError("standard input is closed")
    kind, compression, tabs = kind_of(options.format or options.file)
    with contextlib.ExitStack() as stack:
        try:
            pipe = _pipe(options.file)
            stream = _stream(options.file, pipe, compression, stack)
            if kind == "csv":
                ending = CsvEnding(_delimiter(options.delimiter, tabs=tabs))
                blocks = CsvBlocks(stream, pipe, ending.row)
                stack.callback(blocks.end)
                stack.enter_context(_unread_rows_untold())
                opened = _open_csv(blocks, ending, options)
            elif kind == "ndjson":
                opened = Input(lines=_lines(options.file, stack.enter_context(io.BufferedReader(stream, 1 << 20))))
            else:
                # Parquet is read from its end.
                if compression is not None or not _can_seek(options.file):
                    stream = _copied(stream, stack)
                opened = _open_parquet(stream, options)
        except (OSError, pa.ArrowException) as error:
            raise CliError(_reason(options.file, error)) from error
        yield opened


def _reason(file: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: {error.strerror}"
    return f"{file}: {plain(error)}"


class Pipe(io.RawIOBase):
    """Standard input, where a signal ends the waiting for what comes, and end() does.

    Arrow waits in C, in threads of its own, where Python's signals do not reach.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._wakes_others = -1
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._wakes_others = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Asked by the buffer before it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for bytes."""
        ready, _, _ = select.select([self._descriptor, self._woken], [], [])
        if self._woken in ready:
            # Not the file's end, which would make a row of a line's beginning; nor EINTR, which is tried again.
            raise OSError(errno.ECANCELED, "interrupted")
        return os.readv(self._descriptor, [buffer])

    def end(self) -> None:
        """Ends all waiting, now and later."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        """Standard input itself stays open."""
        if not self.closed:
            if self._listening:
                signal.set_wakeup_fd(self._wakes_others)
            os.close(self._woken)
            os.close(self._wake)
        super().close()


def _pipe(file: str) -> Pipe | None:
    """Standard input; None where the file is another, or standard input has no descriptor to wait for."""
    if file != "-" or sys.platform == "win32":
        return None
    try:
        return Pipe(sys.stdin.fileno())
    except io.UnsupportedOperation:
        return None


def _stream(file: str, pipe: Pipe | None, compression: str | None, stack: contextlib.ExitStack) -> Any:
    import pyarrow as pa

    if pipe is not None:
        stream = pa.PythonFile(stack.enter_context(io.BufferedReader(pipe, 1 << 20)), mode="r")
    elif file == "-":
        stream = pa.PythonFile(sys.stdin.buffer, mode="r")
    else:
        # Opened by Python, which says in plain words why a file cannot be.
        stream = pa.PythonFile(stack.enter_context(open(file, "rb")), mode="r")  # noqa: SIM115
    if compression is not None:
        stream = stack.enter_context(pa.CompressedInputStream(stream, compression))
    return stream


def _lines(file: str, stream: Iterable[bytes]) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        yield from stream
    except (OSError, pa.ArrowException) as error:
        raise CliError(_reason(file, error)) from error


def _can_seek(file: str) -> bool:
    # A pipe has a name too where the shell makes one, as <(...) does.
    return file != "-" and Path(file).is_file()


def _copied(stream: Any, stack: contextlib.ExitStack) -> Any:
    """The stream's bytes in a temporary file."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    while block := stream.read(1 << 20):
        copy.write(block)
    copy.seek(0)
    return copy


def _open_csv(blocks: CsvBlocks, ending: CsvEnding, options: argparse.Namespace) -> Input:
    import pyarrow as pa
    from pyarrow import csv

    convert: dict[str, Any] = {"column_types": _types(options.types)}
    if options.nulls:
        convert |= {"null_values": options.nulls, "strings_can_be_null": True, "quoted_strings_can_be_null": False}
    blocks.begin()
    try:
        reader = csv.open_csv(
            pa.PythonFile(blocks, mode="r"),
            csv.ReadOptions(block_size=CSV_HEAD),
            csv.ParseOptions(delimiter=ending.delimiter, newlines_in_values=True, invalid_row_handler=ending.met),
            csv.ConvertOptions(**convert),
        )
        names = reader.schema.names
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error) and not blocks.blank:
            raise CliError(f"{options.file}: the header has no end: a quote is left open") from None
        raise
    except UnicodeDecodeError as error:
        raise CliError(f"the header is no UTF-8: {error.object!r:.80}") from None
    for name in convert["column_types"]:
        if name not in names:
            raise CliError(f"--type {name}: there is no such column; there are {', '.join(names)}")
    opened = Input()
    opened.read(reader.schema, _whole(reader, ending, options.file), partial(_csv_reason, options.file))
    return opened


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

    def begin(self) -> None:
        """Reads what Arrow wants before it tells the columns, and would not let itself be interrupted in."""
        head, more = self._block(CSV_HEAD), self._block(CSV_HEAD)
        # A last row without a line's end is among those that types are taken from.
        self._first = [head, more] if self._ending else [head + more]

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


def _csv_reason(file: str, error: Exception) -> str:
    reason = _reason(file, error)
    if "straddling object" in reason:
        return f"{file}: a row is longer than {CSV_HEAD:,} bytes, or a quote is left open"
    if "conversion error" in reason:
        return f"{reason}. The first rows had another type: give the column's with --type COLUMN=TYPE"
    return reason


def _open_parquet(stream: Any, options: argparse.Namespace) -> Input:
    import pyarrow as pa
    from pyarrow import parquet

    # Without pre_buffer a row group is read as it is decoded, not as a whole beforehand.
    file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
    schema = file.schema_arrow
    wanted = _needed(schema.names, options)
    batches = file.iter_batches(batch_size=PARQUET_ROWS, columns=wanted)
    if wanted is not None:
        schema = pa.schema([field for field in schema if field.name in wanted])
        batches = (_only(batch, wanted) for batch in batches)
    opened = Input(rows=file.metadata.num_rows)
    opened.read(schema, batches, partial(_reason, options.file))
    return opened


def _only(batch: Any, wanted: list[str]) -> Any:
    """The columns of those names. The reader takes a dot for a step into a struct, and a name for all that begins
    with it and a dot."""
    return batch.select([i for i, name in enumerate(batch.schema.names) if name in wanted])


def _needed(names: list[str], options: argparse.Namespace) -> list[str] | None:
    """The columns to decode: those asked for and those of the key; None for all."""
    if not options.columns:
        return None
    return [
        name for name in names if name in options.columns or name == options.key or f"{{{name}}}" in options.key
    ]
