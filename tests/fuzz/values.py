"""Makes Python values from bytes, for the fuzzers."""

from __future__ import annotations

import collections
import datetime
import struct
from collections.abc import Callable
from typing import Any

import msgpack

DEEPEST = 6
UTC = datetime.timezone.utc
TEXTS = (
    "",
    "a",
    "id",
    "name",
    "__type__",
    "__data__",
    "é",
    "語" * 9,
    "x" * 31,
    "x" * 32,
    "\ud800",
    '"\\\n\0',
    "𝄞",
)


class Text(str):
    """A subclass of str."""


class Whole(int):
    """A subclass of int."""


class Real(float):
    """A subclass of float."""


class Data(bytes):
    """A subclass of bytes."""


class Items(list):  # type: ignore[type-arg]
    """A subclass of list."""


Point = collections.namedtuple("Point", "x y")


class Values:
    """Makes values from `data`. After its end all bytes are 0, which makes None."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._depth = 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at].ljust(size, b"\0")

    def value(self) -> Any:
        """Return the next value."""
        return KINDS[self._byte() % len(KINDS)](self)

    def _items(self) -> list[Any]:
        if self._depth >= DEEPEST:
            return []
        self._depth += 1
        count = self._byte()
        items = [self.value() for _ in range(count % 6 if count < 250 else count - 235)]
        self._depth -= 1
        return items

    def text(self) -> str:
        """Return one of TEXTS, or a str of any characters."""
        size = self._byte()
        if size < len(TEXTS):
            return TEXTS[size]
        return self._bytes(size % 40).decode(("utf-8", "latin-1", "utf-16-le")[size % 3], "replace")

    def number(self) -> int:
        """Return an int of up to ten bytes."""
        return int.from_bytes(self._bytes(self._byte() % 11), "big", signed=True)

    def real(self) -> float:
        """Return a float with any bits."""
        return float(struct.unpack("<d", self._bytes(8))[0])

    def raw(self) -> bytes:
        """Return up to 69 bytes."""
        return self._bytes(self._byte() % 70)

    def pairs(self) -> dict[Any, Any]:
        """Return a dict whose keys are mostly str."""
        pairs = {}
        for item in self._items():
            kind = self._byte()
            key = self.text() if kind % 4 else (self.number(), None, True, self.real(), self.raw(), ())[kind % 6]
            pairs[key] = item
        return pairs

    def moment(self) -> datetime.datetime:
        """Return a datetime, with or without a time zone."""
        seconds = int.from_bytes(self._bytes(4), "little")
        made = datetime.datetime(1950, 1, 1) + datetime.timedelta(
            seconds=seconds, microseconds=self._byte() * 3906
        )
        return made.replace(tzinfo=UTC if self._byte() % 3 else None)


KINDS: list[Callable[[Values], Any]] = [
    lambda v: None,
    lambda v: True,
    lambda v: False,
    lambda v: v._byte(),
    lambda v: -v._byte(),
    Values.number,
    Values.real,
    Values.text,
    Values.text,
    Values.raw,
    lambda v: bytearray(v.raw()),
    lambda v: memoryview(v.raw()),
    Values.pairs,
    Values.pairs,
    Values._items,
    lambda v: tuple(v._items()),
    lambda v: msgpack.ExtType(v._byte() % 128, v.raw()),
    Values.moment,
    lambda v: Text(v.text()),
    lambda v: Whole(v.number()),
    lambda v: Real(v.real()),
    lambda v: Items(v._items()),
    lambda v: collections.OrderedDict(v.pairs()),
    lambda v: (Point(v.value(), 1), {1, 2}, object, Data(v.raw()), msgpack.Timestamp(v._byte(), v._byte()))[
        v._byte() % 5
    ],
]
