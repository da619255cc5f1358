"""Streams of any length: memory is bounded, and nothing deadlocks if the server, network or source is slow."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis

from faults.proxy import FaultProxy
from faults.streams import Direction, Fault
from redis_fastbatch import FastBatch
from redis_fastbatch._engine.flight import COMMAND_BYTES, WINDOW_BYTES, WINDOW_CHUNKS
from redis_fastbatch._engine.pacing import FIRST_KEYS, FLUSH_SECONDS, REPLY_BYTES, ROUND_BYTES
from redis_fastbatch._engine.read import READ_WINDOW
from redis_fastbatch.report import ChunkStats
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until

pytestmark = pytest.mark.timeout(60)

MB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")

on_linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="RSS is read from /proc")


def rss() -> int:
    """Return the resident memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


class Peak:
    """Measures how much the resident memory of this process grows."""

    EVERY = 2000

    def __init__(self) -> None:
        gc.collect()
        self.extra = 0
        self._start = rss()
        self._items = 0

    def measure(self) -> None:
        self.extra = max(self.extra, rss() - self._start)

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, and measure memory at every EVERY-th one."""
        for item in items:
            self._items += 1
            if self._items % self.EVERY == 0:
                self.measure()
            yield item


class InFlight:
    """An on_chunk hook that keeps the maximum of bytes in flight, and counts items and chunks."""

    def __init__(self) -> None:
        self.most = 0
        self.items = 0
        self.chunks = 0

    def __call__(self, stats: ChunkStats) -> None:
        self.most = max(self.most, stats.in_flight + stats.bytes)
        self.items += stats.items
        self.chunks += 1


def pairs(count: int, size: int = 100) -> Iterator[tuple[str, bytes]]:
    return ((f"key:{i}", b"%0*d" % (size, i)) for i in range(count))


def connect(proxy: FaultProxy, **options: Any) -> redis.Redis:
    return redis.Redis(host=proxy.host, port=proxy.port, **options)


# Memory


@on_linux
def test_memory_is_bounded_while_a_generator_is_written(valkey_client: redis.Redis) -> None:
    fb = FastBatch(valkey_client, "raw")
    fb.batch_set(pairs(20_000))
    peak, hook = Peak(), InFlight()
    report = fb.batch_set(peak.over(pairs(300_000)), on_chunk=hook)
    assert report.written == hook.items == report.confirmed_prefix == 300_000
    assert peak.extra < 16 * MB
    assert hook.most < WINDOW_BYTES + 2 * COMMAND_BYTES


@pytest.mark.full
@on_linux
def test_memory_is_bounded_while_values_are_iterated_over(valkey_client: redis.Redis) -> None:
    fb = FastBatch(valkey_client, "raw")
    fb.batch_set(pairs(300_000))
    assert sum(1 for _ in fb.batch_get_iter(f"key:{i}" for i in range(20_000))) == 20_000
    peak = Peak()
    count = 0
    for key, value in peak.over(fb.batch_get_iter(f"key:{i}" for i in range(300_000))):
        assert int(key[4:]) == int(value) == count
        count += 1
    assert count == 300_000
    assert peak.extra < 16 * MB


@pytest.mark.full
@on_linux
@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
def test_large_values_are_read_a_few_at_a_time(valkey_client: redis.Redis, size: int) -> None:
    """A round of 4000 keys would take 40 MB to 4 GB."""
    count = 80_000_000 // size
    fb = FastBatch(valkey_client, "raw")
    fb.batch_set(pairs(count, size))
    peak = Peak()
    peak.EVERY = 1
    count_read = 0
    for key, value in peak.over(fb.batch_get_iter([f"key:{i}" for i in range(count)])):
        assert len(value) == size
        assert (key, int(value[-9:])) == (f"key:{count_read}", count_read)
        count_read += 1
    assert count_read == count
    ahead = max(ROUND_BYTES, FIRST_KEYS * size) + READ_WINDOW * (REPLY_BYTES + 2 * size)
    assert peak.extra < ahead + 8 * MB


def mget_sizes(sent: bytes) -> list[int]:
    """Return the number of keys of each MGET."""
    headers = (part.rsplit(b"\r\n", 2) for part in sent.split(b"$4\r\nMGET\r\n")[:-1])
    return [int(lines[-2].removeprefix(b"*")) - 1 for lines in headers]


def test_commands_have_few_keys_while_values_are_large(valkey: EmbeddedServer) -> None:
    size, count = 20_000, FIRST_KEYS + 100
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set(pairs(count, size))
    with FaultProxy(valkey.port, record=True) as proxy, connect(proxy) as client:
        fb = FastBatch(client, "raw")
        assert len(list(fb.batch_get_iter([f"key:{i}" for i in range(count)]))) == count
        key_counts = mget_sizes(proxy.recorded(Direction.TO_SERVER))
    large = REPLY_BYTES // size + 1
    assert key_counts == [FIRST_KEYS] + [large] * (100 // large)


def test_commands_have_1000_keys_again_after_large_values(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        client.flushall()
        fb = FastBatch(client, "raw")
        fb.batch_set((f"key:{i}", b"x" * (100_000 if i < 20 else 10)) for i in range(100_000))
    with FaultProxy(valkey.port, record=True) as proxy, connect(proxy) as client:
        keys = [f"key:{i}" for i in range(100_000)]
        assert len(FastBatch(client, "raw").batch_get(keys)) == len(keys)
        key_counts = mget_sizes(proxy.recorded(Direction.TO_SERVER))
    assert sum(key_counts) == 100_000
    assert key_counts[:5] == [FIRST_KEYS, 1, 1, 1, 1]
    assert key_counts[-2] == 1000


def test_iteration_returns_every_key_once(valkey_client: redis.Redis) -> None:
    """The sizes vary, keys are missing or invalid, and the budget ends rounds anywhere."""
    fb = FastBatch(valkey_client, "raw")
    sizes = [10, 3_000_000, 0, 50_000, 1_000_000, 7]
    values = {f"key:{i}": b"x" * sizes[i % 6] for i in range(120)}
    fb.batch_set(values)
    keys: list[Any] = []
    for i, key in enumerate(values):
        keys += [key, f"missing:{i}", ("no", "key")] if i % 10 == 0 else [key]
    refused: list[Any] = []
    found = list(fb.batch_get_iter(keys, chunk_size=50, on_error=lambda key, *_: refused.append(key)))
    assert found == [(key, values.get(key)) for key in keys if isinstance(key, str)]
    assert refused == [("no", "key")] * 12


def test_the_window_limits_the_number_of_tiny_commands(valkey_client: redis.Redis) -> None:
    """The memory kept for each command is larger than its bytes."""
    hook = InFlight()
    report = FastBatch(valkey_client, "raw").batch_set(pairs(20_000, 10), chunk_size=1, on_chunk=hook)
    assert report.written == hook.chunks == 20_000
    assert hook.most <= WINDOW_CHUNKS * 60


# Slow servers, networks and producers


class Taken:
    """Items that are counted as they are taken."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


