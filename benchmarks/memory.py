"""Measure how much memory a long batch takes: `python -m benchmarks memory`.

Each contender runs in its own process, which first handles a few items, so that everything that is loaded once is
loaded. The figure is the peak of its resident memory above the memory at that point.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import redis

from benchmarks.servers import BINARIES, empty, running
from benchmarks.tables import table
from redis_fastbatch import FastBatch

MB = 1 << 20
WARM_UP = 20_000
PIPELINE = 1_000
GOAL = 64

Run = Callable[[redis.Redis, int], int]


def pairs(count: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield items without keeping them."""
    return ((f"key:{number}", {"n": number}) for number in range(count))


def keys(count: int) -> Iterator[str]:
    """Yield their keys."""
    return (f"key:{number}" for number in range(count))


def ours_write(client: redis.Redis, count: int) -> int:
    return FastBatch(client).batch_set(pairs(count)).written


def ours_read(client: redis.Redis, count: int) -> int:
    return sum(value is not None for _, value in FastBatch(client).batch_get_iter(keys(count)))


def pipeline_write(client: redis.Redis, count: int, size: int = PIPELINE) -> int:
    source, done = pairs(count), 0
    while some := list(islice(source, size)):
        pipeline = client.pipeline(transaction=False)
        for key, value in some:
            pipeline.set(key, msgpack.packb(value))
        done += sum(map(bool, pipeline.execute()))
    return done


def pipeline_read(client: redis.Redis, count: int, size: int = PIPELINE) -> int:
    source, done = keys(count), 0
    while some := list(islice(source, size)):
        pipeline = client.pipeline(transaction=False)
        for key in some:
            pipeline.get(key)
        done += sum(msgpack.unpackb(value) is not None for value in pipeline.execute())
    return done


def pipeline_write_whole(client: redis.Redis, count: int) -> int:
    pipeline = client.pipeline(transaction=False)
    for key, value in pairs(count):
        pipeline.set(key, msgpack.packb(value))
    return sum(map(bool, pipeline.execute()))


def pipeline_read_whole(client: redis.Redis, count: int) -> int:
    pipeline = client.pipeline(transaction=False)
    for key in keys(count):
        pipeline.get(key)
    return sum(msgpack.unpackb(value) is not None for value in pipeline.execute())


# Each contender's function, and whether it gets all items or only as many as its memory or time allows.
CONTENDERS: dict[str, tuple[Run, bool]] = {
    "write: redis_fastbatch": (ours_write, True),
    f"write: redis-py pipeline of {PIPELINE:,}": (pipeline_write, False),
    "write: redis-py pipeline, one": (pipeline_write_whole, False),
    "read: redis_fastbatch, batch_get_iter": (ours_read, True),
    f"read: redis-py pipeline of {PIPELINE:,}": (pipeline_read, False),
    "read: redis-py pipeline, one": (pipeline_read_whole, False),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--peer-items", type=int, default=1_000_000, help="items of redis-py's pipeline")
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "PORT"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure and print a table; as a child, measure one and print JSON."""
    if options.child:
        print(json.dumps(_measured(options.child[0], int(options.child[1]), options.items)))
        return 0
    rows = []
    with running(options.server) as endpoint:
        for name, (_, whole) in CONTENDERS.items():
            if name.startswith("write"):
                empty(endpoint)
            elif name.startswith("read: redis_fastbatch"):
                ours_write(endpoint.client(), options.items)
            count = options.items if whole else min(options.items, options.peer_items)
            extra, seconds = _in_a_process(name, endpoint.port, count)
            rows.append((name, f"{count:,}", f"{extra / MB:,.1f}", f"{seconds / count * 1e9:,.0f}"))
            print(f"{name}: {extra / MB:,.1f} MB", file=sys.stderr, flush=True)
    heads = ("", "items", f"extra peak RSS, MB (goal: {GOAL})", "ns/item")
    print(table(heads, rows, numbers={1, 2, 3}))
    return 0


def _in_a_process(name: str, port: int, count: int) -> tuple[int, float]:
    command = [sys.executable, "-m", "benchmarks", "memory", "--child", name, str(port), "--items", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    extra, seconds = json.loads(done.stdout)
    return extra, seconds


def _measured(name: str, port: int, count: int) -> tuple[int, float]:
    run, _ = CONTENDERS[name]
    with redis.Redis(port=port, socket_timeout=600) as client:
        run(client, min(count, WARM_UP))
        gc.collect()
        # 5 resets the peak to the present size: see proc_pid_clear_refs(5).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        start = time.perf_counter()
        done = run(client, count)
        seconds = time.perf_counter() - start
    if done != count:
        raise RuntimeError(f"{name}: {done:,} of {count:,} items")
    return _status("VmHWM") - before, seconds


def _status(field: str) -> int:
    lines: list[Any] = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
