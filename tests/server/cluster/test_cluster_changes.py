"""Batches over a cluster that changes: no item is lost or written twice, and failures are exact."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster_changes import (
    SlotMove,
    calls,
    first_slots,
    keys_in,
    redirections,
    resharding,
    tags_of,
    wait_until_replicated,
)
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch._cluster import flight as limits
from servers import Cluster, cluster_deployment

MOVING = 12


@pytest.fixture
def batch(changing: Cluster) -> Iterator[FastBatch]:
    changing.flush()
    with changing.client() as client:
        yield FastBatch(client)


def items_in(tags: dict[int, str], per_tag: int) -> dict[str, Any]:
    """Return items with `per_tag` keys for each tag."""
    return {f"{tag}:{n}": {"n": n, "tag": tag} for n in range(per_tag) for tag in tags.values()}


@pytest.fixture(scope="module")
def moving_slots(changing: Cluster) -> range:
    return first_slots(changing, 0, MOVING)


@pytest.fixture(scope="module")
def items(moving_slots: range) -> dict[str, Any]:
    others = {f"other:{n}": n for n in range(10_000)}
    return {**items_in(tags_of(moving_slots), 2000), **others}


def test_items_of_a_moved_slot_are_redirected(changing: Cluster, batch: FastBatch) -> None:
    """The client knows the old slots, so every item is redirected once."""
    slot = first_slots(changing, 0, 1)[0]
    items = items_in(tags_of(range(slot, slot + 1)), 3000)
    batch.batch_set({"{x}": 1})
    move = SlotMove(changing, slot, *changing.masters[:2])
    move.run()
    try:
        report = batch.batch_set(items)
        assert (report.written, report.failed) == (len(items), 0)
        assert keys_in(changing.masters[1], slot) == len(items)
        assert batch.batch_get(list(items)) == items
        # Now the client knows the new slot, and nothing is redirected.
        before = calls(changing.masters[0], "set")
        batch.batch_set(items)
        assert calls(changing.masters[0], "set") == before
        assert batch.batch_set(items_in({slot: next(iter(items)).split(":")[0]}, 10), atomic=True).written == 10
        assert batch.batch_delete(items) == len(items)
    finally:
        SlotMove(changing, slot, *changing.masters[1::-1]).run()


@pytest.mark.parametrize("options", [{}, {"nx": True}, {"ex": 100}])
def test_items_of_a_moving_slot_are_written_and_read(
    changing: Cluster, batch: FastBatch, options: dict[str, Any]
) -> None:
    """Keys that the source does not have are sent to the target, each after ASKING."""
    slot = first_slots(changing, 0, 1)[0]
    items = items_in(tags_of(range(slot, slot + 1)), 3000)
    old, new = dict(list(items.items())[:1000]), dict(list(items.items())[1000:])
    batch.batch_set(old)
    move = SlotMove(changing, slot, *changing.masters[:2])
    move.begin()
    try:
        report = batch.batch_set(new, **options)
        assert (report.written, report.skipped, report.failed) == (len(new), 0, 0)
        assert keys_in(changing.masters[0], slot) == len(old)
        assert keys_in(changing.masters[1], slot) == len(new)
        assert batch.batch_get(list(items)) == items
        assert batch.batch_get(["{none}"], default=7) == {"{none}": 7}
        report = batch.batch_set(dict.fromkeys(items, 0), xx=True)
        assert report.written == len(items)
        assert batch.batch_delete([*items, *items]) == len(items)
    finally:
        move.move_keys()
        move.end()
        SlotMove(changing, slot, *changing.masters[1::-1]).run()


def test_one_key_follows_its_slot(changing: Cluster, batch: FastBatch) -> None:
    """Before, while and after its slot moves."""
    slot = first_slots(changing, 0, 1)[0]
    key = f"{tags_of(range(slot, slot + 1))[slot]}:one"

    def works(value: int) -> None:
        assert batch.batch_set({key: value}).written == 1
        assert batch.batch_get([key]) == {key: value}

    works(0)
    move = SlotMove(changing, slot, *changing.masters[:2])
    move.begin()
    try:
        works(1)
        batch.batch_delete([key])
        assert batch.batch_get([key], default="none") == {key: "none"}
        works(2)
        assert keys_in(changing.masters[1], slot) == 1
    finally:
        move.move_keys()
        move.end()
    works(3)
    works(4)
    SlotMove(changing, slot, *changing.masters[1::-1]).run()
    works(5)
    assert keys_in(changing.masters[0], slot) == 1


@pytest.mark.parametrize("options", [{}, pytest.param({"nx": True}, marks=pytest.mark.full)])
def test_items_are_written_once_while_slots_move(
    changing: Cluster, batch: FastBatch, items: dict[str, Any], moving_slots: range, options: dict[str, Any]
) -> None:
    before = redirections(changing)
    with resharding(changing, moving_slots, 0, 1):
        for _ in range(4):
            report = batch.batch_set(items, **options)
            assert (report.written, report.skipped, report.failed) == (len(items), 0, 0)
            assert batch.batch_get(list(items)) == items
            assert batch.batch_delete(items) == len(items)
    assert redirections(changing) > before


@pytest.mark.full
def test_values_are_read_while_slots_move(
    changing: Cluster, batch: FastBatch, items: dict[str, Any], moving_slots: range
) -> None:
    batch.batch_set(items)
    before = redirections(changing)
    with resharding(changing, moving_slots, 0, 1):
        for _ in range(6):
            found = batch.batch_get(list(items))
            assert found == items
            assert list(found) == list(items)
            assert list(batch.batch_get_iter(items)) == list(items.items())
    assert redirections(changing) > before


def test_an_atomic_batch_is_written_while_its_slot_moves(
    changing: Cluster, batch: FastBatch, moving_slots: range
) -> None:
    tag = next(iter(tags_of(range(moving_slots[0], moving_slots[0] + 1)).values()))
    with resharding(changing, moving_slots[:1], 0, 1):
        for n in range(50):
            items = {f"{tag}:{i}": n for i in range(200)}
            assert batch.batch_set(items, atomic=True).written == len(items)
            assert batch.batch_get(list(items)) == items


def test_a_batch_waits_while_the_cluster_is_down(changing: Cluster, batch: FastBatch) -> None:
    """While no node has a slot, the cluster refuses all commands."""
    items = {f"key:{n}": n for n in range(10_000)}
    with changing.masters[0].client() as client:
        client.execute_command("CLUSTER", "DELSLOTS", 0)
        with pytest.raises(redis.ResponseError, match=r"not served|down"):
            client.execute_command("SET", next(iter(tags_of(range(1)).values())), 1)

    def heal() -> None:
        with changing.masters[0].client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", 0)

    timer = threading.Timer(1.0, heal)
    timer.start()
    try:
        report = batch.batch_set(items, nx=True)
        assert (report.written, report.skipped, report.failed) == (len(items), 0, 0)
        assert batch.batch_get(list(items)) == items
    finally:
        timer.join()


def test_items_fail_if_the_cluster_stays_down(
    changing: Cluster, batch: FastBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_fastbatch._cluster.sync.MAX_OUTAGE_SECONDS", 0.5)
    slots = tags_of(range(2))
    items = items_in(slots, 100) | {f"key:{n}": n for n in range(3000)}
    with changing.masters[0].client() as client:
        client.execute_command("CLUSTER", "DELSLOTS", 0)
        try:
            started = time.monotonic()
            failed: list[Any] = []
            report = batch.batch_set(items, on_error=lambda key, *_: failed.append(key))
            assert time.monotonic() - started < 10
            assert report.failed == len(failed) > 0
            assert report.written + report.failed == len(items)
            assert set(items_in({0: slots[0]}, 100)) <= set(failed)
            with pytest.raises(redis.ResponseError):
                batch.batch_get(list(items))
        finally:
            client.execute_command("CLUSTER", "ADDSLOTS", 0)
    found = batch.batch_get(list(items))
    assert {key for key, value in found.items() if value is None} == set(failed)


def test_without_retries_a_batch_does_not_wait(changing: Cluster) -> None:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with changing.client(retry=Retry(NoBackoff(), 0)) as client:
        batch = FastBatch(client)
        batch.batch_set({"a": 1})
        with changing.masters[0].client() as admin:
            admin.execute_command("CLUSTER", "DELSLOTS", 0)
            try:
                started = time.monotonic()
                with pytest.raises(BatchError):
                    batch.batch_set(items_in(tags_of(range(1)), 10))
                assert time.monotonic() - started < 1
            finally:
                admin.execute_command("CLUSTER", "ADDSLOTS", 0)


@pytest.mark.parametrize(
    "options", [pytest.param({}, id="plain"), pytest.param({"nx": True}, id="nx", marks=pytest.mark.full)]
)
def test_a_batch_continues_after_a_master_is_killed(embedded: Path, options: dict[str, Any]) -> None:
    """The master is killed after its replica has confirmed all items that are reported as written."""
    items = {f"key:{n}": {"n": n, "text": "x" * 300} for n in range(60_000)}
    unknown: set[str] = set()
    with cluster_deployment(3, embedded) as cluster, cluster.client() as client:

        def kill(done: int, _: int | None) -> None:
            if done > len(items) / 3 and cluster.masters[0].running:
                for master in cluster.masters:
                    wait_until_replicated(master)
                cluster.masters[0].kill()

        batch = FastBatch(client)
        report = batch.batch_set(
            items, progress=kill, on_error=lambda key, _value, _error: unknown.add(key), **options
        )
        assert not cluster.masters[0].running
        assert report.skipped == 0
        assert report.written == len(items) - len(unknown)
        assert report.failed == len(unknown)
        assert bool(unknown) == bool(options)
        found = batch.batch_get(list(items))
        assert {key for key, value in found.items() if value is None} <= unknown
        assert all(value == items[key] for key, value in found.items() if value is not None)
        # A second batch with nx writes only the missing items.
        again = batch.batch_set(items, nx=True)
        assert again.written == sum(value is None for value in found.values())
        assert batch.batch_get(list(items)) == items


@pytest.mark.full
def test_iteration_continues_after_a_master_is_killed(embedded: Path) -> None:
    items = {f"key:{n}": {"n": n, "text": "x" * 300} for n in range(30_000)}
    with cluster_deployment(3, embedded) as cluster, cluster.client() as client:
        batch = FastBatch(client)
        batch.batch_set(items)
        for master in cluster.masters:
            wait_until_replicated(master)
        pairs: dict[str, Any] = {}
        for key, value in batch.batch_get_iter(items):
            pairs[key] = value
            if len(pairs) == 10_000:
                cluster.masters[1].kill()
        assert pairs == items
        assert list(pairs) == list(items)


@pytest.mark.full
def test_a_shard_without_nodes_ends_the_batch(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When master and replica of a shard are gone, the batch ends with an error that has a report."""
    monkeypatch.setattr("redis_fastbatch._cluster.sync.MAX_OUTAGE_SECONDS", 1.0)
    items = {f"key:{n}": n for n in range(20_000)}
    with cluster_deployment(3, embedded) as cluster, cluster.client() as client:
        batch = FastBatch(client)
        batch.batch_set({"a": 1})
        cluster.replicas[0].kill()
        cluster.masters[0].kill()
        with pytest.raises((redis.ConnectionError, BatchError)) as caught:
            batch.batch_set(items)
        report = caught.value.report  # type: ignore[union-attr]
        assert report.written > 0
        assert report.failed > 0
        assert report.total <= len(items)
        with pytest.raises(redis.RedisError):
            batch.batch_get(list(items))


def test_batches_wait_longer_than_a_failover_takes() -> None:
    assert limits.MAX_OUTAGE_SECONDS > 15 + 5
