"""What a load does to the server's other clients: `python -m benchmarks latency`.

One process loads, again and again. Meanwhile this process sends a GET about every millisecond over its own
connection and times the replies. The server reports how long the load's commands took: p50, p99 and the longest,
which on a busy machine may include a wait for other programs.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import msgpack
import redis

from benchmarks import shapes
from benchmarks.memory import pipeline_read, pipeline_write, pipeline_write_whole
from benchmarks.servers import BINARIES, Endpoint, empty, running
from benchmarks.tables import table
from redis_fastbatch import FastBatch

PAUSE = 0.001
SLOW_MICROSECONDS = 500
LARGE = 100_000

Load = Callable[[redis.Redis, int], object]


@functools.cache
def _items(count: int) -> shapes.Items:
    return shapes.make("dict5", count)


def giant_mset(client: redis.Redis, count: int) -> None:
    client.mset({key: msgpack.packb(value) for key, value in _items(count).items()})


def ours_set(client: redis.Redis, count: int) -> None:
    FastBatch(client).batch_set(_items(count))


def ours_set_ex(client: redis.Redis, count: int) -> None:
    FastBatch(client).batch_set(_items(count), ex=1000)


def ours_get(client: redis.Redis, count: int) -> None:
    FastBatch(client).batch_get([f"user:{number}" for number in range(count)])


def giant_mget(client: redis.Redis, count: int) -> None:
    client.mget([f"user:{number}" for number in range(count)])


def ours_get_large(client: redis.Redis, count: int) -> None:
    for _ in FastBatch(client, "raw").batch_get_iter([f"large:{n % 200}" for n in range(count // 100)]):
        pass


def ours_delete(client: redis.Redis, count: int) -> None:
    FastBatch(client).batch_delete([f"user:{number}" for number in range(count)])


LOADS: dict[str, Load | None] = {
    "nothing": None,
    "redis_fastbatch: batch_set": ours_set,
    "redis_fastbatch: batch_set(ex=)": ours_set_ex,
    "redis-py: one MSET": giant_mset,
    "redis-py: pipeline of 1,000 SETs": pipeline_write,
    "redis-py: one pipeline of SETs": pipeline_write_whole,
    "redis_fastbatch: batch_get": ours_get,
    f"redis_fastbatch: batch_get_iter of {LARGE // 1000} KB values": ours_get_large,
    "redis-py: one MGET": giant_mget,
    "redis-py: pipeline of 1,000 GETs": pipeline_read,
    "redis_fastbatch: batch_delete": ours_delete,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=int, default=200_000, help="of each load")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds to watch each load")
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "PORT"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure and print a table; as a child, load until it is killed."""
    if options.child:
        _load(options.child[0], int(options.child[1]), options.items)
    rows = []
    for name, load in LOADS.items():
        with running(options.server) as endpoint:
            _prepare(endpoint, options.items)
            waits = _watched(endpoint, name if load else None, options)
            commands = _commands(endpoint)
        hundredths = statistics.quantiles(waits, n=1000)
        shown = [hundredths[499], hundredths[989], hundredths[998], max(waits)]
        rows.append((name, *(f"{wait * 1e3:.2f}" for wait in shown), f"{len(waits):,}", *commands))
        print(rows[-1], file=sys.stderr, flush=True)
    heads = ("load", "p50, ms", "p99", "p99.9", "most", "GETs", "its command", "p50, ms", "p99", "most")
    print(table(heads, rows, numbers={1, 2, 3, 4, 5, 7, 8, 9}))
    return 0


def _prepare(endpoint: Endpoint, count: int) -> None:
    empty(endpoint)
    with endpoint.client() as client:
        pipeline_write(client, count)
        ours_set(client, count)
        FastBatch(client, "raw").batch_set((f"large:{number}", b"x" * LARGE) for number in range(200))
        client.set("probe", b"x")
        client.config_set("slowlog-log-slower-than", SLOW_MICROSECONDS)
        client.config_set("slowlog-max-len", 10_000)


def _watched(endpoint: Endpoint, name: str | None, options: argparse.Namespace) -> list[float]:
    if name is None:
        with endpoint.client() as client:
            client.slowlog_reset()
            client.config_resetstat()
        return _waits(endpoint, options.seconds)
    command = [sys.executable, "-m", "benchmarks", "latency", "--child", name, str(endpoint.port)]
    with subprocess.Popen([*command, "--items", str(options.items)], stdout=subprocess.PIPE) as loading:
        try:
            if loading.stdout is None or not loading.stdout.readline():
                raise RuntimeError(f"{name}: the load does not run")
            with endpoint.client() as client:
                client.slowlog_reset()
                client.config_resetstat()
            return _waits(endpoint, options.seconds)
        finally:
            loading.kill()


def _waits(endpoint: Endpoint, seconds: float) -> list[float]:
    """Return how long each GET took, in seconds."""
    waits = []
    with endpoint.client() as client:
        until = time.perf_counter() + seconds
        while (start := time.perf_counter()) < until:
            client.get("probe")
            waits.append(time.perf_counter() - start)
            time.sleep(PAUSE)
    return waits


def _commands(endpoint: Endpoint) -> tuple[str, str, str, str]:
    """Return the command that the server ran most, except the probe's GETs, with p50, p99 and the longest time."""
    with endpoint.client() as client:
        stats, latencies = client.info("commandstats"), client.info("latencystats")
        longest: dict[str, int] = {}
        for entry in client.slowlog_get(10_000):
            name = entry["command"].split()[0].decode().lower()
            longest[name] = max(longest.get(name, 0), entry["duration"])
    spent = {name.removeprefix("cmdstat_"): each["usec"] for name, each in stats.items()}
    name = max(("mset", "msetex", "set", "mget", "get", "unlink"), key=lambda each: spent.get(each, 0))
    percentiles = latencies.get(f"latency_percentiles_usec_{name}", {"p50": 0, "p99": 0})
    most = f"{longest[name] / 1000:.2f}" if name in longest else f"< {SLOW_MICROSECONDS / 1000}"
    return name.upper(), f"{percentiles['p50'] / 1000:.2f}", f"{percentiles['p99'] / 1000:.2f}", most


def _load(name: str, port: int, count: int) -> None:
    load = LOADS[name]
    if load is None:
        raise ValueError(f"the load must be one that sends commands, got {name!r}")
    with redis.Redis(port=port, socket_timeout=600) as client:
        for number in itertools.count():
            load(client, count)
            if number == 0:
                print("loading", flush=True)
