"""How much to take at a time, learned as it goes: from a source of items, and from a server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk

LINGER = 0.05
"""Seconds for which a command waits to be full while its source is slow."""

MAX_BLOCK_SECONDS = 0.001
"""Seconds after which a batch lets the event loop have its turn."""

MOST_ITEMS = 128
"""Items taken from a source between two looks at the clock."""

FIRST_KEYS = 16
"""Keys the first command that reads asks for, while nothing is known of the values."""

REPLY_BYTES = 64 * 1024
"""The size of a reply that reading aims at when it chooses how many keys a command asks for."""

ROUND_BYTES = 4 * 1024 * 1024
"""The size of the values that are read ahead of somebody who iterates over them."""


class Pace:
    """How many items of one kind of work fit between two looks at the clock.

    Args:
        hold: seconds that they may take.
        first, most: how many at first, and at most.

    Attributes:
        items: so many.
    """

    def __init__(self, hold: float = LINGER, first: int = 1, most: int = MOST_ITEMS) -> None:
        self.items = first
        self._hold = hold
        self._most = most

    def took(self, seconds: float) -> None:
        """Learns from up to `items` items, which took so long."""
        if seconds > self._hold:
            self.items = max(1, int(self.items * self._hold / seconds))
        elif seconds < self._hold / 4:
            self.items = min(2 * self.items, self._most)


class Slices:
    """Items of an iterable, some at a time; fewer where it is slow.

    Args:
        items: the iterable.
        hold: seconds that a take may last.

    Attributes:
        error: what the iterable raised, which ended it; else None.
    """

    def __init__(self, items: Iterable[Any], hold: float = LINGER) -> None:
        self.error: BaseException | None = None
        self._items = iter(items)
        self._hold = hold
        self._pace = Pace(hold)

    def take(self, most: int) -> list[Any]:
        """The next items: `most`, or what comes within `hold` seconds, one at least. Empty at the end."""
        taken: list[Any] = []
        began = looked = time.monotonic()
        try:
            while self.error is None and len(taken) < most:
                before = len(taken)
                # One by one: what came before an error is kept.
                for item in islice(self._items, min(self._pace.items, most - before)):
                    taken.append(item)
                now = time.monotonic()
                if len(taken) == before or now - began > self._hold:
                    break
                self._pace.took(now - looked)
                looked = now
        except BaseException as error:
            self.error = error
        return taken

    def rounds(self, most: int) -> Iterator[list[Any]]:
        """Takes again and again. What the iterable raised is raised behind what it gave before."""
        while taken := self.take(most):
            yield taken
        if self.error is not None:
            raise self.error


class Linger:
    """Fills chunks, but sends a slow source's items on their way before a command is full.

    A producer of ten items a second would otherwise keep its items for minutes, and the replies to those it gave
    before would lie unread.

    Attributes:
        late: the chunk filled last was sealed for its age.
    """

    def __init__(self) -> None:
        self.late = False
        self._pace = Pace()

    def fill(self, writer: BatchWriter, chunk: Chunk) -> None:
        """Puts items into `chunk` until it is full, or old, or there are no more, and seals it."""
        self.late = False
        began = looked = time.monotonic()
        while True:
            writer.fill_some(chunk, self._pace.items)
            if chunk.sealed or writer.dry:
                return
            now = time.monotonic()
            self._pace.took(now - looked)
            looked = now
            if now - began > LINGER and chunk.count:
                self.late = True
                chunk.seal()
                return


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
