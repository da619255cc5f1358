"""Batches of one key over a cluster."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from redis_fastbatch import BatchError, DecodeError, EncodeError, FastBatch
from redis_fastbatch._transports.sync import Lease


@pytest.fixture
def batch(cluster_client: redis.RedisCluster) -> FastBatch:
    batch = FastBatch(cluster_client)
    # The short way needs to know how large values are.
    batch.batch_set({"first": 1})
    batch.batch_get(["first"])
    return batch


@pytest.mark.parametrize("key", ["a", "\u00e9", b"bytes", 7, "{tag}:1", ""])
@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"nx": True}, {"keepttl": True}, {"atomic": True}])
def test_an_item_is_written_and_read(batch: FastBatch, key: Any, options: dict[str, Any]) -> None:
    for items in ({key: {"n": 1}}, [(key, {"n": 1})]):
        batch.batch_delete([key])
        report = batch.batch_set(items, **options)
        assert (report.written, report.failed, report.confirmed_prefix) == (1, 0, 1)
        assert report.bytes_sent > 0
        assert batch.batch_get([key]) == {key: {"n": 1}}
        assert (0 < batch.client.ttl(key) <= 100) == ("ex" in options)


def test_it_takes_one_command(batch: FastBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    exchange = Lease.exchange

    def seen(lease: Lease, chunk: Any) -> Any:
        sent.append(bytes(memoryview(chunk)))
        return exchange(lease, chunk)

    monkeypatch.setattr(Lease, "exchange", seen)
    monkeypatch.setattr(batch, "_write_flight", None)
    monkeypatch.setattr(batch, "_read_flight", None)
    batch.batch_set({"a": 1})
    assert batch.batch_get(["a"]) == {"a": 1}
    assert sent == [b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n\x01\r\n", b"*2\r\n$4\r\nMGET\r\n$1\r\na\r\n"]


def test_values_that_are_missing_or_of_another_type_are_the_default(batch: FastBatch) -> None:
    batch.client.rpush("list", 1)
    assert batch.batch_get(["none"], default=0) == {"none": 0}
    assert batch.batch_get(["list"], default=0) == {"list": 0}


def test_failures_are_named(batch: FastBatch) -> None:
    with pytest.raises(BatchError, match="key 'a': MessagePack has no type for set"):
        batch.batch_set({"a": {1}})
    with pytest.raises(EncodeError, match="float"):
        batch.batch_get([1.5])  # type: ignore[list-item]
    batch.client.set("broken", b"\xc1")
    with pytest.raises(DecodeError, match="broken"):
        batch.batch_get(["broken"])
    failed: list[Any] = []
    assert batch.batch_get(["broken"], default=0, on_error=lambda *each: failed.append(each[:2])) == {"broken": 0}
    assert failed == [("broken", b"\xc1")]
    # The connections are as they were.
    batch.batch_set({"a": 1})
    assert batch.batch_get(["a"]) == {"a": 1}


def test_a_large_value_is_read(batch: FastBatch) -> None:
    large = "x" * 3_000_000
    batch.batch_set({"large": large})
    for _ in range(3):
        assert batch.batch_get(["large"]) == {"large": large}
    assert batch.batch_get(["first"]) == {"first": 1}


def test_a_longer_value_than_allowed_is_refused(cluster_client: redis.RedisCluster) -> None:
    batch = FastBatch(cluster_client, max_value_size=10)
    batch.batch_set({"long": "x" * 20, "short": 1})
    assert batch.batch_get(["short"]) == {"short": 1}
    with pytest.raises(DecodeError, match="max_value_size is 10"):
        batch.batch_get(["long"])
    assert batch.batch_get(["short"]) == {"short": 1}


def test_a_connection_that_the_server_has_closed_is_replaced(batch: FastBatch) -> None:
    batch.batch_set({"a": 1})
    for node in batch.client.get_primaries():  # type: ignore[union-attr]
        batch.client.get_redis_connection(node).client_kill_filter(_type="normal", skipme=True)  # type: ignore[union-attr]
    assert batch.batch_set({"a": 2}).written == 1
    assert batch.batch_get(["a"]) == {"a": 2}


def test_an_interrupt_leaves_its_item_with_an_unknown_outcome(
    batch: FastBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(lease: Lease, chunk: Any) -> None:
        lease._failure = KeyboardInterrupt()

    with monkeypatch.context() as patched:
        patched.setattr(Lease, "exchange", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            batch.batch_set({"a": 1})
    report = caught.value.report  # type: ignore[attr-defined]
    assert (report.written, report.failed, report.confirmed_prefix) == (0, 1, 0)
    assert "outcome unknown" in str(report.failures["a"])
    assert batch.batch_set({"a": 2}).written == 1
