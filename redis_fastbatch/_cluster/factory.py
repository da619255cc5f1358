"""Turns the arguments of the clients' methods into flights over a cluster."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis_fastbatch._cluster.read import ClusterCount, ClusterRead
from redis_fastbatch._cluster.sync import OneSlotWrite, one_slot, patience_of
from redis_fastbatch._cluster.topology import Topology, topology_of
from redis_fastbatch._cluster.write import ClusterWrite
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.routed import RoutedWriter, Router
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import COMMAND_ITEMS, FIRST_COMMAND_BYTES, NO_LIMIT
from redis_fastbatch._engine.outcome import ReadOutcome, RecordedBatch, WriteOutcome
from redis_fastbatch._transports.redispy import key_encoding

CHUNK_BYTES = 64 * 1024
"""Single commands leave in chunks of about as many bytes: a node works on their first ones at once."""

GET = Command(b"GET", many=False, with_values=False)
UNLINK = Command(b"UNLINK", many=False, with_values=False)


class SplitWriter:
    """Deals the chunks of a writer that knows nothing of slots out to the nodes; a RoutedWriter to flights.

    Args:
        writer: encodes the items: a TableWriter.
        command: of one item.
        router: says which node has which slot.
    """

    def __init__(self, writer: Any, command: Command, router: Router) -> None:
        writer.use(command)
        self.command = command
        self.taken = 0
        self._writer = writer
        self._router = router
        self._chunk = writer.blank()
        self._dealt: dict[int, deque[tuple[Chunk, int]]] = {}

    @property
    def exhausted(self) -> bool:
        """There are no more items."""
        return bool(self._writer.exhausted)

    @property
    def dry(self) -> bool:
        """The source has no item at hand."""
        return bool(self._writer.dry)

    @property
    def failures(self) -> list[tuple[Any, Any, Exception]]:
        """Items that could not be encoded. The caller empties it."""
        failures: list[tuple[Any, Any, Exception]] = self._writer.failures
        return failures

    @property
    def source_error(self) -> Exception | None:
        """What ended the source."""
        error: Exception | None = self._writer.source_error
        return error

    def advance(self, most: int) -> int:
        """Encodes a chunk when all before it were taken; the number of a node that has a part of one, or -1."""
        ready = self.begun()
        if not ready:
            position, failed = self.taken, len(self.failures)
            self._chunk.restart(self.command)
            self._writer.fill_some(self._chunk, most)
            self.taken += self._chunk.count + len(self.failures) - failed
            for node, chunk in self._router.split(self._chunk, self.command).items():
                self._dealt.setdefault(node, deque()).append((chunk, position))
            ready = self.begun()
        return ready[0][0] if ready else -1

    def sealed(self, node: int) -> tuple[Chunk, int] | None:
        """A chunk for a node, sealed, and the position of its first item or of one before it.

        It stays here until leave().
        """
        dealt = self._dealt.get(node)
        return dealt[0] if dealt else None

    def leave(self, node: int) -> None:
        """The chunk is somebody else's now."""
        self._dealt[node].popleft()

    def begun(self) -> list[tuple[int, int]]:
        """(node, position) of the chunks that were not yet taken."""
        return [(node, position) for node, dealt in self._dealt.items() for _, position in dealt]

    def recycle(self, chunk: Chunk) -> None:
        """A chunk is done with."""


class ClusterPlans:
    """A client of a cluster, a codec, and the flights that are made with them.

    Args:
        client: a RedisCluster, synchronous or asyncio.
        codec: of the values.
    """

    def __init__(self, client: Any, codec: ValueCodec) -> None:
        self._client = client
        self._codec = codec
        encoding, errors = key_encoding(client)
        self._key_encoding: dict[str, Any] = {"encoding": encoding, "errors": errors}

    def _routed(
        self, items: Any, command: Command, topology: Topology, max_items: int, **more: Any
    ) -> RoutedWriter:
        return RoutedWriter(
            items,
            command,
            self._codec,
            topology.router,
            max_items=max_items,
            max_bytes=CHUNK_BYTES,
            **self._key_encoding,
            **more,
        )

    def write_flight(self, items: Any, options: SetOptions, size: int, outcome: WriteOutcome) -> RecordedBatch:
        """Return a flight that writes.

        Args:
            items: what batch_set() takes.
            options: SET's.
            size: the most items of a chunk.
            outcome: records what became of the items.

        Raises:
            ValueError: an atomic batch whose keys are of several slots.
        """
        if options.atomic:
            return self._one_slot_flight(items, options, outcome)
        topology = topology_of(self._client)
        writer = self._routed(items, options.single(), topology, size)
        patience = patience_of(self._client)
        return ClusterWrite(writer, topology, outcome, patience=patience, repeatable=options.repeatable)

    def _one_slot_flight(self, items: Any, options: SetOptions, outcome: WriteOutcome) -> OneSlotWrite:
        pairs, slot = one_slot(items, **self._key_encoding)
        command = options.command(msetex=False)
        # As MSET it is one command, whatever its size.
        most = (NO_LIMIT, NO_LIMIT) if command.many else (COMMAND_ITEMS, FIRST_COMMAND_BYTES)
        writer = BatchWriter(
            pairs, command, self._codec, max_items=most[0], max_bytes=most[1], **self._key_encoding
        )
        return OneSlotWrite(slot, writer, options.single(), outcome, repeatable=options.repeatable)

    def rows_flight(self, rows: Any, options: SetOptions, outcome: WriteOutcome) -> ClusterWrite:
        """Return a flight that writes the rows of a table.

        Args:
            rows: a TableWriter of one command a row.
            options: SET's.
            outcome: records what became of the rows.
        """
        topology = topology_of(self._client)
        writer: Any = SplitWriter(rows, options.single(), topology.router)
        patience = patience_of(self._client)
        return ClusterWrite(writer, topology, outcome, patience=patience, repeatable=options.repeatable)

    def read_flight(
        self,
        keys: Any,
        out: Any,
        outcome: ReadOutcome,
        *,
        codec: ValueCodec | None = None,
        default: Any = None,
        limit: int = COMMAND_ITEMS,
        budget: int = NO_LIMIT,
    ) -> ClusterRead:
        """Return a flight that reads.

        Args:
            keys: what batch_get() takes.
            out: a dict, or a list of pairs.
            outcome: counts the values.
            codec: decodes the values; the client's by default.
            default, limit, budget: as ReadFlight takes them.
        """
        pairs = out if isinstance(out, list) else None
        found = {} if isinstance(out, list) else out
        order: list[Any] | None = None if pairs is None else []
        topology = topology_of(self._client, reading=True)
        writer = self._routed(keys, GET, topology, limit, found=found, default=default, order=order)
        return ClusterRead(
            writer,
            topology,
            codec or self._codec,
            found,
            outcome,
            patience=patience_of(self._client),
            pairs=pairs,
            order=order,
            default=default,
            limit=limit,
            budget=budget,
        )

    def count_flight(self, keys: Any) -> ClusterCount:
        """A flight that deletes."""
        topology = topology_of(self._client)
        writer = self._routed(keys, UNLINK, topology, COMMAND_ITEMS)
        return ClusterCount(writer, topology, patience=patience_of(self._client))
