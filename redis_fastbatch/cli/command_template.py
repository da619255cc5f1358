"""The option --command of `redis-fastbatch load`: a command for each row."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from redis_fastbatch._tables.write import split_key, split_template
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.templates import Column, Row, col, row


class RowCommand:
    """A command for each row.

    Attributes:
        template: the command, as batch_execute_table() takes it.
        columns: the columns that it uses.
    """

    def __init__(self, template: list[str | Column], columns: list[str]) -> None:
        self.template = template
        self.columns = columns


def row_command(text: str) -> RowCommand:
    """Return the command that the option describes, such as 'ZADD board:{region} {score} {user}'.

    Raises:
        argparse.ArgumentTypeError: the words of the text are no template of a command.
    """
    try:
        words = shlex.split(text)
        parts = [split_template(word, "the word") for word in words]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    columns = list(dict.fromkeys(name for word in parts for _, name in word if name is not None))
    if not words or any(name is not None for _, name in parts[0]):
        raise argparse.ArgumentTypeError("the first word must be the name of a command")
    if not columns:
        raise argparse.ArgumentTypeError("a word must name a column in braces, or all rows would send the same")
    template: list[str | Column] = []
    for word, split in zip(words, parts, strict=True):
        alone = len(split) == 1 and split[0][0] == "" and split[0][1]
        template.append(col(alone) if isinstance(alone, str) else word)
    return RowCommand(template, columns)


def json_command(key: str, prefix: str, columns: list[str], expiry: int | None) -> list[str | Column | Row]:
    """Return the SET for each row, whose value has the columns as JSON. `expiry` is in seconds."""
    fields = split_key(key)
    name: str | Column
    if len(fields) == 1 and not fields[0][0] and not prefix:
        name = col(str(fields[0][1]))
    else:
        # A column's name that cannot be between braces is refused there.
        name = _escaped(prefix) + "".join(
            _escaped(text) + ("" if column is None else f"{{{column}}}") for text, column in fields
        )
    return ["SET", name, row("json", columns), *([] if expiry is None else ["EX", str(expiry)])]


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def prepare(options: argparse.Namespace) -> None:
    """Let the columns of --command be read as text, as those of a key are.

    Raises:
        CliError: another option has no meaning for a command.
    """
    command: Any = options.row_command
    if command is None:
        return
    for name, given in (
        ("--prefix", options.prefix),
        ("--columns", options.columns),
        ("--ex", options.ex),
        ("--as hash", options.as_ == "hash"),
    ):
        if given:
            raise CliError(f"{name} has no meaning with --command: put it into the command")
    options.key = "".join(f"{{{name}}}" for name in command.columns)
    options.columns = command.columns
    options.as_ = "hash"


def words_as_text(words: Any) -> Any:
    """Return the words of a failed row's command as text, for a report."""
    if not isinstance(words, list):
        return words
    return [word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else word for word in words]
