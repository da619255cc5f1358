"""Servers that are killed or replaced by their replica during a batch."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from redis_fastbatch import BatchReport, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import SentinelGroup, sentinel_deployment, wait_until

ENOUGH = 20_000


def value_of(number: int) -> dict[str, Any]:
    return {"number": number, "text": "x" * 100}


class Source:
    """Items until `stop` is set, and 5000 more. `running` is set after ENOUGH items.

    Args:
        pause: seconds after every 500 items.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.running = threading.Event()
        self.stop = threading.Event()
        self._pause = pause

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        left = 5000
        for number in itertools.count():
            left -= self.stop.is_set()
            if left == 0:
                return
            if number == ENOUGH:
                self.running.set()
            if number % 500 == 0 and self._pause:
                time.sleep(self._pause)
            yield f"item:{number}", value_of(number)


class Writing(threading.Thread):
    """Runs a batch_set in a thread."""

    def __init__(self, fast: FastBatch, source: Source, **options: Any) -> None:
        super().__init__(daemon=True)
        self.report: BatchReport | None = None
        self.error: BaseException | None = None
        self._fast, self._source, self._options = fast, source, options

    def run(self) -> None:
        try:
            self.report = self._fast.batch_set(self._source, **self._options)
        except redis.RedisError as error:
            self.error, self.report = error, error.report  # type: ignore[attr-defined]


def confirmed(report: BatchReport) -> list[int]:
    """Return the numbers of the items that are reported as written, up to confirmed_prefix."""
    return [n for n in range(report.confirmed_prefix) if f"item:{n}" not in report.failures]


def missing_or_wrong(client: redis.Redis, numbers: list[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of the missing items, and of those with wrong values."""
    missing, wrong = [], []
    for key, value in FastBatch(client).batch_get_iter(f"item:{n}" for n in numbers):
        number = int(key.split(":")[1])
        if value is None:
            missing.append(number)
        elif value != value_of(number):
            wrong.append(number)
    return missing, wrong


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"ex": 10_000}, {"nx": True}, {"chunk_size": 1}, {"workers": 2}], ids=str)
def test_confirmed_items_survive_kill_9_with_appendfsync_always(embedded: Path, options: dict[str, Any]) -> None:
    with EmbeddedServer(embedded, appendonly=True, appendfsync="always") as server:
        client = server.client(retry=Retry(NoBackoff(), 0))
        source = Source()
        writing = Writing(FastBatch(client), source, **options)
        writing.start()
        assert source.running.wait(30)
        server.kill()
        writing.join(30)
        assert writing.error is not None
        report = writing.report
        assert report is not None
        server.restart()
        numbers = confirmed(report)
        assert len(numbers) > 0
        assert missing_or_wrong(client, numbers) == ([], [])
        # All other stored items are complete too.
        everything = [int(key.split(b":")[1]) for key in client.scan_iter("item:*", count=5000)]
        assert missing_or_wrong(client, everything) == ([], [])
        assert FastBatch(client).batch_set({"after": 1}).written == 1


def test_a_batch_continues_after_the_server_restarts(embedded: Path) -> None:
    with EmbeddedServer(embedded, appendonly=True, appendfsync="always") as server:
        client = server.client(retry=Retry(ConstantBackoff(0.05), 200))
        source = Source()
        writing = Writing(FastBatch(client), source)
        writing.start()
        assert source.running.wait(30)
        server.kill()
        server.restart()
        source.stop.set()
        writing.join(60)
        assert writing.error is None
        assert writing.report is not None
        assert writing.report.failed == 0
        assert missing_or_wrong(client, list(range(writing.report.written))) == ([], [])


def failed_over(group: SentinelGroup) -> bool:
    """Start a failover. redis-py raises while the Sentinel cannot promote the replica."""
    group.failover()
    return True


@pytest.mark.full
def test_a_batch_continues_after_a_failover(embedded: Path) -> None:
    """The batch continues with the new master.

    Replication is asynchronous, so items that only the old master had are lost. No value is wrong, and all later
    items are stored.
    """
    with sentinel_deployment(embedded) as group:
        sentinel = group.connect(socket_timeout=5.0)
        client = sentinel.master_for(group.name, retry=Retry(ConstantBackoff(0.05), 200), socket_timeout=5.0)
        fast = FastBatch(client)
        source = Source(pause=0.005)
        writing = Writing(fast, source, chunk_size=50)
        writing.start()
        assert source.running.wait(30)
        wait_until(lambda: failed_over(group), "the Sentinel can promote the replica")
        source.stop.set()
        writing.join(120)
        assert writing.error is None
        report = writing.report
        assert report is not None
        missing, wrong = missing_or_wrong(client, confirmed(report))
        assert wrong == []
        # The last items went to the new master.
        assert all(number < report.written - 2000 for number in missing)
        after = {f"after:{n}": n for n in range(2000)}
        assert fast.batch_set(after).written == 2000
        assert fast.batch_get(after) == after
        print(f"{len(missing)} of {report.written} confirmed items were lost with the old master")
