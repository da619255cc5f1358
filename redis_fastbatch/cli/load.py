"""`redis-fastbatch load`: writes the rows of a CSV, NDJSON or Parquet file to the server, in bounded memory.

CSV and Parquet are read with pyarrow and written with batch_set_table(). NDJSON is written with batch_set(): rows
may have different fields, and the type of a number does not depend on other rows.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from redis_fastbatch._transports.threads import affordable, run_threads
from redis_fastbatch.cli.command_template import prepare, row_command, words_as_text
from redis_fastbatch.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    CliError,
    add_server,
    columns_option,
    connect,
    positive,
    say,
)
from redis_fastbatch.cli.csv_input import CsvRows
from redis_fastbatch.cli.failed_rows import FailedRows, reason_of
from redis_fastbatch.cli.inputs import Input, add_format, open_input
from redis_fastbatch.cli.json_commands import JsonCommands, value_text
from redis_fastbatch.cli.json_rows import JsonRows
from redis_fastbatch.cli.json_values import JsonValue
from redis_fastbatch.cli.shared_batches import ROWS_BEYOND_FAILURE, SharedBatches, WorkerBatches, stoppable
from redis_fastbatch.client import FastBatch
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.report import BatchReport, Progress, make_progress

Named: TypeAlias = Callable[[Any, Exception], tuple[Any, Exception]]

SHOWN_FAILURES = 10
HASHES_AT_ONCE = 10_000

EXAMPLES = """\
examples:
  redis-fastbatch load users.csv --key id --prefix user:
  redis-fastbatch load flights.parquet --key 'flight:{carrier}:{flight}:{time_hour}' --ex 86400
  redis-fastbatch load scores.csv --command 'ZADD board:{region} {score} {user}'
  redis-fastbatch load events.ndjson.zst --key id --on-error failed.ndjson
  zcat users.csv.gz | redis-fastbatch load - --format csv --key id --url redis://cache:6379/1
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Write each row of a file under its own key, as a map of its fields in MessagePack or JSON.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", metavar="FILE", help="CSV, NDJSON or Parquet, also .gz, .zst or .bz2; - is standard input"
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--key", metavar="COLUMN|TEMPLATE",
        help="the column with the keys, or a template of columns such as 'order:{shop}:{number}'",
    )  # fmt: skip
    how.add_argument(
        "--command", dest="row_command", type=row_command, metavar="COMMAND",
        help="send a command for each row instead, such as 'ZADD board:{region} {score} {user}'",
    )  # fmt: skip
    parser.add_argument("--prefix", default="", help="text before every key, such as user:")
    parser.add_argument("--columns", type=columns_option, metavar="A,B,C", help="write only these columns")
    parser.add_argument("--ex", type=positive, metavar="SECONDS", help="the time to live of every key")
    parser.add_argument(
        "--as", dest="as_", choices=("value", "hash"), default="value",
        help="store a row as one value (the default), or as a hash that other programs read by field",
    )  # fmt: skip
    parser.add_argument(
        "--codec", choices=("msgpack", "toolkit-msgpack", "json"), default="msgpack", help="how values are encoded"
    )
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N",
        help="connections that write in parallel (default: 1, which is best for one server); with more than one, "
        "the last of several rows with the same key need not win",
    )  # fmt: skip
    parser.add_argument(
        "--on-error", default="report", metavar="report|stop|FILE.ndjson",
        help="what to do with rows that cannot be written: print ten of them at the end (the default), stop at "
        "the first one, after the rows in flight are written, or write all of them to a file",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_format(parser)
    add_server(parser, cluster=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Load a file; return 0 only if every row was written."""
    prepare(options)
    report = BatchReport()
    interrupted = False
    broken: Exception | None = None
    started = time.perf_counter()
    with open_input(options) as source, connect(options.url, options.codec, cluster=options.cluster) as batch:
        place = "row" if source.values is None and source.csv is None else "line"
        failures = FailedRows(options.on_error, Path(options.file), place)
        progress = None if options.quiet else make_progress(True, source.rows)
        try:
            Load(options, source, batch, failures, Tally(progress, report)).run()
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            broken = error
        finally:
            if progress is not None:
                progress.close()
        try:
            failures.close()
        except CliError as error:
            # The disk is full, for example.
            broken = broken or error
    report.seconds = time.perf_counter() - started
    if broken is None or report.total:
        early = "interrupted: " if interrupted else "ended early: " if broken else ""
        _print_result(options, report, early, failures.place)
        if source.csv is not None and not early and not options.quiet:
            say(f"columns: {source.csv.columns}")
    if broken is not None:
        raise broken
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if report.failed or failures.stopped else 0


def _print_result(options: argparse.Namespace, report: BatchReport, early: str, place: str) -> None:
    if options.on_error == "stop" and report.failures:
        key, error = next(iter(report.failures.items()))
        say(f"stopped at {reason_of(key, error, place)}")
    if options.on_error == "report":
        for key, error in _in_order(report.failures)[:SHOWN_FAILURES]:
            say(reason_of(key, error, place))
        if report.failed > SHOWN_FAILURES:
            say(f"... and {report.failed - SHOWN_FAILURES:,} more")
    if not options.quiet or early:
        say(early + report.summary())


def _in_order(failures: dict[Any, Exception]) -> list[tuple[Any, Exception]]:
    """Return failed rows in the order of their numbers, if these are known. Workers find them in any order."""
    found = list(failures.items())
    return sorted(found, key=itemgetter(0)) if all(isinstance(key, int) for key in failures) else found


class Tally:
    """Adds up the reports and the progress of several batches in several threads."""

    def __init__(self, progress: Progress | None, report: BatchReport) -> None:
        self.report = report
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[int, int] = {}

    def listener(self) -> Callable[[int, int | None], None]:
        """Return the progress callback for one more batch."""
        number = len(self._done)
        self._done[number] = 0

        def update(done: int, _: int | None) -> None:
            with self._lock:
                self._done[number] = done
                if self._progress is not None:
                    self._progress.update(sum(self._done.values()))

        return update

    def add(self, report: BatchReport) -> None:
        """Add the report of a batch that has ended."""
        with self._lock:
            self.report.merge(report)


class Load:
    """One run of the command."""

    def __init__(
        self, options: argparse.Namespace, source: Input, batch: FastBatch, failures: FailedRows, tally: Tally
    ) -> None:
        self._options = options
        self._source = source
        self._batch = batch
        self._failures = failures
        self._tally = tally
        self._workers = affordable(batch.client, options.workers)
        if source.csv is not None:
            source.csv.on_failure = failures

    def run(self) -> None:
        """Write all rows, or those before the first failure if that stops the load."""
        try:
            self._run()
        except (OSError, ValueError):
            if self._source.broken is not None:
                raise self._source.broken from None
            raise
        finally:
            if self._source.csv is not None:
                self._tally.add(self._source.csv.report)

    def _run(self) -> None:
        if self._source.values is not None:
            self._load_values(self._source.values)
        elif self._workers == 1:
            table = stoppable(self._source.reader, self._failures)
            self._load_table(table, _as_it_is, self._tally.listener())
        else:
            self._share()

    def _load_table(self, table: Any, in_file: Named, progress: Any) -> None:
        """Write the rows of an Arrow reader, and count them even if an error ends that.

        Args:
            table: the reader.
            in_file: returns the number of a row in the whole file, and its error with that number.
            progress: the progress callback.
        """

        def named(row: int, error: Exception) -> tuple[int, Exception]:
            row, error = in_file(row, error)
            return (row, error) if self._source.csv is None else _by_line(self._source.csv, row, error)

        def failures(row: int, value: Any, error: Exception) -> None:
            row, error = named(row, error)
            self._failures(row, words_as_text(value), error)

        if self._options.row_command is not None:
            template = self._options.row_command.template
            send = partial(self._batch.batch_execute_table, table, template, progress=progress)
            self._counted(partial(send, on_error=failures), named)
            return
        write = partial(
            self._batch.batch_set_table,
            table,
            key=self._options.key,
            prefix=self._options.prefix,
            columns=self._options.columns,
            ex=self._options.ex,
            as_=self._options.as_,
            progress=progress,
            on_error=failures,
        )
        self._counted(write, named)

    def _counted(self, write: Callable[[], BatchReport], named: Named) -> None:
        """Call `write` and count its report, even if it raises, with failures as `named` returns them."""
        report = BatchReport()
        try:
            report = write()
        except BaseException as error:
            report = getattr(error, "report", report)
            raise
        finally:
            report.failures = dict(named(*failure) for failure in report.failures.items())
            self._tally.add(report)

    def _share(self) -> None:
        """Write with several threads that take batches from one reader."""
        shared = SharedBatches(stoppable(self._source.reader, self._failures))
        errors: list[BaseException] = []

        def work(listener: Any) -> None:
            part = WorkerBatches(shared)
            try:
                self._load_table(part.reader(), part.in_file, listener)
            except BaseException as error:
                shared.stop()
                errors.append(error)

        listeners = [self._tally.listener() for _ in range(self._workers)]
        run_threads([partial(work, listener) for listener in listeners], shared.stop)
        if errors:
            raise errors[0]

    def _load_values(self, values: Iterable[JsonValue]) -> None:
        """Write the values of a JSON file with batch_set()."""
        if self._options.row_command is not None:
            self._load_commands(values)
            return
        rows = JsonRows(values, self._options.key, self._options.prefix, self._options.columns, self._failures)
        write = partial(
            self._batch.batch_set,
            rows,
            ex=self._options.ex,
            workers=self._workers,
            progress=self._tally.listener(),
            on_error=self._failures,
        )
        try:
            if self._options.as_ == "hash":
                self._load_hashes(rows)
            else:
                self._counted(write, _as_it_is)
        finally:
            self._tally.add(rows.report)

    def _load_commands(self, values: Iterable[JsonValue]) -> None:
        """Send a command for each row of JSON."""
        if self._options.workers > 1:
            raise CliError("--workers with --command needs CSV or Parquet, found JSON: use one worker")
        commands = JsonCommands(values, self._options.row_command, self._failures)

        def failed(position: int, words: Any, error: Exception) -> None:
            line, error = commands.named(position, error)
            self._failures(line, words, error)

        progress = self._tally.listener()
        try:
            send = partial(self._batch.batch_execute, commands, progress=progress, on_error=failed)
            self._counted(send, commands.named)
        finally:
            self._tally.add(commands.report)

    def _load_hashes(self, rows: JsonRows) -> None:
        """Write rows of JSON as hashes: some rows at a time, as a table of text, because hashes hold only text."""
        import pyarrow as pa

        source = self._texts(rows)
        at_once = ROWS_BEYOND_FAILURE if self._failures.may_stop else HASHES_AT_ONCE
        while some := list(islice(source, at_once)):
            names = list(dict.fromkeys(name for _, row in some for name in row))
            fields = [pa.array([row.get(name) for _, row in some], pa.string()) for name in names]
            keys = [key for key, _ in some]
            # It is longer than every other name, so no field has it.
            key_column = "k" * (1 + max(map(len, names), default=0))
            table = pa.table([*fields, pa.array(keys, pa.string())], names=[*names, key_column])
            write = partial(
                self._batch.batch_set_table,
                table,
                key=key_column,
                columns=names,
                ex=self._options.ex,
                as_="hash",
                progress=self._tally.listener(),
                on_error=partial(self._hash_failed, keys),
            )
            self._counted(write, partial(_by_key, keys))

    def _hash_failed(self, keys: list[str], row: int, value: Any, error: Exception) -> None:
        key, error = _by_key(keys, row, error)
        self._failures(key, value, error)

    def _texts(self, rows: JsonRows) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Yield keys and fields of text. A row that Arrow cannot hold fails alone."""
        for key, row in rows:
            texts = {name: value_text(value) for name, value in row.items()}
            reason = None
            try:
                "".join((key, *texts, *filter(None, texts.values()))).encode()
            except UnicodeEncodeError:
                reason = "expected text, found a lone surrogate, which UTF-8 cannot encode: remove it"
            if "\0" in "".join(texts):
                reason = "found a field name with a zero byte, which Arrow cannot hold: rename the field"
            if reason is None:
                yield key, texts
            else:
                error = EncodeError(reason)
                rows.report.add_failure(key, error)
                self._failures(key, row, error)


def _as_it_is(key: Any, error: Exception) -> tuple[Any, Exception]:
    return key, error


def _by_line(rows: CsvRows, row: int, error: Exception) -> tuple[int, Exception]:
    """Return the line where a failed row of CSV begins, and its error with that line."""
    line = rows.line_of(row)
    if isinstance(error, EncodeError):
        error = EncodeError(error.reason.replace(f"row {row}: ", f"line {line}: ", 1))
    return line, error


def _by_key(keys: list[str], row: int, error: Exception) -> tuple[Any, Exception]:
    if isinstance(error, EncodeError):
        # Its number is that in a temporary table, which the user does not see.
        error = EncodeError(error.reason.removeprefix(f"row {row}: "), keys[row])
    return keys[row], error
