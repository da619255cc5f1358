"""Servers that refuse some or all of a batch: the report is exact, checked key by key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
)
from redis.retry import Retry

from redis_fastbatch import BatchError, BatchReport, EncodeError, FastBatch
from redis_fastbatch.report import MAX_FAILURES
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, ReplicaPair, memory_left, wait_until

MODES = ("raise", "report", "callable")
WAYS: dict[str, dict[str, Any]] = {"plain": {}, "expiry": {"ex": 1000}, "nx": {"nx": True}}


class Outcome:
    """What a batch said of its items, whichever way it was asked to say it."""

    def __init__(self, report: BatchReport, failed: dict[Any, Exception]) -> None:
        self.report = report
        self.failed = failed

    def check(self, client: redis.Redis, items: dict[Any, Any]) -> None:
        """The failed keys are exactly those that are not there."""
        there = present(client, items)
        assert set(self.failed) == set(items) - there
        assert (self.report.written, self.report.failed) == (len(there), len(items) - len(there))
        assert self.report.confirmed_prefix == len(items)


def present(client: redis.Redis, keys: Any) -> set[Any]:
    """Those of the keys that exist, asked for one by one."""
    keys = list(keys)
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        return {key for key, exists in zip(keys, pipeline.execute(), strict=True) if exists}


def write(fb: FastBatch, items: dict[Any, Any], mode: str, **options: Any) -> Outcome:
    """Write items with one of MODES, all of which must tell the same."""
    if mode == "raise":
        with pytest.raises(BatchError) as caught:
            fb.batch_set(items, **options)
        report = caught.value.report
        assert f"{report.failed:,} of {len(items):,} items were not written" in str(caught.value)
        return Outcome(report, report.failures)
    if mode == "report":
        report = fb.batch_set(items, on_error="report", **options)
        return Outcome(report, report.failures)
    heard: dict[Any, Exception] = {}

    def hear(key: Any, value: Any, error: Exception) -> None:
        assert key not in heard
        assert value is items[key]
        heard[key] = error

    report = fb.batch_set(items, on_error=hear, **options)
    assert report.failures == heard
    return Outcome(report, heard)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


def test_out_of_memory(client: redis.Redis, mode: str, way: dict[str, Any]) -> None:
    items = {f"key:{i}": b"x" * 8000 for i in range(600)}
    with memory_left(client, 3_000_000):
        outcome = write(FastBatch(client, "raw"), items, mode, **way)
    outcome.check(client, items)
    assert 0 < outcome.report.failed < 600
    assert {type(error) for error in outcome.failed.values()} == {OutOfMemoryError}


def test_small_items_are_still_written_where_large_ones_do_not_fit(client: redis.Redis, mode: str) -> None:
    """A refused MSET is sent again as single SETs: which of them fit is for the server to say."""
    items = {f"key:{i}": b"x" * (300_000 if i % 7 == 3 else 10) for i in range(200)}
    with memory_left(client, 4_000_000):
        outcome = write(FastBatch(client, "raw"), items, mode)
    outcome.check(client, items)
    assert 0 < outcome.report.failed < 200


def test_keys_that_an_acl_forbids(acl_server: AclUser, mode: str, way: dict[str, Any]) -> None:
    names = ("allowed:", "allowed:", "other:")
    items = {f"{names[i % 3]}{i}": {"n": i} for i in range(900)}
    with acl_server.client() as client, acl_server.server.client() as admin:
        outcome = write(FastBatch(client), items, mode, **way)
        outcome.check(admin, items)
    assert set(outcome.failed) == {key for key in items if key.startswith("other:")}
    assert {type(error) for error in outcome.failed.values()} == {NoPermissionError}


def test_a_replica_takes_nothing(replica: ReplicaPair, mode: str, way: dict[str, Any]) -> None:
    items = {f"key:{i}": i for i in range(500)}
    with replica.replica.client() as client, replica.master.client() as master:
        master.flushall()
        outcome = write(FastBatch(client), items, mode, **way)
        outcome.check(master, items)
    assert outcome.report.written == 0
    assert {type(error) for error in outcome.failed.values()} == {ReadOnlyError}


@pytest.fixture(scope="module")
def loader() -> Iterator[EmbeddedServer]:
    """A server that takes its time to load, and answers after each key."""
    with EmbeddedServer(
        enable_debug_command=True, rdbcompression=False, loading_process_events_interval_bytes=1024
    ) as server:
        yield server


@contextmanager
def loading(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """Within it, the server loads its data; `finish_loading` with what it yields makes it be done soon."""
    with server.client() as admin, server.client(retry=Retry(NoBackoff(), 0)) as other:
        admin.flushall()
        admin.mset({f"old:{i}": "x" * 1100 for i in range(500)})
        admin.config_set("key-load-delay", 20_000)
        reload = threading.Thread(target=lambda: admin.execute_command("DEBUG", "RELOAD"))
        reload.start()
        try:
            wait_until(lambda: is_loading(other), "the server loads")
            yield other
        finally:
            finish_loading(other)
            reload.join()


def finish_loading(client: redis.Redis) -> None:
    client.config_set("key-load-delay", 0)


def is_loading(client: redis.Redis) -> bool:
    try:
        client.get("old:1")
    except BusyLoadingError:
        return True
    return False


def test_a_server_that_loads_for_longer_than_it_is_waited_for(loader: EmbeddedServer, mode: str) -> None:
    items = {f"key:{i}": i for i in range(500)}
    with loader.client(retry=Retry(NoBackoff(), 1)) as client:
        with loading(loader):
            outcome = write(FastBatch(client), items, mode)
            assert is_loading(client)
        outcome.check(client, items)
    assert outcome.report.written == 0
    assert {type(error) for error in outcome.failed.values()} == {BusyLoadingError}


@pytest.mark.parametrize("options", [{}, {"atomic": True}, {"atomic": True, "chunk_size": 100}], ids=str)
def test_a_server_that_loads_is_waited_for(loader: EmbeddedServer, options: dict[str, Any]) -> None:
    items = {f"key:{i}": i for i in range(500)}
    retry = Retry(ConstantBackoff(0.05), 400)
    with loader.client(retry=retry) as client:
        with loading(loader) as other:
            finish = threading.Timer(0.3, finish_loading, [other])
            finish.start()
            report = FastBatch(client).batch_set(items, **options)
            finish.join()
        assert len(present(client, items)) == report.written == 500


class Unserializable:
    """What no codec takes."""


def test_items_that_cannot_be_serialized(client: redis.Redis, mode: str, way: dict[str, Any]) -> None:
    items: dict[Any, Any] = {f"key:{i}": Unserializable() if i % 10 == 9 else i for i in range(2000)}
    items[("not", "a key")] = 1
    outcome = write(FastBatch(client), items, mode, **way)
    assert outcome.failed.keys() == {key for i, key in enumerate(items) if i % 10 == 9 or i == 2000}
    there = present(client, [key for key in items if isinstance(key, str)])
    assert there == items.keys() - outcome.failed.keys()
    assert outcome.report.written == 1800
    assert {type(error) for error in outcome.failed.values()} == {EncodeError}


def test_a_key_that_no_dict_takes_is_in_the_report_by_its_repr(client: redis.Redis) -> None:
    report = FastBatch(client).batch_set([(["a", "list"], 1), ("good", 2)], on_error="report")
    assert (report.written, report.failed) == (1, 1)
    assert isinstance(report.failures["['a', 'list']"], EncodeError)


def test_a_report_keeps_so_many_failures_and_counts_all(replica: ReplicaPair) -> None:
    heard: list[Any] = []
    with replica.replica.client() as client:
        report = FastBatch(client).batch_set(
            ((f"key:{i}", i) for i in range(3 * MAX_FAILURES)), on_error=lambda key, *_: heard.append(key)
        )
    assert report.failed == 3 * MAX_FAILURES
    assert list(report.failures) == [f"key:{i}" for i in range(MAX_FAILURES)]
    assert heard == [f"key:{i}" for i in range(3 * MAX_FAILURES)]


def refuse_after(count: int) -> Callable[[Any, Any, Exception], None]:
    """A dead-letter queue that breaks."""
    heard = 0

    def hear(key: Any, value: Any, error: Exception) -> None:
        nonlocal heard
        heard += 1
        if heard == count:
            raise OSError("no space left")
        assert heard < count, "called again after it raised"

    return hear


@pytest.mark.parametrize("bad", [Unserializable(), b"x" * 2_000_000])
def test_a_callable_that_raises_ends_the_batch_with_its_books_in_order(client: redis.Redis, bad: Any) -> None:
    """One refused before sending, and one by the server."""
    items = {f"key:{i}": bad if i % 100 == 50 else b"x" * 100 for i in range(20_000)}
    with (
        memory_left(client, 20_000_000),
        pytest.raises(OSError, match="no space left") as caught,
    ):
        FastBatch(client, "raw").batch_set(items, on_error=refuse_after(5))
    report = caught.value.report  # type: ignore[attr-defined]
    there = present(client, items)
    prefix = list(items)[: report.confirmed_prefix]
    assert report.written <= len(there)
    assert {key for key in prefix if key not in there} <= set(report.failures)
    assert report.total < len(items)
    assert client.ping()


def test_messages_name_the_key_and_blame_it_for_its_own_only(acl_server: AclUser) -> None:
    fast = FastBatch(acl_server.server.client())
    with pytest.raises(BatchError, match=r"^1 of 2 items were not written: key None: a key must be"):
        fast.batch_set([("a", 1), (None, 2)])
    with pytest.raises(
        BatchError, match=r"^1 of 2 items were not written: key 'no type': MessagePack has no type"
    ):
        fast.batch_set({"a": 1, "no type": object()})
    with acl_server.client() as client:
        fast = FastBatch(client)
        with pytest.raises(BatchError, match=r"^1 of 2 items were not written: key 'access': .* access"):
            fast.batch_set({"allowed:a": 1, "access": 1})
        # Which of the keys it was the server does not say.
        with pytest.raises(BatchError, match=r"^2 of 2 items were not written, such as key 'allowed:a': "):
            fast.batch_set({"allowed:a": 1, "access": 1}, atomic=True)


def test_hooks_that_would_not_be_called(client: redis.Redis) -> None:
    """A coroutine's function was called and never awaited: a dead-letter queue got nothing."""

    async def later(*_: Any) -> None:
        raise AssertionError

    fast = FastBatch(client)
    for name in ("on_error", "on_chunk", "progress"):
        options: dict[str, Any] = {name: later}
        with pytest.raises(TypeError, match=rf"^{name} must be a plain function"):
            fast.batch_set({"a": 1}, **options)
    with pytest.raises(TypeError, match=r"^on_error must be a plain function"):
        fast.batch_get(["a"], on_error=later)
    for hook in (5, True, "name"):
        with pytest.raises(TypeError, match=r"^on_chunk must be a callable, got "):
            fast.batch_set({"a": 1}, on_chunk=hook)  # type: ignore[arg-type]
    assert not client.exists("a")


def test_an_error_that_takes_no_report_stays_what_it_is(client: redis.Redis) -> None:
    @dataclass(frozen=True)
    class RowError(Exception):
        row: int

    def source() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise RowError(2)

    with pytest.raises(RowError, match="2"):
        FastBatch(client).batch_set(source())
    assert client.exists("a")
