"""Interrupts batches at random moments, as Ctrl-C does.

Call `python interrupted.py PORT COUNT single|cluster|commands`. The last one interrupts pipelines and commands.

It needs a process of its own, because a late signal would end the process. It prints how often it found each
fault. It checks what the documentation promises: the connection is closed or clean, no value is under a wrong key,
`confirmed_prefix` is never too large, and unconfirmed items are reported as failed.
"""

from __future__ import annotations

import gc
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import redis

from redis_fastbatch import BatchReport, FastBatch

# Not more than the number of failed keys that a report keeps.
COUNT = 900
KEYS = [f"interrupted:{number}" for number in range(COUNT)]
CHUNK = 100

WRITES: list[dict[str, Any]] = [
    {"chunk_size": CHUNK},
    {"chunk_size": 3},
    {"chunk_size": CHUNK, "workers": 2},
    {"chunk_size": CHUNK, "ex": 1000},
    {"chunk_size": CHUNK, "nx": True},
    {"chunk_size": CHUNK, "atomic": True},
]

PIPELINES = [(transaction, size) for size in (1, 20, 4000) for transaction in (False, True)]

Values = dict[str, Any]


class Items:
    """The items of one write. They count how many of them were taken."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0

    def __iter__(self) -> Iterator[tuple[str, Values]]:
        for i, key in enumerate(KEYS):
            self.taken = i + 1
            yield key, {"of": i, "write": self.number, "text": "x" * 50}


armed: list[bool] = []


def raise_if_armed(*_: object) -> None:
    """Raise KeyboardInterrupt, but only during run(): Python may call the handler late."""
    if armed:
        raise KeyboardInterrupt


def interrupted(run: Callable[[], object], seconds: float) -> KeyboardInterrupt | None:
    """Run something, and interrupt it after `seconds`. Return the KeyboardInterrupt, or None if it came late."""
    try:
        try:
            armed[:] = [True]
            signal.setitimer(signal.ITIMER_REAL, seconds)
            run()
        finally:
            armed[:] = []
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt as error:
        return error
    return None


class Check:
    """Interrupts writes and reads, and counts what is wrong after each."""

    def __init__(self, client: Any) -> None:
        self.counts: Counter[str] = Counter()
        self._client = client
        self._fast = FastBatch(client)
        self._random = random.Random(7)
        self._durations: dict[int, float] = {}

    def write(self, number: int, kind: int) -> None:
        """Interrupt a write, and compare its report with the stored items."""
        options = WRITES[kind]
        if "nx" in options:
            self._fast.batch_delete(KEYS[::2])
        items = Items(number)
        error = self._interrupt(kind, lambda: self._fast.batch_set(items, on_error="report", **options))
        found = self._read()
        report: BatchReport | None = getattr(error, "report", None)
        if report is not None:
            stored = {key for key, value in found.items() if value is not None and value["write"] == number}
            self._check_report(report, items, stored, options)

    def read(self, number: int, kind: int) -> None:
        """Interrupt a read, and check the values of the next read."""
        keys, iterate = KEYS, kind % 2
        read = (lambda: dict(self._fast.batch_get_iter(keys, chunk_size=90))) if iterate else self._read
        self._interrupt(-1 - iterate, read)
        self._read()

    def pipeline(self, number: int, kind: int) -> None:
        """Interrupt a pipeline. Then check that the next one gets its own replies."""
        transaction, size = PIPELINES[kind]

        def run(expected: list[bytes]) -> None:
            with self._fast.pipeline(transaction) as pipe:
                for each in expected:
                    pipe.echo(each)
                self.counts["wrong results"] += pipe.execute() != expected

        self._interrupt(kind, lambda: run([b"interrupted %d %d" % (number, i) for i in range(size)]))
        run([b"next %d %d" % (number, i) for i in range(3)])

    def execute(self, number: int) -> None:
        """Interrupt a short batch of commands, and compare its report with what was carried out."""
        keys = [f"counted:{number}:{i}" for i in range(50)]
        commands = [("INCR", key) for key in keys]
        error = self._interrupt(-3, lambda: self._fast.batch_execute(commands, on_error="report"))
        found = self._client.mget(keys)
        self.counts["carried out twice"] += any(value not in (None, b"1") for value in found)
        report: BatchReport | None = getattr(error, "report", None)
        if report is not None:
            stored = {i for i, value in enumerate(found) if value is not None}
            self.counts["written too large"] += report.written > len(stored)
            self.counts["prefix too large"] += report.confirmed_prefix > len(stored | set(report.failures))
            unsent = {i for i, reason in report.failures.items() if str(reason).startswith("not sent")}
            self.counts["reported as not sent, and stored"] += bool(unsent & stored)

    def _interrupt(self, kind: int, run: Callable[[], object]) -> KeyboardInterrupt | None:
        if kind not in self._durations:
            started = time.perf_counter()
            run()
            self._durations[kind] = time.perf_counter() - started
            return None
        error = interrupted(run, max(1e-6, self._random.random() * self._durations[kind]))
        self.counts["done" if error is None else "interrupted"] += 1
        self._check_connections()
        return error

    def _read(self) -> dict[str, Any]:
        found = self._fast.batch_get(KEYS)
        wrong = sum(value is not None and value["of"] != i for i, value in enumerate(found.values()))
        self.counts["values under a wrong key"] += wrong
        return found

    def _check_report(self, report: BatchReport, items: Items, stored: set[str], options: dict[str, Any]) -> None:
        counts, failures = self.counts, report.failures
        settled = stored | set(failures) | set(report.skipped_keys)
        counts["prefix too large"] += any(key not in settled for key in KEYS[: report.confirmed_prefix])
        counts["written too large"] += report.written > len(stored)
        # With several workers, one may have taken items without sending them.
        begun = items.taken if "workers" not in options else report.total
        # An atomic batch is one chunk.
        one_chunk = COUNT if "atomic" in options else max(CHUNK, options["chunk_size"])
        counts["not reported"] += not begun - one_chunk <= report.total <= items.taken
        for key, error in failures.items():
            not_sent = str(error).startswith("not sent")
            counts["reported as not sent, and stored"] += not_sent and key in stored
            known = ("not sent", "outcome unknown", "not written: another item of the atomic batch failed")
            counts["reported with another reason"] += not str(error).startswith(known)

    def _check_connections(self) -> None:
        for pool in self._pools():
            borrowed = pool._in_use_connections
            self.counts["connections not returned"] += len(borrowed)
            borrowed.clear()
        if not gc.isenabled():
            self.counts["collector off"] += 1
            gc.enable()

    def _pools(self) -> list[Any]:
        if isinstance(self._client, redis.RedisCluster):
            return [node.redis_connection.connection_pool for node in self._client.get_primaries()]
        return [self._client.connection_pool]


def main(port: int, count: int, kind: str) -> None:
    """Interrupt `count` batches."""
    signal.signal(signal.SIGALRM, raise_if_armed)
    client: Any = redis.RedisCluster("127.0.0.1", port) if kind == "cluster" else redis.Redis(port=port)
    check = Check(client)
    if kind == "commands":
        for number in range(count):
            check.pipeline(number, number % len(PIPELINES))
            check.execute(number)
        print(dict(check.counts))
        return
    for number in range(count):
        which = number % (len(WRITES) + 2)
        if which >= len(WRITES):
            check.read(number, which)
        elif kind == "single" or "atomic" not in WRITES[which]:
            check.write(number, which)
    print(dict(check.counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
