"""The exceptions of this package. redis-py's exceptions are passed on as they are.

FastBatchError
  + EncodeError     a key or value cannot be written
  + DecodeError     bytes from the server cannot be decoded
  + BatchError      some items of a batch were not written
  + RedisToolkitError (redis_fastbatch.toolkit), with its subclasses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_fastbatch.report import BatchReport

Key = Any

LONGEST_KEY_SHOWN = 100

MOST_WORDS_SHOWN = 20


def format_key(key: Key) -> str:
    """Return a key as error messages show it. A long one is cut short."""
    if isinstance(key, (str, bytes, bytearray)) and len(key) > LONGEST_KEY_SHOWN:
        return f"{key[:LONGEST_KEY_SHOWN]!r}... (length {len(key)})"
    try:
        return repr(key)
    except Exception as error:
        # repr() fails for an int of thousands of digits, and may fail for a user's class.
        return f"<{type(key).__name__} whose repr() raises {type(error).__name__}>"


def format_command(command: Any) -> str:
    """Return a command, a tuple or list of its name and arguments, as error messages show it: cut short."""
    if not isinstance(command, (tuple, list)):
        return format_key(command)[:LONGEST_KEY_SHOWN]
    words = [
        word[:LONGEST_KEY_SHOWN] if isinstance(word, str) and word.isprintable() else format_key(word)
        for word in command[:MOST_WORDS_SHOWN]
    ]
    text = " ".join(words)
    if len(command) <= MOST_WORDS_SHOWN and len(text) <= LONGEST_KEY_SHOWN:
        return text
    return f"{text[:LONGEST_KEY_SHOWN]}..."


def not_a_pair(item: Any) -> str:
    """Return the message for an item of a batch that is not a pair of key and value."""
    kind = type(item).__name__
    if isinstance(item, (tuple, list)):
        kind = f"{kind} of {len(item)}"
    hint = ""
    if isinstance(item, Mapping):
        hint = '; for rows that are dicts, pass pairs such as ((row["id"], row) for row in rows)'
    return f"expected (key, value) as a tuple or list of two, got {kind} {format_key(item):.100}{hint}"


def format_error(error: BaseException) -> str:
    """Return the type of an exception and what it says. Without its type a KeyError would be only a key."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class FastBatchError(Exception):
    """Base of all errors of redis_fastbatch."""


class EncodeError(FastBatchError):
    """A key or value cannot be written.

    Attributes:
        key: the item's key; None if a value was encoded alone.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, key: Key = None) -> None:
        super().__init__(reason, key)
        self.reason = reason
        self.key = key

    def __str__(self) -> str:
        return self.reason if self.key is None else f"key {format_key(self.key)}: {self.reason}"


class DecodeError(FastBatchError):
    """The codec cannot decode bytes that were read from the server.

    Attributes:
        reason: what was expected and what was found.
        offset: the position in the value, in bytes.
        key: the item's key; None if bytes were decoded alone.
    """

    def __init__(self, reason: str, offset: int = 0, key: Key = None) -> None:
        super().__init__(reason, offset, key)
        self.reason = reason
        self.offset = offset
        self.key = key

    def __str__(self) -> str:
        place = f"at byte {self.offset}: {self.reason}"
        return place if self.key is None else f"key {format_key(self.key)}, {place}"


class BatchError(FastBatchError):
    """Some items of a batch were not written. The `report` names them.

    Attributes:
        report: the BatchReport of the whole batch.
    """

    def __init__(self, message: str, report: BatchReport) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])
