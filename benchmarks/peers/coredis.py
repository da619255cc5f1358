"""coredis, an asyncio client with compiled parts, with msgspec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import coredis

from benchmarks.peers.base import DATABASES, Peer, decoded
from benchmarks.peers.eventloop import OpenClient
from benchmarks.serializers import Serializer
from benchmarks.servers import Endpoint


def connected(endpoint: Endpoint, database: int) -> coredis.Redis[bytes]:
    """Return a client of a server."""
    # Valkey reports itself as Redis 7.2, and coredis assumes that such a server has no MSETEX.
    return coredis.Redis(endpoint.host, endpoint.port, db=database, verify_version=False)


class Coredis(Peer):
    """The common base of the coredis peers: a client and a serializer."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        self._dumps = serializer.dumps
        self._loads = serializer.loads
        self._open = OpenClient(lambda: connected(endpoint, DATABASES[self.wire]))
        self._client = self._open.client

    def close(self) -> None:
        self._open.close()


class OneCommand(Coredis):
    """The whole batch in one MSET, MSETEX or MGET."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        super().__init__(endpoint, serializer)
        self.name = f"coredis mset/mget + {serializer.name}"
        if not endpoint.msetex:
            self.operations = frozenset({"set", "get"})

    def set(self, items: Mapping[str, Any]) -> None:
        self._open.run(self._set(items))

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        self._open.run(self._set_ex(items, seconds))

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._open.run(self._get(keys))

    async def _set(self, items: Mapping[str, Any]) -> None:
        dumps = self._dumps
        await self._client.mset({key: dumps(value) for key, value in items.items()})

    async def _set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        dumps = self._dumps
        await self._client.msetex({key: dumps(value) for key, value in items.items()}, ex=seconds)

    async def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        return decoded(self._loads, keys, await self._client.mget(keys))


class Pipeline(Coredis):
    """A pipeline of SETs or GETs without MULTI."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        super().__init__(endpoint, serializer)
        self.name = f"coredis pipeline + {serializer.name}"

    def set(self, items: Mapping[str, Any]) -> None:
        self._open.run(self._set(items, None))

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        self._open.run(self._set(items, seconds))

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._open.run(self._get(keys))

    async def _set(self, items: Mapping[str, Any], seconds: int | None) -> None:
        dumps = self._dumps
        async with self._client.pipeline(transaction=False) as pipe:
            for key, value in items.items():
                pipe.set(key, dumps(value), ex=seconds)

    async def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
        return decoded(self._loads, keys, pipe.results or ())