@on_linux
def test_a_server_that_does_not_answer_stops_the_source(valkey: EmbeddedServer) -> None:
    """Not more is taken than the window and the kernel's buffers hold. When the server resumes, all is written."""
    with valkey.client() as client, valkey.client() as admin:
        admin.flushall()
        source = Taken(pairs(40_000, 1000))
        hook, peak = InFlight(), Peak()
        admin.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        writing = threading.Thread(
            target=FastBatch(client, "raw").batch_set, args=(source,), kwargs={"on_chunk": hook}
        )
        writing.start()
        wait_until(lambda: source.count * 1000 > WINDOW_BYTES // 2, "the window fills")
        before = -1
        while before != source.count:
            before = source.count
            time.sleep(0.2)
            peak.measure()
        assert source.count * 1000 < WINDOW_BYTES + 2 * COMMAND_BYTES
        admin.execute_command("CLIENT", "UNPAUSE")
        writing.join()
        assert hook.items == admin.dbsize() == 40_000
        assert peak.extra < 16 * MB


def test_a_server_may_pause_repeatedly(embedded: Any) -> None:
    with EmbeddedServer(embedded, enable_debug_command=True) as server, server.client() as client:
        stop = threading.Event()

        def disturb() -> None:
            with server.client() as other:
                while not stop.wait(0.01):
                    other.execute_command("DEBUG", "SLEEP", 0.05)

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        try:
            fb = FastBatch(client, "raw")
            assert fb.batch_set(pairs(60_000)).written == 60_000
            found = fb.batch_get_iter(f"key:{i}" for i in range(60_000))
            assert sum(int(value) == int(key[4:]) for key, value in found) == 60_000
        finally:
            stop.set()
            disturbing.join()


SLOW = {
    "to the server": [Fault(Direction.TO_SERVER, bytes_per_second=4e6)],
    "to the client": [Fault(Direction.TO_CLIENT, bytes_per_second=4e6)],
    "delayed to the server": [Fault(Direction.TO_SERVER, delay=0.02)],
    "delayed to the client": [Fault(Direction.TO_CLIENT, delay=0.02)],
    "slow and delayed": [
        Fault(Direction.TO_SERVER, delay=0.005, bytes_per_second=8e6),
        Fault(Direction.TO_CLIENT, delay=0.005, bytes_per_second=8e6),
    ],
}


@on_linux
@pytest.mark.parametrize("faults", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize(
    "options", [pytest.param({}, id="MSET"), pytest.param({"nx": True}, id="SET", marks=pytest.mark.full)]
)
def test_a_slow_network_takes_bounded_memory(
    valkey: EmbeddedServer, faults: list[Fault], options: dict[str, Any]
) -> None:
    with valkey.client() as client:
        client.flushall()
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        proxy.inject(*faults, connections=None)
        fb = FastBatch(client, "raw")
        peak, hook = Peak(), InFlight()
        report = fb.batch_set(peak.over(pairs(10_000)), on_chunk=hook, **options)
        assert report.written == 10_000
        assert hook.most < WINDOW_BYTES + 2 * COMMAND_BYTES
        found = peak.over(fb.batch_get_iter(f"key:{i}" for i in range(10_000)))
        assert sum(int(value) == int(key[4:]) for key, value in found) == 10_000
        assert peak.extra < 24 * MB


def test_large_commands_and_large_replies_do_not_deadlock(valkey: EmbeddedServer) -> None:
    """Both directions are full at once. Neither side may wait for the other to read."""
    keys = [f"{i}:".ljust(30_000, "k") for i in range(300)]
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set(dict.fromkeys(keys, b"v" * 60000))
    with FaultProxy(valkey.port) as proxy, connect(proxy) as client:
        slow = (Fault(direction, bytes_per_second=40e6) for direction in Direction)
        proxy.inject(*slow, connections=None)
        found = FastBatch(client, "raw").batch_get(keys)
    assert list(found) == keys
    assert set(map(len, found.values())) == {60_000}


def test_items_of_a_slow_source_do_not_wait_for_a_full_command(valkey_client: redis.Redis) -> None:
    hook = InFlight()

    def produce() -> Iterator[tuple[str, int]]:
        for i in range(200):
            yield f"key:{i}", i
            time.sleep(FLUSH_SECONDS)
            # Replies are read as well, so that on_chunk is called in time.
            if hook.items and valkey_client.exists("key:0"):
                return
        raise AssertionError("no item has arrived")

    with valkey_client.client() as own:
        assert FastBatch(own, "raw").batch_set(produce(), on_chunk=hook).written == hook.items


@pytest.mark.parametrize("workers", [1, 2])
def test_items_of_a_slow_source_do_not_wait_for_a_full_slice(valkey_client: redis.Redis, workers: int) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(100):
            yield f"key:{i}", i
            time.sleep(FLUSH_SECONDS)
            if observer.exists("key:0"):
                return
        raise AssertionError("no item has arrived")

    with valkey_client.client() as observer:
        FastBatch(valkey_client).batch_set(produce(), workers=workers)


def test_pairs_for_a_slow_source_of_keys_come_one_at_a_time(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    fast.batch_set({f"key:{i}": i for i in range(6)})
    taken = 0

    def slow() -> Iterator[str]:
        nonlocal taken
        for taken in range(6):
            time.sleep(1.5 * FLUSH_SECONDS)
            yield f"key:{taken}"

    for number, pair in enumerate(fast.batch_get_iter(slow())):
        assert pair == (f"key:{number}", number)
        assert taken == number


def test_pairs_of_the_keys_before_an_error_are_returned(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    fast.batch_set({f"key:{i}": i for i in range(1000)})

    def failing() -> Iterator[str]:
        yield from (f"key:{i}" for i in range(1000))
        raise OSError("the list ends here")

    found = []
    with pytest.raises(OSError, match="the list ends here"):
        found.extend(fast.batch_get_iter(failing()))
    # extend() keeps the items before the error.
    assert found == [(f"key:{i}", i) for i in range(1000)]


def test_a_pause_of_the_source_makes_few_partial_chunks(valkey_client: redis.Redis) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(50_000):
            if i % 10_000 == 5000:
                time.sleep(3 * FLUSH_SECONDS)
            yield f"key:{i}", i

    hook = InFlight()
    assert FastBatch(valkey_client).batch_set(produce(), on_chunk=hook).written == 50_000
    # 5 commands are partial; the others have the usual size.
    assert hook.chunks < 80


def test_an_atomic_batch_waits_for_a_slow_source(valkey_client: redis.Redis) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(4):
            time.sleep(FLUSH_SECONDS)
            yield f"key:{i}", i

    hook = InFlight()
    assert FastBatch(valkey_client).batch_set(produce(), atomic=True, on_chunk=hook).written == 4
    assert hook.chunks == 1
