"""A batch of hashes under way: each row an HSET, and an EXPIRE where an expiry is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from redis.exceptions import InvalidResponse, RedisError

from redis_fastbatch._core.arrow.hashes import ExpireChunk, HashWriter
from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import WriteFlight, _Flying
from redis_fastbatch._engine.pacing import LINGER

_EXPIRE_COMMANDS = {b"EX": b"EXPIRE", b"PX": b"PEXPIRE", b"EXAT": b"EXPIREAT", b"PXAT": b"PEXPIREAT"}


def expire_command(options: SetOptions) -> Command | None:
    """The command that lets a hash expire; None where there is no expiry.

    Raises:
        ValueError: conditions, which HSET has not.
    """
    if options.conditional:
        raise ValueError("nx and xx are for values: HSET has no conditions")
    expiry = options.expiry()
    if len(expiry) < 2:
        # HSET leaves the time to live alone, which is what keepttl asks for.
        return None
    return Command(_EXPIRE_COMMANDS[expiry[0]], many=False, with_values=False, tail=(expiry[1],))


class _Expiring(_Flying):
    """EXPIREs under way: the rows of the HSETs before them, those that were refused too, are settled with them."""

    __slots__ = ("refused",)

    def __init__(self, chunk: ExpireChunk, position: int, refused: dict[int, Exception]) -> None:
        super().__init__(chunk, position)
        self.refused = refused

    def again(self) -> _Expiring:
        again = _Expiring(self.chunk, self.position, self.refused)  # type: ignore[arg-type]
        again.sent = True
        return again


class HashFlight(WriteFlight):
    """Rows as hashes.

    EXPIRE goes when the reply to HSET is there, and only for hashes that were written: a key that HSET refuses,
    such as a string, is somebody else's, and sent along EXPIRE would let it vanish.

    Args:
        writer: encodes the rows.
        expire: the command that lets a hash expire, or None.
        books: as for WriteFlight.
    """

    _most_fields = 1

    def __init__(self, writer: HashWriter, expire: Command | None, **books: Any) -> None:
        rows: Any = writer
        super().__init__(rows, writer.command, **books)
        self._rows = writer
        self._expire = expire
        self._slow = False

    @property
    def late(self) -> bool:
        # The sooner a reply is read, the shorter is a hash without its expiry.
        return self._expire is not None

    def next_chunk(self) -> Chunk | None:
        if self._slow and self._flying and self._rows.rows_left < self._rows.max_items:
            # Replies first: a hash is not to wait for its expiry until a slow source has given its next rows.
            return self._ready[0].chunk if self._ready and not self._full else None
        return super().next_chunk()

    def _fill(self, chunk: Chunk) -> None:
        began, batches = time.monotonic(), self._rows.batches
        super()._fill(chunk)
        if self._rows.batches != batches:
            self._slow = self.late and time.monotonic() - began > LINGER

    def _settle_each(self, flying: _Flying, others: Iterable[tuple[int, Any]]) -> None:
        chunk = flying.chunk
        expires = isinstance(chunk, ExpireChunk)
        rows = chunk.written if isinstance(chunk, ExpireChunk) else range(chunk.count)
        failed = dict(flying.refused) if isinstance(flying, _Expiring) else {}
        answered = 0
        for index, reply in others:
            answered += 1
            if isinstance(reply, Exception):
                failed[rows[index]] = reply
            elif not self._is_count(chunk, index, reply):
                raise InvalidResponse(f"{chunk.command.name.decode()} was answered with {reply!r:.80}")
        if answered != chunk.replies:
            raise InvalidResponse(f"{chunk.command.name.decode()} was answered with OK")
        if self._expire is None or expires or len(failed) == chunk.count:
            failures = [(chunk.keys[row], chunk.values[row], error) for row, error in sorted(failed.items())]
            self._books.enter(flying, chunk.count, written=chunk.count - len(failed), failed=failures)
        else:
            self._let_expire(flying, self._expire, failed)

    def _is_count(self, chunk: Chunk, index: int, reply: Any) -> bool:
        """Whether a reply is what EXPIRE answers, or HSET: the number of fields that are new."""
        if type(reply) is not int or reply < 0:
            return False
        if isinstance(chunk, ExpireChunk):
            # 0 where the key has gone meanwhile: it was written, and what followed is not ours.
            return reply <= 1
        if reply > self._most_fields:
            # A row is taken apart only where none before it is known to have had as many fields.
            self._most_fields = max(self._most_fields, len(chunk.values[index]))
        return reply <= self._most_fields

    def _let_expire(self, flying: _Flying, command: Command, refused: dict[int, Exception]) -> None:
        hashes: Any = flying.chunk
        again = _Expiring(ExpireChunk(command, hashes, refused), flying.position, refused)
        self._ready, flying.booked = deque((*self._ready, again)), hashes.count

    def _fail_all(self, flying: _Flying, error: Exception, own: dict[int, Any] | None = None) -> None:
        if isinstance(flying, _Expiring):
            error = RedisError(f"HSET was carried out; {flying.chunk.command.name.decode()}: {error}")
            own = flying.refused
        super()._fail_all(flying, error, own)

    def _recycle(self, chunk: Chunk) -> None:
        # The rows of HSETs that are followed by EXPIREs are asked for until these are settled.
        if isinstance(chunk, ExpireChunk):
            super()._recycle(chunk.hashes)
        elif self._expire is None:
            super()._recycle(chunk)
