"""python -m soak batches|items [--count N]: long runs that measure memory; see CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from typing import Any

from redis_fastbatch import FastBatch
from redis_fastbatch.server import EmbeddedServer
from soak.rounds import blocks, resident, rounds

MEGABYTE = 1_000_000
ALLOWED = 4 * MEGABYTE
STEPS = 20
KEYS = 100_000


def batches(count: int) -> None:
    """Run batches of every kind, also ones that fail."""
    with EmbeddedServer() as server, server.client() as client:
        runs = list(rounds(client).values())
        each = max(1, count // STEPS // len(runs))
        measured: list[int] = []
        for step in range(STEPS):
            for _ in range(each):
                for run in runs:
                    run()
            report_memory(step, (step + 1) * each * len(runs), "batches", measured)
    check(measured)


def items(count: int) -> None:
    """Write long streams. The window bounds their memory."""
    measured: list[int] = []
    with EmbeddedServer() as server, server.client() as client:
        done = 0
        for step in range(STEPS):
            report = FastBatch(client).batch_set(endless(done, count // STEPS), ex=1000)
            done += report.written
            assert report.written == count // STEPS
            keys = map(key_of, range(min(done, KEYS)))
            assert all(value["n"] >= 0 for _, value in FastBatch(client).batch_get_iter(keys))
            report_memory(step, done, "items", measured)
    check(measured)


def key_of(number: int) -> str:
    return f"soak:{number % KEYS}"


def endless(first: int, count: int) -> Iterator[tuple[str, Any]]:
    for number in range(first, first + count):
        yield key_of(number), {"n": number, "text": f"text {number}", "list": [number]}


def report_memory(step: int, done: int, what: str, measured: list[int]) -> None:
    measured.append(resident())
    print(
        f"{time.strftime('%H:%M:%S')} {done:,} {what}: {measured[-1] / MEGABYTE:.1f} MB, {blocks():,} objects",
        flush=True,
    )


def check(measured: list[int]) -> None:
    """Check that the second half of the run takes no more memory than the first."""
    first, second = max(measured[: STEPS // 2]), max(measured[STEPS // 2 :])
    assert second <= first + ALLOWED, f"grown by {(second - first) / MEGABYTE:.1f} MB"
    print(f"flat: {first / MEGABYTE:.1f} MB in the first half, {second / MEGABYTE:.1f} MB in the second")


def main() -> None:
    # Reported failures are logged too, and there are many.
    logging.disable()
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("what", choices=["batches", "items"])
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.what == "batches":
        batches(options.count or 1_000_000)
    else:
        items(options.count or 24_000_000)


if __name__ == "__main__":
    main()
