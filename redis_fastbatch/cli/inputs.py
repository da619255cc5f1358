"""The files that `redis-fastbatch load` reads: their format, their compression, and their rows."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis_fastbatch.cli.common import CliError, file_reason, load_one_by_one
from redis_fastbatch.cli.csv_input import CsvRows, open_csv
from redis_fastbatch.cli.json_values import JsonValue, json_values
from redis_fastbatch.cli.parquet_input import open_parquet
from redis_fastbatch.cli.streams import can_seek, copied, open_pipe, open_stream

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip

FORMAT_NAMES = {"csv": "CSV", "ndjson": "NDJSON", "parquet": "Parquet"}

CSV_ONLY = {"delimiter": "--delimiter", "types": "--type", "nulls": "--null"}
"""Options that apply to CSV only."""


@dataclass
class Input:
    """An open file.

    Attributes:
        reader: an Arrow reader of the rows; None if there are `values`.
        csv: the rows that the reader yields, if the file is CSV.
        values: the values of a JSON file.
        rows: the number of rows, if known.
        broken: the error that ended the reader. Arrow passes it on only as text with a traceback.
    """

    reader: Any = None
    csv: CsvRows | None = None
    values: Iterable[JsonValue] | None = None
    rows: int | None = None
    broken: CliError | None = None

    def read(self, schema: Any, batches: Iterable[Any], reason: Callable[[Exception], str]) -> None:
        """Make the reader.

        Args:
            schema: its schema.
            batches: its record batches.
            reason: returns the text for an error of the file in one line.
        """
        import pyarrow as pa

        def checked() -> Iterator[Any]:
            try:
                yield from batches
            except CliError as error:
                self.broken = error
                raise
            except (OSError, pa.ArrowException) as error:
                self.broken = CliError(reason(error))
                raise self.broken from error

        self.reader = pa.RecordBatchReader.from_batches(schema, checked())


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe the file."""
    group = parser.add_argument_group("file format")
    group.add_argument(
        "--format",
        help="csv, tsv, ndjson or parquet, followed by .gz, .zst or .bz2 if it is compressed, such as "
        "csv.gz (default: by the file's name)",
    )
    group.add_argument("--delimiter", help="CSV: the character between columns (default: a comma; a tab for .tsv)")
    group.add_argument(
        "--type", action="append", default=[], metavar="COLUMN=TYPE", dest="types",
        help="CSV: the type of a column, such as zip=string or price=float64, instead of that of its first cells; "
        "*=string leaves all other columns text",
    )  # fmt: skip
    group.add_argument(
        "--null", action="append", default=[], metavar="TEXT", dest="nulls",
        help="CSV: read this text as null unless it is in quotes, also in text columns; may be repeated",
    )  # fmt: skip


def kind_of(name: str) -> tuple[str, str | None, bool]:
    """Return format, compression, and whether tabs separate columns, from a file's name or the value of --format.

    Raises:
        CliError: the format is not known.
    """
    suffixes = [suffix.lower() for suffix in Path(f"x.{name}").suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    known = FORMATS.get(suffixes[-1]) if suffixes else None
    if known is None:
        raise CliError(f"{name!r} is neither CSV, NDJSON nor Parquet by its name: give the format with --format")
    return known, compression, suffixes[-1] == ".tsv"


def _refuse_options_of_csv(kind: str, options: argparse.Namespace) -> None:
    """Raise CliError where an option would have no effect on files of this kind."""
    given = [option for name, option in CSV_ONLY.items() if getattr(options, name)]
    if given and kind != "csv":
        by = f"--format {options.format}" if options.format else "the file's name"
        raise CliError(
            f"{given[0]} is for CSV, and by {by} this is {FORMAT_NAMES[kind]}, whose values have types of their "
            f"own: leave {given[0]} out, or give --format csv if it is CSV"
        )


@contextlib.contextmanager
def open_input(options: argparse.Namespace) -> Iterator[Input]:
    """Open the file that `load` reads.

    Raises:
        CliError: the file cannot be read, or does not have the format.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise CliError("reading files needs pyarrow: pip install 'redis-fastbatch[cli]'") from None
    if options.file == "-" and not options.format:
        raise CliError("standard input has no name that shows its format: give it with --format")
    if options.file == "-" and sys.stdin is None:
        raise CliError("standard input is closed")
    if Path(options.file).is_dir():
        files = f"{shlex.quote(str(Path(options.file)))}/*"
        raise CliError(f"{options.file}: expected a file, found a folder: {load_one_by_one(files)}")
    kind, compression, tabs = kind_of(options.format or options.file)
    _refuse_options_of_csv(kind, options)
    with contextlib.ExitStack() as stack:
        try:
            pipe = open_pipe(options.file)
            stream = open_stream(options.file, pipe, compression, stack)
            if kind == "csv":
                csv_rows = open_csv(stream, pipe, options, stack, tabs=tabs)
                opened = Input(csv=csv_rows)
                opened.read(csv_rows.schema, csv_rows, partial(file_reason, options.file))
            elif kind == "ndjson":
                buffered = stack.enter_context(io.BufferedReader(stream, 1 << 20))
                opened = Input(values=_values(options.file, buffered))
            else:
                # Parquet is read from its end, which a stream does not allow.
                if compression is not None or not can_seek(options.file):
                    stream = copied(stream, stack)
                schema, batches, rows = open_parquet(stream, options)
                opened = Input(rows=rows)
                opened.read(schema, batches, partial(file_reason, options.file))
        except (OSError, pa.ArrowException) as error:
            raise CliError(file_reason(options.file, error)) from error
        yield opened


def _values(file: str, stream: io.BufferedReader) -> Iterator[JsonValue]:
    import pyarrow as pa

    try:
        yield from json_values(file, stream)
    except (OSError, pa.ArrowException) as error:
        raise CliError(file_reason(file, error)) from error
