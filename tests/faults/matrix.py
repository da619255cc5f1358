"""The clients, directions and places that faults are tried with, for every operation.

The default tier tries the synchronous client, with a fault at every 23rd byte. `pytest --full` tries every
byte, and the asyncio client.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from faults.bench import TO_CLIENT, TO_SERVER
from faults.proxy import Then
from tiers import by_tier

DIRECTIONS = pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
KINDS = pytest.mark.parametrize("kind", ["sync", pytest.param("asyncio", marks=pytest.mark.full)])
# Without retries what is told of a loss can be seen; with them the batch has to be whole all the same.
RETRIES = pytest.mark.parametrize("retries", [0, 2])
# For what takes long.
SOME_CLIENTS = pytest.mark.parametrize(("kind", "retries"), [("sync", 0), ("asyncio", 2)])


def some(places: Sequence[int]) -> Sequence[int]:
    """Return the places that the tier tries. 23 is prime: each node and each way of ways() has its turn."""
    return places[:: by_tier(23, 1)]


def in_turn(places: Sequence[int], number: int) -> Sequence[int]:
    """Return all places with `--full`, else one: another for each `number`."""
    return by_tier([places[number % len(places)]], places)


def places(length: int, kind: str, retries: int, step: int = 5) -> Sequence[int]:
    """Return every byte for the synchronous client without retries, and every `step`-th for other clients.

    A cut after the last byte is seen by the next call, which needs a retry for it.
    """
    return some(range(0, length + bool(retries), 1 if kind == "sync" and retries == 0 else step))


def ways(place: int) -> Then:
    """Return an orderly end for most places and a reset for the others."""
    return Then.RESET if place % 4 == 3 else Then.CUT
