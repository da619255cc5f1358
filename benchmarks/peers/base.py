"""The interface of every contender, ours included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

# Contenders with the same format share a database, so that each reads and overwrites values of its format.
# The peers for JSON are never measured together with others, so they can use the database of the bare socket.
DATABASES = {"msgpack": 0, "toolkit": 1, "toolkit-msgpack": 2, "json": 0}
CHUNK = 1_000
# Ours with the default codec. With another codec the name begins with it.
OURS = "redis_fastbatch"
DROP_IN = "redis_fastbatch.toolkit"
# For redis-toolkit and its drop-in, which by default refuse batches of more than 100 MB.
LARGEST_VALUE = 512 * 1024 * 1024


class Peer:
    """A way to move a batch of Python values to a server and back.

    Attributes:
        name: what tables call it; unique.
        operations: which of `set`, `set_ex` and `get` it has on this server.
        wire: the format of the values it stores, a key of DATABASES.
    """

    name: str
    operations: frozenset[str] = frozenset({"set", "set_ex", "get"})
    wire: str = "msgpack"

    def set(self, items: Mapping[str, Any]) -> None:
        """Store every item, without expiry."""
        raise NotImplementedError

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        """Store every item with an expiry in `seconds`."""
        raise NotImplementedError

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the decoded values of the keys that exist."""
        raise NotImplementedError

    def close(self) -> None:
        """End its connections."""


def chunks_of(items: Mapping[str, Any], size: int = CHUNK) -> Iterator[list[tuple[str, Any]]]:
    """Yield the items in lists of at most `size`."""
    pairs = iter(items.items())
    while chunk := list(islice(pairs, size)):
        yield chunk


def slices_of(keys: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """Yield the keys in slices of at most `size`."""
    return (keys[start : start + size] for start in range(0, len(keys), size))


def decoded(loads: Callable[[bytes], Any], keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return the values by key without the missing ones, as code after an MGET does."""
    return {key: loads(value) for key, value in zip(keys, values, strict=True) if value is not None}
