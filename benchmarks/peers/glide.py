"""valkey-glide, whose core is Rust, with msgspec.

This is the asyncio client of `pip install valkey-glide`. The synchronous client is a separate package around the
same core; in one trial it wrote a sixth slower and read a tenth faster than this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from glide import (
    AdvancedGlideClientConfiguration,
    Batch,
    BatchOptions,
    ExpirySet,
    ExpiryType,
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    TlsAdvancedConfiguration,
)

from benchmarks.peers.base import DATABASES, Peer, decoded
from benchmarks.peers.eventloop import OpenClient
from benchmarks.serializers import Serializer
from benchmarks.servers import Endpoint

# Its default of 250 ms is not enough for a large batch.
TIMEOUT_MS = 120_000


class Glide(Peer):
    """The common base of the glide peers: a client and a serializer."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        self._dumps = serializer.dumps
        self._loads = serializer.loads
        self._open = OpenClient(lambda: connected(endpoint, DATABASES[self.wire]))
        self._client = self._open.client

    def close(self) -> None:
        self._open.close()


class OneCommand(Glide):
    """The whole batch in one MSET, MSETEX or MGET."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        super().__init__(endpoint, serializer)
        self.name = f"valkey-glide mset/mget + {serializer.name}"
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
        # It has no method for MSETEX yet.
        dumps = self._dumps
        command: list[str | bytes] = ["MSETEX", str(len(items))]
        for key, value in items.items():
            command += (key, dumps(value))
        command += ("EX", str(seconds))
        await self._client.custom_command(command)

    async def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        return decoded(self._loads, keys, await self._client.mget(cast("list[Any]", keys)))


class Pipeline(Glide):
    """Its Batch, not atomic: a pipeline of SETs or GETs."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        super().__init__(endpoint, serializer)
        self.name = f"valkey-glide batch + {serializer.name}"

    def set(self, items: Mapping[str, Any]) -> None:
        self._open.run(self._set(items, None))

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        self._open.run(self._set(items, ExpirySet(ExpiryType.SEC, seconds)))

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._open.run(self._get(keys))

    async def _set(self, items: Mapping[str, Any], expiry: ExpirySet | None) -> None:
        dumps = self._dumps
        batch = Batch(is_atomic=False)
        for key, value in items.items():
            batch.set(key, dumps(value), expiry=expiry)
        await self._executed(batch)

    async def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        batch = Batch(is_atomic=False)
        for key in keys:
            batch.get(key)
        return decoded(self._loads, keys, await self._executed(batch))

    async def _executed(self, batch: Batch) -> Sequence[Any]:
        answers = await self._client.exec(batch, raise_on_error=True, options=BatchOptions(timeout=TIMEOUT_MS))
        return answers or ()


@asynccontextmanager
async def connected(endpoint: Endpoint, db: int) -> AsyncIterator[GlideClient]:
    authority = None if endpoint.ca is None else Path(endpoint.ca).read_bytes()
    configuration = GlideClientConfiguration(
        [NodeAddress(endpoint.host, endpoint.port)],
        use_tls=authority is not None,
        request_timeout=TIMEOUT_MS,
        database_id=db,
        advanced_config=AdvancedGlideClientConfiguration(
            tls_config=TlsAdvancedConfiguration(root_pem_cacerts=authority)
        ),
    )
    client = await GlideClient.create(configuration)
    try:
        yield client
    finally:
        await client.close()
