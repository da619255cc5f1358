"""Ours: FastBatch with each codec that a peer has too, and the drop-in for redis-toolkit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.base import DATABASES, DROP_IN, LARGEST_VALUE, OURS, Peer
from benchmarks.servers import Endpoint
from redis_fastbatch import FastBatch
from redis_fastbatch.toolkit import RedisOptions, RedisToolkit


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


class DropIn(Peer):
    """redis_fastbatch's RedisToolkit: a batch is one transaction, as in redis-toolkit."""

    def __init__(self, endpoint: Endpoint, codec: str) -> None:
        self.name = DROP_IN if codec == "toolkit" else f"{DROP_IN} codec={codec}"
        self.wire = codec
        options = RedisOptions(is_logger_info=False, max_value_size=LARGEST_VALUE)
        self._toolkit = RedisToolkit(redis=endpoint.client(DATABASES[codec]), options=options, codec=codec)

    def set(self, items: Mapping[str, Any]) -> None:
        self._toolkit.batch_set(items)

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        self._toolkit.batch_set(items, ex=seconds)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._toolkit.batch_get(keys)

    def close(self) -> None:
        self._toolkit.cleanup()
