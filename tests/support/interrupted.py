"""Batches that are interrupted at random moments, as Ctrl-C does it: `python interrupted.py PORT COUNT KIND`.

In a process of its own, which a signal that comes too late would otherwise end. Tells what was found wrong.
"""

from __future__ import annotations

import gc
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis

from redis_fastbatch import FastBatch

ITEMS = {f"interrupted:{i}": {"number": i, "text": "x" * 50, "list": [i]} for i in range(400)}
KEYS = list(ITEMS)


def operations(fast: FastBatch) -> list[Callable[[], Any]]:
    """Batches of every kind, each of which returns what is wrong with its result, or None."""

    def write(**options: Any) -> Callable[[], Any]:
        return lambda: fast.batch_set(ITEMS, **options).written == len(ITEMS)

    return [
        write(),
        write(ex=1000),
        write(atomic=True),
        write(chunk_size=3),
        write(workers=2),
        lambda: (
            fast.batch_set(((key, value) for key, value in ITEMS.items()), chunk_size=50).written == len(ITEMS)
        ),
        lambda: fast.batch_get(KEYS) == ITEMS,
        lambda: dict(fast.batch_get_iter(KEYS, chunk_size=20)) == ITEMS,
        lambda: fast.batch_delete(["none"]) == 0,
    ]


armed: list[bool] = []


def strike(*_: object) -> None:
    """Ctrl-C, while that is awaited. Where another thread took the signal, Python may be late to act upon it."""
    if armed:
        raise KeyboardInterrupt


def interrupted(run: Callable[[], Any], seconds: float) -> str:
    """Runs something with an interrupt after a while, and says how it ended."""
    try:
        try:
            armed[:] = [True]
            signal.setitimer(signal.ITIMER_REAL, seconds)
            whole = run()
        finally:
            armed[:] = []
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return "interrupted"
    return "done" if whole else "wrong"


def connections(client: redis.Redis) -> int:
    """Connections of the pool that are lent."""
    return len(client.connection_pool._in_use_connections)


def check(client: redis.Redis, fast: FastBatch, seen: Counter[str]) -> None:
    """Nothing is left of what was interrupted."""
    seen["connections lent for good"] += connections(client)
    client.connection_pool._in_use_connections.clear()
    if not gc.isenabled():
        seen["collector off"] += 1
        gc.enable()
    if fast.batch_get(KEYS) != ITEMS or client.get("interrupted:none") is not None:
        seen["wrong"] += 1


def main(port: int, count: int) -> None:
    signal.signal(signal.SIGALRM, strike)
    client = redis.Redis(port=port)
    fast = FastBatch(client)
    runs, seen, chance = operations(fast), Counter[str](), random.Random(7)
    durations = []
    for run in runs:
        run()
        started = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started)
    for number in range(count):
        which = number % len(runs)
        seen[interrupted(runs[which], max(1e-6, chance.random() * durations[which] * 1.2))] += 1
        check(client, fast, seen)
    print(dict(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
