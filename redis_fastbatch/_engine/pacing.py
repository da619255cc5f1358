"""How much to take at a time from a source of items and from a server, and when to send what is there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk

FLUSH_SECONDS = 0.05
"""Seconds for which a command waits to be full while its source is slow."""

MAX_BLOCK_SECONDS = 0.001
"""Seconds after which a batch gives the event loop a turn."""

MOST_ITEMS = 128
"""The most items that are taken from a source between two looks at the clock."""

FIRST_KEYS = 1000
"""How many keys a command that reads has at the most, while the size of the values is unknown."""

REPLY_BYTES = 64 * 1024
"""The size of a reply that reading aims at when it chooses how many keys a command has."""

SHORT_REPLY_BYTES = 96 * 1024
"""The size of a reply that is likely to arrive whole, and can be read at once."""

ROUND_BYTES = 4 * 1024 * 1024
"""The size of the values that batch_get_iter() reads at a time."""


class Pace:
    """How many items of one kind of work to do between two looks at the clock.

    Args:
        hold: seconds that they may take.
        first: how many at first.
        most: how many at most.

    Attributes:
        items: how many now.
    """

    __slots__ = ("_hold", "_most", "items")

    def __init__(self, hold: float = FLUSH_SECONDS, first: int = 1, most: int = MOST_ITEMS) -> None:
        self.items = first
        self._hold = hold
        self._most = most

    def took(self, seconds: float) -> None:
        """Learn that up to `items` items took `seconds`."""
        if seconds > self._hold:
            self.items = max(1, int(self.items * self._hold / seconds))
        elif seconds < self._hold / 4:
            self.items = min(2 * self.items, self._most)


class Slices:
    """The items of an iterable, many at a time; fewer if it is slow.

    Args:
        items: the iterable.
        hold: seconds that take() may last.

    Attributes:
        error: what the iterable raised, which ended it; None so far.
    """

    def __init__(self, items: Iterable[Any], hold: float = FLUSH_SECONDS) -> None:
        self.error: BaseException | None = None
        self._items = iter(items)
        self._hold = hold
        self._pace = Pace(hold)

    def take(self, most: int) -> list[Any]:
        """Return the next items: `most`, or as many as come within `hold` seconds, at least one. [] at the end."""
        taken: list[Any] = []
        began = looked = time.monotonic()
        try:
            while self.error is None and len(taken) < most:
                before = len(taken)
                # One by one: the items before an error are kept.
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
        """Yield lists of items until the end. Then raise what the iterable raised."""
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
        return max(0.0, self._since + FLUSH_SECONDS - time.monotonic())

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
            if now - self._since >= FLUSH_SECONDS and chunk.count:
                chunk.seal()
                return True
            if writer.source_pending or budget is not None:
                return False
            self.took(now - looked)
            looked = now


class ValueSizes:
    """What is known about the size of the values that are being read.

    The guess rises at once and falls slowly. To ask for too many large values fills the server's memory and delays
    its other clients. To ask for too few small ones costs only a little time.

    Args:
        guess: bytes that a value takes, if that is known before.
    """

    def __init__(self, guess: float | None = None) -> None:
        self._guess = guess

    @property
    def known(self) -> bool:
        """Whether any value has been seen."""
        return self._guess is not None

    def fit(self, keys: int, size: int) -> bool:
        """Return whether the values of `keys` keys are known to take at most `size` bytes."""
        return self._guess is not None and keys * (self._guess + 1) <= size

    def saw(self, values: int, size: int) -> None:
        """Learn from a number of values that took `size` bytes together."""
        if values:
            average = size / values
            before = average if self._guess is None else self._guess
            self._guess = max(average, (3 * before + average) / 4)

    def keys_for(self, size: int, first: int) -> int:
        """Return how many keys have values of about `size` bytes; `first` while nothing is known."""
        return first if self._guess is None else int(size / (self._guess + 1)) + 1
