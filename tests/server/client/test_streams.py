"""Streams of any length: memory stays flat and nothing deadlocks, whoever is slow."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import Direction, Fault, FaultProxy, Then
from redis_fastbatch import BatchError, FastBatch
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
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


class Peak:
    """The most memory this process took, over that at the beginning, at the moments it was asked."""

    EVERY = 2000

    def __init__(self) -> None:
        gc.collect()
        self.extra = 0
        self._start = rss()
        self._asked = 0

    def ask(self) -> None:
        self.extra = max(self.extra, rss() - self._start)

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, with memory looked at now and then."""
        for item in items:
            self._asked += 1
            if self._asked % self.EVERY == 0:
                self.ask()
            yield item


class InFlight:
    """A hook that remembers the most bytes in flight, and the items."""

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


def through(proxy: FaultProxy, **options: Any) -> redis.Redis:
    return redis.Redis(host=proxy.host, port=proxy.port, **options)


# Memory


@on_linux
def test_memory_stays_flat_while_a_generator_is_written(valkey_client: redis.Redis) -> None:
    fb = FastBatch(valkey_client, "raw")
    fb.batch_set(pairs(20_000))
    peak, hook = Peak(), InFlight()
    report = fb.batch_set(peak.over(pairs(300_000)), on_chunk=hook)
    assert report.written == hook.items == report.confirmed_prefix == 300_000
    assert peak.extra < 16 * MB
    assert hook.most < WINDOW_BYTES + 2 * COMMAND_BYTES


@pytest.mark.full
@on_linux
def test_memory_stays_flat_while_one_iterates_over_what_is_read(valkey_client: redis.Redis) -> None:
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
    """A round of 4000 keys would otherwise be 40 MB to 4 GB."""
    count = 80_000_000 // size
    fb = FastBatch(valkey_client, "raw")
    fb.batch_set(pairs(count, size))
    peak = Peak()
    peak.EVERY = 1
    seen = 0
    for key, value in peak.over(fb.batch_get_iter([f"key:{i}" for i in range(count)])):
        assert len(value) == size
        assert (key, int(value[-9:])) == (f"key:{seen}", seen)
        seen += 1
    assert seen == count
    ahead = max(ROUND_BYTES, FIRST_KEYS * size) + READ_WINDOW * (REPLY_BYTES + 2 * size)
    assert peak.extra < ahead + 8 * MB


def mget_sizes(sent: bytes) -> list[int]:
    """How many keys each MGET asked for."""
    headers = (part.rsplit(b"\r\n", 2) for part in sent.split(b"$4\r\nMGET\r\n")[:-1])
    return [int(lines[-2].removeprefix(b"*")) - 1 for lines in headers]


def test_no_command_asks_for_much_while_sizes_are_unknown_or_large(valkey: EmbeddedServer) -> None:
    size, count = 200_000, 200
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set(pairs(count, size))
    with FaultProxy(valkey.port, record=True) as proxy, through(proxy) as client:
        fb = FastBatch(client, "raw")
        assert len(list(fb.batch_get_iter([f"key:{i}" for i in range(count)]))) == count
        asked = mget_sizes(proxy.recorded(Direction.TO_SERVER))
    assert asked == [FIRST_KEYS] + [1] * (count - FIRST_KEYS)


