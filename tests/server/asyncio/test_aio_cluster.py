"""AsyncFastBatch over a redis.asyncio.RedisCluster, also while slots move and masters are killed."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import Connection

from aio import Runner, gathered, report_of, runner, streamed
from cluster_changes import (
    SlotMove,
    calls,
    first_slots,
    keys_in,
    reading,
    redirections,
    resharding,
    tags_of,
    wait_until_replicated,
)
from redis_fastbatch import AsyncFastBatch, BatchError, EncodeError
from servers import Cluster, cluster_deployment

ITEMS = {f"key:{n}": {"id": n, "name": f"näme {n}", "tags": [n, None, True]} for n in range(10_000)}

SOURCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": lambda items: items,
    "generator": lambda items: (pair for pair in items.items()),
    "async generator": lambda items: streamed(items.items(), every=100),
}


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        await super().send_packed_command(*arguments, **options)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return runner(request.param)


@asynccontextmanager
async def connected(cluster: Cluster, **options: Any) -> AsyncIterator[AsyncFastBatch]:
    """Empty the cluster, and connect to it."""
    cluster.flush()
    first = cluster.masters[0]
    client: Any = redis.asyncio.RedisCluster(host=first.host, port=first.port, **options)
    async with AsyncFastBatch(client) as batch:
        yield batch


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("options", "protocol"),
    [({}, 2), ({"ex": 100}, 2), ({"nx": True}, 2), pytest.param({}, 3, marks=pytest.mark.full)],
)
def test_written_items_are_read(
    run: Runner, cluster: Cluster, protocol: int, source: str, options: dict[str, Any]
) -> None:
    async def main() -> None:
        async with connected(cluster, protocol=protocol) as batch:
            report = await batch.batch_set(SOURCES[source](ITEMS), **options)
            assert (report.written, report.skipped, report.failed) == (len(ITEMS), 0, 0)
            assert report.confirmed_prefix == len(ITEMS)
            found = await batch.batch_get(list(ITEMS))
            assert found == ITEMS
            assert list(found) == list(ITEMS)
            assert await gathered(batch.batch_get_iter(streamed(ITEMS))) == list(ITEMS.items())
            assert {key.decode() for key in await gathered(batch.scan("key:*"))} == set(ITEMS)
            assert await gathered(batch.scan("key:*", type="hash")) == []
            assert await batch.batch_delete(streamed(ITEMS)) == len(ITEMS)

    run(main())


def test_an_atomic_batch_needs_one_slot(run: Runner, cluster: Cluster) -> None:
    items = {f"{{tag}}:{n}": n for n in range(3000)}

    async def main() -> None:
        async with connected(cluster) as batch:
            assert (await batch.batch_set(items, atomic=True)).written == len(items)
            assert (await batch.batch_set(streamed(items.items()), atomic=True, ex=9)).written == len(items)
            assert await batch.batch_get(list(items)) == items
            with pytest.raises(ValueError, match=r"'a' is in slot 15495, 'b' in 3300"):
                await batch.batch_set({"a": 1, "b": 2}, atomic=True)

    run(main())


def test_an_item_or_source_that_fails_is_reported(run: Runner, cluster: Cluster) -> None:
    async def failing() -> AsyncIterator[tuple[str, int]]:
        for n in range(2345):
            yield f"key:{n}", n
        raise LookupError("no more")

    async def main() -> None:
        async with connected(cluster) as batch:
            with pytest.raises(BatchError, match="bad") as caught:
                await batch.batch_set({**ITEMS, "bad": object()})
            assert isinstance(caught.value.report.failures["bad"], EncodeError)
            assert caught.value.report.written == len(ITEMS)
            with pytest.raises(LookupError) as raised:
                await batch.batch_set(failing())
            assert raised.value.report.written == 2345  # type: ignore[attr-defined]
            with pytest.raises(EncodeError):
                await batch.batch_get(["a", None])

    run(main())


def test_a_custom_connection_class_can_be_used(run: Runner, cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as batch:
            for node in batch.client.get_nodes():  # type: ignore[attr-defined]
                node.connection_class = PlainConnection
            await batch.client.initialize()
            for node in batch.client.get_nodes():  # type: ignore[attr-defined]
                node.connection_class = PlainConnection
                await node.disconnect()
                node._connections.clear()
                node._free.clear()
            assert (await batch.batch_set(ITEMS)).written == len(ITEMS)
            assert await batch.batch_get(list(ITEMS)) == ITEMS
            used = [node._connections for node in batch.client.get_nodes()]  # type: ignore[attr-defined]
            assert any(isinstance(one, PlainConnection) for some in used for one in some)

    run(main())


def test_replicas_are_read_if_the_client_reads_from_replicas(run: Runner, cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as batch:
            await batch.batch_set(ITEMS)
        for master in cluster.masters:
            wait_until_replicated(master)
        first = cluster.masters[0]
        before = [calls(node, "get") for node in cluster.nodes]
        options = reading("round_robin_replicas")
        client: Any = redis.asyncio.RedisCluster(host=first.host, port=first.port, **options)
        async with AsyncFastBatch(client) as batch:
            assert await batch.batch_get(list(ITEMS)) == ITEMS
        reads = [calls(node, "get") - count for node, count in zip(cluster.nodes, before, strict=True)]
        assert sum(reads[:3]) == 0
        assert sum(reads[3:]) == len(ITEMS)

    run(main())


def test_a_cancelled_batch_reports_what_was_confirmed(run: Runner, cluster: Cluster) -> None:
    items = {f"key:{n}": "x" * 500 for n in range(200_000)}
    steps: list[int] = []

    async def main() -> None:
        async with connected(cluster) as batch:
            task = asyncio.ensure_future(
                batch.batch_set(items, nx=True, progress=lambda done, _: steps.append(done))
            )
            while not steps and not task.done():
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            report = report_of(caught.value)
            assert 0 < report.written < len(items)
            assert report.failed > 0
            keys = list(items)
            prefix = await batch.batch_get(keys[: report.confirmed_prefix])
            assert all(value is not None for value in prefix.values())
            again = await batch.batch_set(items, nx=True)
            assert again.skipped >= report.written
            assert again.written + again.skipped == len(items)

    run(main())


def test_batches_may_run_concurrently(run: Runner, cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as batch:
            some = [{f"{n}:{key}": value for key, value in ITEMS.items()} for n in range(3)]
            await asyncio.gather(*(batch.batch_set(items) for items in some))
            assert await asyncio.gather(*(batch.batch_get(list(items)) for items in some)) == some

    run(main())


def test_items_of_a_moving_slot_are_written_and_read(run: Runner, changing: Cluster) -> None:
    slot = first_slots(changing, 0, 1)[0]
    tag = tags_of(range(slot, slot + 1))[slot]
    items = {f"{tag}:{n}": n for n in range(3000)}
    old, new = dict(list(items.items())[:1000]), dict(list(items.items())[1000:])
    move = SlotMove(changing, slot, *changing.masters[:2])

    async def main() -> None:
        async with connected(changing) as batch:
            await batch.batch_set(old)
            move.begin()
            assert (await batch.batch_set(new, nx=True)).written == len(new)
            assert keys_in(changing.masters[1], slot) == len(new)
            assert await batch.batch_get(list(items)) == items
            move.move_keys()
            move.end()
            assert (await batch.batch_set(items, atomic=True)).written == len(items)
            assert await batch.batch_delete(items) == len(items)

    try:
        run(main())
    finally:
        SlotMove(changing, slot, *changing.masters[1::-1]).run()


def test_items_are_written_once_while_slots_move(run: Runner, changing: Cluster) -> None:
    slots = first_slots(changing, 0, 12)
    tags = tags_of(slots).values()
    items = {f"{tag}:{n}": n for n in range(1000) for tag in tags}

    async def main() -> None:
        async with connected(changing) as batch:
            for options in ({}, {"nx": True}) * 2:
                report = await batch.batch_set(items, **options)  # type: ignore[arg-type]
                assert (report.written, report.skipped, report.failed) == (len(items), 0, 0)
                assert await batch.batch_get(list(items)) == items
                assert await batch.batch_delete(items) == len(items)

    before = redirections(changing)
    with resharding(changing, slots, 0, 1):
        run(main())
    assert redirections(changing) > before


@pytest.mark.full
def test_a_batch_continues_after_a_master_is_killed(embedded: Path) -> None:
    items = {f"key:{n}": {"n": n, "text": "x" * 300} for n in range(60_000)}
    with cluster_deployment(3, embedded) as cluster:

        def kill(done: int, _: int | None) -> None:
            if done > len(items) / 3 and cluster.masters[0].running:
                for master in cluster.masters:
                    wait_until_replicated(master)
                cluster.masters[0].kill()

        async def main() -> None:
            async with connected(cluster) as batch:
                report = await batch.batch_set(items, progress=kill)
                assert (report.written, report.failed) == (len(items), 0)
                assert await batch.batch_get(list(items)) == items

        asyncio.run(main())
        assert not cluster.masters[0].running


def test_tables_are_written_and_read(run: Runner, cluster: Cluster) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(5000), "name": [f"n{n}" for n in range(5000)]})

    async def main() -> None:
        async with connected(cluster) as batch:
            assert (await batch.batch_set_table(table, key="row:{id}")).written == 5000
            assert await batch.batch_get_table([f"row:{n}" for n in range(5000)]) == table

    run(main())


def test_a_client_can_be_pickled(cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncFastBatch.from_url(cluster.url, cluster=True) as batch:
            await batch.batch_set({"a": 1, "b": 2})
            async with pickle.loads(pickle.dumps(batch)) as other:
                assert await other.batch_get(["a", "b"]) == {"a": 1, "b": 2}

    asyncio.run(main())
