"""Batches over a cluster: `python -m benchmarks cluster`.

Three masters and three replicas run on this machine, on their own processor where there is more than one. Ours is
compared with redis-py's own ways to send a batch over a RedisCluster, and with the floor: bytes that were encoded
and sorted by node beforehand, and are sent to all masters at the same time over non-blocking sockets. The floor is
measured in two ways: SETs or GETs, and an MSET or MGET for each slot, whose keys a client would have to collect
first.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks import shapes
from benchmarks.equality import same
from benchmarks.measure import Contender, Timing, frozen_heap, interleaved
from benchmarks.peers.base import OURS
from benchmarks.results import Cell
from benchmarks.serializers import MSGSPEC
from benchmarks.servers import running
from redis_fastbatch import FastBatch
from redis_fastbatch._core.resp.slots import key_slot

CLIENT_CPU = "cluster: CPU time of the client"
SLOTS = 16384

# The bytes to send to each node, and how many bytes of replies each node sends.
Script = tuple[list[bytes], list[int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--items", type=lambda text: [int(n) for n in text.split(",")], default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default="dict5,flight", type=lambda text: text.split(","))


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield a cell for each shape, size and operation, then one for the client's own processor time."""
    with ExitStack() as stack:
        cluster = stack.enter_context(deployment())
        single = stack.enter_context(running("valkey"))
        stack.enter_context(apart([node.pid for node in cluster.nodes] + [single.pid]))
        client = stack.enter_context(cluster.client())
        alone = FastBatch(single.client())
        for shape in options.shapes:
            for count in options.items:
                items = shapes.make(shape, count)
                with frozen_heap():
                    for operation, contenders in (
                        ("set", _setters(cluster, client, items)),
                        ("get", _getters(cluster, client, items)),
                    ):
                        timings = interleaved(contenders, options.rounds)
                        yield Cell("cluster", operation, shape, count, shapes.value_bytes(items), timings)
                    for operation, timings in _costs(items, FastBatch(client), alone, options.rounds):
                        yield Cell(CLIENT_CPU, operation, shape, count, shapes.value_bytes(items), timings)


@contextmanager
def deployment() -> Iterator[Any]:
    """Return the tests' cluster of three masters and three replicas."""
    tests = str(Path(__file__).resolve().parent.parent / "tests" / "support")
    if tests not in sys.path:
        sys.path.append(tests)
    from servers import cluster_deployment

    with cluster_deployment(3) as cluster:
        yield cluster


@contextmanager
def apart(pids: Sequence[int]) -> Iterator[None]:
    """Give the servers a processor of their own."""
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(processors) < 2:
        yield
        return
    servers_own = max(processors)
    for pid in pids:
        os.sched_setaffinity(pid, {servers_own})
    os.sched_setaffinity(0, processors - {servers_own})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def _setters(cluster: Any, client: redis.RedisCluster, items: dict[str, Any]) -> list[Contender]:
    fast, dumps = FastBatch(client), MSGSPEC.dumps
    pairs = [(key.encode(), dumps(value)) for key, value in items.items()]

    def pipeline() -> None:
        with client.pipeline() as pipe:
            for key, value in items.items():
                pipe.set(key, dumps(value))
            pipe.execute()

    def mset() -> None:
        client.mset_nonatomic({key: dumps(value) for key, value in items.items()})

    def check() -> None:
        _same(fast.batch_get(list(items)), items)

    return [
        _contender(OURS, "ours", lambda: fast.batch_set(items), check),
        _contender("redis-py RedisCluster pipeline", "peer", pipeline, check),
        _contender("redis-py mset_nonatomic", "peer", mset, check),
        _contender("floor: SETs", "floor", _floor(cluster, _sets(pairs)), check),
        _contender("floor: MSET a slot", "floor", _floor(cluster, _by_slot(pairs, b"MSET")), check),
    ]


