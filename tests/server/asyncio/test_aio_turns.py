"""What holds the event loop during a batch: slices of work, the garbage collector, and the growth of the result.

Nothing is timed here: slices are measured with a clock that only the codec moves, and the collector by the number
of objects that it looks at. `python -m benchmarks lag` measures the times.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis.asyncio

from aio import gathered
from redis_fastbatch import AsyncFastBatch
from redis_fastbatch._async_batches import LoopPause
from redis_fastbatch._base_client import empty_result
from redis_fastbatch._transports.loop_budget import MAX_ITEMS
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.server import EmbeddedServer

LIMIT = 0.005


def connected(server: EmbeddedServer, codec: AnyCodec = "msgpack") -> AsyncFastBatch:
    return AsyncFastBatch(redis.asyncio.Redis(host=server.host, port=server.port), codec)


class SlowCodec:
    """A codec that takes some time for each value, by a clock of its own.

    Args:
        seconds: the time.
    """

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self._seconds = seconds

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def dumps(self, value: Any) -> bytes:
        self.now += self._seconds
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        self.now += self._seconds
        return json.loads(data)


ITEMS = {f"key:{n}": [n] for n in range(3000)}
SMALL = dict(list(ITEMS.items())[:60])

CALLS: dict[str, Callable[[AsyncFastBatch, dict[str, Any]], Awaitable[Any]]] = {
    "set": lambda batch, items: batch.batch_set(items),
    "set, ex": lambda batch, items: batch.batch_set(items, ex=1000),
    "get": lambda batch, items: batch.batch_get(list(items)),
    "iter": lambda batch, items: gathered(batch.batch_get_iter(list(items))),
}


@pytest.mark.parametrize("items", [ITEMS, SMALL], ids=["many", "few"])
@pytest.mark.parametrize("microseconds", [1, 20, 70])
@pytest.mark.parametrize("name", CALLS)
def test_other_tasks_have_a_turn_between_slices(
    valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, name: str, microseconds: int, items: dict[str, Any]
) -> None:
    codec = SlowCodec(microseconds / 1e6)
    held: list[float] = []

    async def watch() -> None:
        before = codec.now
        while True:
            await asyncio.sleep(0)
            held.append(codec.now - before)
            before = codec.now

    async def main() -> None:
        async with connected(valkey, codec) as batch:
            await batch.batch_set(items)
            await batch.batch_get(list(items))
            monkeypatch.setattr(time, "perf_counter", codec.clock)
            watching = asyncio.ensure_future(watch())
            await asyncio.sleep(0)
            await CALLS[name](batch, items)
            await asyncio.sleep(0)
            monkeypatch.undo()
            watching.cancel()

    asyncio.run(main())
    assert sum(held) == pytest.approx(len(items) * microseconds / 1e6)
    assert max(held) < LIMIT


@contextmanager
def collections() -> Iterator[list[int]]:
    """Give a list that gets the number of new objects of each run of the collector over these."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] < 2:
            found.append(sum(gc.get_count()[:1]))

    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)


def test_the_collector_looks_at_few_new_objects_at_a_time(valkey: EmbeddedServer) -> None:
    containers = 3
    items = {f"key:{n}": {"id": n, "tags": ["a"], "place": {"x": [n]}} for n in range(20_000)}

    async def main() -> None:
        async with connected(valkey) as batch:
            await batch.batch_set(items)
            keys = list(items)
            with collections() as objects:
                found = await batch.batch_get(keys)
            assert len(found) == len(items)
        assert len(objects) >= containers * len(items) // LoopPause.OBJECTS - 1
        # One slice of values more: the collector's turn comes after it.
        assert max(objects) <= LoopPause.OBJECTS + (containers + 1) * MAX_ITEMS

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="no way to make a dict with room is known there")
@pytest.mark.parametrize("count", [1000, 87_381, 87_382, 200_000])
@pytest.mark.parametrize("make", [str, lambda n: b"%d" % n, int], ids=["str", "bytes", "int"])
def test_the_dict_of_a_result_does_not_grow(count: int, make: Callable[[int], Any]) -> None:
    """Python copies the table of a dict that grows in one step."""
    keys = [make(n) for n in range(count)]
    result = empty_result(keys)
    size = sys.getsizeof(result)
    assert len(result) == 0
    assert list(result) == []
    for key in keys:
        result[key] = None
    assert sys.getsizeof(result) == size
    assert list(result) == keys


def test_the_dict_of_a_large_result_is_like_any_other() -> None:
    keys: list[Any] = [f"key:{n}" for n in range(100_000)]
    result = empty_result(keys)
    same: dict[Any, Any] = {}
    for made in (result, same):
        made.update((key, [key]) for key in [*keys, 7, b"other", None])
        del made["key:5"]
        made["key:5"] = "last"
        assert made.pop("key:99") == ["key:99"]
    gc.collect()
    assert list(result.items()) == list(same.items())
    assert result == same
    assert result.copy() == same
    assert result.popitem() == ("key:5", "last")
    result.clear()
    assert result == {}
