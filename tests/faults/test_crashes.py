"""Servers that are killed, or replaced by their replica, amid a batch."""

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
    """Items for as long as it is not told to stop, and some more; and an event once a batch of them is under way.

    Args:
        pause: seconds after every 500 items.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.under_way = threading.Event()
        self.stop = threading.Event()
        self._pause = pause

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        left = 5000
        for number in itertools.count():
            left -= self.stop.is_set()
            if left == 0:
                return
            if number == ENOUGH:
                self.under_way.set()
            if number % 500 == 0 and self._pause:
                time.sleep(self._pause)
            yield f"item:{number}", value_of(number)


class Writing(threading.Thread):
    """A batch_set in a thread of its own."""

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
    """Numbers of the items that the caller was told to be written, as far as the first open one."""
    return [n for n in range(report.confirmed_prefix) if f"item:{n}" not in report.failures]


def missing_or_wrong(client: redis.Redis, numbers: list[int]) -> tuple[list[int], list[int]]:
    """Of the items of these numbers, those that are not there, and those that are not as they should be."""
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
def test_what_was_confirmed_survives_kill_9_where_the_server_syncs_always(
    embedded: Path, options: dict[str, Any]
) -> None:
    with EmbeddedServer(embedded, appendonly=True, appendfsync="always") as server:
        client = server.client(retry=Retry(NoBackoff(), 0))
        source = Source()
        writing = Writing(FastBatch(client), source, **options)
        writing.start()
        assert source.under_way.wait(30)
        server.kill()
        writing.join(30)
        assert writing.error is not None
        report = writing.report
        assert report is not None
        server.restart()
        there = confirmed(report)
        assert len(there) > 0
        assert missing_or_wrong(client, there) == ([], [])
        # Nothing half written: whatever else is there is whole.
        everything = [int(key.split(b":")[1]) for key in client.scan_iter("item:*", count=5000)]
        assert missing_or_wrong(client, everything) == ([], [])
        assert FastBatch(client).batch_set({"after": 1}).written == 1


def test_a_batch_goes_on_with_a_server_that_comes_back(embedded: Path) -> None:
    with EmbeddedServer(embedded, appendonly=True, appendfsync="always") as server:
        client = server.client(retry=Retry(ConstantBackoff(0.05), 200))
        source = Source()
        writing = Writing(FastBatch(client), source)
        writing.start()
        assert source.under_way.wait(30)
        server.kill()
        server.restart()
        source.stop.set()
        writing.join(60)
        assert writing.error is None
        assert writing.report is not None
        assert writing.report.failed == 0
        assert missing_or_wrong(client, list(range(writing.report.written))) == ([], [])


def failed_over(group: SentinelGroup) -> bool:
    """Begin a failover; redis-py raises while the Sentinel does not think the replica good."""
    group.failover()
    return True


@pytest.mark.full
def test_a_failover_amid_a_batch(embedded: Path) -> None:
    """The batch goes on with the new master. What the old one had confirmed and not yet passed on is lost, as
    it is with asynchronous replication; nothing is wrong, and what comes later is there."""
    with sentinel_deployment(embedded) as group:
        sentinel = group.connect(socket_timeout=5.0)
        client = sentinel.master_for(group.name, retry=Retry(ConstantBackoff(0.05), 200), socket_timeout=5.0)
        fast = FastBatch(client)
        source = Source(pause=0.005)
        writing = Writing(fast, source, chunk_size=50)
        writing.start()
        assert source.under_way.wait(30)
        wait_until(lambda: failed_over(group), "the Sentinel finds the replica good")
        source.stop.set()
        writing.join(120)
        assert writing.error is None
        report = writing.report
        assert report is not None
        missing, wrong = missing_or_wrong(client, confirmed(report))
        assert wrong == []
        # The last ones went to the new master, which keeps them.
        assert all(number < report.written - 2000 for number in missing)
        after = {f"after:{n}": n for n in range(2000)}
        assert fast.batch_set(after).written == 2000
        assert fast.batch_get(after) == after
        print(f"{len(missing)} of {report.written} confirmed items were lost with the old master")
