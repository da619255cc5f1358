"""What is crossed with every operation: the clients, the directions, whether a loss is mended, and the places."""

from __future__ import annotations

import pytest

from faults.bench import TO_CLIENT, TO_SERVER
from faults.proxy import Then

DIRECTIONS = pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT], ids=["to server", "to client"])
KINDS = pytest.mark.parametrize("kind", ["sync", "asyncio"])
# Without retries what is told of a loss can be seen; with them the batch has to be whole all the same.
RETRIES = pytest.mark.parametrize("retries", [0, 2])
# For what takes long.
SOME_CLIENTS = pytest.mark.parametrize(("kind", "retries"), [("sync", 0), ("asyncio", 2)])


def places(length: int, kind: str, retries: int, step: int = 5) -> range:
    """Every byte, and for the further variants of the same every `step`-th.

    A cut behind the last byte is the next call's affair, which needs a retry for it.
    """
    return range(0, length + bool(retries), 1 if kind == "sync" and retries == 0 else step)


def ways(place: int) -> Then:
    """Both an orderly end and a reset."""
    return Then.RESET if place % 4 == 3 else Then.CUT
