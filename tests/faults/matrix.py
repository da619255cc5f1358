"""The clients, directions and places of faults, for every operation.

The default tier tries the synchronous client, with a fault at every 23rd byte. `pytest --full` tries every
byte, and the asyncio client.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from faults.bench import TO_CLIENT, TO_SERVER
from faults.streams import Then
from tiers import by_tier

DIRECTIONS = pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
KINDS = pytest.mark.parametrize("kind", ["sync", pytest.param("asyncio", marks=pytest.mark.full)])
# Without retries the tests check what is reported; with retries the batch must be complete.
RETRIES = pytest.mark.parametrize("retries", [0, 2])
# For slow tests.
SOME_CLIENTS = pytest.mark.parametrize(("kind", "retries"), [("sync", 0), ("asyncio", 2)])


def some(places: Sequence[int]) -> Sequence[int]:
    """Return the places for the tier. 23 is prime, so that every node and every result of ending() occurs."""
    return places[:: by_tier(23, 1)]


def in_turn(places: Sequence[int], number: int) -> Sequence[int]:
    """Return all places with `--full`, otherwise one, which depends on `number`."""
    return by_tier([places[number % len(places)]], places)


def places(length: int, kind: str, retries: int, step: int = 5) -> Sequence[int]:
    """Return every byte for the synchronous client without retries, and every `step`-th for other clients.

    The next call notices a cut after the last byte, and needs a retry for it.
    """
    return some(range(0, length + bool(retries), 1 if kind == "sync" and retries == 0 else step))


def ending(place: int) -> Then:
    """Return how to end the connection: a reset at every fourth place, otherwise a close."""
    return Then.RESET if place % 4 == 3 else Then.CUT
