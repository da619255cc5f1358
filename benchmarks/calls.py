"""Small batches, call by call: `python -m benchmarks calls`.

Each call is timed on its own: wall time, and the CPU time of the calling thread. All contenders take turns in one
process, a few calls at a time, so that what disturbs one disturbs all. Ratios say how many times faster ours is.
Calls of asyncio are awaited and timed within a running loop, as in a program that serves requests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio

from benchmarks import cluster, environment, results, shapes, tables, wire
from benchmarks.equality import same
from benchmarks.measure import frozen_heap
from benchmarks.peers.base import DATABASES, LARGEST_VALUE
from benchmarks.serializers import MSGSPEC
from benchmarks.servers import BINARIES, Endpoint, apart, empty, running
from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch.toolkit import RedisOptions, RedisToolkit

SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
OPERATIONS = ("set", "set_ex", "get")
EXPIRY_SECONDS = 3600
TURN_SECONDS = 0.004
"""About how long a turn takes. It has several calls, so that most find in the caches what the same call left."""

OURS, OURS_ASYNC = "redis_fastbatch", "redis_fastbatch, asyncio"
DROP_IN, DROP_IN_SINGLE = "redis_fastbatch.toolkit batch", "redis_fastbatch.toolkit setter/getter"
SINGLE, ONE_COMMAND, PIPELINE = "redis-py set/get", "redis-py mset/mget", "redis-py pipeline"
ONE_COMMAND_ASYNC = "redis.asyncio mset/mget"
TOOLKIT, TOOLKIT_SINGLE = "redis-toolkit batch", "redis-toolkit setter/getter"
FLOOR = "floor"

AGAINST = {
    SINGLE: OURS,
    ONE_COMMAND: OURS,
    PIPELINE: OURS,
    FLOOR: OURS,
    ONE_COMMAND_ASYNC: OURS_ASYNC,
    TOOLKIT: DROP_IN,
    TOOLKIT_SINGLE: DROP_IN_SINGLE,
}
"""Each peer, and which of our calls it is compared with."""

Work = Callable[[], Any]


@dataclass
class Calls:
    """The measured calls of one contender, in nanoseconds.

    Attributes:
        wall: the time of each call.
        cpu: the CPU time of the calling thread in each call.
    """

    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return p50 and p99 of both clocks, in nanoseconds."""
        return {
            "wall_p50": statistics.median(self.wall),
            "wall_p99": statistics.quantiles(self.wall, n=100)[98],
            "cpu_p50": statistics.median(self.cpu),
            "cpu_p99": statistics.quantiles(self.cpu, n=100)[98],
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=SIZES)
    parser.add_argument("--ops", type=lambda text: text.split(","), default=list(OPERATIONS))
    parser.add_argument("--turns", type=int, default=60, help="turns of each contender")
    parser.add_argument("--shape", choices=sorted(shapes.SHAPES), default="dict5")
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--cluster", action="store_true", help="over a cluster of three masters")
    parser.add_argument("--name", help="write results/<name>.json and .md")
    parser.add_argument("--chart", type=Path, help="draw the ratios over the number of items into this file")


def run(options: argparse.Namespace) -> int:
    """Measure and print the tables; return the exit code."""
    measured: dict[str, dict[int, dict[str, dict[str, float]]]] = {name: {} for name in options.ops}
    with ExitStack() as stack:
        contenders_of = stack.enter_context(_over_cluster() if options.cluster else _over_server(options.server))
        for operation in options.ops:
            for size in options.sizes:
                items = shapes.make(options.shape, size)
                with contenders_of(operation, items) as contenders, frozen_heap():
                    measured[operation][size] = take_turns(contenders, options.turns)
                print(f"{operation}, {size:,} items: measured", flush=True)
    described = environment.describe([options.server])
    document = _document(described, measured)
    print(document)
    if options.name:
        results.publish(options.name, {"environment": described, "calls": measured}, document)
    if options.chart:
        draw(measured, options.chart)
    return 0


@contextmanager
def _over_server(name: str) -> Iterator[Callable[..., Any]]:
    with running(name) as endpoint, apart(endpoint):
        yield partial(_Contenders, endpoint)


@contextmanager
def _over_cluster() -> Iterator[Callable[..., Any]]:
    with cluster.deployment() as nodes, cluster.apart([node.pid for node in nodes.nodes]):
        yield partial(_ClusterContenders, nodes)


