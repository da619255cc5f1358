"""Batches through the fault proxy, and what the caller was told of them held against what the server has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack
import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import Direction, Fault, FaultProxy
from redis_fastbatch import AsyncFastBatch, BatchError, BatchReport, FastBatch, FastBatchError
from redis_fastbatch.server import EmbeddedServer

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
KNOWN = {f"known:{i}": {"number": i, "name": f"known {i}"} for i in range(8)}
TOLD = (redis.RedisError, FastBatchError)

_trials = itertools.count()
injected = 0
"""Faults injected since the tests began."""


@dataclass(frozen=True)
class Operation:
    """A batch of one kind.

    Attributes:
        name: for the tests' names.
        method: of the client.
        options: of the method.
        server: the fixture of the server it goes to, which decides between MSETEX and SETs.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    server: str = "valkey"

    @property
    def repeatable(self) -> bool:
        """Whether the engine may send it again after a fault."""
        return "nx" not in self.options and "atomic" not in self.options

    def __str__(self) -> str:
        return self.name


WRITES = [
    Operation("MSET", "batch_set"),
    Operation("MSETEX", "batch_set", {"ex": 1000}),
    Operation("SET", "batch_set", {"ex": 1000}, "redis7"),
    Operation("SET NX", "batch_set", {"nx": True}),
    Operation("atomic MSET", "batch_set", {"atomic": True}),
    Operation("MULTI", "batch_set", {"atomic": True, "ex": 1000}, "redis7"),
]
READS = [Operation("MGET", "batch_get"), Operation("MGET iter", "batch_get_iter")]
DELETE = Operation("UNLINK", "batch_delete")