def test_small_values_are_asked_for_by_the_thousand_again_after_large_ones(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        client.flushall()
        fb = FastBatch(client, "raw")
        fb.batch_set((f"key:{i}", b"x" * (100_000 if i < 20 else 10)) for i in range(100_000))
    with FaultProxy(valkey.port, record=True) as proxy, through(proxy) as client:
        keys = [f"key:{i}" for i in range(100_000)]
        assert len(FastBatch(client, "raw").batch_get(keys)) == len(keys)
        asked = mget_sizes(proxy.recorded(Direction.TO_SERVER))
    assert sum(asked) == 100_000
    assert asked[:5] == [FIRST_KEYS, 1, 1, 1, 1]
    assert asked[-2] == 1000


def test_rounds_lose_no_key_whatever_they_read(valkey_client: redis.Redis) -> None:
    """Sizes that jump, missing keys, keys that fail, and a budget that ends rounds anywhere."""
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


def test_tiny_commands_are_few_in_flight(valkey_client: redis.Redis) -> None:
    """What is kept of each outweighs its bytes."""
    hook = InFlight()
    report = FastBatch(valkey_client, "raw").batch_set(pairs(20_000, 10), chunk_size=1, on_chunk=hook)
    assert report.written == hook.chunks == 20_000
    assert hook.most <= WINDOW_CHUNKS * 60


# Slow servers, networks and producers


class Taken:
    """A generator's items, counted as they are taken."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


@on_linux
def test_a_server_that_does_not_answer_stops_the_source(valkey: EmbeddedServer) -> None:
    """No more is taken than what the window and the kernel's buffers hold, and then all is written."""
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
            peak.ask()
        assert source.count * 1000 < WINDOW_BYTES + 2 * COMMAND_BYTES
        admin.execute_command("CLIENT", "UNPAUSE")
        writing.join()
        assert hook.items == admin.dbsize() == 40_000
        assert peak.extra < 16 * MB


def test_a_server_that_sleeps_again_and_again(embedded: Any) -> None:
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
    "late there": [Fault(Direction.TO_SERVER, delay=0.02)],
    "late back": [Fault(Direction.TO_CLIENT, delay=0.02)],
    "all of it": [
        Fault(Direction.TO_SERVER, delay=0.005, bytes_per_second=8e6),
        Fault(Direction.TO_CLIENT, delay=0.005, bytes_per_second=8e6),
    ],
}