def take_turns(contenders: dict[str, Work], turns: int) -> dict[str, dict[str, float]]:
    """Call the contenders in turns, in a random order that is the same in every run.

    Returns:
        The summary of each contender's calls.
    """
    counts = {name: _calls_a_turn(work) for name, work in contenders.items()}
    measured = {name: Calls() for name in contenders}
    order = random.Random(turns)
    for _ in range(turns):
        for name in order.sample(list(contenders), len(contenders)):
            work, calls = contenders[name], measured[name]
            gc.collect()
            # Not timed: this call replaces what the contender before has left in the caches.
            work()
            if isinstance(work, Awaited):
                work.timed(calls, counts[name])
                continue
            for _ in range(counts[name]):
                _timed(work, calls)
    return {name: calls.summary() for name, calls in measured.items()}


def _calls_a_turn(work: Work) -> int:
    started = time.perf_counter()
    for _ in range(5):
        work()
    return max(3, int(TURN_SECONDS * 5 / (time.perf_counter() - started)))


def _timed(work: Work, calls: Calls) -> None:
    wall, cpu = time.perf_counter_ns, time.thread_time_ns
    started = wall()
    busy = cpu()
    result = work()
    busy = cpu() - busy
    calls.wall.append(wall() - started)
    calls.cpu.append(busy)
    del result


class Awaited:
    """A call of an asyncio client.

    Args:
        loop: the client's event loop.
        call: returns what is to be awaited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Any]]) -> None:
        self._loop = loop
        self._call = call

    def __call__(self) -> Any:
        return self._loop.run_until_complete(self._once())

    def timed(self, calls: Calls, count: int) -> None:
        """Make some calls, one after the other, and time each."""
        self._loop.run_until_complete(self._timed(calls, count))

    async def _once(self) -> Any:
        return await self._call()

    async def _timed(self, calls: Calls, count: int) -> None:
        wall, cpu, call = time.perf_counter_ns, time.thread_time_ns, self._call
        for _ in range(count):
            started = wall()
            busy = cpu()
            result = await call()
            busy = cpu() - busy
            calls.wall.append(wall() - started)
            calls.cpu.append(busy)
            del result


class _Contenders(ExitStack):
    """The calls to time, by name, for one operation on some items. Closes the clients at its end."""

    def __init__(self, endpoint: Endpoint, operation: str, items: dict[str, Any]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._operation = operation
        self._items = items
        self._keys = list(items)
        self._ex = EXPIRY_SECONDS if operation == "set_ex" else None

    def __enter__(self) -> dict[str, Work]:  # type: ignore[override]
        super().__enter__()
        empty(self._endpoint)
        for format_ in ("msgpack", "toolkit"):
            with self._endpoint.client(DATABASES[format_]) as client:
                FastBatch(client, codec=format_).batch_set(self._items)
        everything = dict(self._all())
        for name, work in everything.items():
            found = work()
            if self._operation == "get" and name != FLOOR and not same(self._items, found):
                raise AssertionError(f"{name}: not what was written")
        return everything

    def _all(self) -> Iterator[tuple[str, Work]]:
        yield from self._ours()
        yield from self._redis_py()
        yield from self._asyncio()
        yield from self._toolkits()
        yield FLOOR, self._floor()

    def _client(self, format_: str = "msgpack") -> Any:
        return self.enter_context(self._endpoint.client(DATABASES[format_]))

    def _ours(self) -> Iterator[tuple[str, Work]]:
        fast = FastBatch(self._client())
        if self._operation == "get":
            yield OURS, partial(fast.batch_get, self._keys)
        else:
            yield OURS, partial(fast.batch_set, self._items, ex=self._ex)

    def _redis_py(self) -> Iterator[tuple[str, Work]]:
        client, dumps, loads = self._client(), MSGSPEC.dumps, MSGSPEC.loads
        items, keys, ex = self._items, self._keys, self._ex

        def get_all() -> dict[str, Any]:
            return {key: loads(value) for key, value in zip(keys, client.mget(keys), strict=True)}

        def pipelined() -> Any:
            with client.pipeline(transaction=False) as pipe:
                if self._operation == "get":
                    for key in keys:
                        pipe.get(key)
                    return {key: loads(value) for key, value in zip(keys, pipe.execute(), strict=True)}
                for key, value in items.items():
                    pipe.set(key, dumps(value), ex=ex)
                return pipe.execute()

        if self._operation == "get":
            yield ONE_COMMAND, get_all
        elif ex is None:
            yield ONE_COMMAND, lambda: client.mset({key: dumps(value) for key, value in items.items()})
        elif self._endpoint.msetex:
            yield ONE_COMMAND, lambda: client.msetex({k: dumps(v) for k, v in items.items()}, ex=ex)
        yield PIPELINE, pipelined
        if len(keys) == 1:
            key, value = keys[0], items[keys[0]]
            if self._operation == "get":
                yield SINGLE, lambda: {key: loads(client.get(key))}
            else:
                yield SINGLE, lambda: client.set(key, dumps(value), ex=ex)

    def _asyncio(self) -> Iterator[tuple[str, Work]]:
        loop = asyncio.new_event_loop()
        self.callback(loop.close)
        ours, theirs = (redis.asyncio.Redis(host=self._endpoint.host, port=self._endpoint.port) for _ in range(2))
        for client in (ours, theirs):
            self.callback(lambda client=client: loop.run_until_complete(client.aclose()))
        fast, items, keys, ex = AsyncFastBatch(ours), self._items, self._keys, self._ex

        async def get_all() -> dict[str, Any]:
            return {k: MSGSPEC.loads(v) for k, v in zip(keys, await theirs.mget(keys), strict=True)}

        async def set_all() -> Any:
            encoded = {key: MSGSPEC.dumps(value) for key, value in items.items()}
            return await (theirs.mset(encoded) if ex is None else theirs.msetex(encoded, ex=ex))

        if self._operation == "get":
            yield OURS_ASYNC, Awaited(loop, lambda: fast.batch_get(keys))
            yield ONE_COMMAND_ASYNC, Awaited(loop, get_all)
            return
        yield OURS_ASYNC, Awaited(loop, lambda: fast.batch_set(items, ex=ex))
        if ex is None or self._endpoint.msetex:
            yield ONE_COMMAND_ASYNC, Awaited(loop, set_all)

    def _toolkits(self) -> Iterator[tuple[str, Work]]:
        """Yield redis-toolkit and the drop-in, which have no batch with an expiry in common."""
        if self._ex is not None:
            return
        from benchmarks.peers.toolkit import RedisOptions as TheirOptions
        from benchmarks.peers.toolkit import RedisToolkit as TheirToolkit

        quiet = {"is_logger_info": False, "max_value_size": LARGEST_VALUE}
        theirs = TheirToolkit(redis=self._client("toolkit"), options=TheirOptions(log_level="ERROR", **quiet))
        ours = RedisToolkit(redis=self._client("toolkit"), options=RedisOptions(**quiet))
        for batch, single, toolkit in ((DROP_IN, DROP_IN_SINGLE, ours), (TOOLKIT, TOOLKIT_SINGLE, theirs)):
            if self._operation == "get":
                yield batch, partial(toolkit.batch_get, self._keys)
            else:
                yield batch, partial(toolkit.batch_set, self._items)
            if len(self._keys) == 1:
                key, value = self._keys[0], self._items[self._keys[0]]
                if self._operation == "get":
                    yield single, lambda toolkit=toolkit, key=key: {key: toolkit.getter(key)}
                else:
                    yield single, partial(toolkit.setter, key, value)

    def _floor(self) -> Work:
        """Return a call that sends the same command, encoded before, and receives the reply's bytes."""
        import socket

        pairs = wire.encoded(self._items)
        if self._operation == "get":
            command = wire.mget(pairs)
        elif self._ex is None:
            command = wire.mset(pairs)
        else:
            command = (wire.msetex if self._endpoint.msetex else wire.set_ex)(pairs, self._ex)
        bare = self.enter_context(socket.create_connection((self._endpoint.host, self._endpoint.port)))
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scrap, wanted = memoryview(bytearray(256 * 1024)), len(command.reply)

        def exchange() -> None:
            bare.sendall(command.data)
            left = wanted
            while left > 0:
                left -= bare.recv_into(scrap)

        return exchange


