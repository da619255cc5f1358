"""The option --command of `redis-fastbatch load`: a command for each row."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from redis_fastbatch._tables.write import split_template
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.templates import Column, col


class RowCommand:
    """A command for each row.

    Attributes:
        template: the command, as batch_execute_table() takes it.
        words: its words, each as pairs of text and the column after it.
        columns: the columns that it uses.
    """

    def __init__(
        self, template: list[str | Column], words: list[list[tuple[str, str | None]]], columns: list[str]
    ) -> None:
        self.template = template
        self.words = words
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
    return RowCommand(template, parts, columns)


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