@on_linux
@pytest.mark.parametrize("faults", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize(
    "options", [pytest.param({}, id="MSET"), pytest.param({"nx": True}, id="SET", marks=pytest.mark.full)]
)
def test_a_slow_network(valkey: EmbeddedServer, faults: list[Fault], options: dict[str, Any]) -> None:
    with valkey.client() as client:
        client.flushall()
    with FaultProxy(valkey.port) as proxy, through(proxy) as client:
        proxy.inject(*faults, connections=None)
        fb = FastBatch(client, "raw")
        peak, hook = Peak(), InFlight()
        report = fb.batch_set(peak.over(pairs(10_000)), on_chunk=hook, **options)
        assert report.written == 10_000
        assert hook.most < WINDOW_BYTES + 2 * COMMAND_BYTES
        found = peak.over(fb.batch_get_iter(f"key:{i}" for i in range(10_000)))
        assert sum(int(value) == int(key[4:]) for key, value in found) == 10_000
        assert peak.extra < 24 * MB


def test_commands_and_replies_that_are_large_both_do_not_block_each_other(valkey: EmbeddedServer) -> None:
    """Neither side may wait for the other to read: here both directions are full at once."""
    keys = [f"{i}:".ljust(30_000, "k") for i in range(300)]
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set(dict.fromkeys(keys, b"v" * 60000))
    with FaultProxy(valkey.port) as proxy, through(proxy) as client:
        slow = (Fault(direction, bytes_per_second=40e6) for direction in Direction)
        proxy.inject(*slow, connections=None)
        found = FastBatch(client, "raw").batch_get(keys)
    assert list(found) == keys
    assert set(map(len, found.values())) == {60_000}


def test_a_slow_producer_s_items_do_not_wait_for_a_full_command(valkey_client: redis.Redis) -> None:
    hook = InFlight()

    def produce() -> Iterator[tuple[str, int]]:
        for i in range(200):
            yield f"key:{i}", i
            time.sleep(FLUSH_SECONDS)
            # Replies are read too, so that progress and reports are up to date.
            if hook.items and valkey_client.exists("key:0"):
                return
        raise AssertionError("nothing of it has arrived")

    with valkey_client.client() as own:
        assert FastBatch(own, "raw").batch_set(produce(), on_chunk=hook).written == hook.items


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_producer_s_items_do_not_wait_for_a_thread_s_slice(
    valkey_client: redis.Redis, workers: int
) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(100):
            yield f"key:{i}", i
            time.sleep(FLUSH_SECONDS)
            if looker.exists("key:0"):
                return
        raise AssertionError("nothing of it has arrived")

    with valkey_client.client() as looker:
        FastBatch(valkey_client).batch_set(produce(), workers=workers)


def test_pairs_of_keys_that_come_slowly(valkey_client: redis.Redis) -> None:
    """They came together, once the source had given 4,000 or had ended."""
    fast = FastBatch(valkey_client)
    fast.batch_set({f"key:{i}": i for i in range(6)})
    asked = 0

    def slow() -> Iterator[str]:
        nonlocal asked
        for asked in range(6):
            time.sleep(1.5 * FLUSH_SECONDS)
            yield f"key:{asked}"

    for number, pair in enumerate(fast.batch_get_iter(slow())):
        assert pair == (f"key:{number}", number)
        assert asked == number


def test_pairs_of_the_keys_before_an_error(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    fast.batch_set({f"key:{i}": i for i in range(1000)})

    def failing() -> Iterator[str]:
        yield from (f"key:{i}" for i in range(1000))
        raise OSError("the list ends here")

    found = []
    with pytest.raises(OSError, match="the list ends here"):
        found.extend(fast.batch_get_iter(failing()))
    # A list keeps what came before the error.
    assert found == [(f"key:{i}", i) for i in range(1000)]


def test_a_producer_that_is_slow_at_times_only(valkey_client: redis.Redis) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(50_000):
            if i % 10_000 == 5000:
                time.sleep(3 * FLUSH_SECONDS)
            yield f"key:{i}", i

    hook = InFlight()
    assert FastBatch(valkey_client).batch_set(produce(), on_chunk=hook).written == 50_000
    # 5 that were late, and commands of the usual size for the rest.
    assert hook.chunks < 80


def test_an_atomic_batch_is_not_cut_however_slow_its_producer(valkey_client: redis.Redis) -> None:
    def produce() -> Iterator[tuple[str, int]]:
        for i in range(4):
            time.sleep(FLUSH_SECONDS)
            yield f"key:{i}", i

    hook = InFlight()
    assert FastBatch(valkey_client).batch_set(produce(), atomic=True, on_chunk=hook).written == 4
    assert hook.chunks == 1


# Sources that end early


def failing(error: BaseException, count: int) -> Iterator[tuple[str, bytes]]:
    yield from pairs(count)
    raise error


@pytest.mark.parametrize("error", [ValueError("row 5000"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_source_gave_before_it_failed_is_written(valkey_client: redis.Redis, error: BaseException) -> None:
    """Ctrl-C too, where it strikes in the source: the connection goes back clean."""
    with redis.Redis.from_pool(
        redis.ConnectionPool(max_connections=1, **valkey_client.connection_pool.connection_kwargs)
    ) as client:
        before = client.client_id()
        with pytest.raises(type(error)) as caught:
            FastBatch(client).batch_set(failing(error, 5000))
        assert caught.value is error
        report = error.report  # type: ignore[union-attr]
        assert (report.written, report.confirmed_prefix, report.failed) == (5000, 5000, 0)
        assert client.dbsize() == 5000
        assert client.client_id() == before


def test_a_source_that_fails_leaves_an_atomic_batch_unwritten(valkey_client: redis.Redis) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        FastBatch(valkey_client).batch_set(failing(KeyboardInterrupt(), 500), atomic=True)
    assert caught.value.report.written == valkey_client.dbsize() == 0  # type: ignore[attr-defined]


SCRIPT = """
import itertools, json, sys
import redis
from redis_fastbatch import FastBatch

def produce():
    for i in itertools.count():
        if i == 20_000:
            print("go", flush=True)
        yield f"key:{i}", i

items = produce()
if sys.argv[2] == "iterator":
    items = zip(map("key:{}".format, itertools.count()), itertools.count())
    print("go", flush=True)
try:
    FastBatch(redis.Redis(port=int(sys.argv[1]))).batch_set(items, workers=int(sys.argv[3]))
except KeyboardInterrupt as interrupt:
    report = interrupt.report
    print(json.dumps([report.written, report.failed, report.confirmed_prefix]))
"""


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("source", ["generator", "iterator"])
def test_ctrl_c(valkey: EmbeddedServer, source: str, workers: int) -> None:
    """It strikes in the source or between any two lines of ours; the report stays right."""
    with valkey.client() as client:
        client.flushall()
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(valkey.port), source, str(workers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            wait_until(lambda: client.dbsize() > 30_000, "the batch is under way")
            process.send_signal(signal.SIGINT)
            written, failed, prefix = json.loads(process.stdout.read())
        assert process.returncode == 0
        wait_until(lambda: not others(client), "the script's connections are gone")
        size = client.dbsize()
        assert written <= size <= written + failed
        assert 0 < prefix <= size
        assert all(client.exists(*(f"key:{i}" for i in some)) == len(some) for some in rounds(prefix))


def others(client: redis.Redis) -> list[Any]:
    return [each for each in client.client_list() if each["cmd"] in ("mset", "multi", "set")]


def rounds(count: int) -> Iterator[range]:
    return (range(start, min(start + 5000, count)) for start in range(0, count, 5000))


# Starting again where one stopped


def test_a_script_that_was_cut_off_goes_on_at_the_confirmed_prefix(valkey: EmbeddedServer) -> None:
    items = list(pairs(30_000))
    with valkey.client() as direct:
        direct.flushall()
    with FaultProxy(valkey.port) as proxy, through(proxy, retry=Retry(NoBackoff(), 0)) as client:
        proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1_500_000, then=Then.CUT))
        with pytest.raises(redis.ConnectionError) as caught:
            FastBatch(client, "raw").batch_set(iter(items))
        report = caught.value.report  # type: ignore[attr-defined]
        done = report.confirmed_prefix
        assert 0 < done < 30_000
        assert done == report.written
        with valkey.client() as direct:
            assert all(direct.exists(*(key for key, _ in items[i : i + 1])) for i in range(0, done, 7))
            assert direct.exists(items[done - 1][0])
        assert FastBatch(client, "raw").batch_set(items[done:]).written == 30_000 - done
        assert dict(items) == FastBatch(client, "raw").batch_get([key for key, _ in items])


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The names of docs/streams.md's resume.py, with segments that fit a test."""
    text = (Path(__file__).parents[3] / "docs" / "streams.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if block.startswith('"""resume.py')), names)
    names["SEGMENT"] = 4000
    return names


@pytest.mark.parametrize("count", [0, 1, 4000, 12_000, 12_001])
def test_the_recipe_to_start_again(
    valkey_client: redis.Redis, recipe: dict[str, Any], tmp_path: Path, count: int
) -> None:
    checkpoint = tmp_path / "done"
    fb = FastBatch(valkey_client, "raw")
    assert recipe["load"](fb, pairs(count), checkpoint) == count
    assert valkey_client.dbsize() == count
    assert int(checkpoint.read_text()) == count
    valkey_client.flushall()
    assert recipe["load"](fb, pairs(count), checkpoint) == count
    assert valkey_client.dbsize() == 0


def test_the_recipe_after_connections_and_sources_that_fail(
    valkey: EmbeddedServer, recipe: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "done"
    with valkey.client() as direct:
        direct.flushall()
    with FaultProxy(valkey.port) as proxy, through(proxy, retry=Retry(NoBackoff(), 0)) as client:
        fb = FastBatch(client, "raw")
        proxy.inject(Fault(Direction.TO_SERVER, after_bytes=1_500_000, then=Then.CUT))
        with pytest.raises(redis.ConnectionError):
            recipe["load"](fb, pairs(20_000), checkpoint)
        assert 4000 < int(checkpoint.read_text()) < 20_000
        with pytest.raises(KeyboardInterrupt):
            recipe["load"](fb, failing(KeyboardInterrupt(), 15_000), checkpoint)
        assert checkpoint.read_text() == "15000"
        assert recipe["load"](fb, pairs(20_000), checkpoint) == 20_000
        assert fb.batch_get([key for key, _ in pairs(20_000)]) == dict(pairs(20_000))


def test_failed_items_are_in_the_confirmed_prefix(valkey_client: redis.Redis) -> None:
    """They are settled: the report and the hook have told of them."""
    items = [(f"key:{i}", object() if i == 10 else i) for i in range(5000)]
    with pytest.raises(BatchError) as caught:
        FastBatch(valkey_client).batch_set(items)
    assert (caught.value.report.confirmed_prefix, caught.value.report.written) == (5000, 4999)


def raiser(count: int) -> Callable[[ChunkStats], None]:
    heard = InFlight()

    def hear(stats: ChunkStats) -> None:
        heard(stats)
        if heard.chunks == count:
            raise RuntimeError("the monitor is down")

    return hear


def test_a_hook_that_raises_ends_the_batch_with_its_books_in_order(valkey_client: redis.Redis) -> None:
    with pytest.raises(RuntimeError, match="the monitor is down") as caught:
        FastBatch(valkey_client, "raw").batch_set(pairs(50_000), on_chunk=raiser(20))
    report = caught.value.report  # type: ignore[attr-defined]
    assert 0 < report.written == report.confirmed_prefix < 50_000
    assert valkey_client.exists(*(f"key:{i}" for i in range(report.written))) == report.written
    assert report.failed > 0
    assert valkey_client.ping()
