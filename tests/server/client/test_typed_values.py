"""Batches of values with a type: clients of one server and of a cluster, asyncio, hashes and tables."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
import redis
import redis.asyncio

from redis_fastbatch import AsyncFastBatch, BatchError, DecodeError, FastBatch, JsonCodec, MsgpackCodec
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

pytest.importorskip("msgspec")


@dataclass
class User:
    name: str
    age: int


USERS = {f"user:{n}": User(f"näme {n}", n) for n in range(3000)}
KINDS = pytest.mark.parametrize("kind", [MsgpackCodec, JsonCodec])


@KINDS
def test_batches_of_objects(valkey_client: redis.Redis, kind: type[MsgpackCodec]) -> None:
    fb = FastBatch(valkey_client, codec=kind(type=User))
    assert fb.batch_set(USERS).written == len(USERS)
    assert fb.batch_get([*USERS, "missing"]) == {**USERS, "missing": None}
    assert fb.batch_get(USERS, workers=2) == USERS
    assert dict(fb.batch_get_iter(iter(USERS))) == USERS
    with pytest.raises(BatchError, match="1 of 2 items were not written: key 'b': cannot write this str as User"):
        fb.batch_set({"a": USERS["user:1"], "b": "text"})
    assert fb.batch_get(["a"])["a"] == USERS["user:1"]


@KINDS
def test_what_does_not_fit_names_its_key_and_path(valkey_client: redis.Redis, kind: type[MsgpackCodec]) -> None:
    rows = {"a": {"name": "a", "age": "x"}, "b": {"name": "b", "age": 1}}
    FastBatch(valkey_client, codec=kind()).batch_set(rows)
    fb = FastBatch(valkey_client, codec=kind(type=User))
    with pytest.raises(DecodeError, match=r"key 'a', .*does not fit User: .* - at `\$.age`") as caught:
        fb.batch_get(["b", "a"])
    assert caught.value.key == "a"
    failed: list[tuple[str, bytes]] = []
    found = fb.batch_get(["a", "b"], on_error=lambda key, data, error: failed.append((key, data)))
    assert found == {"a": None, "b": User("b", 1)}
    assert failed == [("a", valkey_client.get("a"))]


@KINDS
def test_fields_of_hashes_have_a_type(valkey_client: redis.Redis, kind: type[MsgpackCodec]) -> None:
    fb, codec = FastBatch(valkey_client), kind(type=User)
    hashes = {f"team:{n}": {"first": User("a", n), "last": User("b", n)} for n in range(50)}
    fb.batch_hset(hashes, codec=codec)
    decoded = fb.batch_hgetall(hashes, codec=codec)
    assert {key: list(found.values()) for key, found in decoded.items()} == {
        key: list(given.values()) for key, given in hashes.items()
    }
    assert fb.batch_hmget(hashes, ["last"], codec=codec)["team:7"] == {"last": User("b", 7)}
    fb.batch_hset({"team:7": {"last": {"name": 1}}}, codec=kind())
    with pytest.raises(DecodeError, match=r"key 'team:7', field 'last', .*does not fit User"):
        fb.batch_hmget(hashes, ["last"], codec=codec)


@KINDS
def test_a_cluster_reads_and_writes_objects(cluster_client: redis.RedisCluster, kind: type[MsgpackCodec]) -> None:
    fb = FastBatch(cluster_client, codec=kind(type=User))
    assert fb.batch_set(USERS).written == len(USERS)
    assert fb.batch_get(USERS) == USERS


@KINDS
def test_asyncio_reads_and_writes_objects(
    valkey: EmbeddedServer, cluster: Cluster, cluster_client: redis.RedisCluster, kind: type[MsgpackCodec]
) -> None:
    async def run(client: redis.asyncio.Redis | redis.asyncio.RedisCluster) -> None:
        async with AsyncFastBatch(client, codec=kind(type=User)) as fb:
            assert (await fb.batch_set(USERS)).written == len(USERS)
            assert await fb.batch_get(USERS) == USERS
            assert dict([pair async for pair in fb.batch_get_iter(USERS)]) == USERS

    async def both() -> None:
        await run(redis.asyncio.Redis(host=valkey.host, port=valkey.port))
        node = cluster.nodes[0]
        await run(redis.asyncio.RedisCluster(host=node.host, port=node.port))

    asyncio.run(both())


def test_rows_of_tables_are_read_as_objects(valkey_client: redis.Redis) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"name": ["a", "b"], "age": [1, 2]})
    fb = FastBatch(valkey_client, codec=MsgpackCodec(type=User))
    fb.batch_set_table(table, key="name", prefix="user:")
    assert fb.batch_get(["user:a", "user:b"]) == {"user:a": User("a", 1), "user:b": User("b", 2)}
    assert fb.batch_get_table(["user:a", "user:b"]) == table
    failed: list[object] = []
    wrong = pa.table({"name": ["", "c"], "age": [1, 2]})
    fb.batch_set_table(wrong, key="name", on_error=lambda row, given, error: failed.append(given))
    assert failed == [{"name": "", "age": 1}]
    as_json = FastBatch(valkey_client, codec=JsonCodec(type=User))
    as_json.batch_set({"user:c": User("c", 3)})
    assert as_json.batch_get_table(["user:c"]).to_pylist() == [{"name": "c", "age": 3}]
