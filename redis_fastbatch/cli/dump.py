"""`redis-fastbatch dump`: the values of the server's keys into a Parquet, CSV or NDJSON file, in bounded memory.

NDJSON is written as the values come. Parquet and CSV have columns whose types hold for the whole file, and what
the last rows hold is not known at the first: rows go into a Parquet file of their own as long as they have the
same columns. Where one was enough it becomes the dump; else all are read again, and written with columns that
fit all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from redis_fastbatch.cli.common import CliError, add_server, connect, say
from redis_fastbatch.cli.inputs import kind_of
from redis_fastbatch.cli.json_lines import json_line
from redis_fastbatch.client import FastBatch
from redis_fastbatch.errors import shown
from redis_fastbatch.report import Progress, make_progress

KEYS_AT_ONCE = 20_000

EXAMPLES = """\
examples:
  redis-fastbatch dump --match 'user:*' users.parquet
  redis-fastbatch dump --match 'flight:*' --key key flights.csv
  redis-fastbatch dump --match 'event:*' - --format ndjson | jq .kind
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Writes the values of keys to a file, a row a key, in no particular order.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="OUT", help="a .parquet, .csv or .ndjson file; - is standard output")
    parser.add_argument(
        "--match", default="*", metavar="PATTERN", help="which keys, such as 'user:*' (default: all)"
    )
    parser.add_argument("--key", metavar="COLUMN", help="write the keys too, into this column")
    parser.add_argument("--format", help="csv, ndjson or parquet (default: by the file's name)")
    parser.add_argument(
        "--codec", choices=("msgpack", "toolkit-msgpack", "toolkit", "json"), default="msgpack",
        help="how the values are encoded (default: msgpack)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_server(parser, cluster=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Dumps keys to a file, which appears under its name only when it is complete."""
    if options.file == "-" and not options.format:
        raise CliError("standard output has no name that tells its format: say which with --format")
    kind, compression, _ = kind_of(options.format or options.file)
    if compression is not None:
        raise CliError("dump does not compress; Parquet is compressed by itself")
    with connect(options.url, options.codec, cluster=options.cluster) as batch:
        progress = None if options.quiet else make_progress(True, None)
        source = Source(batch, options.match, progress)
        try:
            with Output.to(options.file) as out:
                dump = dump_ndjson if kind == "ndjson" else dump_columns
                dump(source, out, options.key, kind)
        finally:
            if progress is not None:
                progress.close()
    if not options.quiet:
        left = f", {source.left_out:,} left out: gone meanwhile, or no strings" if source.left_out else ""
        say(f"{source.rows:,} rows written{left}")
    return 0


class Output:
    """Where the dump goes: a file that appears under its name only when it is complete; or standard output, a pipe
    or a device, which are written to.

    Attributes:
        folder: for files on the way, next to the one that is to be, so that a rename puts it in its place.
    """

    def __init__(self, file: str, folder: Path, *, in_place: bool) -> None:
        self.folder = folder
        self._file = file
        self._in_place = in_place

    @classmethod
    @contextlib.contextmanager
    def to(cls, file: str) -> Iterator[Output]:
        """Opens it, and at the end puts what was written in its place."""
        place = Path(file)
        if file == "-" and sys.stdout is None:
            raise CliError("standard output is closed")
        if file != "-" and place.is_dir():
            raise CliError(f"{file}: a directory")
        in_place = file == "-" or (place.exists() and not place.is_file())
        # A rename over a link would put a file in the link's place, and leave the old one as it was.
        place = Path(os.path.realpath(place))
        parent = None if in_place else place.parent
        try:
            folder = tempfile.TemporaryDirectory(prefix=".redis-fastbatch-", dir=parent)
        except OSError as error:
            raise CliError(f"{file}: {error.strerror}") from error
        with folder as name:
            out = cls(file, Path(name), in_place=in_place)
            yield out
            if not in_place:
                if place.exists():
                    # Who may read the old one may read the new one, and nobody else.
                    shutil.copymode(place, out.folder / "out")
                (out.folder / "out").replace(place)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file to write to."""
        if self._file == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with (Path(self._file) if self._in_place else self.folder / "out").open("wb") as file:
                yield file

    def take(self, path: Path) -> None:
        """Makes a finished file in `folder` the dump."""
        if self._in_place:
            with self.open() as out, path.open("rb") as file:
                shutil.copyfileobj(file, out)
        else:
            path.replace(self.folder / "out")


class Source:
    """The keys that match, some at a time.

    Attributes:
        rows: values read so far.
        left_out: keys that had no string.
    """

    def __init__(self, batch: FastBatch, match: str, progress: Progress | None) -> None:
        self.batch = batch
        self.rows = 0
        self.left_out = 0
        self._match = match
        self._progress = progress

    def lists_of_keys(self) -> Iterator[list[bytes]]:
        """Each key once a list: SCAN may name one twice."""
        scan: Iterator[Any] = self.batch.scan(self._match, count=1000)
        while some := list(islice(scan, KEYS_AT_ONCE)):
            yield list(dict.fromkeys(some))

    def took(self, rows: int, left_out: int) -> None:
        """Counts what became of a list of keys."""
        self.rows += rows
        self.left_out += left_out
        if self._progress is not None:
            self._progress.update(self.rows)


def _as_text(name: bytes) -> str | bytes:
    """A key as text where it is UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


_MISSING = object()


def dump_ndjson(source: Source, out: Output, key: str | None, kind: str) -> None:
    """A line of JSON a value.

    Raises:
        CliError: one that JSON has no place for.
    """
    with out.open() as file:
        for keys in source.lists_of_keys():
            found = source.batch.batch_get(keys, default=_MISSING)
            rows = [(_as_text(name), value) for name, value in found.items() if value is not _MISSING]
            for name, value in rows:
                try:
                    line = json_line(value if key is None else _keyed(key, name, value))
                except (TypeError, ValueError, RecursionError) as error:
                    raise CliError(f"key {shown(name)}: {error}") from error
                # Of a codec that takes lone surrogates: JSON writes them as Python escapes them.
                file.write(line.encode("utf-8", "backslashreplace"))
            source.took(len(rows), len(found) - len(rows))


def _keyed(column: str, name: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        if column in value:
            raise CliError(f"the values have a field {column!r} of their own: choose another name with --key")
        return {column: name, **value}
    return {column: name, "value": value}


def dump_columns(source: Source, out: Output, key: str | None, kind: str) -> None:
    """Parquet or CSV."""
    try:
        from redis_fastbatch.table_read import get_present
    except ImportError:
        raise CliError("writing CSV and Parquet needs pyarrow: pip install 'redis-fastbatch[cli]'") from None
    parts = Parts(out.folder)
    for keys in source.lists_of_keys():
        table = _with_text_keys(get_present(source.batch, keys, key=key), key)
        parts.add(table)
        source.took(table.num_rows, len(keys) - table.num_rows)
    parts.close()
    if kind == "parquet":
        parts.write_parquet(out)
    else:
        parts.write_csv(out)


def _with_text_keys(table: Any, key: str | None) -> Any:
    """The column of keys as text where all of them are UTF-8."""
    import pyarrow as pa

    if key is None:
        return table
    names = table.column(0)
    with contextlib.suppress(pa.ArrowInvalid):
        names = names.cast(pa.string())
    return table.set_column(0, key, names)


class Parts:
    """Parquet files, each of tables of one schema."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._bare = 0
        self._schemas: list[Any] = []
        self._writer: Any = None

    def add(self, table: Any) -> None:
        """Appends a table.

        Raises:
            CliError: it has a column that Parquet has no place for.
        """
        from pyarrow import parquet

        if not table.num_columns:
            # Parquet does not keep how many rows of no columns there are.
            self._bare += table.num_rows
            return
        if self._writer is None or table.schema != self._schemas[-1]:
            self.close()
            empty = [field.name for field in table.schema if _holds_nothing(field.type)]
            if empty:
                raise CliError(
                    f"column {empty[0]!r} is of maps that are empty, at least among {KEYS_AT_ONCE:,} keys: "
                    "Parquet and CSV have no place for that; dump as NDJSON"
                )
            self._files.append(self._folder / f"part{len(self._files)}")
            self._schemas.append(table.schema)
            self._writer = parquet.ParquetWriter(self._files[-1], table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """The last table was added."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def schema(self) -> Any:
        """Columns that fit all tables.

        Raises:
            CliError: there are none.
        """
        import pyarrow as pa

        if not self._schemas:
            if self._bare:
                raise CliError(
                    "the values are maps that are empty: Parquet and CSV have no place for them without --key; "
                    "dump as NDJSON"
                )
            return pa.schema([])
        try:
            return pa.unify_schemas(self._schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise CliError(f"the values have no columns in common: {error}; dump them as NDJSON") from error

    def batches(self, schema: Any) -> Iterator[Any]:
        """All rows, with the columns of the schema."""
        import pyarrow as pa
        from pyarrow import parquet

        for path in self._files:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(KEYS_AT_ONCE):
                    yield pa.record_batch([_column(batch, field) for field in schema], schema=schema)
        if self._bare:
            yield pa.record_batch([pa.nulls(self._bare, field.type) for field in schema], schema=schema)

    def write_parquet(self, out: Output) -> None:
        """One file of all rows."""
        from pyarrow import parquet

        if len(self._files) == 1 and not self._bare:
            out.take(self._files[0])
            return
        schema = self.schema()
        with out.open() as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in self.batches(schema):
                writer.write_batch(batch)

    def write_csv(self, out: Output) -> None:
        """One file of all rows, the columns' names first."""
        import pyarrow as pa
        from pyarrow import csv

        schema = self.schema()
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        if nested:
            raise CliError(f"column {nested[0]!r} is nested: CSV has no place for that; dump as Parquet or NDJSON")
        texts = pa.schema([(field.name, csv_type(field.type)) for field in schema])
        with out.open() as file, csv.CSVWriter(file, texts) as writer:
            for batch in self.batches(schema):
                columns = [csv_text(name, batch[name]) for name in schema.names]
                writer.write_batch(pa.record_batch(columns, schema=texts))


def _holds_nothing(kind: Any) -> bool:
    """Whether a type is, or has in it, that of structs without a field."""
    import pyarrow as pa

    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(_holds_nothing, inner))


def _column(batch: Any, field: Any) -> Any:
    """A column as all parts can have it."""
    import pyarrow as pa

    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    try:
        return batch[field.name].cast(field.type)
    except pa.ArrowException as error:
        raise CliError(
            f"column {field.name!r} is {field.type} in other rows, and does not fit: {error}; dump as NDJSON"
        ) from error


def csv_type(kind: Any) -> Any:
    """The type that a column has when it is written as CSV."""
    import pyarrow as pa

    becomes_text = pa.types.is_timestamp(kind) or pa.types.is_null(kind) or pa.types.is_binary(kind)
    return pa.string() if becomes_text else kind


def csv_text(name: str, column: Any) -> Any:
    """Points in time in ISO 8601, which `load` reads as points in time again; other columns as they are.

    Raises:
        CliError: it holds bytes that are no text.
    """
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_timestamp(column.type):
        try:
            return column.cast(csv_type(column.type))
        except pa.ArrowInvalid:
            raise CliError(
                f"column {name!r} holds bytes that are no UTF-8: CSV cannot hold them; dump as Parquet or NDJSON"
            ) from None
    texts = compute.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    return compute.replace_substring_regex(texts, r"\.0+Z$", "Z")
