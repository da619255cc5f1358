"""Keys of every type of value, with and without an expiry, for tests that copy or compare servers."""

from __future__ import annotations

import time
from typing import Any

import redis

TYPES = ("string", "hash", "list", "set", "zset", "stream")


def fill(client: Any, count: int) -> None:
    """Write `count` keys of every type. Every third key expires in one to two hours, each at its own time."""
    now = int(time.time() * 1000)
    pipeline = client.pipeline(transaction=False) if isinstance(client, redis.Redis) else client.pipeline()
    for n in range(count):
        pipeline.set(f"string:{n}", b"\x00\xff" * (n % 40) + b"%d" % n)
        pipeline.hset(f"hash:{n}", mapping={f"field {i}": "x" * (i + n % 90) for i in range(n % 5 + 1)})
        pipeline.rpush(f"list:{n}", *range(n % 7 + 1), "é" * (n % 50))
        pipeline.sadd(f"set:{n}", *range(n % 9 + 1), *["a"] * (n % 2))
        pipeline.zadd(f"zset:{n}", {f"m{i}": i / 7 - n for i in range(n % 6 + 1)} | {"last": float("inf")})
        for i in range(n % 3 + 1):
            pipeline.xadd(f"stream:{n}", {"i": i, "n": n}, id=f"{n + 1}-{i + 1}")
        if n % 4 == 0:
            pipeline.xgroup_create(f"stream:{n}", "readers", id="0")
        if n % 3 == 0:
            for kind in TYPES:
                pipeline.pexpireat(f"{kind}:{n}", now + 3_600_000 + n * 1000)
        if n % 200 == 199:
            pipeline.execute()
    # Values that are not encoded compactly.
    pipeline.hset("hash:large", mapping={f"field {i}": "x" * 100 for i in range(1000)})
    pipeline.rpush("list:large", *["x" * 100] * 3000)
    pipeline.zadd("zset:large", {f"m{i}": i for i in range(1000)})
    pipeline.sadd("set:large", *(f"m{i}" for i in range(1000)))
    pipeline.set("string:large", "x" * 3_000_000)
    pipeline.set(b"string:\xff\x00", "a key that is not UTF-8")
    pipeline.execute()


def total(count: int) -> int:
    """Return how many keys fill() writes."""
    return len(TYPES) * count + 6


def content(client: Any) -> dict[bytes, tuple[Any, ...]]:
    """Return type, time of expiry and value of every key, read with redis-py."""
    found = {}
    for key in client.scan_iter(count=1000):
        kind = client.type(key).decode()
        expiry = client.pttl(key)
        found[key] = (
            kind,
            expiry if expiry == -1 else round(expiry / 5000 + time.time() / 5),
            _value(client, kind, key),
        )
    return found


def _value(client: Any, kind: str, key: bytes) -> Any:
    if kind == "string":
        return client.get(key)
    if kind == "hash":
        return client.hgetall(key)
    if kind == "list":
        return client.lrange(key, 0, -1)
    if kind == "set":
        return client.smembers(key)
    if kind == "zset":
        return client.zrange(key, 0, -1, withscores=True)
    groups = [(group["name"], group["pending"]) for group in client.xinfo_groups(key)]
    return client.xrange(key), groups
