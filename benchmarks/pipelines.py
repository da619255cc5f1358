"""Pipelines: `python -m benchmarks pipelines`. Ours against redis-py's own, with the same commands.

A call queues the commands of a pipeline, executes it and gets the results. Each call is timed on its own: wall
time, and the CPU time of the calling thread. Before, the results of the contenders are compared. Ratios say how
many times faster ours is.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import redis
import redis.asyncio

from benchmarks import calls, environment, results, tables
from benchmarks.calls import Work
from benchmarks.measure import WrongResult, frozen_heap
from benchmarks.servers import BINARIES, Endpoint, apart, empty, running
from redis_fastbatch import AsyncFastBatch, FastBatch

SIZES = [1, 5, 20, 100, 10_000]
FEW = 1000
LARGE_TURNS = 5
"""Turns where a pipeline has more commands than FEW. A turn has three calls then."""

OURS, THEIRS = "redis_fastbatch", "redis-py"
OURS_ASYNC, THEIRS_ASYNC = "redis_fastbatch, asyncio", "redis.asyncio"
FLOOR = "floor"
AGAINST = {THEIRS: OURS, THEIRS_ASYNC: OURS_ASYNC, FLOOR: OURS}
"""Each peer, and which of our pipelines it is compared with."""

Queue = Callable[[Any, int], Any]

OPERATIONS: dict[str, Queue] = {
    "get": lambda pipe, i: pipe.get(f"text:{i}"),
    "incr": lambda pipe, i: pipe.incr(f"number:{i}"),
    "set": lambda pipe, i: pipe.set(f"new:{i}", f"value {i}"),
    "set_ex": lambda pipe, i: pipe.set(f"new:{i}", f"value {i}", ex=3600),
    "hset": lambda pipe, i: pipe.hset(f"hash:{i}", mapping={"name": "amina", "score": i, "city": "oslo"}),
    "hgetall": lambda pipe, i: pipe.hgetall(f"row:{i}"),
    "zadd": lambda pipe, i: pipe.zadd("board", {f"member:{i}": i}),
    "sadd": lambda pipe, i: pipe.sadd("set", f"member:{i}"),
    "expire": lambda pipe, i: pipe.expire(f"text:{i}", 3600),
    "mixed": lambda pipe, i: _mixed(pipe, i),
}


def _mixed(pipe: Any, i: int) -> None:
    kind = i % 4
    if kind == 0:
        pipe.lpush("list", i)
    elif kind == 1:
        pipe.hmget(f"row:{i}", "a", "b")
    elif kind == 2:
        pipe.zrangebyscore("board", 0, 1, withscores=True)
    else:
        pipe.get(f"text:{i}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=SIZES)
    parser.add_argument("--ops", type=lambda text: text.split(","), default=list(OPERATIONS))
    parser.add_argument("--turns", type=int, default=40, help="turns of each contender")
    parser.add_argument("--protocol", type=int, choices=(2, 3), default=2)
    parser.add_argument("--decode", action="store_true", help="decode_responses=True")
    parser.add_argument("--transaction", action="store_true", help="between MULTI and EXEC")
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def run(options: argparse.Namespace) -> int:
    """Measure and print the tables; return the exit code."""
    measured: dict[str, dict[int, dict[str, dict[str, float]]]] = {name: {} for name in options.ops}
    with running(options.server) as endpoint, apart(endpoint):
        for operation in options.ops:
            for size in options.sizes:
                turns = options.turns if size <= FEW else min(options.turns, LARGE_TURNS)
                with _Contenders(endpoint, operation, size, options) as contenders, frozen_heap():
                    measured[operation][size] = calls.take_turns(contenders, turns)
                print(f"{operation}, {size:,} commands: measured", flush=True)
    described = environment.describe([options.server])
    settings = {
        name: getattr(options, name) for name in ("protocol", "decode", "transaction") if getattr(options, name)
    }
    document = _document({**described, "settings": settings}, measured)
    print(document)
    if options.name:
        found = {"environment": described, "settings": settings, "pipelines": measured}
        results.publish(options.name, found, document)
    return 0


class _Contenders(ExitStack):
    """The calls to time, by name, for one operation. Closes the clients at its end."""

    def __init__(self, endpoint: Endpoint, operation: str, size: int, options: argparse.Namespace) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._queue = OPERATIONS[operation]
        self._size = size
        self._transaction = options.transaction
        self._settings: dict[str, Any] = {
            "host": endpoint.host,
            "port": endpoint.port,
            "protocol": options.protocol,
            "decode_responses": options.decode,
        }

    def __enter__(self) -> dict[str, Work]:  # type: ignore[override]
        super().__enter__()
        everything = dict(self._all())
        expected = None
        for name, work in everything.items():
            self._fill()
            found = work()
            if name == FLOOR:
                continue
            if expected is None:
                expected = found
            elif found != expected or list(map(type, found)) != list(map(type, expected)):
                raise WrongResult(f"{name}: other results than {next(iter(everything))}")
        return everything

    def _fill(self) -> None:
        """Let the server hold what the commands read."""
        empty(self._endpoint)
        with self._endpoint.client() as client, client.pipeline(transaction=False) as pipe:
            for i in range(self._size):
                pipe.set(f"text:{i}", f"text number {i}")
                pipe.hset(f"row:{i}", mapping={"a": i, "b": "two", "c": 3.5, "d": "four", "e": "five"})
            pipe.execute()

    def _all(self) -> Iterator[tuple[str, Work]]:
        theirs = self.enter_context(redis.Redis(**self._settings))
        ours = FastBatch(self.enter_context(redis.Redis(**self._settings)))
        yield THEIRS, lambda: self._run(theirs)
        yield OURS, lambda: self._run(ours)
        loop = asyncio.new_event_loop()
        self.callback(loop.close)
        clients = [redis.asyncio.Redis(**self._settings) for _ in range(2)]
        for client in clients:
            self.callback(lambda client=client: loop.run_until_complete(client.aclose()))
        fast = AsyncFastBatch(clients[0])
        yield THEIRS_ASYNC, lambda: loop.run_until_complete(self._run_async(clients[1]))
        yield OURS_ASYNC, lambda: loop.run_until_complete(self._run_async(fast))
        yield FLOOR, self._floor(theirs)

    def _run(self, client: Any) -> Any:
        queue = self._queue
        with client.pipeline(transaction=self._transaction) as pipe:
            for i in range(self._size):
                queue(pipe, i)
            return pipe.execute()

    async def _run_async(self, client: Any) -> Any:
        queue = self._queue
        async with client.pipeline(transaction=self._transaction) as pipe:
            for i in range(self._size):
                queue(pipe, i)
            return await pipe.execute()

    def _floor(self, client: redis.Redis) -> Work:
        """Return a call that sends the same commands, packed before, and receives the replies' bytes."""
        with client.pipeline(transaction=self._transaction) as pipe:
            for i in range(self._size):
                self._queue(pipe, i)
            commands = [args for args, _ in pipe.command_stack]
        if self._transaction:
            commands = [("MULTI",), *commands, ("EXEC",)]
        connection = client.connection_pool.get_connection()
        packed = b"".join(connection.pack_commands(commands))
        client.connection_pool.release(connection)
        bare = self.enter_context(socket.create_connection((self._endpoint.host, self._endpoint.port)))
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._settings["protocol"] == 3:
            bare.sendall(b"HELLO 3\r\n")
            bare.recv(65536)
        scrap = memoryview(bytearray(256 * 1024))
        end = b"+the end\r\n"
        packed += b"*2\r\n$4\r\nECHO\r\n$8\r\n+the end\r\n"

        def exchange() -> None:
            bare.sendall(packed)
            tail = b""
            while not tail.endswith(end):
                size = bare.recv_into(scrap)
                tail = (tail + bytes(scrap[max(0, size - len(end)) : size]))[-len(end) :]

        return exchange


def _document(described: dict[str, Any], measured: dict[str, dict[int, dict[str, dict[str, float]]]]) -> str:
    parts = ["# Pipelines", tables.circumstances(described)]
    for figure, title in (("cpu_p50", "client CPU, p50"), ("wall_p50", "wall time, p50")):
        parts.append(f"## {title}: nanoseconds a command of ours, and how many times faster ours is")
        peers = (f"than {THEIRS}", f"than {FLOOR}")
        heads = ("", "commands", OURS, *peers, OURS_ASYNC, f"than {THEIRS_ASYNC}")
        rows = [
            (
                operation,
                f"{size:,}",
                f"{found[OURS][figure] / size:,.0f}",
                *(f"{found[peer][figure] / found[OURS][figure]:.2f}" for peer in (THEIRS, FLOOR)),
                f"{found[OURS_ASYNC][figure] / size:,.0f}",
                f"{found[THEIRS_ASYNC][figure] / found[OURS_ASYNC][figure]:.2f}",
            )
            for operation, by_size in measured.items()
            for size, found in by_size.items()
        ]
        parts.append(tables.table(heads, rows, numbers=set(range(1, len(heads)))))
    return "\n\n".join(parts)
