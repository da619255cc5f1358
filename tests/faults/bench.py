"""Runs batches through the fault proxy, and compares their reports with what the server stores."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack
import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults.proxy import FaultProxy
from faults.streams import Direction, Fault
from redis_fastbatch import AsyncFastBatch, BatchError, BatchReport, FastBatch, FastBatchError
from redis_fastbatch.server import EmbeddedServer

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
KNOWN = {f"known:{i}": {"number": i, "name": f"known {i}"} for i in range(8)}
EXPECTED_ERRORS = (redis.RedisError, FastBatchError)

_trials = itertools.count()
injected = 0
"""Faults injected since the tests began."""


@dataclass(frozen=True)
class Operation:
    """A batch of one kind.

    Attributes:
        name: the name in the ids of tests.
        method: the client's method.
        options: the method's options.
        server: the fixture of the server, which decides between MSETEX and SETs.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    server: str = "valkey"

    @property
    def repeatable(self) -> bool:
        """Whether the batch may be sent again after a fault."""
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
MSET, MSETEX, SET, _, _, MULTI = WRITES
READS = [Operation("MGET", "batch_get"), Operation("MGET iter", "batch_get_iter")]
DELETE = Operation("UNLINK", "batch_delete")


class Blocking:
    """An AsyncFastBatch with the methods of FastBatch, on its own event loop."""

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

    def batch_execute(self, *arguments: Any, **options: Any) -> BatchReport:
        return self._loop.run_until_complete(self._batch.batch_execute(*arguments, **options))

    def batch_execute_table(self, *arguments: Any, **options: Any) -> BatchReport:
        return self._loop.run_until_complete(self._batch.batch_execute_table(*arguments, **options))

    def batch_hset(self, *arguments: Any, **options: Any) -> BatchReport:
        return self._loop.run_until_complete(self._batch.batch_hset(*arguments, **options))

    def batch_hgetall(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._batch.batch_hgetall(*arguments, **options))

    def batch_hmget(self, *arguments: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(self._batch.batch_hmget(*arguments, **options))

    def batch_hgetall_iter(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        return self._each(self._batch.batch_hgetall_iter(*arguments, **options))

    def batch_get_iter(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        return self._each(self._batch.batch_get_iter(*arguments, **options))

    def batch_execute_iter(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        return self._each(self._batch.batch_execute_iter(*arguments, **options))

    def _each(self, found: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run_until_complete(anext(found))
            except StopAsyncIteration:
                return

    def reconnect(self) -> None:
        """Replace the connection by a new one that has received a reply."""
        client = self._batch.client
        self._loop.run_until_complete(client.connection_pool.disconnect())
        connect_within_50_attempts(lambda: self._loop.run_until_complete(client.ping()))

    def close(self) -> None:
        """Close client and loop."""
        self._loop.run_until_complete(self._batch.client.aclose())
        self._loop.close()


class Reconnecting(FastBatch):
    """A FastBatch whose connection can be replaced."""

    def reconnect(self) -> None:
        """Replace the connection by a new one that has received a reply."""
        self.client.connection_pool.disconnect()
        connect_within_50_attempts(self.client.ping)


AnyBatch = Reconnecting | Blocking


def connect_within_50_attempts(connect: Callable[[], object]) -> None:
    """Connect. On a busy machine the client's socket_timeout may be too short for the first attempts."""
    for _ in range(50):
        with contextlib.suppress(redis.TimeoutError):
            connect()
            return
    connect()


@dataclass
class Bench:
    """A server, a proxy, a client with one connection through the proxy, and an observer without the proxy."""

    server: EmbeddedServer
    proxy: FaultProxy
    observer: redis.Redis
    batch: AnyBatch
    retries: int

    def keys(self, count: int) -> list[str]:
        """Return new keys, so that delayed commands of an earlier trial do not matter."""
        return [f"{next(_trials):06}:{i}" for i in range(count)]

    def inject(self, fault: Fault) -> None:
        """Inject the fault into a new connection, which the next batch uses."""
        global injected
        injected += 1
        self.batch.reconnect()
        self.proxy.inject_now(fault)

    def traffic(self, run: Callable[[], object]) -> dict[Direction, bytes]:
        """Return the bytes in each direction while something runs on a new connection."""
        # The first run may ask the server for its commands.
        run()
        self.batch.reconnect()
        before = {direction: self.proxy.seen(direction) for direction in Direction}
        run()
        return {direction: self.proxy.recorded(direction)[before[direction] :] for direction in Direction}

    def check_connection(self) -> None:
        """Check that the connection in the pool reads the right replies."""
        assert self.batch.batch_get(KNOWN) == KNOWN
        assert list(self.batch.batch_get_iter([*KNOWN, "none"])) == [*KNOWN.items(), ("none", None)]

    def stored(self, keys: list[str]) -> list[bytes | None]:
        """Return the stored values, read without the proxy."""
        return list(self.observer.mget(keys))


@contextmanager
def bench(
    server: EmbeddedServer, *, kind: str = "sync", retries: int = 0, timeout: float = 5.0, protocol: int = 2
) -> Iterator[Bench]:
    """Make a bench whose client has one connection. A call fails if the previous one did not return it.

    Args:
        server: the server.
        kind: "sync" or "asyncio".
        retries: how often the client connects again.
        timeout: the client's socket_timeout.
        protocol: 2 or 3.
    """
    options: dict[str, Any] = {"max_connections": 1, "socket_timeout": timeout, "protocol": protocol}
    with FaultProxy(server.port, record=True) as proxy, server.client() as observer:
        observer.mset({key: msgpack.packb(value) for key, value in KNOWN.items()})
        address = {"host": proxy.host, "port": proxy.port}
        batch: AnyBatch
        if kind == "sync":
            batch = Reconnecting(redis.Redis(**address, retry=Retry(NoBackoff(), retries), **options))
        else:
            retry = redis.asyncio.retry.Retry(NoBackoff(), retries)
            client = redis.asyncio.Redis(**address, retry=retry, **options)
            batch = Blocking(AsyncFastBatch(client), asyncio.new_event_loop())
        try:
            yield Bench(server, proxy, observer, batch, retries)
        finally:
            batch.close()


# -- writing -------------------------------------------------------------------------------------


@dataclass
class Written:
    """The report and the error of a write."""

    report: BatchReport
    error: Exception | None


def value_of(key: str) -> dict[str, Any]:
    """Return a value that is different for each key."""
    return {"of": key, "text": "x" * 10}


def written_by(write: Callable[[], BatchReport]) -> Written:
    """Run a write, and return its report and error."""
    try:
        return Written(write(), None)
    except BatchError as error:
        return Written(error.report, error)
    except EXPECTED_ERRORS as error:
        return Written(error.report, error)  # type: ignore[union-attr]


def write(bench: Bench, operation: Operation, keys: list[str], chunk_size: int = 2) -> Written:
    """Run a batch_set, and return its report and error."""
    items = ((key, value_of(key)) for key in keys)
    return written_by(lambda: bench.batch.batch_set(items, chunk_size=chunk_size, **operation.options))


def check_written(
    bench: Bench, operation: Operation, keys: list[str], written: Written, real_replies: bool = True
) -> None:
    """Check the report of a batch_set, see check_report()."""
    own = [msgpack.packb(value_of(key)) for key in keys]
    check_report(operation, keys, written, bench.stored(keys), own, real_replies)


def check_report(
    operation: Operation,
    names: Sequence[Any],
    written: Written,
    stored: Sequence[Any],
    own: Sequence[Any],
    real_replies: bool = True,
) -> None:
    """Check a report: for example, every item reported as written is stored with its own value.

    Args:
        operation: the operation.
        names: the items' names in the report: keys, or numbers of rows.
        written: the report and the error.
        stored: what the server stores for each item, or None.
        own: the right value of each item.
        real_replies: False if the proxy replaced replies, so that the server may store items reported as refused.
    """
    report = written.report
    has = dict(zip(names, stored, strict=True))
    belongs = dict(zip(names, own, strict=True))
    assert all(has[name] in (None, belongs[name]) for name in names), "a wrong value under a key"
    taken = names[: report.total]
    confirmed = [name for name in taken if name not in report.failures and name not in report.skipped_keys]
    assert set(report.failures) <= set(taken)
    assert len(confirmed) == report.written
    assert report.failed == len(report.failures)
    assert report.skipped == len(report.skipped_keys)
    assert all(has[name] == belongs[name] for name in confirmed), "reported as written, but not stored"
    assert report.confirmed_prefix <= report.total
    if written.error is None:
        assert report.total == len(names)
        assert report.failed == 0
    if real_replies:
        unsent = [name for name, error in report.failures.items() if str(error).startswith("not sent")]
        assert all(has[name] is None for name in unsent), "reported as not sent, but stored"
    if "atomic" in operation.options:
        assert len({value is None for value in has.values()}) == 1, "a part of an atomic batch is stored"


# -- reading and deleting ------------------------------------------------------------------------


def fill(bench: Bench, keys: list[str]) -> None:
    """Store every key's own value, without the proxy."""
    bench.observer.mset({key: msgpack.packb(value_of(key)) for key in keys})


def read(bench: Bench, operation: Operation, keys: list[str]) -> tuple[dict[str, Any], Exception | None]:
    """Run a batch_get or batch_get_iter. Return the values read, and the error."""
    found: dict[str, Any] = {}
    try:
        if operation.method == "batch_get":
            found = bench.batch.batch_get(keys)
        else:
            for key, value in bench.batch.batch_get_iter(keys, chunk_size=3):
                found[key] = value
    except EXPECTED_ERRORS as error:
        return found, error
    return found, None


def check_read(keys: list[str], found: dict[str, Any], error: Exception | None) -> None:
    """Check that keys are in order with their own values, and complete if there was no error."""
    assert list(found) == keys[: len(found)]
    assert found == {key: value_of(key) for key in found}
    if error is None:
        assert len(found) == len(keys)
