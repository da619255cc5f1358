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
from redis_fastbatch.cli.parts import Parts
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
    parser.add_argument("file", metavar="OUT", help="a .parquet, .csv, .tsv or .ndjson file; - is standard output")
    parser.add_argument(
        "--match", default="*", metavar="PATTERN", help="which keys, such as 'user:*' (default: all)"
    )
    parser.add_argument("--key", metavar="COLUMN", help="write the keys too, into this column")
    parser.add_argument("--format", help="csv, tsv, ndjson or parquet (default: by the file's name)")
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
    kind, compression, tabs = kind_of(options.format or options.file)
    if compression is not None:
        raise CliError("dump does not compress; Parquet is compressed by itself")
    with connect(options.url, options.codec, cluster=options.cluster) as batch:
        progress = None if options.quiet else make_progress(True, None)
        source = Source(batch, options.match, progress)
        try:
            with Output.to(options.file) as out:
                if kind == "ndjson":
                    dump_ndjson(source, out, options.key)
                else:
                    dump_columns(source, out, options.key, kind, "\t" if tabs else ",")
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


def dump_ndjson(source: Source, out: Output, key: str | None) -> None:
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


def dump_columns(source: Source, out: Output, key: str | None, kind: str, delimiter: str) -> None:
    """Parquet or CSV."""
    try:
        from redis_fastbatch._tables.read import get_present
    except ImportError:
        raise CliError("writing CSV and Parquet needs pyarrow: pip install 'redis-fastbatch[cli]'") from None
    parts = Parts(out.folder, KEYS_AT_ONCE)
    for keys in source.lists_of_keys():
        table = _with_text_keys(get_present(source.batch, keys, key=key), key)
        parts.add(table)
        source.took(table.num_rows, len(keys) - table.num_rows)
    parts.close()
    only = parts.only() if kind == "parquet" else None
    if only is not None:
        out.take(only)
        return
    with out.open() as file:
        if kind == "parquet":
            parts.write_parquet(file)
        else:
            parts.write_csv(file, delimiter)


def _with_text_keys(table: Any, key: str | None) -> Any:
    """The column of keys as text where all of them are UTF-8."""
    import pyarrow as pa

    if key is None:
        return table
    names = table.column(0)
    with contextlib.suppress(pa.ArrowInvalid):
        names = names.cast(pa.string())
    return table.set_column(0, key, names)
