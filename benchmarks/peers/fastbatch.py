"""Ours, with each of the codecs that stand against a peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from benchmarks.peers.base import DATABASES, OURS, Peer
from benchmarks.servers import Endpoint
from redis_fastbatch import FastBatch
from redis_fastbatch.errors import FastBatchError


def codecs() -> list[str]:
    """Returns the codecs to measure: those of DATABASES that this version has."""
    return [codec for codec in DATABASES if _has(codec)]


def _has(codec: str) -> bool:
    try:
        FastBatch(redis.Redis(), codec=codec)
    except (ValueError, LookupError, FastBatchError):
        return False
    return True


class Ours(Peer):
    """FastBatch with its defaults, and a codec."""

    def __init__(self, endpoint: Endpoint, codec: str) -> None:
        self.name = OURS if codec == "msgpack" else f"{OURS} codec={codec}"
        self.wire = codec
        self._fast = FastBatch(endpoint.client(DATABASES[self.wire]), codec=codec)

    def set(self, items: Mapping[str, Any]) -> None:
        self._fast.batch_set(items)

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        self._fast.batch_set(items, ex=seconds)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._fast.batch_get(keys)

    def close(self) -> None:
        self._fast.client.close()
