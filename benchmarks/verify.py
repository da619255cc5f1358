"""Check with independent code that a contender wrote the right bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks.equality import same
from benchmarks.measure import WrongResult
from benchmarks.peers.base import DATABASES
from benchmarks.serializers import MSGPACK
from benchmarks.servers import Endpoint
from benchmarks.shapes import Items

# The number of keys whose expiry is checked.
EXPIRIES = 50


def check_stored(endpoint: Endpoint, wire: str, items: Items, seconds: int | None) -> None:
    """Compare what the server holds in a format's database with the items.

    Raises:
        WrongResult: an item is missing or different, or its expiry is.
    """
    with endpoint.client(DATABASES[wire]) as client:
        loads = reader(wire)
        stored = zip(items, client.mget(list(items)), strict=True)
        check_equal(items, {key: loads(value) for key, value in stored if value is not None})
        if client.dbsize() != len(items):
            raise WrongResult(f"{client.dbsize()} keys are stored, of {len(items)}")
        for key in list(items)[:: max(1, len(items) // EXPIRIES)]:
            left = client.ttl(key)
            expected = range(-1, 0) if seconds is None else range(seconds - 600, seconds + 1)
            if left not in expected:
                raise WrongResult(f"{key} expires in {left} s, not {seconds}")


def check_equal(items: Items, found: Items) -> None:
    """Compare what was read with what was stored.

    Raises:
        WrongResult: an item is missing or different.
    """
    if found.keys() != items.keys():
        raise WrongResult(f"{len(items.keys() - found.keys())} of {len(items)} keys are missing")
    for key, value in items.items():
        if not same(value, found[key]):
            raise WrongResult(f"{key} is {found[key]!r}, not {value!r}")


def reader(wire: str) -> Callable[[bytes], Any]:
    """Return a function of another library that decodes a format."""
    if wire == "toolkit":
        # Imported here, after the toolkit's peer has imported it with its messages silenced.
        from redis_toolkit.utils.serializers import deserialize_value

        loads: Callable[[bytes], Any] = deserialize_value
        return loads
    if wire == "json":
        return json.loads
    if wire == "toolkit-msgpack":
        return _tagged
    return MSGPACK.loads


def _tagged(data: bytes) -> Any:
    if data[:1] != b"\xc1":
        raise WrongResult(f"the value begins with {data[:1]!r}, not with the tag")
    return MSGPACK.loads(data[1:])
