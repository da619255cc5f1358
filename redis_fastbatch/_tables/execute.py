"""Sends a command for each row of an Arrow table or DataFrame, from a template, without Python objects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_on_error
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.arrow.templates import TemplateWriter
from redis_fastbatch._core.resp.commands import CommandEncoder, CommandName
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._engine.execute import ExecuteFlight
from redis_fastbatch._engine.flight import FIRST_COMMAND_BYTES
from redis_fastbatch._engine.outcome import OnError, RecordedBatch, WriteOutcome
from redis_fastbatch._messages import format_key
from redis_fastbatch._redirections import cluster_hint
from redis_fastbatch._tables.client import TableClient
from redis_fastbatch._tables.write import refuse_objects, rows_of, split_template
from redis_fastbatch._transports.redispy import is_cluster, key_encoding
from redis_fastbatch.errors import BatchError, EncodeError
from redis_fastbatch.report import BatchReport, Progress, ProgressCallback, attach, make_progress
from redis_fastbatch.templates import Column, Row

CommandTemplate: TypeAlias = Sequence["str | bytes | int | float | Column | Row"]

_UNITS = {"iso": None, "seconds": 1, "milliseconds": 1000}


@dataclass(frozen=True)
class CommandTableOptions:
    """How the rows are sent. The attributes are arguments of FastBatch.batch_execute_table()."""

    chunk_size: int | None = None
    progress: bool | ProgressCallback | None = None
    on_error: OnError = "raise"
    repeatable: bool = False


class Template:
    """A command's template, taken apart.

    Args:
        command: the name and the arguments.
        encoder: encodes what is not a column.

    Attributes:
        name: the command's name.
        arguments: the arguments, as TemplateWriter takes them.
        used: the columns of all arguments but row().
        row: the argument row(); None if there is none.

    Raises:
        TypeError, ValueError: the template is wrong.
        EncodeError: the command is refused, or a part of it cannot be encoded.
    """

    def __init__(self, command: CommandTemplate, encoder: CommandEncoder) -> None:
        if isinstance(command, (str, bytes)) or not isinstance(command, Sequence) or not command:
            raise TypeError(
                'command must be a list of a name and arguments, such as ["INCR", col("id")], '
                f"got {type(command).__name__} {format_key(command):.100}"
            )
        name, *arguments = command
        literal = [each for each in arguments[:1] if isinstance(each, (str, bytes))]
        # Refuses commands by their names too.
        encoder.pack(name, *literal)
        self.name: CommandName = encoder.name(name)
        self.arguments: list[tuple[str, str, list[Any]]] = []
        self.used: list[str] = []
        self.row: Row | None = None
        for index, argument in enumerate(arguments, 1):
            self.arguments.append(self._argument(argument, index, encoder))
        if not self.used and self.row is None:
            raise ValueError("the command must have a column, or all rows would send the same")

    def _argument(self, argument: Any, index: int, encoder: CommandEncoder) -> tuple[str, str, list[Any]]:
        if isinstance(argument, Column):
            if argument.null == "skip_pair" and index == 1:
                raise ValueError('null="skip_pair" needs an argument before it, found the name of the command')
            return "parts", argument.null, [self._column(argument.name, _UNITS[argument.times])]
        if isinstance(argument, Row):
            if self.row is not None:
                raise ValueError("a command can have one row(), found two")
            self.row = argument
            return argument.codec, "fail", []
        if isinstance(argument, str) and ("{" in argument or "}" in argument):
            parts: list[Any] = []
            for text, column in split_template(argument, f"argument {index}"):
                if text:
                    parts.append(encoder.argument(text, index))
                if column is not None:
                    parts.append(self._column(column, None))
            return "parts", "fail", parts
        return "parts", "fail", [encoder.argument(argument, index)]

    def _column(self, name: str, unit: int | None) -> tuple[str, int | None]:
        if name not in self.used:
            self.used.append(name)
        return name, unit


class CommandPlan:
    """A table and the command for its rows. Nothing is sent yet.

    Args:
        batch: the client.
        rows: encodes the rows.
        options: how they are sent.
        progress: receives the number of settled rows.
    """

    def __init__(
        self, batch: TableClient, rows: TemplateWriter, options: CommandTableOptions, progress: Progress | None
    ) -> None:
        self._batch = batch
        self._rows: Any = rows
        self._options = options
        self._report = BatchReport(item="row")
        self._started = time.perf_counter()
        self._outcome = WriteOutcome(self._report, options.on_error, progress)

    def flight(self) -> Any:
        """Return a flight that sends the commands."""
        repeatable = self._options.repeatable
        if is_cluster(self._batch._client):
            return self._batch._cluster.command_rows_flight(self._rows, self._outcome, repeatable=repeatable)
        return ExecuteFlight(self._rows, self._outcome, repeatable=repeatable)

    def attach_report(self, error: BaseException) -> None:
        """Give the report to the error that ends the batch early."""
        self._report.seconds = time.perf_counter() - self._started
        attach(error, self._report)

    def outcome(self, flight: RecordedBatch) -> BatchReport:
        """Return the report of a flight that has ended. Raise the error of the table's stream, or BatchError."""
        if flight.source_error is not None:
            raise flight.source_error
        report = self._report
        report.seconds = time.perf_counter() - self._started
        if report.failed and self._options.on_error == "raise":
            first = "; the first" if report.failed > 1 else ""
            raise BatchError(
                f"the commands of {report.failed:,} of {report.total:,} rows failed{first}: "
                f"{report.first_failure()}{cluster_hint(report._first[1])}",
                report,
            )
        return report


def plan_commands(
    batch: TableClient, table: Any, command: CommandTemplate, options: CommandTableOptions
) -> CommandPlan:
    """Check a table and its command. Raise what batch_execute_table() raises before it sends anything."""
    encoding, errors = key_encoding(batch._client)
    template = Template(command, CommandEncoder(encoding, errors, RULES))
    size = checked_chunk_size(options.chunk_size)
    checked_on_error(options.on_error)
    check_hook("progress", options.progress, unless=bool)
    routed = is_cluster(batch._client)
    rule = template.name.rule
    if routed and (not template.arguments or (rule is not None and not rule.has_keys)):
        raise EncodeError(f"{template.name.words[0].decode()} has no key, which says to which node it goes")
    stream = ArrowStream(table)
    columns: list[str] = []
    if template.row is not None:
        named = template.row.columns
        others = [name for name in stream.field_names() if name not in template.used]
        columns = others if named is None else list(named)
    used = [name for name in template.used if name not in columns]
    refuse_objects(table, [*columns, *used], [])
    rows = TemplateWriter(
        stream,
        template.name,
        template.arguments,
        columns=columns,
        used=used,
        routed=routed,
        max_items=size,
        max_bytes=FIRST_COMMAND_BYTES,
        encoding=encoding,
        errors=errors,
    )
    return CommandPlan(batch, rows, options, make_progress(options.progress, rows_of(table)))
