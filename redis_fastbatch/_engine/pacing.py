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

    __slots__ = ("_hold", "_most", "items")

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


class FlushTimer(Pace):
    """Says when the items of a slow source are sent although their chunk is not full.

    A source of ten items a second would otherwise keep its items for minutes, and the replies to those before them
    would not be read.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        super().__init__()
        self._since = time.monotonic()

    def restart(self) -> None:
        """Begin to wait for a chunk to be full."""
        self._since = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the items are to be sent."""
        return max(0.0, self._since + LINGER - time.monotonic())

    def fill(self, writer: BatchWriter, chunk: Chunk, budget: int | None = None) -> bool:
        """Put items into a chunk until it is full or old, and seal it then.

        It ends before that if the source has no item ready, or `budget` items were taken.

        Returns:
            Whether the chunk was sealed because it is old.
        """
        looked = time.monotonic()
        if not chunk.count:
            self._since = looked
        while True:
            writer.fill_some(chunk, self.items if budget is None else budget)
            if chunk.sealed:
                return False
            now = time.monotonic()
            if now - self._since >= LINGER and chunk.count:
                chunk.seal()
                return True
            if writer.dry or budget is not None:
                return False
            self.took(now - looked)
            looked = now


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
