"""Batches of every kind, also ones that fail, for tests that memory does not grow."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from redis_fastbatch import FastBatch, FastBatchError, MsgpackCodec
from redis_fastbatch.errors import DecodeError

ROWS = {f"soak:{i}": {"number": i, "name": f"name {i}", "items": [i, str(i)], "é": 1.5} for i in range(40)}
KEYS = [*ROWS, "soak:none"]
PAGE = 4096


class Unwritable:
    """A value that no codec can encode."""


def rounds(client: redis.Redis) -> dict[str, Callable[[], Any]]:
    """Return functions that run a batch, by name."""
    fast, toolkit = FastBatch(client), FastBatch(client, "toolkit")
    limited = FastBatch(client, max_value_size=10)
    broken = FastBatch(client, MsgpackCodec(ext_hook=lambda code, data: 1 // 0))
    client.set("soak:broken", b"\xc1")
    client.set("soak:extension", b"\xd4\x05\x00")
    client.lpush("soak:list", 1)
    bad = {**ROWS, "soak:bad": Unwritable(), Unwritable(): 1}

    def failing(run: Callable[[], Any]) -> Callable[[], Any]:
        def attempt() -> None:
            with contextlib.suppress(FastBatchError, DecodeError, redis.RedisError, ZeroDivisionError):
                run()

        return attempt

    def source() -> Any:
        yield from ROWS.items()
        raise ZeroDivisionError

    return {
        "MSET": lambda: fast.batch_set(ROWS),
        "MSETEX or SET": lambda: fast.batch_set(ROWS, ex=100, chunk_size=7),
        "SET NX": lambda: fast.batch_set(ROWS, nx=True),
        "atomic": lambda: fast.batch_set(ROWS, atomic=True, ex=100),
        "toolkit": lambda: (toolkit.batch_set(ROWS), toolkit.batch_get(KEYS)),
        "MGET": lambda: (fast.batch_set(ROWS), fast.batch_get(KEYS)),
        "iter": lambda: list(fast.batch_get_iter(KEYS, chunk_size=9)),
        "UNLINK": lambda: fast.batch_delete(["soak:none", "soak:other"]),
        "unwritable": failing(lambda: fast.batch_set(bad)),
        "unwritable, reported": lambda: fast.batch_set(bad, on_error="report"),
        "source that raises": failing(lambda: fast.batch_set(source())),
        "unreadable": failing(lambda: fast.batch_get([*ROWS, "soak:broken"])),
        "unreadable, reported": lambda: fast.batch_get([*ROWS, "soak:broken"], on_error="report"),
        "hook that raises": failing(lambda: broken.batch_get(["soak:extension"])),
        "wrong type": lambda: fast.batch_get(["soak:list"]),
        "too large": failing(lambda: limited.batch_get(KEYS)),
        "lost connection": failing(lambda: fast.batch_set((kill(client, item) for item in ROWS.items()), nx=True)),
    }


def kill(client: redis.Redis, item: Any) -> Any:
    """Return an item. Before one of the items, let the server close all connections."""
    if item[0] == "soak:20":
        others = [one["id"] for one in client.client_list() if one["cmd"] != "client|list"]
        for number in others:
            client.client_kill_filter(_id=number)
    return item


def blocks() -> int:
    """Return the number of memory blocks in use."""
    gc.collect()
    return sys.getallocatedblocks()


def resident() -> int:
    """Return the process's resident memory in bytes, or 0 if it is not known."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * PAGE if statm.exists() else 0
