"""Compares keys of two servers by type, value and expiry.

Dumps of equal values differ between versions of the server, so values are compared as clients read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.cli.common import plain
from redis_fastbatch.cli.copying import GONE, NO_EXPIRY, ttl_command
from redis_fastbatch.cli.dump_versions import FOOTER
from redis_fastbatch.client import FastBatch

SHOWN_DIFFERENCES = 10
TOLERANCE_MS = 2000
"""By how much PTTL may differ: the servers are asked one after the other."""


def _pairs(reply: Any) -> dict[Any, Any]:
    """Return a map, which is a list in RESP2."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def _scores(reply: list[Any]) -> list[tuple[Any, float]]:
    """Return members and scores, which RESP2 has in one list."""
    if reply and isinstance(reply[0], (list, tuple)):
        return [(member, float(score)) for member, score in reply]
    return [(member, float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]


def _groups(reply: list[Any]) -> list[Any]:
    return [[_pairs(group).get(name) for name in (b"name", b"pending", b"last-delivered-id")] for group in reply]


def _content(reply: Any) -> Any:
    return reply[:-FOOTER] if isinstance(reply, bytes) else reply


def _same(reply: Any) -> Any:
    return reply


Reader = tuple[tuple[str, ...], tuple[Any, ...], Callable[[Any], Any]]

_READERS: dict[str, list[Reader]] = {
    "string": [(("GET",), (), _same)],
    "hash": [(("HGETALL",), (), _pairs)],
    "list": [(("LRANGE",), (0, -1), _same)],
    "set": [(("SMEMBERS",), (), set)],
    "zset": [(("ZRANGE",), (0, -1, "WITHSCORES"), _scores)],
    "stream": [(("XRANGE",), ("-", "+"), _same), (("XINFO", "GROUPS"), (), _groups)],
}
_BY_DUMP: list[Reader] = [(("DUMP",), (), _content)]


class Comparison:
    """Compares keys of a source with those of a target.

    Args:
        source, target: the servers.
        ttl: "keep" or "drop": what was done with expiries.
    """

    def __init__(self, source: FastBatch, target: FastBatch, *, ttl: str) -> None:
        self.compared = 0
        self.gone = 0
        self.different = 0
        self.first_differences: list[str] = []
        self._source = source
        self._target = target
        self._keeps_ttl = ttl == "keep"
        commands = {ttl_command(source), ttl_command(target)}
        self._ttl = "PTTL" if "PTTL" in commands else "PEXPIRETIME"

    def compare(self, keys: list[bytes]) -> None:
        """Compare some keys."""
        theirs = self._states(self._source, keys)
        ours = self._states(self._target, keys)
        readers: list[tuple[bytes, Reader]] = []
        for key, (kind, ttl), (our_kind, our_ttl) in zip(keys, theirs, ours, strict=True):
            if kind == "none" or ttl == GONE:
                self.gone += 1
                continue
            self.compared += 1
            if kind != our_kind:
                found = "it is missing" if our_kind == "none" else f"expected a {kind}, found a {our_kind}"
                self._differs(key, found)
            elif not self._same_ttl(ttl, our_ttl):
                self._differs(key, f"expiry differs: {self._ttl} is {ttl} at the source, {our_ttl} at the target")
            else:
                readers += [(key, reader) for reader in _READERS.get(kind, _BY_DUMP)]
        both = zip(readers, self._read(self._source, readers), self._read(self._target, readers), strict=True)
        different: set[bytes] = set()
        for (key, reader), theirs_read, ours_read in both:
            if key not in different and not _equal(reader, theirs_read, ours_read):
                different.add(key)
                errors = [reply for reply in (theirs_read, ours_read) if isinstance(reply, Exception)]
                self._differs(key, plain(errors[0]) if errors else "values differ")

    def summary(self) -> str:
        """Return the counts in one line."""
        gone = f", {self.gone:,} gone meanwhile" if self.gone else ""
        return f"verified: {self.compared:,} keys compared, {self.different:,} differ{gone}"

    def _states(self, batch: FastBatch, keys: list[bytes]) -> list[tuple[str, Any]]:
        """Return type and expiry of each key."""
        commands = (command for key in keys for command in (("TYPE", key), (self._ttl, key)))
        replies = batch.batch_execute_iter(commands)
        return [(_text(next(replies)), next(replies)) for _ in keys]

    def _read(self, batch: FastBatch, readers: list[tuple[bytes, Reader]]) -> Iterator[Any]:
        commands = ((*name, key, *rest) for key, (name, rest, _) in readers)
        return batch.batch_execute_iter(commands, raise_on_error=False)

    def _same_ttl(self, theirs: int, ours: int) -> bool:
        if not self._keeps_ttl:
            return ours == NO_EXPIRY
        if NO_EXPIRY in (theirs, ours) or self._ttl == "PEXPIRETIME":
            return theirs == ours
        return abs(theirs - ours) <= TOLERANCE_MS

    def _differs(self, key: bytes, why: str) -> None:
        self.different += 1
        if len(self.first_differences) < SHOWN_DIFFERENCES:
            self.first_differences.append(f"key {format_key(key)}: {why}")


def _equal(reader: Reader, theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return False
    return bool(reader[2](theirs) == reader[2](ours))


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply
