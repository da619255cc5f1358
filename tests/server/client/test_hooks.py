"""An error that a hook raises ends the batch, even if it looks like a lost connection of the batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

N = 5000
BAD = 1500
ITEMS: dict[str, Any] = {f"key:{i}": {1} if i == BAD else i for i in range(N)}

# Errors that a dead-letter queue in Redis or in a file may raise. A Retry handles some of them.
ERRORS = [
    redis.ConnectionError("the dead-letter queue is down"),
    redis.TimeoutError("the dead-letter queue is slow"),
    redis.exceptions.BusyLoadingError("the dead-letter queue is loading"),
    redis.ResponseError("the dead-letter queue is full"),
    TimeoutError("the disk is slow"),
    OSError("the disk is full"),
    ValueError("some defect"),
]

any_error = pytest.mark.parametrize(
    "error", ERRORS, ids=lambda error: type(error).__module__ + type(error).__name__
)
any_hook = pytest.mark.parametrize("hook", ["on_error", "on_chunk", "progress"])


class Broken:
    """A callable that raises, and counts its calls."""

    def __init__(self, error: Exception) -> None:
        self.calls = 0
        self._error = error

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        raise self._error


def check_ended(batch: Callable[[], object], error: Exception, broken: Broken) -> Any:
    """Check that a batch raises this error and calls the hook once. Return the report."""
    with pytest.raises(type(error)) as caught:
        batch()
    assert caught.value is error
    assert broken.calls == 1
    return getattr(error, "report", None)


def check_report(report: Any, existing: set[int]) -> None:
    """Check a report against the numbers of the existing keys."""
    assert report.written + report.failed == report.total <= N
    assert report.confirmed_prefix <= report.total
    missing = set(range(report.confirmed_prefix)) - existing
    # All items of an atomic batch fail.
    assert missing <= {BAD} or report.failed == N, "unwritten items before confirmed_prefix"


def present(client: Any) -> set[int]:
    keys = [f"key:{i}" for i in range(N)]
    return {i for i, value in enumerate(FastBatch(client).batch_get(keys).values()) if value is not None}


@any_error
@any_hook
@pytest.mark.parametrize("options", [{}, {"nx": True}, {"atomic": True, "chunk_size": 100}])
def test_an_error_of_a_hook_ends_a_write(
    valkey_client: redis.Redis, hook: str, error: Exception, options: dict[str, Any]
) -> None:
    broken = Broken(error)
    hooks = {"on_error": "report", hook: broken}
    report = check_ended(lambda: FastBatch(valkey_client).batch_set(ITEMS, **hooks, **options), error, broken)
    check_report(report, present(valkey_client))
    assert valkey_client.ping()


@any_error
def test_an_error_of_a_hook_ends_a_read(valkey_client: redis.Redis, error: Exception) -> None:
    """The batch must not be read again, because each attempt would end the same way."""
    keys = [f"key:{i}" for i in range(100)]
    valkey_client.set("key:70", b"\xc1")
    fast = FastBatch(valkey_client)
    broken = Broken(error)
    check_ended(lambda: fast.batch_get(keys, on_error=broken), error, broken)
    broken = Broken(error)
    check_ended(lambda: list(fast.batch_get_iter(keys, on_error=broken)), error, broken)
    broken = Broken(error)
    check_ended(lambda: fast.batch_get(keys, on_error=broken, workers=2), error, broken)
    assert valkey_client.ping()


@any_error
def test_an_error_of_a_hook_ends_a_batch_of_workers(valkey_client: redis.Redis, error: Exception) -> None:
    broken = Broken(error)
    report = check_ended(
        lambda: FastBatch(valkey_client).batch_set(ITEMS, on_error=broken, workers=2), error, broken
    )
    check_report(report, present(valkey_client))


@any_error
def test_an_error_of_a_hook_ends_a_batch_on_asyncio(
    valkey: EmbeddedServer, valkey_client: redis.Redis, error: Exception
) -> None:
    async def write(**hooks: Any) -> None:
        async with AsyncFastBatch.from_url(valkey.url) as batch:
            await batch.batch_set(ITEMS, **hooks)

    async def read(broken: Broken) -> None:
        async with AsyncFastBatch.from_url(valkey.url) as batch:
            await batch.batch_get(["bad"], on_error=broken)

    for hook in ("on_error", "on_chunk"):
        broken = Broken(error)
        hooks = {"on_error": "report", hook: broken}
        report = check_ended(lambda: asyncio.run(write(**hooks)), error, broken)  # noqa: B023
        check_report(report, present(valkey_client))
    valkey_client.set("bad", b"\xc1")
    broken = Broken(error)
    check_ended(lambda: asyncio.run(read(broken)), error, broken)


@any_error
def test_an_error_of_a_hook_ends_a_batch_over_a_cluster(
    cluster: Cluster, cluster_client: redis.RedisCluster, error: Exception
) -> None:
    async def write(broken: Broken) -> None:
        master = cluster.masters[0]
        async with AsyncFastBatch.from_url(master.url, cluster=True) as batch:
            await batch.batch_set(ITEMS, on_error=broken)

    fast = FastBatch(cluster_client)
    for hook in ("on_error", "on_chunk"):
        broken = Broken(error)
        hooks = {"on_error": "report", hook: broken}
        report = check_ended(lambda: fast.batch_set(ITEMS, **hooks), error, broken)  # noqa: B023
        check_report(report, present(cluster_client))
    broken = Broken(error)
    check_report(check_ended(lambda: asyncio.run(write(broken)), error, broken), present(cluster_client))
    cluster_client.set("bad", b"\xc1")
    broken = Broken(error)
    check_ended(lambda: fast.batch_get(["bad"], on_error=broken), error, broken)


def test_the_context_of_a_hooks_error_is_kept(valkey_client: redis.Redis) -> None:
    def hook(*_: Any) -> None:
        try:
            {}["the queue"]
        except KeyError:
            raise redis.ConnectionError("no queue")  # noqa: B904

    with pytest.raises(redis.ConnectionError, match="no queue") as caught:
        FastBatch(valkey_client).batch_set(ITEMS, on_error=hook)
    assert isinstance(caught.value.__context__, KeyError)


def test_a_retry_on_all_errors_does_not_repeat_a_hooks_error(
    valkey: EmbeddedServer, valkey_client: redis.Redis
) -> None:
    """A new connection does not help with a value that is too large."""
    valkey_client.set("large", b"x" * 1000)
    retry = Retry(NoBackoff(), 3)
    with valkey.client(retry=retry, retry_on_error=[Exception], socket_timeout=20) as client:
        broken = Broken(ValueError("some defect"))
        check_ended(lambda: FastBatch(client).batch_set(ITEMS, on_error=broken), broken._error, broken)
        with pytest.raises(Exception, match="max_value_size"):
            FastBatch(client, "raw", max_value_size=10).batch_get(["large"])
        assert client.ping()
