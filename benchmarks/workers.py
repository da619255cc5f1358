"""Measure the gain of several workers: `python -m benchmarks workers`.

It writes to one server with `workers=1`, 2 and 4. It also writes one batch to each of two servers, one after the
other, or at the same time in two threads, as a program does that shards its keys by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import shapes
from benchmarks.equality import same
from benchmarks.measure import Contender, interleaved
from benchmarks.servers import BINARIES, Endpoint, running
from benchmarks.tables import table
from redis_fastbatch import FastBatch

WORKERS = (1, 2, 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="dict5,flight,bytes1k", type=lambda text: text.split(","))
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")


def run(options: argparse.Namespace) -> int:
    """Measure and print a table."""
    heads = ("", "values", "", "ns/item", "times faster than the first (quartiles)")
    rows = []
    with running(options.server) as one, running(options.server) as other:
        for shape in options.shapes:
            items = shapes.make(shape, options.items)
            for operation, contenders in (
                ("batch_set, one server", _setters(one, items)),
                ("batch_get, one server", _getters(one, items)),
                ("batch_set, two servers", _on_two((one, other), items, FastBatch.batch_set)),
                ("batch_get, two servers", _on_two((one, other), items, _get)),
            ):
                timings = interleaved(contenders, options.rounds)
                for timing in timings:
                    ratio = timing.times_faster_than(timings[0])
                    spread = f"{ratio.value:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"
                    per_item = f"{timing.median / options.items:,.0f}"
                    rows.append((operation, shape, timing.name, per_item, spread))
                print(table(heads, rows[-len(timings) :], numbers={3, 4}))
    print()
    print(table(heads, rows, numbers={3, 4}))
    return 0


def _setters(endpoint: Endpoint, items: dict[str, Any]) -> list[Contender]:
    fast = FastBatch(endpoint.client())

    def contender(workers: int) -> Contender:
        def write() -> int:
            return fast.batch_set(items, workers=workers).written

        return Contender(f"workers={workers}", "ours", write, lambda: _same(write(), len(items)))

    return [contender(workers) for workers in WORKERS]


def _getters(endpoint: Endpoint, items: dict[str, Any]) -> list[Contender]:
    fast, keys = FastBatch(endpoint.client()), list(items)

    def contender(workers: int) -> Contender:
        def read() -> int:
            return len(fast.batch_get(keys, workers=workers))

        return Contender(f"workers={workers}", "ours", read, lambda: _same(read(), len(items)))

    return [contender(workers) for workers in WORKERS]


def _get(fast: FastBatch, items: dict[str, Any]) -> object:
    return fast.batch_get(items)


def _on_two(
    endpoints: Sequence[Endpoint], items: dict[str, Any], operation: Callable[[FastBatch, dict[str, Any]], object]
) -> list[Contender]:
    pairs = list(items.items())
    half = len(pairs) // 2
    jobs = [
        (FastBatch(endpoint.client()), dict(part))
        for endpoint, part in zip(endpoints, (pairs[:half], pairs[half:]), strict=True)
    ]

    def in_turn() -> None:
        for fast, part in jobs:
            operation(fast, part)

    def at_a_time() -> None:
        with ThreadPoolExecutor(len(jobs)) as threads:
            list(threads.map(lambda job: operation(*job), jobs))

    def check() -> None:
        for fast, part in jobs:
            fast.batch_set(part)
            _same(fast.batch_get(part), part)

    return [Contender("in turn", "ours", in_turn, check), Contender("two threads", "ours", at_a_time, check)]


def _same(found: object, expected: object) -> None:
    if not same(expected, found):
        raise AssertionError("not what was expected")
