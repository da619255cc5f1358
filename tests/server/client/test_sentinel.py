"""Clients of the master and the replica that a Sentinel knows, and a failover."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from exercise import ROWS, channel_of, exercise, pool_unchanged
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch._transports.channels import SocketChannel
from servers import SentinelGroup, sentinel_deployment, wait_until


def test_the_master_of_a_sentinel_can_be_used(sentinel: SentinelGroup) -> None:
    client = sentinel.connect().master_for(sentinel.name)
    with pool_unchanged(client):
        assert channel_of(client) is SocketChannel
        exercise(client)
    client.close()


def test_the_replica_of_a_sentinel_can_be_read(sentinel: SentinelGroup) -> None:
    manager = sentinel.connect()
    master, replica = manager.master_for(sentinel.name), manager.slave_for(sentinel.name)
    FastBatch(master).batch_set(ROWS)
    master.wait(1, 5000)
    assert FastBatch(replica).batch_get(ROWS) == ROWS
    with pytest.raises(BatchError, match=r"(?i)read only replica") as caught:
        FastBatch(replica).batch_set({"a": 1, "b": 2})
    assert caught.value.report.failed == 2
    FastBatch(master).batch_delete(ROWS)


@pytest.mark.full
def test_batches_continue_after_a_failover(embedded: Any) -> None:
    with sentinel_deployment(embedded) as group:
        client = group.connect(
            socket_timeout=5.0, retry=Retry(ConstantBackoff(0.2), 100), retry_on_timeout=True
        ).master_for(group.name, socket_timeout=5.0, retry=Retry(ConstantBackoff(0.2), 100))
        fast = FastBatch(client)
        assert fast.batch_set(ROWS).written == len(ROWS)
        group.servers.wait_for_sync()
        before = group.master_address()
        failover(group)
        assert fast.batch_set({"between": 1}).written == 1
        assert fast.batch_get(["between", "row:7"]) == {"between": 1, "row:7": ROWS["row:7"]}
        assert group.master_address() != before

        def source() -> Iterator[tuple[str, int]]:
            for i in range(20_000):
                if i == 9000:
                    failover(group)
                yield f"during:{i}", i

        report = fast.batch_set(source())
        assert (report.written, report.failed) == (20_000, 0)
        found = fast.batch_get([f"during:{i}" for i in range(9100, 20_000)])
        assert list(found.values()) == list(range(9100, 20_000))
        client.close()


def failover(group: SentinelGroup) -> None:
    """Wait until the Sentinel has a replica to promote, and make it the master."""
    before = group.master_address()
    with group.sentinel.client() as client:
        wait_until(
            lambda: client.execute_command("SENTINEL", "FAILOVER", group.name) in (b"OK", True),
            "the Sentinel finds a replica to promote",
        )
    wait_until(lambda: group.master_address() != before, "the failover")
