"""How much to take at a time, learned as it goes: from a source of items, and from a server."""

from __future__ import annotations

import time

from redis_fastbatch._core.resp import BatchWriter, Chunk

LINGER = 0.05
"""Seconds for which a command waits to be full while its source is slow."""

MOST_ITEMS = 128
"""Items taken from a source between two looks at the clock."""

FIRST_KEYS = 16
"""Keys the first command that reads asks for, while nothing is known of the values."""

REPLY_BYTES = 64 * 1024
"""The size of a reply that reading aims at when it chooses how many keys a command asks for."""

ROUND_BYTES = 4 * 1024 * 1024
"""The size of the values that are read ahead of somebody who iterates over them."""


class Linger:
    """Fills chunks, but sends a slow source's items on their way before a command is full.

    A producer of ten items a second would otherwise keep its items for minutes, and the replies to those it gave
    before would lie unread.

    Attributes:
        late: the chunk filled last was sealed for its age.
    """

    def __init__(self) -> None:
        self.late = False
        self._items = 1

    def fill(self, writer: BatchWriter, chunk: Chunk) -> None:
        """Puts items into `chunk` until it is full, or old, or there are no more, and seals it."""
        self.late = False
        began = looked = time.monotonic()
        while True:
            writer.fill_some(chunk, self._items)
            if chunk.sealed or writer.dry:
                return
            now = time.monotonic()
            self._learn(now - looked)
            looked = now
            if now - began > LINGER and chunk.count:
                self.late = True
                chunk.seal()
                return

    def _learn(self, seconds: float) -> None:
        if seconds > LINGER:
            self._items = max(1, int(self._items * LINGER / seconds))
        elif seconds < LINGER / 4:
            self._items = min(2 * self._items, MOST_ITEMS)


class ValueSizes:
    """What is known of the size of the values that are being read.

    It rises at once and falls slowly: to ask for too many large values fills the server's memory and holds up
    its other clients, to ask for too few small ones costs a little time.

    Args:
        guess: bytes a value takes, where that is known beforehand.
    """

    def __init__(self, guess: float | None = None) -> None:
        self._guess = guess

    @property
    def known(self) -> bool:
        """Whether any value has been seen."""
        return self._guess is not None

    def saw(self, values: int, size: int) -> None:
        """Learns from so many values that took `size` bytes together."""
        if values:
            average = size / values
            before = average if self._guess is None else self._guess
            self._guess = max(average, (3 * before + average) / 4)

    def keys_for(self, size: int, first: int) -> int:
        """How many keys have values of about `size` bytes; `first` while nothing is known."""
        return first if self._guess is None else int(size / (self._guess + 1)) + 1
