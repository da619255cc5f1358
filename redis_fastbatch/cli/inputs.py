"""The files that `redis-fastbatch load` reads: which format, which compression, and a stream of rows."""

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
"""Options that say how CSV is read."""


@dataclass
class Input:
    """An open file.

    Attributes:
        reader: an Arrow reader of its rows; None where there are `values`.
        csv: the rows of CSV, which the reader reads.
        values: the values of a file of JSON.
        rows: how many rows there are, where that is known.
        broken: what the reader raised: those who read it through Arrow get it as a text, traceback and all.
    """

    reader: Any = None
    csv: CsvRows | None = None
    values: Iterable[JsonValue] | None = None
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
        help="CSV: a column's type, such as zip=string or price=float64, instead of the one that its first cells "
        "show; *=string leaves all other columns text",
    )  # fmt: skip
    group.add_argument(
        "--null", action="append", default=[], metavar="TEXT", dest="nulls",
        help="CSV: this text is a null unless it is in quotes, in columns of text too; may be given several times",
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
                # Parquet is read from its end.
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
