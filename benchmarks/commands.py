"""Any commands, in batches: `python -m benchmarks commands`.

All contenders take turns in one process. Wall time is measured, and the CPU time of the process, which does not
include the server. The floor is a bare socket that sends the same bytes, encoded beforehand, in slices of 32 KiB,
and counts the bytes of the replies. First, each contender does the work once, and the server must then hold the
same data as after redis-py's pipeline.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import hiredis

from benchmarks import environment, results, tables
from benchmarks.floor import Sliced
from benchmarks.measure import WrongResult, frozen_heap, in_turns
from benchmarks.servers import BINARIES, Endpoint, apart, empty, running
from redis_fastbatch import FastBatch, col

OURS, ITER, TABLE = "batch_execute", "batch_execute_iter", "batch_execute_table"
PIPELINE, FLOOR = "redis-py pipeline", "floor"

Work = Callable[[], Any]


@dataclass(frozen=True)
class Workload:
    """Commands of one kind.

    Attributes:
        command: makes the i-th command.
        queue: queues the i-th command in a pipeline of redis-py, by its own method.
        prepare: makes the i-th command of those that write what is read; None for commands that write.
    """

    command: Callable[[int], tuple[Any, ...]]
    queue: Callable[[Any, int], Any]
    prepare: Callable[[int], tuple[Any, ...]] | None = None


WORKLOADS = {
    "ZADD": Workload(
        lambda i: ("ZADD", "board", i * 7 % 1000 / 4, f"user:{i}"),
        lambda pipe, i: pipe.zadd("board", {f"user:{i}": i * 7 % 1000 / 4}),
    ),
    "SADD": Workload(lambda i: ("SADD", "tags", f"tag:{i}"), lambda pipe, i: pipe.sadd("tags", f"tag:{i}")),
    "XADD": Workload(
        lambda i: ("XADD", "events", f"1-{i + 1}", "user", f"user:{i}", "at", 1_700_000_000 + i),
        lambda pipe, i: pipe.xadd("events", {"user": f"user:{i}", "at": 1_700_000_000 + i}, id=f"1-{i + 1}"),
    ),
    "INCR": Workload(lambda i: ("INCR", f"count:{i}"), lambda pipe, i: pipe.incr(f"count:{i}")),
    "HSET": Workload(
        lambda i: ("HSET", f"user:{i}", "name", f"name {i}", "age", i % 90),
        lambda pipe, i: pipe.hset(f"user:{i}", mapping={"name": f"name {i}", "age": i % 90}),
    ),
    "SET EX": Workload(
        lambda i: ("SET", f"session:{i}", f"value {i}", "EX", 3600),
        lambda pipe, i: pipe.set(f"session:{i}", f"value {i}", ex=3600),
    ),
    "GET": Workload(
        lambda i: ("GET", f"key:{i}"),
        lambda pipe, i: pipe.get(f"key:{i}"),
        lambda i: ("SET", f"key:{i}", f"value {i}"),
    ),
    "HGETALL": Workload(
        lambda i: ("HGETALL", f"user:{i}"),
        lambda pipe, i: pipe.hgetall(f"user:{i}"),
        lambda i: ("HSET", f"user:{i}", "name", f"name {i}", "age", i % 90),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--count", type=int, default=10_000, help="commands in a batch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WORKLOADS))
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def run(options: argparse.Namespace) -> int:
    """Measure and print the tables; return the exit code."""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    with running(options.server) as endpoint, apart(endpoint):
        for kind in options.only:
            with Contenders(endpoint, WORKLOADS[kind], options.count) as contenders, frozen_heap():
                contenders.check()
                measured[kind] = contenders.measure(options.rounds)
            print(f"{kind}: measured", flush=True)
    described = environment.describe([options.server])
    document = _document(described, measured, options.count)
    print(document)
    if options.name:
        results.publish(options.name, {"environment": described, "commands": measured}, document)
    return 0


class Contenders(ExitStack):
    """The ways to send the commands of a workload.

    Args:
        endpoint: the server.
        workload: the commands.
        count: how many of them.
    """

    def __init__(self, endpoint: Endpoint, workload: Workload, count: int) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._workload = workload
        self._count = count
        self._commands = [workload.command(i) for i in range(count)]
        self._client = self.enter_context(endpoint.client())
        self._work = dict(self._ways())

    def _ways(self) -> Iterator[tuple[str, Work]]:
        fast, commands = FastBatch(self._client), self._commands
        yield OURS, lambda: fast.batch_execute(commands)
        yield TABLE, self._by_table(fast)
        yield ITER, lambda: list(fast.batch_execute_iter(commands))
        yield PIPELINE, self._pipeline
        yield from self._peers()
        yield FLOOR, self._floor()

    def _by_table(self, fast: FastBatch) -> Work:
        """Return a call that sends the commands as the rows of a table: each argument that varies is a column."""
        import pyarrow as pa

        columns = list(zip(*self._commands, strict=True))
        varies = [len(set(column)) > 1 for column in columns]
        table = pa.table({str(i): list(column) for i, column in enumerate(columns) if varies[i]})
        template = [col(str(i)) if varies[i] else column[0] for i, column in enumerate(columns)]
        return lambda: fast.batch_execute_table(table, template)

    def _pipeline(self) -> Any:
        queue = self._workload.queue
        with self._client.pipeline(transaction=False) as pipe:
            for i in range(self._count):
                queue(pipe, i)
            return pipe.execute()

    def _peers(self) -> Iterator[tuple[str, Work]]:
        """Yield the other clients that are installed."""
        with suppress(ImportError):
            yield self._coredis()
        with suppress(ImportError):
            yield self._glide()

    def _coredis(self) -> tuple[str, Work]:
        from coredis.response._callbacks import NoopCallback

        from benchmarks.peers.coredis import connected
        from benchmarks.peers.eventloop import OpenClient

        opened = OpenClient(lambda: connected(self._endpoint, 0))
        self.callback(opened.close)
        callback: NoopCallback[Any] = NoopCallback()

        async def piped() -> Any:
            async with opened.client.pipeline(transaction=False) as pipe:
                for name, *arguments in self._commands:
                    pipe.create_request(name.encode(), *arguments, callback=callback)
            return pipe.results

        return "coredis pipeline", lambda: opened.run(piped())

    def _glide(self) -> tuple[str, Work]:
        from glide import Batch, BatchOptions

        from benchmarks.peers.eventloop import OpenClient
        from benchmarks.peers.glide import TIMEOUT_MS, connected

        opened = OpenClient(lambda: connected(self._endpoint, 0))
        self.callback(opened.close)

        async def batched() -> Any:
            batch = Batch(is_atomic=False)
            for command in self._commands:
                batch.custom_command([word if isinstance(word, str) else str(word) for word in command])
            return await opened.client.exec(batch, True, options=BatchOptions(timeout=TIMEOUT_MS))

        return "valkey-glide batch", lambda: opened.run(batched())

    def _floor(self) -> Work:
        """Return a call that sends the same bytes, and receives as many bytes of replies as there are."""
        data = b"".join(hiredis.pack_command(command) for command in self._commands)
        self._begin()
        return self.enter_context(Sliced(self._endpoint, data, self._count)).run

    def _begin(self) -> None:
        """Bring the server into the state in which every run begins."""
        empty(self._endpoint)
        if self._workload.prepare is not None:
            FastBatch(self._client).batch_execute(map(self._workload.prepare, range(self._count)))

    def _state(self) -> dict[bytes, bytes]:
        """Return all keys with their values, serialized by the server. Times to live are left out."""
        keys = sorted(self._client.keys())
        return {key: self._client.execute_command("DUMP", key) for key in keys}

    def check(self) -> None:
        """Let every contender do the work once, and compare the outcomes with those of redis-py's pipeline.

        Raises:
            WrongResult: a contender has left other data, or has returned other replies.
        """
        self._begin()
        expected = self._work[PIPELINE]()
        state = self._state()
        raw = list(FastBatch(self._client).batch_execute_iter(self._commands)) if self._workload.prepare else None
        for name, work in self._work.items():
            self._begin()
            found = work()
            if self._state() != state:
                raise WrongResult(f"{name}: the server has other data than after {PIPELINE}")
            if name == ITER and raw is not None and (found != raw or len(found) != len(expected)):
                raise WrongResult(f"{name}: other replies")

    def measure(self, rounds: int) -> dict[str, dict[str, float]]:
        """Return medians in nanoseconds for a command: of the wall time, and of this process's CPU time."""
        samples = in_turns(self._work, rounds, self._begin if self._workload.prepare is None else lambda: None)
        return {
            name: {
                "wall": statistics.median(wall for wall, _ in found) / self._count,
                "cpu": statistics.median(cpu for _, cpu in found) / self._count,
            }
            for name, found in samples.items()
        }


def _document(described: dict[str, Any], measured: dict[str, dict[str, dict[str, float]]], count: int) -> str:
    parts = ["# Any commands", tables.circumstances(described)]
    names = list(dict.fromkeys(name for found in measured.values() for name in found))
    for figure, title in (("wall", "wall time"), ("cpu", "client CPU")):
        rows = [
            (kind, *(f"{found[name][figure]:,.0f}" if name in found else "" for name in names))
            for kind, found in measured.items()
        ]
        parts.append(f"## {title}, nanoseconds a command, {count:,} commands")
        parts.append(tables.table(("command", *names), rows, numbers=set(range(1, len(names) + 1))))
    parts.append("## How many times faster than redis-py's pipeline, wall time")
    rows = [(kind, *(_faster(found, name) for name in names)) for kind, found in measured.items()]
    parts.append(tables.table(("command", *names), rows, numbers=set(range(1, len(names) + 1))))
    return "\n\n".join(parts)


def _faster(found: dict[str, dict[str, float]], name: str) -> str:
    return f"{found[PIPELINE]['wall'] / found[name]['wall']:.2f}" if name in found else ""
