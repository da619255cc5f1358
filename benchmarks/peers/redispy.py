"""Hand-written redis-py code: pipelines, and MSET / MGET in one command or a thousand items at a time.

It is the code of an experienced user of redis-py: hiredis is on, encoders and decoders are made once, MSETEX is
used where the server has it, and values are decoded in a comprehension. Values that Redis could store directly
(str, bytes, int) go through the serializer too, because otherwise their types would be lost.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.base import DATABASES, Peer, chunks_of, decoded, slices_of
from benchmarks.serializers import Serializer
from benchmarks.servers import Endpoint


class RedisPy(Peer):
    """The common base of the redis-py peers: a client and a serializer."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer, wire: str = "msgpack") -> None:
        self.wire = wire
        self._client = endpoint.client(DATABASES[self.wire])
        self._dumps = serializer.dumps
        self._loads = serializer.loads

    def close(self) -> None:
        self._client.close()


class Pipeline(RedisPy):
    """A pipeline of SETs or GETs, in MULTI/EXEC or not."""

    def __init__(
        self, endpoint: Endpoint, serializer: Serializer, wire: str = "msgpack", *, transaction: bool
    ) -> None:
        super().__init__(endpoint, serializer, wire)
        self._transaction = transaction
        self.name = f"redis-py pipeline{' MULTI' if transaction else ''} + {serializer.name}"

    def set(self, items: Mapping[str, Any]) -> None:
        dumps = self._dumps
        with self._client.pipeline(transaction=self._transaction) as pipe:
            for key, value in items.items():
                pipe.set(key, dumps(value))
            pipe.execute()

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        dumps = self._dumps
        with self._client.pipeline(transaction=self._transaction) as pipe:
            for key, value in items.items():
                pipe.set(key, dumps(value), ex=seconds)
            pipe.execute()

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        with self._client.pipeline(transaction=self._transaction) as pipe:
            for key in keys:
                pipe.get(key)
            return decoded(self._loads, keys, pipe.execute())


class OneCommand(RedisPy):
    """The whole batch in one MSET, MSETEX or MGET."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer, wire: str = "msgpack") -> None:
        super().__init__(endpoint, serializer, wire)
        self.name = f"redis-py mset/mget + {serializer.name}"
        if not endpoint.msetex:
            self.operations = frozenset({"set", "get"})

    def set(self, items: Mapping[str, Any]) -> None:
        dumps = self._dumps
        self._client.mset({key: dumps(value) for key, value in items.items()})

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        dumps = self._dumps
        self._client.msetex({key: dumps(value) for key, value in items.items()}, ex=seconds)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        return decoded(self._loads, keys, self._client.mget(keys))


class Chunked(OneCommand):
    """MSET or MGET of a thousand items each, as for batches whose size is not known beforehand."""

    def __init__(self, endpoint: Endpoint, serializer: Serializer, wire: str = "msgpack") -> None:
        super().__init__(endpoint, serializer, wire)
        self.name += ", chunked"

    def set(self, items: Mapping[str, Any]) -> None:
        dumps = self._dumps
        for chunk in chunks_of(items):
            self._client.mset({key: dumps(value) for key, value in chunk})

    def set_ex(self, items: Mapping[str, Any], seconds: int) -> None:
        dumps = self._dumps
        for chunk in chunks_of(items):
            self._client.msetex({key: dumps(value) for key, value in chunk}, ex=seconds)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for chunk in slices_of(keys):
            result |= decoded(self._loads, chunk, self._client.mget(chunk))
        return result


class CollectorOff(OneCommand):
    """MGET with Python's garbage collector switched off during the call.

    FastBatch suspends the collector while it builds its result. This peer shows how much of the difference three
    lines of code can bring.
    """

    operations = frozenset({"get"})

    def __init__(self, endpoint: Endpoint, serializer: Serializer) -> None:
        super().__init__(endpoint, serializer)
        self.name += ", collector off"
        self.operations = frozenset({"get"})

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return super().get(keys)
        finally:
            if was_on:
                gc.enable()
