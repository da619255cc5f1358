"""Turns the arguments of the clients' methods into flights over a cluster."""

from __future__ import annotations

from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp import BatchWriter, Command
from redis_fastbatch._core.routed import RoutedWriter
from redis_fastbatch.cluster import OneSlotWrite, one_slot, patience_of
from redis_fastbatch.cluster_flight import ClusterCount, ClusterRead, ClusterWrite
from redis_fastbatch.flight import COMMAND_BYTES, COMMAND_ITEMS, NO_LIMIT, WriteFlight
from redis_fastbatch.strategy import SetOptions
from redis_fastbatch.topology import Topology, topology_of

GET = Command(b"GET", many=False, with_values=False)
UNLINK = Command(b"UNLINK", many=False, with_values=False)


class ClusterPlans:
    """A client of a cluster, a codec, and the flights that are made with them.

    Args:
        client: a RedisCluster, synchronous or asyncio.
        codec: of the values.
    """

    def __init__(self, client: Any, codec: ValueCodec) -> None:
        self._client = client
        self._codec = codec
        encoder = client.get_encoder()
        self._key_encoding = {"encoding": encoder.encoding, "errors": encoder.encoding_errors}

    def _routed(
        self, items: Any, command: Command, topology: Topology, max_items: int, **more: Any
    ) -> RoutedWriter:
        return RoutedWriter(
            items,
            command,
            self._codec,
            topology.router,
            max_items=max_items,
            max_bytes=COMMAND_BYTES,
            **self._key_encoding,
            **more,
        )

    def write_flight(self, items: Any, options: SetOptions, size: int, books: dict[str, Any]) -> WriteFlight:
        """A flight that writes.

        Args:
            items: what batch_set() takes.
            options: SET's.
            size: items a chunk holds at most.
            books: what WriteFlight takes beyond.

        Raises:
            ValueError: an atomic batch whose keys are of several slots.
        """
        if options.atomic:
            return self._one_slot_flight(items, options, books)
        topology = topology_of(self._client)
        writer = self._routed(items, options.single(), topology, size)
        return ClusterWrite(writer, topology, patience=patience_of(self._client), **books)

    def _one_slot_flight(self, items: Any, options: SetOptions, books: dict[str, Any]) -> WriteFlight:
        pairs, slot = one_slot(items, **self._key_encoding)
        command = options.command(msetex=False)
        writer = BatchWriter(
            pairs,
            command if command.many else options.single(transaction=True),
            self._codec,
            max_items=NO_LIMIT,
            max_bytes=NO_LIMIT,
            **self._key_encoding,
        )
        return OneSlotWrite(slot, writer, options.single(), **books)

    def read_flight(self, keys: Any, out: Any, ways: dict[str, Any]) -> ClusterRead:
        """A flight that reads.

        Args:
            keys: what batch_get() takes.
            out: a dict, or a list of pairs.
            ways: what ReadFlight takes beyond.
        """
        pairs = out if isinstance(out, list) else None
        found = {} if isinstance(out, list) else out
        order: list[Any] | None = None if pairs is None else []
        topology = topology_of(self._client, reading=True)
        writer = self._routed(
            keys, GET, topology, ways["limit"], found=found, default=ways["default"], order=order
        )
        return ClusterRead(
            writer,
            topology,
            self._codec,
            found,
            patience=patience_of(self._client),
            pairs=pairs,
            order=order,
            **ways,
        )

    def count_flight(self, keys: Any) -> ClusterCount:
        """A flight that deletes."""
        topology = topology_of(self._client)
        writer = self._routed(keys, UNLINK, topology, COMMAND_ITEMS)
        return ClusterCount(writer, topology, patience=patience_of(self._client))
