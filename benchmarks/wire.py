"""Batches encoded as RESP beforehand: the commands, and the replies that they must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serializers import MSGPACK, Serializer

Pair = tuple[bytes, bytes]


@dataclass(frozen=True)
class Command:
    """A command and its whole reply."""

    data: bytes
    reply: bytes


def encoded(items: Mapping[str, Any], serializer: Serializer = MSGPACK) -> list[Pair]:
    """Return keys and values as bytes."""
    return [(key.encode(), serializer.dumps(value)) for key, value in items.items()]


def mset(pairs: Sequence[Pair]) -> Command:
    """Return one MSET of all pairs."""
    return Command(_command([b"MSET", *_flat(pairs)]), b"+OK\r\n")


def msetex(pairs: Sequence[Pair], seconds: int) -> Command:
    """Return one MSETEX of all pairs."""
    words = [b"MSETEX", b"%d" % len(pairs), *_flat(pairs), b"EX", b"%d" % seconds]
    return Command(_command(words), b":1\r\n")


def set_ex(pairs: Sequence[Pair], seconds: int) -> Command:
    """Return a SET with EX for every pair."""
    expiry = b"%d" % seconds
    commands = (_command([b"SET", key, value, b"EX", expiry]) for key, value in pairs)
    return Command(b"".join(commands), b"+OK\r\n" * len(pairs))


def mget(pairs: Sequence[Pair]) -> Command:
    """Return one MGET of all keys, with its reply when the pairs are stored."""
    values = b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for _, value in pairs)
    return Command(_command([b"MGET", *(key for key, _ in pairs)]), b"*%d\r\n" % len(pairs) + values)


def by_bytes(pairs: Sequence[Pair], limit: int) -> Iterator[Sequence[Pair]]:
    """Yield runs of pairs; each run takes about `limit` bytes of a command."""
    start = size = 0
    for index, (key, value) in enumerate(pairs):
        size += len(key) + len(value) + FRAMING
        if size >= limit:
            yield pairs[start : index + 1]
            start, size = index + 1, 0
    if start < len(pairs):
        yield pairs[start:]


# Bytes of the length lines and line ends of a key and a value.
FRAMING = len(b"$11\r\n\r\n$100\r\n\r\n")


def _flat(pairs: Sequence[Pair]) -> Iterator[bytes]:
    return (word for pair in pairs for word in pair)


def _command(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
