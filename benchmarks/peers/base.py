"""What every contender can do, ours and the others alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

# Who stores the same bytes shares a database: each reads and overwrites values of its own format.
DATABASES = {"msgpack": 0, "toolkit": 1, "toolkit-msgpack": 2}
CHUNK = 1_000
# Ours with the default codec; with another one, the name begins so.
OURS = "redis_fastbatch"
DROP_IN = "redis_fastbatch.toolkit"
# For redis-toolkit and its drop-in, whose default would refuse batches of more than 100 MB.
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
        """Stores every item, without expiry."""
        raise NotImplementedError

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        """Stores every item, to expire in so many seconds."""
        raise NotImplementedError

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """Returns the values of those of the keys that exist, decoded."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends its connections."""


def chunks_of(items: Mapping[str, Any], size: int = CHUNK) -> Iterator[list[tuple[str, Any]]]:
    """Yields the items in lists of at most `size`."""
    pairs = iter(items.items())
    while chunk := list(islice(pairs, size)):
        yield chunk


def slices_of(keys: Sequence[str], size: int = CHUNK) -> Iterator[Sequence[str]]:
    """Yields the keys in slices of at most `size`."""
    return (keys[start : start + size] for start in range(0, len(keys), size))


def decoded(loads: Callable[[bytes], Any], keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Returns the values by key, without those that are missing: what code after an MGET looks like."""
    return {key: loads(value) for key, value in zip(keys, values, strict=True) if value is not None}