class _ClusterContenders(ExitStack):
    """The calls to time, by name, for one operation on items over a cluster. Closes the clients at its end."""

    def __init__(self, nodes: Any, operation: str, items: dict[str, Any]) -> None:
        super().__init__()
        self._nodes = nodes
        self._reads = operation == "get"
        self._items = items
        self._keys = list(items)
        self._ex = EXPIRY_SECONDS if operation == "set_ex" else None

    def __enter__(self) -> dict[str, Work]:  # type: ignore[override]
        super().__enter__()
        everything = {**self._synchronous(), **self._asynchronous()}
        everything[OURS]()
        FastBatch(self.enter_context(self._nodes.client())).batch_set(self._items)
        for name, work in everything.items():
            if self._reads and not same(self._items, work()):
                raise AssertionError(f"{name}: not what was written")
        return everything

    def _synchronous(self) -> dict[str, Work]:
        ours, client = (self.enter_context(self._nodes.client()) for _ in range(2))
        fast, items, keys, ex = FastBatch(ours), self._items, self._keys, self._ex
        key, value = keys[0], items[keys[0]]
        works: dict[str, Work] = {}
        if self._reads:
            works[OURS] = partial(fast.batch_get, keys)
            works[ONE_COMMAND] = lambda: _decoded(keys, client.mget_nonatomic(keys))
            works[SINGLE] = lambda: _decoded(keys, [client.get(key)])
        else:
            works[OURS] = partial(fast.batch_set, items, ex=ex)
            works[SINGLE] = lambda: client.set(key, MSGSPEC.dumps(value), ex=ex)
            if ex is None:
                works[ONE_COMMAND] = lambda: client.mset_nonatomic(_encoded(items))
        if len(keys) > 1:
            del works[SINGLE]
        return works

    def _asynchronous(self) -> dict[str, Work]:
        loop = asyncio.new_event_loop()
        self.callback(loop.close)
        node = self._nodes.masters[0]
        ours, theirs = (redis.asyncio.RedisCluster(host=node.host, port=node.port) for _ in range(2))
        for client in (ours, theirs):
            loop.run_until_complete(client.initialize())
            self.callback(lambda client=client: loop.run_until_complete(client.aclose()))
        fast, items, keys, ex = AsyncFastBatch(ours), self._items, self._keys, self._ex

        async def get_all() -> dict[str, Any]:
            return _decoded(keys, await theirs.mget_nonatomic(keys))

        async def set_all() -> Any:
            return await theirs.mset_nonatomic(_encoded(items))

        if self._reads:
            return {
                OURS_ASYNC: lambda: loop.run_until_complete(fast.batch_get(keys)),
                ONE_COMMAND_ASYNC: lambda: loop.run_until_complete(get_all()),
            }
        works = {OURS_ASYNC: lambda: loop.run_until_complete(fast.batch_set(items, ex=ex))}
        if ex is None:
            works[ONE_COMMAND_ASYNC] = lambda: loop.run_until_complete(set_all())
        return works


