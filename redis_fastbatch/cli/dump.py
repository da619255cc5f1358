"""`redis-fastbatch dump`: writes strings and hashes to a Parquet, CSV or NDJSON file, in bounded memory.

NDJSON is written as values arrive. A column of Parquet or CSV has one type in the whole file, but later rows are
unknown when the first is written. So rows first go to temporary Parquet files, one for each set of columns. If
there is only one, it becomes the dump. Otherwise they are read again, and written with columns that fit all of
them.

Values that cannot be written are named by key, and the dump goes on without them: see failed_values.py.
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

from redis_fastbatch.cli.common import EXIT_FAILED, CliError, add_server, columns_option, connect, naming, say
from redis_fastbatch.cli.dump_hashes import Hashes
from redis_fastbatch.cli.failed_values import FailedValues, Stopped
from redis_fastbatch.cli.inputs import kind_of
from redis_fastbatch.cli.json_lines import json_able, json_line
from redis_fastbatch.cli.parts import Parts
from redis_fastbatch.client import FastBatch
from redis_fastbatch.errors import DecodeError
from redis_fastbatch.report import Progress, make_progress

KEYS_AT_ONCE = 20_000
TYPES_AT_ONCE = 1000

EXAMPLES = """\
examples:
  redis-fastbatch dump --match 'user:*' users.parquet
  redis-fastbatch dump --match 'flight:*' --key key flights.csv
  redis-fastbatch dump --match 'event:*' - --format ndjson | jq .kind
  redis-fastbatch dump --match 'user:*' --as hash --columns name,age users.csv
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Write the values of keys, strings and hashes, to a file: a row for each key, in any order.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="OUT", help="a .parquet, .csv, .tsv or .ndjson file; - is standard output")
    parser.add_argument(
        "--match",
        default="*",
        metavar="PATTERN",
        help="only keys of this pattern, such as 'user:*' (default: all)",
    )
    parser.add_argument("--key", metavar="COLUMN", help="also write the keys, to this column")
    parser.add_argument("--format", help="csv, tsv, ndjson or parquet (default: by the file's name)")
    parser.add_argument(
        "--codec", choices=("msgpack", "toolkit-msgpack", "toolkit", "json"), default="msgpack",
        help="the encoding of the values (default: msgpack)",
    )  # fmt: skip
    parser.add_argument(
        "--as", dest="as_", choices=("value", "hash"),
        help="dump only strings, and name all other keys; or only hashes, and ignore other keys (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--columns", type=columns_option, metavar="A,B,C", help="with --as hash: only these fields of the hashes"
    )
    parser.add_argument(
        "--on-error", default="report", metavar="report|stop|FILE.ndjson",
        help="what to do with values that cannot be written: print ten of them at the end (the default), stop at "
        "the first one and write no file, or write all of them to a file, with their keys and bytes",
    )  # fmt: skip
    parser.add_argument(
        "--strings-only", action="store_true",
        help="ignore hashes, lists and keys of other types; without this they are named, and the exit status "
        "is 1",
    )  # fmt: skip
    parser.add_argument(
        "--lossy", action="store_true",
        help="NDJSON: write NaN and infinities as null and bytes that are not UTF-8 as base64; without this such "
        "values fail",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_server(parser, cluster=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Dump keys to a file, which gets its name only when it is complete."""
    if options.file == "-" and not options.format:
        raise CliError("standard output has no name that shows its format: give it with --format")
    kind, compression, tabs = kind_of(options.format or options.file)
    if compression is not None:
        raise CliError("dump does not compress: leave the ending out, or dump as Parquet, which is compressed")
    if options.columns is not None and options.as_ != "hash":
        raise CliError("--columns names fields of hashes: add --as hash")
    if options.strings_only and options.as_ == "hash":
        raise CliError("--strings-only and --as hash exclude each other: leave one out")
    failures = FailedValues(options.on_error, options.file)
    try:
        with connect(options.url, options.codec, cluster=options.cluster) as batch:
            progress = None if options.quiet else make_progress(True, None)
            source = MatchingKeys(batch, options, failures, progress)
            try:
                with Output.to(options.file) as out:
                    if kind == "ndjson":
                        dump_ndjson(source, out, options)
                    else:
                        dump_columns(source, out, options.key, kind, "\t" if tabs else ",")
                    if failures.any and not source.rows:
                        # With a wrong codec, for example. An existing file may be a good dump.
                        out.discard()
            except Stopped as stopped:
                raise CliError(f"stopped at {stopped}") from None
            finally:
                if progress is not None:
                    progress.close()
    finally:
        failures.close()
    for line in failures.lines():
        say(line)
    if not options.quiet:
        say(f"{source.rows:,} rows written{failures.summary()}")
    return EXIT_FAILED if failures.any else 0


class Output:
    """The target of the dump.

    A file gets its name only when it is complete. Standard output, pipes and devices are written directly.

    Attributes:
        folder: a temporary folder next to the target, so that a rename completes the dump.
    """

    def __init__(self, file: str, folder: Path, *, in_place: bool) -> None:
        self.folder = folder
        self._file = file
        self._in_place = in_place
        self._discarded = False

    @classmethod
    @contextlib.contextmanager
    def to(cls, file: str) -> Iterator[Output]:
        """Open the target, and at the end move what was written to its place."""
        place = Path(file)
        if file == "-" and sys.stdout is None:
            raise CliError("standard output is closed")
        if file != "-" and place.is_dir():
            raise CliError(f"{file}: expected a file, found a folder: name a file in it")
        in_place = file == "-" or (place.exists() and not place.is_file())
        # A rename over a link would replace the link, and leave the file that it names unchanged.
        place = Path(os.path.realpath(place))
        parent = None if in_place else place.parent
        try:
            folder = tempfile.TemporaryDirectory(prefix=".redis-fastbatch-", dir=parent)
        except OSError as error:
            raise CliError(f"{file}: {error.strerror}") from error
        # The error is raised after the folder is removed.
        with naming("standard output" if file == "-" else file), folder as name:
            out = cls(file, Path(name), in_place=in_place)
            yield out
            if not in_place and not out._discarded:
                if place.exists():
                    # The new file has the permissions of the old one.
                    shutil.copymode(place, out.folder / "out")
                (out.folder / "out").replace(place)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Return the file to write to."""
        if self._file == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with (Path(self._file) if self._in_place else self.folder / "out").open("wb") as file:
                yield file

    def discard(self) -> None:
        """Leave an existing file unchanged."""
        self._discarded = True

    def take(self, path: Path) -> None:
        """Make a complete file in `folder` the dump."""
        if self._in_place:
            with self.open() as out, path.open("rb") as file:
                shutil.copyfileobj(file, out)
        else:
            path.replace(self.folder / "out")


class MatchingKeys:
    """The keys that match, in lists.

    Attributes:
        batch: the client.
        failures: receives what cannot be written.
        rows: the number of values read so far.
        hashes: reads hashes.
        reads_strings: whether strings are dumped.
    """

    def __init__(
        self, batch: FastBatch, options: argparse.Namespace, failures: FailedValues, progress: Progress | None
    ) -> None:
        self.batch = batch
        self.failures = failures
        self.rows = 0
        self.hashes = Hashes(batch, failures, options.columns)
        self.reads_strings = options.as_ != "hash"
        self._reads_hashes = options.as_ != "value" and not options.strings_only
        self._match = options.match
        self._strings_only = options.strings_only
        self._progress = progress

    def lists_of_keys(self) -> Iterator[list[bytes]]:
        """Yield lists of keys without repetitions, which SCAN may return."""
        kind = None if self.reads_strings else "hash"
        scan: Iterator[Any] = self.batch.client.scan_iter(match=self._match, count=1000, _type=kind)
        while some := list(islice(scan, KEYS_AT_ONCE)):
            yield list(dict.fromkeys(some))

    def took(self, rows: int, missing: list[bytes]) -> list[bytes]:
        """Count the rows of a list of keys, and get the types of the missing keys from the server.

        Returns:
            The keys of hashes, which are dumped too.
        """
        self.rows += rows
        hashes: list[bytes] = []
        for start in range(0, len(missing), TYPES_AT_ONCE):
            some = missing[start : start + TYPES_AT_ONCE]
            with self.batch.client.pipeline(transaction=False) as pipeline:
                for key in some:
                    pipeline.type(key)
                kinds = pipeline.execute()
            for key, kind in zip(some, map(_kind, kinds), strict=True):
                # A string that was set after the read does not belong to the dump.
                if kind in ("none", "string"):
                    self.failures.gone += 1
                elif kind == "hash" and self._reads_hashes:
                    hashes.append(key)
                elif not self._strings_only:
                    self.failures.leave_out(key, kind)
        if self._progress is not None:
            self._progress.update(self.rows)
        return hashes


def _kind(answer: bytes | str) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


def _as_text(name: bytes) -> str | bytes:
    """Return a key as text if it is UTF-8, otherwise as bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


_MISSING = object()


def dump_ndjson(source: MatchingKeys, out: Output, options: argparse.Namespace) -> None:
    """Write a line of JSON for each value."""
    key = options.key
    with out.open() as file:
        for keys in source.lists_of_keys():
            if not source.reads_strings:
                _dump_hashes(source, keys, file, options)
                continue
            failed: dict[bytes, tuple[bytes | None, Exception]] = {}

            def fail(name: bytes, raw: bytes | None, error: Exception, failed: dict[bytes, Any] = failed) -> None:
                # A value may be read twice after a lost connection.
                failed[name] = raw, error

            found = source.batch.batch_get(keys, default=_MISSING, on_error=fail)
            rows = 0
            for name, value in found.items():
                if value is _MISSING or name in failed:
                    continue
                try:
                    line = json_line(
                        value if key is None else _keyed(key, _as_text(name), value), exact=not options.lossy
                    )
                except (TypeError, ValueError, RecursionError) as error:
                    failed[name] = None, error
                    continue
                # Some codecs allow lone surrogates. They are written as Python's escapes.
                file.write(line.encode("utf-8", "backslashreplace"))
                rows += 1
            unread = [name for name, (raw, _) in failed.items() if raw is None]
            bytes_of = FastBatch(source.batch.client, codec="raw").batch_get(unread) if unread else {}
            for name, (raw, reason) in failed.items():
                source.failures.add(name, bytes_of.get(name, raw), reason)
            hashes = source.took(rows, [name for name in keys if found[name] is _MISSING and name not in failed])
            if hashes:
                _dump_hashes(source, hashes, file, options)


def _dump_hashes(source: MatchingKeys, keys: list[bytes], file: IO[bytes], options: argparse.Namespace) -> None:
    """Write a line of JSON for each hash."""

    def lossy(row: dict[Any, Any]) -> Any:
        return json_able(row)

    rows = source.hashes.dicts(keys, bytes_as=lossy if options.lossy else None)
    for name, row in rows.items():
        keyed = row if options.key is None else _keyed(options.key, _as_text(name), row)
        try:
            file.write(json_line(keyed, exact=not options.lossy).encode())
        except ValueError as error:
            source.failures.add(name, None, error)
            continue
        source.rows += 1
    source.took(0, [])


def _keyed(column: str, name: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        if column in value:
            raise CliError(f"the values have a field {column!r} of their own: choose another name with --key")
        return {column: name, **value}
    return {column: name, "value": value}


def dump_columns(source: MatchingKeys, out: Output, key: str | None, kind: str, delimiter: str) -> None:
    """Write the values as rows of Parquet or CSV."""
    try:
        from redis_fastbatch.cli.fitting import Fitting
    except ImportError:
        raise CliError("writing CSV and Parquet needs pyarrow: pip install 'redis-fastbatch[cli]'") from None
    fitting = Fitting(source.batch, source.failures, csv=kind == "csv")
    parts = Parts(out.folder, KEYS_AT_ONCE)

    def add(names: list[bytes], table: Any) -> int:
        if key is not None:
            names, table = _with_keys(source, names, table, key, csv=kind == "csv")
        parts.add(table)
        return int(table.num_rows)

    for keys in source.lists_of_keys():
        hashes = keys
        if source.reads_strings:
            names, table, missing = fitting.read(keys)
            hashes = source.took(add(names, table) if names or not missing else 0, missing)
        if hashes:
            source.took(add(*source.hashes.table(hashes)), [])
    parts.close()
    only = parts.only() if kind == "parquet" else None
    if only is not None:
        out.take(only)
        return
    try:
        with out.open() as file:
            if kind == "parquet":
                parts.write_parquet(file)
            else:
                parts.write_csv(file, delimiter)
    except CliError as error:
        if not 0 < source.hashes.rows < source.rows:
            raise
        raise CliError(f"{error}, or one kind of keys alone with --as value or --as hash") from error


def _with_keys(
    source: MatchingKeys, names: list[bytes], table: Any, key: str, *, csv: bool
) -> tuple[list[bytes], Any]:
    """Return the table with a column of keys, as text if all of them are UTF-8. In CSV other keys fail."""
    import pyarrow as pa

    if key in table.column_names:
        raise CliError(f"the values have a field {key!r} of their own: choose another name with --key")
    bad = [row for row, name in enumerate(names) if not isinstance(_as_text(name), str)]
    if bad and csv:
        raw = FastBatch(source.batch.client, codec="raw").batch_get([names[row] for row in bad])
        reason = "found a key that is not UTF-8, expected text: CSV has no place for it; dump as Parquet"
        for row in bad:
            source.failures.add(names[row], raw[names[row]], DecodeError(reason))
        kept = sorted(set(range(len(names))) - set(bad))
        table, names, bad = table.take(pa.array(kept, pa.int64())), [names[row] for row in kept], []
    column = pa.array(names, pa.binary())
    return names, table.add_column(0, key, column if bad else column.cast(pa.string()))
