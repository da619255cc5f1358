"""Guided fuzzing: inputs are mutated, and those that reach new code are kept and mutated further."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LONGEST = 2048
KEPT = 4000

Check = Callable[[bytes], object]


class Coverage:
    """How much code has been reached, where the extensions are instrumented; else always the same."""

    def __init__(self) -> None:
        try:
            self._count: Any = ctypes.c_uint64.in_dll(ctypes.CDLL(None), "fuzz_reached_count")
        except ValueError:
            self._count = ctypes.c_uint64(0)

    @property
    def places(self) -> int:
        """Places reached so far."""
        return int(self._count.value)


class Witness:
    """Keeps the input at hand in a file, from which it can be had when the process has died of it."""

    def __init__(self, path: Path) -> None:
        # A file of its own, which then takes the old one's place: that may be in another process's memory, and
        # would be cut short there.
        own = path.with_name(f"{path.name}.{os.getpid()}")
        own.write_bytes(bytes(LONGEST + 8))
        with own.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), LONGEST + 8)
        own.replace(path)

    def note(self, data: bytes) -> None:
        """Remember an input before it is tried."""
        self._map[:8] = len(data).to_bytes(8, "little")
        self._map[8 : 8 + len(data)] = data

    @staticmethod
    def of(path: Path) -> bytes:
        """The input that a process that is no more tried last."""
        raw = path.read_bytes()
        return raw[8 : 8 + int.from_bytes(raw[:8], "little")]


class Mutator:
    """Makes new inputs of old ones.

    Args:
        seed: of the random numbers.
        tokens: pieces that inputs of this kind are made of.
    """

    def __init__(self, seed: int, tokens: Iterable[bytes]) -> None:
        self._random = random.Random(seed)
        self._tokens = list(tokens)

    def mutate(self, corpus: list[bytes]) -> bytes:
        """One of the inputs, changed in a few places."""
        data = bytearray(self._choose(corpus))
        for _ in range(1 + int(self._random.random() ** 3 * 6)):
            self._change(data, corpus)
        return bytes(data[:LONGEST])

    def _choose(self, some: list[Any]) -> Any:
        return some[int(self._random.random() * len(some))]

    def _change(self, data: bytearray, corpus: list[bytes]) -> None:
        roll = self._random.random()
        place = int(self._random.random() * (len(data) + 1))
        if roll < 0.3 and place < len(data):
            data[place] = self._random.getrandbits(8)
        elif roll < 0.4 and place < len(data):
            data[place] ^= 1 << self._random.getrandbits(3)
        elif roll < 0.6:
            data[place:place] = self._choose(self._tokens)
        elif roll < 0.7:
            data[place : place + 1 + int(self._random.random() ** 2 * 16)] = b""
        elif roll < 0.8:
            data[place : place + len(token)] = (token := self._choose(self._tokens))
        elif roll < 0.9:
            other = self._choose(corpus)
            start = int(self._random.random() * (len(other) + 1))
            data[place:] = other[start:]
        else:
            end = place + int(self._random.random() ** 2 * 32)
            data[place:place] = data[place:end] * (1 + int(self._random.random() ** 2 * 4))


def fuzz(
    check: Check,
    corpus: list[bytes],
    tokens: Iterable[bytes],
    *,
    runs: int,
    seed: int = 0,
    witness: Path | None = None,
    tell: Callable[[str], object] | None = None,
) -> list[bytes]:
    """Try `runs` inputs.

    Args:
        check: raises AssertionError, or kills the process, for an input that is dealt with wrongly.
        corpus: inputs to begin with.
        tokens: pieces that inputs are made of.
        runs: inputs to try.
        seed: of the random numbers.
        witness: a file that holds the input at hand.
        tell: hears of the progress now and then.

    Returns:
        The inputs that reached new code, those of `corpus` included.

    Raises:
        AssertionError: with the input.
    """
    coverage, mutator = Coverage(), Mutator(seed, tokens)
    noted = Witness(witness) if witness else None
    found = list(corpus)
    started = last = time.monotonic()
    for number in range(runs):
        data = found[number] if number < len(corpus) else mutator.mutate(found)
        if noted:
            noted.note(data)
        before = coverage.places
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"input number {number}: {data!r}") from error
        if coverage.places > before and number >= len(corpus) and len(found) < KEPT:
            found.append(data)
        if tell and number % 1024 == 0 and time.monotonic() - last > 10:
            last = time.monotonic()
            rate = number / (last - started)
            tell(f"{number:,} inputs, {coverage.places:,} places, {len(found):,} kept, {rate:,.0f}/s")
    return found
