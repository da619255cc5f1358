"""Measure the cost of an item in batches of different sizes: `python -m benchmarks scaling`.

The server's work for a key grows with its keyspace, with any client. So each size is measured twice: with the same
hundred thousand keys again and again, and with as many keys as items. The tables also have the client's CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.servers import BINARIES, apart, empty, running
from benchmarks.tables import table
from redis_fastbatch import FastBatch

KEYS = 100_000
LEAST_ITEMS = 1_000_000

Timed = tuple[float, float]
Operation = Callable[[FastBatch, int, int], None]


def pairs(count: int, among: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield items with `among` different keys."""
    return ((f"key:{number % among}", {"n": number}) for number in range(count))


def keys(count: int, among: int) -> Iterator[str]:
    """Yield their keys."""
    return (f"key:{number % among}" for number in range(count))


def write(fast: FastBatch, count: int, among: int) -> None:
    fast.batch_set(pairs(count, among))


def read(fast: FastBatch, count: int, among: int) -> None:
    for _ in fast.batch_get_iter(keys(count, among)):
        pass


OPERATIONS = {"batch_set of a generator": write, "batch_get_iter": read}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=int, default=10_000_000, help="of the largest batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")


def run(options: argparse.Namespace) -> int:
    """Measure and print a table an operation."""
    sizes = [size for size in (10_000, KEYS, 1_000_000, 10_000_000) if size <= max(options.items, KEYS)]
    for title, operation in OPERATIONS.items():
        rows = []
        for distinct in (False, True):
            costs = _costs(options, operation, sizes, distinct)
            base_wall, base_cpu = costs[KEYS]
            for size, (wall, cpu) in costs.items():
                rows.append(
                    (
                        "as many as items" if distinct else f"{KEYS:,}",
                        f"{size:,}",
                        f"{wall:,.0f}",
                        f"{base_wall / wall:.2f}",
                        f"{cpu:,.0f}",
                        f"{base_cpu / cpu:.2f}",
                    )
                )
        ratio = f"times faster than {KEYS:,}"
        heads = ("keys", "items", "ns/item", ratio, "client's CPU, ns/item", ratio)
        print(f"\n### {title}\n\n{table(heads, rows, numbers={1, 2, 3, 4, 5})}", flush=True)
    return 0


def _costs(
    options: argparse.Namespace,
    operation: Operation,
    sizes: list[int],
    distinct: bool,
) -> dict[int, Timed]:
    """Return wall and CPU time per item by size: medians over rounds that go through all sizes."""
    samples: dict[int, list[Timed]] = {size: [] for size in sizes}
    with running(options.server) as endpoint, apart(endpoint), endpoint.client() as client:
        fast = FastBatch(client)
        for _ in range(options.rounds):
            for size in sizes:
                among = size if distinct else KEYS
                if distinct:
                    empty(endpoint)
                write(fast, among, among)
                samples[size].append(_timed(operation, fast, size, among))
                print(f"{operation.__name__} {size:,}: {samples[size][-1]}", file=sys.stderr, flush=True)
    return {
        size: (statistics.median(wall for wall, _ in each), statistics.median(cpu for _, cpu in each))
        for size, each in samples.items()
    }


def _timed(operation: Operation, fast: FastBatch, size: int, among: int) -> Timed:
    """Return wall and CPU time per item. Repeat a small batch until the measured time is long enough."""
    times = max(1, LEAST_ITEMS // size)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        operation(fast, size, among)
    items = size * times / 1e9
    return (time.perf_counter() - wall) / items, (time.process_time() - cpu) / items
