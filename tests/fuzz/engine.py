"""Guided fuzzing: it mutates inputs, and keeps those that reach new code for further mutations."""

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
    """Counts the places of code that were reached. Without instrumented extensions the count does not change."""

    def __init__(self) -> None:
        try:
            self._count: Any = ctypes.c_uint64.in_dll(ctypes.CDLL(None), "fuzz_reached_count")
        except ValueError:
            self._count = ctypes.c_uint64(0)

    @property
    def places(self) -> int:
        """The number of places reached."""
        return int(self._count.value)


class LastInput:
    """Keeps the current input in a file, so that it can be read after a crash of the process."""

    def __init__(self, path: Path) -> None:
        # Make a new file and replace the old one, because another process may have mapped the old one.
        own = path.with_name(f"{path.name}.{os.getpid()}")
        own.write_bytes(bytes(LONGEST + 8))
        with own.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), LONGEST + 8)
        own.replace(path)

    def set(self, data: bytes) -> None:
        """Store an input before it is tried."""
        self._map[:8] = len(data).to_bytes(8, "little")
        self._map[8 : 8 + len(data)] = data

    @staticmethod
    def of(path: Path) -> bytes:
        """Return the last input of a process that has ended."""
        raw = path.read_bytes()
        return raw[8 : 8 + int.from_bytes(raw[:8], "little")]


class Mutator:
    """Makes new inputs from old ones.

    Args:
        seed: the seed of the random numbers.
        tokens: pieces to insert into inputs.
    """

    def __init__(self, seed: int, tokens: Iterable[bytes]) -> None:
        self._random = random.Random(seed)
        self._tokens = list(tokens)

    def mutate(self, corpus: list[bytes]) -> bytes:
        """Return one of the inputs with a few changes."""
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
    last_input: Path | None = None,
    on_progress: Callable[[str], object] | None = None,
) -> list[bytes]:
    """Try `runs` inputs.

    Args:
        check: raises AssertionError, or crashes, for an input with a wrong result.
        corpus: the first inputs.
        tokens: pieces to insert into inputs.
        runs: the number of inputs to try.
        seed: the seed of the random numbers.
        last_input: a file for the current input.
        on_progress: called with a line of text every ten seconds.

    Returns:
        The inputs of `corpus`, and those that reached new code.

    Raises:
        AssertionError: an input had a wrong result; the message contains the input.
    """
    coverage, mutator = Coverage(), Mutator(seed, tokens)
    current = LastInput(last_input) if last_input else None
    found = list(corpus)
    started = last = time.monotonic()
    for number in range(runs):
        data = found[number] if number < len(corpus) else mutator.mutate(found)
        if current:
            current.set(data)
        before = coverage.places
        try:
            check(data)
        except Exception as error:
            raise AssertionError(f"input number {number}: {data!r}") from error
        if coverage.places > before and number >= len(corpus) and len(found) < KEPT:
            found.append(data)
        if on_progress and number % 1024 == 0 and time.monotonic() - last > 10:
            last = time.monotonic()
            rate = number / (last - started)
            on_progress(f"{number:,} inputs, {coverage.places:,} places, {len(found):,} kept, {rate:,.0f}/s")
    return found
