"""python -m soak batches|items [--count N]: long runs that watch memory; see CONTRIBUTING.md."""

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
    """Batches of every kind, failing ones too."""
    with EmbeddedServer() as server, server.client() as client:
        runs = list(rounds(client).values())
        each = max(1, count // STEPS // len(runs))
        seen: list[int] = []
        for step in range(STEPS):
            for _ in range(each):
                for run in runs:
                    run()
            tell(step, (step + 1) * each * len(runs), "batches", seen)
    judge(seen)


def items(count: int) -> None:
    """One endless batch, in memory that is bounded by its window."""
    seen: list[int] = []
    with EmbeddedServer() as server, server.client() as client:
        done = 0
        for step in range(STEPS):
            report = FastBatch(client).batch_set(endless(done, count // STEPS), ex=1000)
            done += report.written
            assert report.written == count // STEPS
            keys = map(key_of, range(min(done, KEYS)))
            assert all(value["n"] >= 0 for _, value in FastBatch(client).batch_get_iter(keys))
            tell(step, done, "items", seen)
    judge(seen)


def key_of(number: int) -> str:
    return f"soak:{number % KEYS}"


def endless(first: int, count: int) -> Iterator[tuple[str, Any]]:
    for number in range(first, first + count):
        yield key_of(number), {"n": number, "text": f"text {number}", "list": [number]}


def tell(step: int, done: int, what: str, seen: list[int]) -> None:
    seen.append(resident())
    print(
        f"{time.strftime('%H:%M:%S')} {done:,} {what}: {seen[-1] / MEGABYTE:.1f} MB, {blocks():,} objects",
        flush=True,
    )


def judge(seen: list[int]) -> None:
    """The second half of the run takes no more than the first did."""
    first, second = max(seen[: STEPS // 2]), max(seen[STEPS // 2 :])
    assert second <= first + ALLOWED, f"grown by {(second - first) / MEGABYTE:.1f} MB"
    print(f"flat: {first / MEGABYTE:.1f} MB in the first half, {second / MEGABYTE:.1f} MB in the second")


def main() -> None:
    # Failures that are reported are logged as well.
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
