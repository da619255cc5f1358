"""The report is exact when the server refuses some or all items. It is checked key by key."""

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
OPTIONS: dict[str, dict[str, Any]] = {"plain": {}, "expiry": {"ex": 1000}, "nx": {"nx": True}}


class Outcome:
    """The report and the failures of a batch, in every mode."""

    def __init__(self, report: BatchReport, failed: dict[Any, Exception]) -> None:
        self.report = report
        self.failed = failed

    def check(self, client: redis.Redis, items: dict[Any, Any]) -> None:
        """Check that the failed keys are exactly those that do not exist."""
        existing = present(client, items)
        assert set(self.failed) == set(items) - existing
        assert (self.report.written, self.report.failed) == (len(existing), len(items) - len(existing))
        assert self.report.confirmed_prefix == len(items)


def present(client: redis.Redis, keys: Any) -> set[Any]:
    """Return the keys that exist, checked one by one."""
    keys = list(keys)
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        return {key for key, exists in zip(keys, pipeline.execute(), strict=True) if exists}


def write(fb: FastBatch, items: dict[Any, Any], mode: str, **options: Any) -> Outcome:
    """Write items in one of MODES. All modes must report the same failures."""
    if mode == "raise":
        with pytest.raises(BatchError) as caught:
            fb.batch_set(items, **options)
        report = caught.value.report
        assert f"{report.failed:,} of {len(items):,} items were not written" in str(caught.value)
        return Outcome(report, report.failures)
    if mode == "report":
        report = fb.batch_set(items, on_error="report", **options)
        return Outcome(report, report.failures)
    failures: dict[Any, Exception] = {}

    def add_failure(key: Any, value: Any, error: Exception) -> None:
        assert key not in failures
        assert value is items[key]
        failures[key] = error

    report = fb.batch_set(items, on_error=add_failure, **options)
    assert report.failures == failures
    return Outcome(report, failures)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=OPTIONS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return OPTIONS[request.param]


def test_items_fail_if_the_server_is_out_of_memory(
    client: redis.Redis, mode: str, options: dict[str, Any]
) -> None:
    items = {f"key:{i}": b"x" * 8000 for i in range(600)}
    with memory_left(client, 3_000_000):
        outcome = write(FastBatch(client, "raw"), items, mode, **options)
    outcome.check(client, items)
    assert 0 < outcome.report.failed < 600
    assert {type(error) for error in outcome.failed.values()} == {OutOfMemoryError}


def test_small_items_are_written_if_only_large_ones_do_not_fit(client: redis.Redis, mode: str) -> None:
    """The items of a refused MSET are sent again as single SETs."""
    items = {f"key:{i}": b"x" * (300_000 if i % 7 == 3 else 10) for i in range(200)}
    with memory_left(client, 4_000_000):
        outcome = write(FastBatch(client, "raw"), items, mode)
    outcome.check(client, items)
    assert 0 < outcome.report.failed < 200


def test_forbidden_keys_fail(acl_server: AclUser, mode: str, options: dict[str, Any]) -> None:
    names = ("allowed:", "allowed:", "other:")
    items = {f"{names[i % 3]}{i}": {"n": i} for i in range(900)}
    with acl_server.client() as client, acl_server.server.client() as admin:
        outcome = write(FastBatch(client), items, mode, **options)
        outcome.check(admin, items)
    assert set(outcome.failed) == {key for key in items if key.startswith("other:")}
    assert {type(error) for error in outcome.failed.values()} == {NoPermissionError}


def test_a_replica_refuses_all_items(replica: ReplicaPair, mode: str, options: dict[str, Any]) -> None:
    items = {f"key:{i}": i for i in range(500)}
    with replica.replica.client() as client, replica.master.client() as master:
        master.flushall()
        outcome = write(FastBatch(client), items, mode, **options)
        outcome.check(master, items)
    assert outcome.report.written == 0
    assert {type(error) for error in outcome.failed.values()} == {ReadOnlyError}


@pytest.fixture(scope="module")
def loading_server() -> Iterator[EmbeddedServer]:
    """Start a server that loads slowly and answers after each key."""
    with EmbeddedServer(
        enable_debug_command=True, rdbcompression=False, loading_process_events_interval_bytes=1024
    ) as server:
        yield server