def _encoded(items: dict[str, Any]) -> dict[str, bytes]:
    return {key: MSGSPEC.dumps(value) for key, value in items.items()}


def _decoded(keys: Sequence[str], values: Sequence[bytes]) -> dict[str, Any]:
    return {key: MSGSPEC.loads(value) for key, value in zip(keys, values, strict=True)}


def _document(described: dict[str, Any], measured: dict[str, dict[int, dict[str, dict[str, float]]]]) -> str:
    parts = ["# Small batches", tables.circumstances(described)]
    for operation, by_size in measured.items():
        parts.append(f"## {operation}: microseconds a call of ours")
        parts.append(_own_table(by_size))
        for figure, title in (
            ("cpu_p50", "client CPU, p50"),
            ("wall_p50", "wall time, p50"),
            ("wall_p99", "wall time, p99"),
        ):
            parts.append(f"## {operation}, {title}: how many times faster ours is")
            parts.append(_ratio_table(by_size, figure))
    return "\n\n".join(parts)


def _own_table(by_size: dict[int, dict[str, dict[str, float]]]) -> str:
    names = [OURS, OURS_ASYNC]
    heads = ("items", *(f"{name}: {clock}" for name in names for clock in ("CPU", "wall", "wall p99")))
    rows = [
        (
            f"{size:,}",
            *(
                f"{found[name][figure] / 1000:,.1f}"
                for name in names
                for figure in ("cpu_p50", "wall_p50", "wall_p99")
            ),
        )
        for size, found in by_size.items()
    ]
    return tables.table(heads, rows, numbers=set(range(len(heads))))


def _ratio_table(by_size: dict[int, dict[str, dict[str, float]]], figure: str) -> str:
    peers = [peer for peer in AGAINST if any(peer in found for found in by_size.values())]
    rows = [(f"{size:,}", *(_ratio(found, peer, figure) for peer in peers)) for size, found in by_size.items()]
    return tables.table(("items", *peers), rows, numbers=set(range(len(peers) + 1)))


def _ratio(found: dict[str, dict[str, float]], peer: str, figure: str) -> str:
    if peer not in found:
        return ""
    return f"{found[peer][figure] / found[AGAINST[peer]][figure]:.2f}"


def draw(measured: dict[str, dict[int, dict[str, dict[str, float]]]], picture: Path) -> None:
    """Draw the ratios of client CPU over the number of items, a panel for each operation."""
    import matplotlib

    # Before pyplot is imported: there may be no window.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown: Sequence[str] = (ONE_COMMAND, PIPELINE, ONE_COMMAND_ASYNC, TOOLKIT)
    figure, axes = pyplot.subplots(1, len(measured), figsize=(4.2 * len(measured), 3.6), squeeze=False)
    for axis, (operation, by_size) in zip(axes[0], measured.items(), strict=True):
        for peer in shown:
            sizes = [size for size, found in by_size.items() if peer in found]
            ratios = [by_size[size][peer]["cpu_p50"] / by_size[size][AGAINST[peer]]["cpu_p50"] for size in sizes]
            if sizes:
                axis.plot(sizes, ratios, marker=".", label=peer)
        axis.axhline(1, color="#57606f", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("items in a call")
        axis.set_title(f"{operation}: times faster (client CPU)", fontsize=9, loc="left")
        axis.legend(fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)
