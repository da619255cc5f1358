"""Hashes are read from replicas where the client reads there, and by several threads."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest
import redis
import redis.asyncio

from cluster_changes import calls, reading, wait_until_replicated
from redis_fastbatch import AsyncFastBatch, FastBatch
from servers import Cluster, ReplicaPair

MANY: dict[str, Any] = {f"h:{n}": {"id": n, "name": f"näme {n}"} for n in range(600)}
TYPES = {"id": int, "name": str}


@pytest.mark.parametrize("where", ["sync", "asyncio"])
def test_hashes_are_read_from_replicas_if_the_client_reads_there(cluster: Cluster, where: str) -> None:
    with redis.RedisCluster(host=cluster.masters[0].host, port=cluster.masters[0].port) as writing:
        FastBatch(writing).batch_hset(MANY)
    for master in cluster.masters:
        wait_until_replicated(master)
    before = [calls(node, "hgetall") + calls(node, "hmget") for node in cluster.nodes]
    options: Any = {"host": cluster.masters[0].host, "port": cluster.masters[0].port}
    options |= reading("round_robin_replicas") if where == "asyncio" else reading("random_replica")
    keys = list(MANY)

    async def main() -> Any:
        async with AsyncFastBatch(redis.asyncio.RedisCluster(**options)) as batch:
            return await batch.batch_hgetall(keys, types=TYPES), await batch.batch_hmget(keys, ["id"], types=int)

    if where == "asyncio":
        found = asyncio.run(main())
    else:
        with redis.RedisCluster(**options) as client:
            batch = FastBatch(client)
            found = batch.batch_hgetall(keys, types=TYPES), batch.batch_hmget(keys, ["id"], types=int)
            if find_spec("pyarrow"):
                table = batch.batch_get_table(keys, as_="hash", schema={"id": "int64", "name": "string"})
                assert table.to_pylist() == list(MANY.values())
    assert found == (MANY, {key: {"id": row["id"]} for key, row in MANY.items()})
    reads = [
        calls(node, "hgetall") + calls(node, "hmget") - count
        for node, count in zip(cluster.nodes, before, strict=True)
    ]
    assert sum(reads[:3]) == 0
    assert sum(reads[3:]) >= 2 * len(MANY)


def test_hashes_are_read_from_a_replica(replica: ReplicaPair) -> None:
    with replica.master.client() as master, replica.replica.client() as client:
        FastBatch(master).batch_hset(MANY)
        replica.wait_for_sync()
        batch = FastBatch(client)
        for _ in range(2):
            assert batch.batch_hgetall(MANY, types=TYPES) == MANY
            assert batch.batch_hgetall(["h:1"], types=TYPES) == {"h:1": MANY["h:1"]}
        report = batch.batch_hset(MANY, on_error="report")
        assert (report.written, report.failed) == (0, len(MANY))


@pytest.mark.parametrize("where", ["valkey_client", "cluster_client"])
def test_several_threads_read_hashes(request: pytest.FixtureRequest, where: str) -> None:
    client: Any = request.getfixturevalue(where)
    batch = FastBatch(client)
    batch.batch_hset(MANY)
    keys = [*MANY, "missing", "h:7"]
    found = batch.batch_hgetall(keys, types=TYPES, default=0, workers=3)
    assert (found, list(found)) == ({**MANY, "missing": 0}, [*MANY, "missing"])
    some = batch.batch_hmget(iter(keys), ["id"], types=int, workers=2)
    assert some == {**{key: {"id": row["id"]} for key, row in MANY.items()}, "missing": None}
    client.set("h:5", "a string")
    failed: list[Any] = []
    found = batch.batch_hgetall(keys, types=int, workers=3, on_error=lambda *failure: failed.append(failure))
    assert len(failed) == len(MANY)
    assert set(found.values()) == {None}
    with pytest.raises(redis.ResponseError, match="key 'h:5'"):
        batch.batch_hgetall(["h:5", "h:6"], workers=2)
    with pytest.raises(TypeError, match="workers"):
        batch.batch_hgetall(keys, workers="2")  # type: ignore[arg-type]
