"""Every exception this package raises of its own. What redis-py raises stays redis-py's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, ClusterCrossSlotError, MovedError

if TYPE_CHECKING:
    from redis_fastbatch.report import BatchReport

Key = Any

LONGEST_KEY_SHOWN = 100

CLUSTER_HINT = (
    "; this server is a node of a cluster: use a redis.RedisCluster client, or from_url(..., cluster=True)"
)


def format_key(key: Key) -> str:
    """Return a key as error messages show it. A long one is cut short."""
    if isinstance(key, (str, bytes, bytearray)) and len(key) > LONGEST_KEY_SHOWN:
        return f"{key[:LONGEST_KEY_SHOWN]!r}... (length {len(key)})"
    try:
        return repr(key)
    except Exception as error:
        # An int of thousands of digits, or a class of the user's.
        return f"<{type(key).__name__} whose repr() raises {type(error).__name__}>"


def not_a_pair(item: Any) -> str:
    """Return the message for an item of a batch that is not a pair of key and value."""
    kind = type(item).__name__
    if isinstance(item, (tuple, list)):
        kind = f"{kind} of {len(item)}"
    hint = ""
    if isinstance(item, Mapping):
        hint = '; for rows that are dicts, pass pairs such as ((row["id"], row) for row in rows)'
    return f"expected (key, value) as a tuple or list of two, got {kind} {format_key(item):.100}{hint}"


def error_text(error: BaseException) -> str:
    """Return what an error says, with the words that redis-py removes from a redirection."""
    if not isinstance(error, AskError):
        return str(error)
    # MovedError is a kind of AskError.
    word = "MOVED" if isinstance(error, MovedError) else "ASK"
    return f"{word} {error}"


def cluster_hint(error: BaseException) -> str:
    """Return advice for who uses a node of a cluster as a single server; empty for other errors."""
    return CLUSTER_HINT if isinstance(error, (AskError, ClusterCrossSlotError)) else ""


def format_error(error: BaseException) -> str:
    """Return the type of an exception and what it says. Without its type a KeyError would be only a key."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class FastBatchError(Exception):
    """Base of all errors of redis_fastbatch."""


class EncodeError(FastBatchError):
    """A key or value cannot be written.

    Attributes:
        key: the item's key, None where a value was encoded on its own.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, key: Key = None) -> None:
        super().__init__(reason, key)
        self.reason = reason
        self.key = key

    def __str__(self) -> str:
        return self.reason if self.key is None else f"key {format_key(self.key)}: {self.reason}"


class DecodeError(FastBatchError):
    """Bytes read from the server are not what the codec reads.

    Attributes:
        reason: what was expected and what was found.
        offset: where in the value, in bytes.
        key: the item's key, None where bytes were decoded on their own.
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
    """Some items of a batch were not written; `.report` says which, and what was.

    Attributes:
        report: the BatchReport of the whole batch.
    """

    def __init__(self, message: str, report: BatchReport) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])