@contextmanager
def loading(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """Make the server load its data. finish_loading() with the yielded client lets it finish soon."""
    with server.client() as admin, server.client(retry=Retry(NoBackoff(), 0)) as other:
        admin.flushall()
        admin.mset({f"old:{i}": "x" * 1100 for i in range(500)})
        admin.config_set("key-load-delay", 20_000)
        reload = threading.Thread(target=lambda: admin.execute_command("DEBUG", "RELOAD"))
        reload.start()
        try:
            wait_until(lambda: is_loading(other), "the server is loading")
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


def test_items_fail_if_the_server_loads_for_too_long(loading_server: EmbeddedServer, mode: str) -> None:
    items = {f"key:{i}": i for i in range(500)}
    with loading_server.client(retry=Retry(NoBackoff(), 1)) as client:
        with loading(loading_server):
            outcome = write(FastBatch(client), items, mode)
            assert is_loading(client)
        outcome.check(client, items)
    assert outcome.report.written == 0
    assert {type(error) for error in outcome.failed.values()} == {BusyLoadingError}


@pytest.mark.parametrize("options", [{}, {"atomic": True}, {"atomic": True, "chunk_size": 100}], ids=str)
def test_a_batch_waits_until_the_server_has_loaded(
    loading_server: EmbeddedServer, options: dict[str, Any]
) -> None:
    items = {f"key:{i}": i for i in range(500)}
    retry = Retry(ConstantBackoff(0.05), 400)
    with loading_server.client(retry=retry) as client:
        with loading(loading_server) as other:
            finish = threading.Timer(0.3, finish_loading, [other])
            finish.start()
            report = FastBatch(client).batch_set(items, **options)
            finish.join()
        assert len(present(client, items)) == report.written == 500


class Unserializable:
    """A value that no codec can encode."""


def test_items_that_cannot_be_encoded_fail(client: redis.Redis, mode: str, options: dict[str, Any]) -> None:
    items: dict[Any, Any] = {f"key:{i}": Unserializable() if i % 10 == 9 else i for i in range(2000)}
    items[("not", "a key")] = 1
    outcome = write(FastBatch(client), items, mode, **options)
    assert outcome.failed.keys() == {key for i, key in enumerate(items) if i % 10 == 9 or i == 2000}
    existing = present(client, [key for key in items if isinstance(key, str)])
    assert existing == items.keys() - outcome.failed.keys()
    assert outcome.report.written == 1800
    assert {type(error) for error in outcome.failed.values()} == {EncodeError}


def test_an_unhashable_key_is_reported_by_its_repr(client: redis.Redis) -> None:
    report = FastBatch(client).batch_set([(["a", "list"], 1), ("good", 2)], on_error="report")
    assert (report.written, report.failed) == (1, 1)
    assert isinstance(report.failures["['a', 'list']"], EncodeError)


def test_a_report_counts_all_failures_and_keeps_the_first(replica: ReplicaPair) -> None:
    failed: list[Any] = []
    with replica.replica.client() as client:
        report = FastBatch(client).batch_set(
            ((f"key:{i}", i) for i in range(3 * MAX_FAILURES)), on_error=lambda key, *_: failed.append(key)
        )
    assert report.failed == 3 * MAX_FAILURES
    assert list(report.failures) == [f"key:{i}" for i in range(MAX_FAILURES)]
    assert failed == [f"key:{i}" for i in range(3 * MAX_FAILURES)]


def raise_at_call(count: int) -> Callable[[Any, Any, Exception], None]:
    """Return an on_error function that raises at its `count`-th call, like a dead-letter queue that is full."""
    calls = 0

    def on_error(key: Any, value: Any, error: Exception) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            raise OSError("no space left")
        assert calls < count, "called again after it raised"

    return on_error


@pytest.mark.parametrize("bad", [Unserializable(), b"x" * 2_000_000])
def test_on_error_that_raises_ends_the_batch_with_a_right_report(client: redis.Redis, bad: Any) -> None:
    """The items cannot be encoded in one case, and are refused by the server in the other."""
    items = {f"key:{i}": bad if i % 100 == 50 else b"x" * 100 for i in range(20_000)}
    with (
        memory_left(client, 20_000_000),
        pytest.raises(OSError, match="no space left") as caught,
    ):
        FastBatch(client, "raw").batch_set(items, on_error=raise_at_call(5))
    report = caught.value.report  # type: ignore[attr-defined]
    existing = present(client, items)
    prefix = list(items)[: report.confirmed_prefix]
    assert report.written <= len(existing)
    assert {key for key in prefix if key not in existing} <= set(report.failures)
    assert report.total < len(items)
    assert client.ping()


def test_the_message_names_the_key_that_failed(acl_server: AclUser) -> None:
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
        # The server does not say which key it refused.
        with pytest.raises(BatchError, match=r"^2 of 2 items were not written, such as key 'allowed:a': "):
            fast.batch_set({"allowed:a": 1, "access": 1}, atomic=True)


def test_coroutine_functions_are_refused_as_hooks(client: redis.Redis) -> None:
    """A coroutine function would be called but never awaited."""

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


def test_a_frozen_error_is_raised_without_a_report(client: redis.Redis) -> None:
    @dataclass(frozen=True)
    class RowError(Exception):
        row: int

    def source() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise RowError(2)

    with pytest.raises(RowError, match="2"):
        FastBatch(client).batch_set(source())
    assert client.exists("a")
