"""The clients, directions and places of faults, for every operation.

The default tier tries the synchronous client, with a fault at every 7th place. `pytest --rest` tries every place,
and the asyncio client. `pytest --full` does the same, and takes every byte for a place.

Places on the way to the client are the bytes where the reader of replies may be in another state than at the byte
before: each byte of a line, the first, a middle and the last byte of a string, and those of the line end after it.
On the way to the server they are the first, second, middle and last byte of each command, because the server
carries out whole commands only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

import tiers
from faults.bench import TO_CLIENT, TO_SERVER
from faults.streams import Direction, Then
from tiers import by_tier

DIRECTIONS = pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
KINDS = pytest.mark.parametrize("kind", ["sync", pytest.param("asyncio", marks=pytest.mark.full)])
# Without retries the tests check what is reported; with retries the batch must be complete.
RETRIES = pytest.mark.parametrize("retries", [0, 2])
# For slow tests.
SOME_CLIENTS = pytest.mark.parametrize(("kind", "retries"), [("sync", 0), ("asyncio", 2)])


def some(places: Sequence[int]) -> Sequence[int]:
    """Return the places for the tier. 7 is prime, so that every node and every result of ending() occurs."""
    return places[:: by_tier(7, 1)]


def in_turn(places: Sequence[int], number: int) -> Sequence[int]:
    """Return all places with `--full`, otherwise one, which depends on `number`."""
    return by_tier([places[number % len(places)]], places)


def _line(stream: bytes, start: int) -> tuple[bytes, int, int]:
    """Return the type of the line there, its end, and the length of the string after it, or -1."""
    end = stream.index(b"\r\n", start) + 2
    kind = stream[start : start + 1]
    return kind, end, int(stream[start + 1 : end - 2]) if kind == b"$" else -1


def _places_in_replies(stream: bytes) -> set[int]:
    found: set[int] = set()
    position = 0
    while position < len(stream):
        _, end, length = _line(stream, position)
        found.update(range(position, end))
        position = end
        if length >= 0:
            position += length + 2
            found |= {end, end + 1, end + length // 2, *range(end + max(0, length - 1), position)}
    return found


def _places_in_commands(stream: bytes) -> set[int]:
    found: set[int] = set()
    starts = []
    position = 0
    while position < len(stream):
        kind, end, length = _line(stream, position)
        if kind == b"*":
            starts.append(position)
        position = end if length < 0 else end + length + 2
    for start, end in pairwise([*starts, len(stream)]):
        found |= {start, start + 1, (start + end) // 2, end - 1}
    return found


def state_changes(stream: bytes, direction: Direction) -> list[int]:
    """Return the bytes of a stream where its reader may be in another state than at the byte before."""
    return sorted((_places_in_commands if direction is TO_SERVER else _places_in_replies)(stream))


def places_in(stream: bytes, direction: Direction) -> Sequence[int]:
    """Return the places of faults in a stream."""
    return range(len(stream)) if tiers.every_byte else state_changes(stream, direction)


def places(traffic: Mapping[Direction, bytes], direction: Direction, kind: str, retries: int) -> Sequence[int]:
    """Return every place for the synchronous client without retries, and every third one for other clients.

    The next call notices a cut after the last byte, and needs a retry for it.
    """
    stream = traffic[direction]
    wanted = places_in(stream, direction)[:: 1 if kind == "sync" and retries == 0 else 3]
    return some([*wanted, len(stream)] if retries else wanted)


def ending(place: int) -> Then:
    """Return how to end the connection: a reset at every fourth place, otherwise a close."""
    return Then.RESET if place % 4 == 3 else Then.CUT
