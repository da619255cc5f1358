"""A batch of hashes in flight: an HSET for each item, and an EXPIRE where an expiry is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

from redis.exceptions import InvalidResponse, RedisError

from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._core.resp.hashes import HSET, ExpireChunk, HashCommand, counts
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import InFlightChunk
from redis_fastbatch._engine.outcome import Failure, WriteOutcome
from redis_fastbatch._engine.pacing import FLUSH_SECONDS
from redis_fastbatch._engine.write import WriteFlight

_EXPIRE_COMMANDS = {b"EX": b"EXPIRE", b"PX": b"PEXPIRE", b"EXAT": b"EXPIREAT", b"PXAT": b"PEXPIREAT"}


def expire_command(options: SetOptions) -> Command | None:
    """Return the command that lets a hash expire; None where there is no expiry.

    Raises:
        ValueError: a condition is given. HSET has none.
    """
    if options.conditional:
        raise ValueError("nx and xx are for values: HSET has no conditions")
    each = options.item_expiry
    if each is not None:
        return Command(_EXPIRE_COMMANDS[each.unit], many=False)
    expiry = options.expiry
    if len(expiry) < 2:
        # HSET leaves the time to live alone, which is what keepttl asks for.
        return None
    return Command(_EXPIRE_COMMANDS[expiry[0]], many=False, with_values=False, tail=(expiry[1],))


def hset_command(options: SetOptions) -> Command:
    """Return HSET. Where hashes have expiries of their own, it knows them."""
    return HSET if options.item_expiry is None else HashCommand(b"HSET", options.item_expiry)


def without_expiry(error: Exception, chunk: Chunk) -> Exception:
    """Return the error of hashes that are not settled. It says if only their expiry is not."""
    if isinstance(chunk, ExpireChunk):
        return RedisError(f"HSET was carried out; {chunk.expire.name.decode()}: {error}")
    return error


class HashSource(Protocol):
    """What encodes hashes: a MappingWriter, or a HashWriter of a table's rows.

    Attributes:
        command: HSET.
        max_items: the most items of a chunk.
        batches: grows when items are taken from a source that may wait.
        rows_left: how many items are there without waiting for the source.
    """

    command: Command
    max_items: int
    batches: int
    rows_left: int


class HashFlight(WriteFlight):
    """A batch of hashes in flight.

    EXPIRE follows when the reply to HSET is there, and only for hashes that were written: a key that HSET refuses,
    such as a string, holds someone else's value, and an EXPIRE sent at once would let it vanish.

    Args:
        writer: encodes the hashes.
        expire: the command that lets a hash expire, or None.
        outcome: as for WriteFlight.
    """

    def __init__(self, writer: HashSource, expire: Command | None, outcome: WriteOutcome) -> None:
        items: Any = writer
        super().__init__(items, writer.command, outcome)
        self._source = writer
        self._expire = expire
        self._slow = False

    @property
    def _takes_items(self) -> bool:
        if self._slow and self._in_flight and self._source.rows_left < self._source.max_items:
            # Replies first: no hash waits for its expiry until a slow source has given its next items.
            return False
        return super()._takes_items

    def _fill(self, chunk: Chunk, budget: int | None) -> None:
        began, batches = time.monotonic(), self._source.batches
        super()._fill(chunk, budget)
        if self._expire is not None:
            # The sooner a reply is read, the shorter a hash is without its expiry.
            self._poll_after_send = True
            if self._source.batches != batches:
                # A source that was slow once may be again, such as one that reads pages.
                self._slow |= time.monotonic() - began > FLUSH_SECONDS

    def _read(self, reader: ReplyReader, oldest: InFlightChunk, wanted: int) -> int:
        chunk: Any = oldest.chunk
        return counts(reader, wanted, oldest.done, oldest.non_ok_replies, chunk.most_fields)

    def _settle_each(self, settled: InFlightChunk, non_ok_replies: Iterable[tuple[int, Any]]) -> None:
        chunk = settled.chunk
        failed: dict[int, Exception] = {}
        for index, reply in non_ok_replies:
            if not isinstance(reply, Exception):
                raise InvalidResponse(f"{chunk.command.name.decode()} was answered with {reply!r:.80}")
            failed[index] = reply
        written = chunk.count - len(failed)
        failures: list[Failure] = []
        if failed:
            keys, values = chunk.keys, chunk.values
            failures = [(keys[i], values[i], error) for i, error in failed.items()]
        if self._expire is None or isinstance(chunk, ExpireChunk) or not written:
            self._record(settled, written, failed=failures)
        else:
            self._record(settled, failed=failures)
            positions = [i for i in range(chunk.count) if i not in failed]
            expiring = ExpireChunk(self._expire, chunk, positions)
            self._ready.append(InFlightChunk(expiring, settled.position))

    def _fail_all(
        self, refused: InFlightChunk, error: Exception, own_errors: dict[int, Exception] | None = None
    ) -> None:
        super()._fail_all(refused, without_expiry(error, refused.chunk), own_errors)

    def _recycle(self, chunk: Chunk) -> None:
        # The items of HSETs that are followed by EXPIREs are needed until these are settled.
        if isinstance(chunk, ExpireChunk):
            super()._recycle(chunk.hashes)
        elif self._expire is None:
            super()._recycle(chunk)