def _getters(cluster: Any, client: redis.RedisCluster, items: dict[str, Any]) -> list[Contender]:
    fast, loads, keys = FastBatch(client), MSGSPEC.loads, list(items)
    pairs = [(key.encode(), MSGSPEC.dumps(value)) for key, value in items.items()]

    def pipeline() -> dict[str, Any]:
        with client.pipeline() as pipe:
            for key in keys:
                pipe.get(key)
            return {key: loads(value) for key, value in zip(keys, pipe.execute(), strict=True)}

    def mget() -> dict[str, Any]:
        return {key: loads(value) for key, value in zip(keys, client.mget_nonatomic(keys), strict=True)}

    def reader(name: str, read: Callable[[], dict[str, Any]]) -> Contender:
        return Contender(name, "ours" if name == OURS else "peer", read, lambda: _same(read(), items))

    return [
        reader(OURS, lambda: fast.batch_get(keys)),
        reader("redis-py RedisCluster pipeline", pipeline),
        reader("redis-py mget_nonatomic", mget),
        _contender("floor: GETs", "floor", _floor(cluster, _gets(pairs)), lambda: None),
        _contender("floor: MGET a slot", "floor", _floor(cluster, _by_slot(pairs, b"MGET")), lambda: None),
    ]


def _contender(name: str, role: Any, work: Callable[[], Any], check: Callable[[], None]) -> Contender:
    def checked() -> None:
        work()
        check()

    return Contender(name, role, work, checked)


def _same(found: Any, expected: Any) -> None:
    if not same(expected, found):
        raise AssertionError("not what was written")


def _command(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments)


def _node(slot: int) -> int:
    return next(node for node in (2, 1, 0) if slot >= SLOTS * node // 3)


def _script(commands: Iterator[tuple[int, bytes, int]]) -> Script:
    parts: list[list[bytes]] = [[], [], []]
    reply_bytes = [0, 0, 0]
    for slot, command, reply in commands:
        node = _node(slot)
        parts[node].append(command)
        reply_bytes[node] += reply
    return [b"".join(some) for some in parts], reply_bytes


def _sets(pairs: list[tuple[bytes, bytes]]) -> Script:
    return _script((key_slot(key), _command(b"SET", key, value), 5) for key, value in pairs)


def _gets(pairs: list[tuple[bytes, bytes]]) -> Script:
    bulk = len(_command(b"")) - 4
    return _script(
        (key_slot(key), _command(b"GET", key), bulk - 1 + len(str(len(value))) + len(value))
        for key, value in pairs
    )


def _by_slot(pairs: list[tuple[bytes, bytes]], name: bytes) -> Script:
    slots: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, value in pairs:
        slots.setdefault(key_slot(key), []).append((key, value))

    def commands() -> Iterator[tuple[int, bytes, int]]:
        for slot, some in slots.items():
            if name == b"MSET":
                yield slot, _command(name, *(part for pair in some for part in pair)), 5
            else:
                yield slot, _command(name, *(key for key, _ in some)), len(_command(*(value for _, value in some)))

    return _script(commands())


def _floor(cluster: Any, script: Script) -> Callable[[], None]:
    """Send a script to the masters and receive all bytes of their replies."""
    socks = [socket.create_connection((node.host, node.port)) for node in cluster.masters]
    for sock in socks:
        sock.setblocking(False)

    def run() -> None:
        unsent = [memoryview(data) for data in script[0]]
        awaited = list(script[1])
        poller = select.poll()
        for sock in socks:
            poller.register(sock, select.POLLIN | select.POLLOUT)
        numbers = {sock.fileno(): node for node, sock in enumerate(socks)}
        while any(awaited):
            for fileno, event in poller.poll():
                node = numbers[fileno]
                if event & select.POLLOUT:
                    if unsent[node]:
                        unsent[node] = unsent[node][socks[node].send(unsent[node][: 64 * 1024]) :]
                    if not unsent[node]:
                        poller.modify(fileno, select.POLLIN)
                if event & select.POLLIN:
                    awaited[node] -= len(socks[node].recv(256 * 1024))

    return run


def _costs(
    items: dict[str, Any], fast: FastBatch, alone: FastBatch, rounds: int
) -> Iterator[tuple[str, list[Timing]]]:
    """Yield the client's own processor time for each operation, over the cluster and over one server in turns."""
    keys = list(items)
    for operation, over in (
        ("set", lambda batch: batch.batch_set(items)),
        ("get", lambda batch: batch.batch_get(keys)),
    ):
        ours, single = Timing(OURS, "ours"), Timing(f"{OURS}, one server", "ours")
        for _ in range(rounds + 1):
            for batch, timing in ((fast, ours), (alone, single)):
                began = time.thread_time_ns()
                over(batch)
                timing.samples.append(time.thread_time_ns() - began)
        for timing in (ours, single):
            # The first round fills the caches.
            del timing.samples[0]
        yield operation, [ours, single]
