"""The parts of the clients that reading and writing tables needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._engine.pacing import ValueSizes


class TableClient(Protocol):
    """FastBatch or AsyncFastBatch, as tables see it."""

    _client: Any
    _codec: ValueCodec
    _is_cluster: bool
    _sizes: ValueSizes
    _hash_sizes: ValueSizes
    _max_value_size: int

    @property
    def _cluster(self) -> Any:
        """Makes flights over a cluster."""

    def _lose_msetex(self) -> None:
        """Remember that the server does not have MSETEX."""

    def _writer(self, items: Any, command: Command, max_items: int, max_bytes: int) -> BatchWriter:
        """Return what encodes items, or keys, for a flight to a single server."""


class SyncTableClient(TableClient, Protocol):
    """FastBatch, as tables see it."""

    _pause_gc: bool

    def _lease(self, max_value_size: int = 0) -> AbstractContextManager[Any]:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights."""
