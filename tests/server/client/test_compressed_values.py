"""Batches of compressed values, and the limit of clients on values that are read."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio

from redis_fastbatch import AsyncFastBatch, CompressedCodec, DecodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer

TEXTS = {f"text:{n}": {"text": f"line {n} " * (n % 300)} for n in range(1000)}
CODEC = CompressedCodec("msgpack", "zlib", min_size=200)


def test_batches_are_compressed(valkey_client: redis.Redis) -> None:
    plain = FastBatch(valkey_client)
    plain.batch_set({"old": TEXTS["text:299"]})
    fb = FastBatch(valkey_client, codec=CODEC)
    report = fb.batch_set(TEXTS)
    assert report.written == len(TEXTS)
    assert fb.batch_get([*TEXTS, "old", "missing"]) == {**TEXTS, "old": TEXTS["text:299"], "missing": None}
    assert dict(fb.batch_get_iter(TEXTS)) == TEXTS
    assert valkey_client.strlen("text:299") < valkey_client.strlen("old") / 5
    # Short values are those of the plain codec.
    assert plain.batch_get(["text:3"]) == {"text:3": TEXTS["text:3"]}
    table = fb.batch_get_table(["text:1", "text:299"])
    assert table.to_pylist() == [TEXTS["text:1"], TEXTS["text:299"]]
    with pytest.raises(ValueError, match="the codec of a table must be"):
        fb.batch_set_table(table, key="text")


def test_bombs_are_refused_by_the_limit_of_the_client(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    FastBatch(valkey_client, codec=CODEC).batch_set({"bomb": "a" * 1_000_000, "long": "b" * 9_000})
    FastBatch(valkey_client).batch_hset({"hash": {"field": "a" * 1_000_000}}, codec=CODEC)
    fb = FastBatch(valkey_client, codec=CODEC, max_value_size=10_000)
    assert fb.batch_get(["long"]) == {"long": "b" * 9_000}
    with pytest.raises(DecodeError, match=r"key 'bomb', .*more than 10000 bytes when it is decompressed"):
        fb.batch_get(["long", "bomb"])
    assert fb.batch_get(["long", "bomb"], on_error="report") == {"long": "b" * 9_000, "bomb": None}
    with pytest.raises(DecodeError, match=r"key 'hash', field 'field', .*max_value_size is 10000"):
        fb.batch_hgetall(["hash"], codec=CODEC)

    async def read() -> None:
        client = redis.asyncio.Redis(host=valkey.host, port=valkey.port)
        async with AsyncFastBatch(client, codec=CODEC, max_value_size=10_000) as batch:
            assert await batch.batch_get(["long"]) == {"long": "b" * 9_000}
            with pytest.raises(DecodeError, match=r"key 'bomb', .*max_value_size is 10000"):
                await batch.batch_get(["bomb"])

    asyncio.run(read())


def test_a_cluster_and_hashes(cluster_client: redis.RedisCluster) -> None:
    fb = FastBatch(cluster_client, codec=CODEC)
    fb.batch_set(TEXTS)
    assert fb.batch_get(TEXTS) == TEXTS
    fb.batch_hset({"hash": TEXTS}, codec=CODEC)
    assert fb.batch_hgetall(["hash"], codec=CODEC)["hash"] == TEXTS