class Blocking:
    """AsyncFastBatch with the methods of FastBatch, on an event loop of its own."""

    def __init__(self, batch: AsyncFastBatch, loop: asyncio.AbstractEventLoop) -> None:
        self._batch = batch
        self._loop = loop

    def batch_set(self, *arguments: Any, **options: Any) -> BatchReport:
        return self._loop.run_until_complete(self._batch.batch_set(*arguments, **options))

    def batch_get(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._batch.batch_get(*arguments, **options))

    def batch_delete(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._batch.batch_delete(*arguments, **options))

    def batch_set_table(self, *arguments: Any, **options: Any) -> BatchReport:
        return self._loop.run_until_complete(self._batch.batch_set_table(*arguments, **options))

    def batch_get_table(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._batch.batch_get_table(*arguments, **options))

    def batch_get_iter(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        pairs = self._batch.batch_get_iter(*arguments, **options)
        while True:
            try:
                yield self._loop.run_until_complete(anext(pairs))
            except StopAsyncIteration:
                return

    def reconnect(self) -> None:
        """The next batch has a new connection, over which a reply has come already."""
        client = self._batch.client
        self._loop.run_until_complete(client.connection_pool.disconnect())
        patiently(lambda: self._loop.run_until_complete(client.ping()))

    def close(self) -> None:
        """Close client and loop."""
        self._loop.run_until_complete(self._batch.client.aclose())
        self._loop.close()


class Plain(FastBatch):
    """FastBatch, whose connection can be renewed."""

    def reconnect(self) -> None:
        """The next batch has a new connection, over which a reply has come already."""
        self.client.connection_pool.disconnect()
        patiently(self.client.ping)


AnyBatch = Plain | Blocking


def patiently(connect: Callable[[], object]) -> None:
    """Connect, however short the client's socket_timeout is for a busy machine."""
    for _ in range(50):
        with contextlib.suppress(redis.TimeoutError):
            connect()
            return
    connect()


@dataclass
class Bench:
    """One server, a proxy before it, a client with one connection through that, and another past it."""

    server: EmbeddedServer
    proxy: FaultProxy
    looker: redis.Redis
    batch: AnyBatch
    retries: int

    def keys(self, count: int) -> list[str]:
        """Keys that no trial has had before: commands that a server gets to late disturb no later trial."""
        return [f"{next(_trials):06}:{i}" for i in range(count)]

    def inject(self, fault: Fault) -> None:
        """Give the fault to a new connection, which the next batch takes."""
        global injected
        injected += 1
        self.batch.reconnect()
        self.proxy.inject_now(fault)

    def traffic(self, run: Callable[[], object]) -> dict[Direction, int]:
        """Bytes that pass, in either direction, while something runs on a new connection."""
        # The first time, the server may be asked what it has.
        run()
        self.batch.reconnect()
        before = {direction: self.proxy.seen(direction) for direction in Direction}
        run()
        return {direction: self.proxy.seen(direction) - before[direction] for direction in Direction}

    def check_connection(self) -> None:
        """Faults have left one connection at the most, in the pool, and it answers what it is asked."""
        assert self.batch.batch_get(KNOWN) == KNOWN
        assert list(self.batch.batch_get_iter([*KNOWN, "none"])) == [*KNOWN.items(), ("none", None)]

    def stored(self, keys: list[str]) -> list[bytes | None]:
        """What the server has, by a connection that no fault touches."""
        return list(self.looker.mget(keys))


@contextmanager
def bench(
    server: EmbeddedServer, *, kind: str = "sync", retries: int = 0, timeout: float = 5.0, protocol: int = 2
) -> Iterator[Bench]:
    """A bench whose client has one connection, so that a call finds none where the one before kept it.

    Args:
        server: the server.
        kind: "sync" or "asyncio".
        retries: how often the client connects anew.
        timeout: the client's socket_timeout.
        protocol: 2 or 3.
    """
    options: dict[str, Any] = {"max_connections": 1, "socket_timeout": timeout, "protocol": protocol}
    with FaultProxy(server.port) as proxy, server.client() as looker:
        looker.mset({key: msgpack.packb(value) for key, value in KNOWN.items()})
        address = {"host": proxy.host, "port": proxy.port}
        batch: AnyBatch
        if kind == "sync":
            batch = Plain(redis.Redis(**address, retry=Retry(NoBackoff(), retries), **options))
        else:
            retry = redis.asyncio.retry.Retry(NoBackoff(), retries)
            client = redis.asyncio.Redis(**address, retry=retry, **options)
            batch = Blocking(AsyncFastBatch(client), asyncio.new_event_loop())
        try:
            yield Bench(server, proxy, looker, batch, retries)
        finally:
            batch.close()


# -- writing -------------------------------------------------------------------------------------


@dataclass
class Written:
    """What a caller of batch_set was told."""

    report: BatchReport
    error: Exception | None


def value_of(key: str) -> dict[str, Any]:
    """The value that belongs to a key and to no other."""
    return {"of": key, "text": "x" * 10}


def told_of(write: Callable[[], BatchReport]) -> Written:
    """Run a batch that writes, with any outcome."""
    try:
        return Written(write(), None)
    except BatchError as error:
        return Written(error.report, error)
    except TOLD as error:
        return Written(error.report, error)  # type: ignore[union-attr]


def write(bench: Bench, operation: Operation, keys: list[str], chunk_size: int = 2) -> Written:
    """Run a batch_set, with any outcome."""
    items = ((key, value_of(key)) for key in keys)
    return told_of(lambda: bench.batch.batch_set(items, chunk_size=chunk_size, **operation.options))


def check_written(
    bench: Bench, operation: Operation, keys: list[str], told: Written, truthful: bool = True
) -> None:
    """The books of a batch_set are right, see check_books()."""
    own = [msgpack.packb(value_of(key)) for key in keys]
    check_books(operation, keys, told, bench.stored(keys), own, truthful)


def check_books(
    operation: Operation,
    names: Sequence[Any],
    told: Written,
    stored: Sequence[Any],
    own: Sequence[Any],
    truthful: bool = True,
) -> None:
    """The books are right: every item reported as written is there, with its own value, and so on.

    Args:
        operation: what was carried out.
        names: what the report calls the items: their keys, or the numbers of rows.
        told: what came of it.
        stored: what the server has of each item, None where it has nothing.
        own: what belongs to each.
        truthful: False where the proxy has put other replies in the place of the server's, so that the
            server may have what it is said to have refused.
    """
    report = told.report
    has = dict(zip(names, stored, strict=True))
    belongs = dict(zip(names, own, strict=True))
    assert all(has[name] in (None, belongs[name]) for name in names), "a value under a wrong key, or spoilt"
    taken = names[: report.total]
    written = [name for name in taken if name not in report.failures and name not in report.skipped_keys]
    assert set(report.failures) <= set(taken)
    assert len(written) == report.written
    assert report.failed == len(report.failures)
    assert report.skipped == len(report.skipped_keys)
    assert all(has[name] == belongs[name] for name in written), "reported as written, and not there"
    assert report.confirmed_prefix <= report.total
    if told.error is None:
        assert report.total == len(names)
        assert report.failed == 0
    if truthful:
        unsent = [name for name, error in report.failures.items() if str(error).startswith("not sent")]
        assert all(has[name] is None for name in unsent), "reported as not sent, and there"
    if "atomic" in operation.options:
        assert len({value is None for value in has.values()}) == 1, "half of an atomic batch"


# -- reading and deleting ------------------------------------------------------------------------


def fill(bench: Bench, keys: list[str]) -> None:
    """Put every key's own value into the server, past the proxy."""
    bench.looker.mset({key: msgpack.packb(value_of(key)) for key in keys})


def read(bench: Bench, operation: Operation, keys: list[str]) -> tuple[dict[str, Any], Exception | None]:
    """What a batch_get or batch_get_iter gave before it was over, one way or the other."""
    found: dict[str, Any] = {}
    try:
        if operation.method == "batch_get":
            found = bench.batch.batch_get(keys)
        else:
            for key, value in bench.batch.batch_get_iter(keys, chunk_size=3):
                found[key] = value
    except TOLD as error:
        return found, error
    return found, None


def check_read(keys: list[str], found: dict[str, Any], error: Exception | None) -> None:
    """Every key that came has its own value, in order; all came where there was no error."""
    assert list(found) == keys[: len(found)]
    assert found == {key: value_of(key) for key in found}
    if error is None:
        assert len(found) == len(keys)
