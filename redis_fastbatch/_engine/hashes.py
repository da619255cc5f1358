"""A batch of hashes in flight: an HSET for each row, and an EXPIRE where an expiry is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis.exceptions import InvalidResponse, RedisError

from redis_fastbatch._core.arrow.hashes import ExpireChunk, HashWriter
from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import ChunkState, InFlightChunk
from redis_fastbatch._engine.outcome import WriteOutcome
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
    expiry = options.expiry
    if len(expiry) < 2:
        # HSET leaves the time to live alone, which is what keepttl asks for.
        return None
    return Command(_EXPIRE_COMMANDS[expiry[0]], many=False, with_values=False, tail=(expiry[1],))


class _ExpiringChunk(InFlightChunk):
    """EXPIREs in flight. All rows of the HSETs before them are settled with them.

    Attributes:
        refused: the rows whose HSET was refused, each with its error.
    """

    __slots__ = ("refused",)

    def __init__(self, chunk: ExpireChunk, position: int, refused: dict[int, Exception]) -> None:
        super().__init__(chunk, position)
        self.refused = refused

    def again(self) -> _ExpiringChunk:
        again = _ExpiringChunk(self.chunk, self.position, self.refused)  # type: ignore[arg-type]
        again.state = ChunkState.SENT_BEFORE
        return again


class HashFlight(WriteFlight):
    """A batch of rows in flight, each stored as a hash.

    EXPIRE follows when the reply to HSET is there, and only for hashes that were written: a key that HSET refuses,
    such as a string, holds someone else's value, and an EXPIRE sent at once would let it vanish.

    Args:
        writer: encodes the rows.
        expire: the command that lets a hash expire, or None.
        outcome: as for WriteFlight.
    """

    _most_fields = 1

    def __init__(self, writer: HashWriter, expire: Command | None, outcome: WriteOutcome) -> None:
        rows: Any = writer
        super().__init__(rows, writer.command, outcome)
        self._rows = writer
        self._expire = expire
        self._slow = False

    @property
    def _takes_items(self) -> bool:
        if self._slow and self._in_flight and self._rows.rows_left < self._rows.max_items:
            # Replies first: no hash waits for its expiry until a slow source has given its next rows.
            return False
        return super()._takes_items

    def _fill(self, chunk: Chunk, budget: int | None) -> None:
        began, batches = time.monotonic(), self._rows.batches
        super()._fill(chunk, budget)
        if self._expire is not None:
            # The sooner a reply is read, the shorter a hash is without its expiry.
            self._poll_after_send = True
            if self._rows.batches != batches:
                self._slow = time.monotonic() - began > FLUSH_SECONDS

    def _settle_each(self, settled: InFlightChunk, non_ok_replies: Iterable[tuple[int, Any]]) -> None:
        chunk = settled.chunk
        expires = isinstance(chunk, ExpireChunk)
        rows = chunk.written if isinstance(chunk, ExpireChunk) else range(chunk.count)
        failed = dict(settled.refused) if isinstance(settled, _ExpiringChunk) else {}
        answered = 0
        for index, reply in non_ok_replies:
            answered += 1
            if isinstance(reply, Exception):
                failed[rows[index]] = reply
            elif not self._is_count(chunk, index, reply):
                raise InvalidResponse(f"{chunk.command.name.decode()} was answered with {reply!r:.80}")
        if answered != chunk.replies:
            raise InvalidResponse(f"{chunk.command.name.decode()} was answered with OK")
        if self._expire is None or expires or len(failed) == chunk.count:
            failures = [(chunk.keys[row], chunk.values[row], error) for row, error in sorted(failed.items())]
            self._record(settled, chunk.count - len(failed), failed=failures)
        else:
            self._let_expire(settled, self._expire, failed)

    def _is_count(self, chunk: Chunk, index: int, reply: Any) -> bool:
        """Return whether a reply is one of EXPIRE's, or one of HSET's: the number of new fields."""
        if type(reply) is not int or reply < 0:
            return False
        if isinstance(chunk, ExpireChunk):
            # 0 where the key is gone: it was written, and what came after is not ours.
            return reply <= 1
        if reply > self._most_fields:
            # Decoding a row takes time: only where no row before it is known to have had as many fields.
            self._most_fields = max(self._most_fields, len(chunk.values[index]))
        return reply <= self._most_fields

    def _let_expire(self, written: InFlightChunk, command: Command, refused: dict[int, Exception]) -> None:
        """Send EXPIREs for the hashes that were written."""
        hashes: Any = written.chunk
        written.state = ChunkState.SETTLED
        self._ready.append(_ExpiringChunk(ExpireChunk(command, hashes, refused), written.position, refused))

    def _fail_all(
        self, refused: InFlightChunk, error: Exception, own_errors: dict[int, Exception] | None = None
    ) -> None:
        if isinstance(refused, _ExpiringChunk):
            error = RedisError(f"HSET was carried out; {refused.chunk.command.name.decode()}: {error}")
            own_errors = refused.refused
        super()._fail_all(refused, error, own_errors)

    def _recycle(self, chunk: Chunk) -> None:
        # The rows of HSETs that are followed by EXPIREs are needed until these are settled.
        if isinstance(chunk, ExpireChunk):
            super()._recycle(chunk.hashes)
        elif self._expire is None:
            super()._recycle(chunk)
