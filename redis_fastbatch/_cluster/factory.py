"""Makes flights over a cluster from the arguments of the clients' methods."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis_fastbatch._cluster.count import ClusterCount
from redis_fastbatch._cluster.execute import ClusterExecute, ClusterReplies
from redis_fastbatch._cluster.hash_read import ClusterHashRead
from redis_fastbatch._cluster.hashes import ClusterHashWrite
from redis_fastbatch._cluster.read import ClusterRead
from redis_fastbatch._cluster.slot_route import OneSlotWrite, one_slot
from redis_fastbatch._cluster.sync import max_outage_of
from redis_fastbatch._cluster.topology import Topology, topology_of
from redis_fastbatch._cluster.write import ClusterWrite
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.hashes import RoutedMappingWriter
from redis_fastbatch._core.resp.replies import ReplyFormat
from redis_fastbatch._core.resp.routed import RoutedCommandWriter, RoutedWriter, Router
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import COMMAND_ITEMS, FIRST_COMMAND_BYTES, NO_LIMIT
from redis_fastbatch._engine.hashes import hset_command
from redis_fastbatch._engine.options import ExecuteOptions, ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import CountOutcome, ReadOutcome, RecordedBatch, WriteOutcome
from redis_fastbatch._engine.pacing import ValueSizes
from redis_fastbatch._transports.redispy import key_encoding

CHUNK_BYTES = 64 * 1024
"""The size of a chunk of single commands, in bytes: a node works on the first of them at once."""

GET = Command(b"GET", many=False, with_values=False)
UNLINK = Command(b"UNLINK", many=False, with_values=False)


class SplitWriter:
    """Splits the chunks of a writer that does not know slots by node. To flights it is a RoutedWriter.

    Args:
        writer: encodes the items: a TableWriter.
        command: the command of one item.
        router: says which node has which slot.
    """

    def __init__(self, writer: Any, command: Command, router: Router) -> None:
        writer.use(command)
        self.command = command
        self.in_memory = False
        self.taken = 0
        self._writer = writer
        self._router = router
        self._chunk = writer.blank()
        self._dealt: dict[int, deque[tuple[Chunk, int]]] = {}

    @property
    def exhausted(self) -> bool:
        """Whether there are no more items."""
        return bool(self._writer.exhausted)

    @property
    def source_pending(self) -> bool:
        """Whether the source has no item ready."""
        return bool(self._writer.source_pending)

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
        """Encode a chunk if all before it were taken. Return the number of a node with a part of one, or -1."""
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
        """Return a sealed chunk for a node, and the position of its first item or of one before it.

        The chunk stays here until leave().
        """
        dealt = self._dealt.get(node)
        return dealt[0] if dealt else None

    def leave(self, node: int) -> None:
        """Forget the node's chunk, which a flight has now."""
        self._dealt[node].popleft()

    def begun(self) -> list[tuple[int, int]]:
        """Return (node, position) of each chunk that was not yet taken."""
        return [(node, position) for node, dealt in self._dealt.items() for _, position in dealt]

    def recycle(self, chunk: Chunk) -> None:
        """Do nothing: the memory of such a chunk is not used again."""


class ClusterFlights:
    """Makes the flights of a client over a cluster.

    Args:
        client: a RedisCluster, synchronous or asyncio.
        codec: encodes and decodes the values.
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

    def write_flight(self, items: Any, options: WriteOptions, outcome: WriteOutcome) -> RecordedBatch:
        """Return a flight that writes.

        Args:
            items: what batch_set() takes.
            options: how they are written.
            outcome: records what became of them.

        Raises:
            ValueError: an atomic batch whose keys are of several slots.
        """
        if options.set.atomic:
            return self._one_slot_flight(items, options.set, outcome)
        topology = topology_of(self._client)
        writer = self._routed(items, options.set.single, topology, options.chunk_size)
        max_outage = max_outage_of(self._client)
        return ClusterWrite(writer, topology, outcome, max_outage=max_outage, repeatable=options.set.repeatable)

    def _one_slot_flight(self, items: Any, options: SetOptions, outcome: WriteOutcome) -> OneSlotWrite:
        pairs, slot = one_slot(items, **self._key_encoding)
        command = options.command(msetex=False)
        # As MSET it is one command, whatever its size.
        most = (NO_LIMIT, NO_LIMIT) if command.many else (COMMAND_ITEMS, FIRST_COMMAND_BYTES)
        writer = BatchWriter(
            pairs, command, self._codec, max_items=most[0], max_bytes=most[1], **self._key_encoding
        )
        return OneSlotWrite(slot, writer, options.single, outcome, repeatable=options.repeatable)

    def execute_flight(
        self, some: Any, encoder: CommandEncoder, options: ExecuteOptions, outcome: WriteOutcome
    ) -> ClusterExecute:
        """Return a flight of commands whose replies are counted.

        Args:
            some: the commands.
            encoder: encodes them.
            options: how they are sent.
            outcome: records what became of them.
        """
        topology = topology_of(self._client)
        writer = RoutedCommandWriter(
            some, encoder, topology.router, max_items=options.chunk_size, max_bytes=CHUNK_BYTES
        )
        max_outage = max_outage_of(self._client)
        return ClusterExecute(writer, topology, outcome, max_outage=max_outage, repeatable=options.repeatable)

    def reply_flight(
        self,
        some: Any,
        encoder: CommandEncoder,
        out: list[Any],
        sizes: ValueSizes,
        form: ReplyFormat,
        position: int,
    ) -> ClusterReplies:
        """Return a flight of commands whose replies are kept.

        Args:
            some: the commands.
            encoder: encodes them.
            out: gets the replies.
            sizes: what is known of their sizes.
            form: how they become Python objects.
            position: the position of the first command in the whole batch.
        """
        topology = topology_of(self._client)
        writer = RoutedCommandWriter(
            some, encoder, topology.router, max_items=COMMAND_ITEMS, max_bytes=CHUNK_BYTES, position=position
        )
        return ClusterReplies(writer, topology, out, sizes, form, max_outage=max_outage_of(self._client))

    def hash_flight(
        self,
        items: Any,
        codec: ValueCodec | None,
        expire: Command | None,
        options: WriteOptions,
        outcome: WriteOutcome,
    ) -> ClusterHashWrite:
        """Return a flight that writes hashes.

        Args:
            items: what batch_hset() takes.
            codec: makes bytes of the values of fields; None writes them as redis-py does.
            expire: the command that lets a hash expire, or None.
            options: how they are written.
            outcome: records what became of them.
        """
        topology = topology_of(self._client)
        writer = RoutedMappingWriter(
            items,
            hset_command(options.set),
            codec,
            topology.router,
            max_items=options.chunk_size,
            max_bytes=CHUNK_BYTES,
            **self._key_encoding,
        )
        return ClusterHashWrite(writer, topology, expire, outcome, max_outage=max_outage_of(self._client))

    def hash_rows_flight(self, rows: Any, expire: Command | None, outcome: WriteOutcome) -> ClusterHashWrite:
        """Return a flight that writes the rows of a table as hashes.

        Args:
            rows: a HashWriter.
            expire: the command that lets a hash expire, or None.
            outcome: records what became of the rows.
        """
        topology = topology_of(self._client)
        writer: Any = SplitWriter(rows, rows.command, topology.router)
        return ClusterHashWrite(writer, topology, expire, outcome, max_outage=max_outage_of(self._client))

    def rows_flight(self, rows: Any, options: SetOptions, outcome: WriteOutcome) -> ClusterWrite:
        """Return a flight that writes the rows of a table.

        Args:
            rows: a TableWriter of one command a row.
            options: SET's.
            outcome: records what became of the rows.
        """
        topology = topology_of(self._client)
        writer: Any = SplitWriter(rows, options.single, topology.router)
        max_outage = max_outage_of(self._client)
        return ClusterWrite(writer, topology, outcome, max_outage=max_outage, repeatable=options.repeatable)

    def command_rows_flight(self, rows: Any, outcome: WriteOutcome, *, repeatable: bool) -> ClusterExecute:
        """Return a flight of a command for each row of a table.

        Args:
            rows: a TemplateWriter.
            outcome: records what became of the rows.
            repeatable: whether commands of unknown outcome may be sent again.
        """
        topology = topology_of(self._client)
        writer: Any = SplitWriter(rows, rows.command, topology.router)
        max_outage = max_outage_of(self._client)
        return ClusterExecute(writer, topology, outcome, max_outage=max_outage, repeatable=repeatable)

    def read_flight(
        self, keys: Any, out: Any, outcome: ReadOutcome, options: ReadOptions, codec: ValueCodec | None = None
    ) -> ClusterRead:
        """Return a flight that reads.

        Args:
            keys: what batch_get() takes.
            out: a dict, or a list of pairs.
            outcome: counts the values.
            options: how they are read.
            codec: decodes the values; the client's by default.
        """
        pairs = out if isinstance(out, list) else None
        found = {} if isinstance(out, list) else out
        order: list[Any] | None = None if pairs is None else []
        topology = topology_of(self._client, reading=True)
        writer = self._routed(
            keys, GET, topology, options.limit, found=found, default=options.default, order=order
        )
        return ClusterRead(
            writer,
            topology,
            codec or self._codec,
            found,
            outcome,
            options,
            max_outage=max_outage_of(self._client),
            pairs=pairs,
            order=order,
        )

    def hash_read_flight(
        self, keys: Any, command: Command, rows: HashRows, out: Any, outcome: ReadOutcome, options: ReadOptions
    ) -> ClusterHashRead:
        """Return a flight that reads hashes.

        Args:
            keys: what batch_hgetall() takes.
            command: HGETALL, or HMGET with its fields.
            rows: reads the replies.
            out: a dict, or a list of pairs.
            outcome: counts the hashes.
            options: how they are read.
        """
        pairs = out if isinstance(out, list) else None
        found = {} if isinstance(out, list) else out
        order: list[Any] | None = None if pairs is None else []
        topology = topology_of(self._client, reading=True)
        writer = self._routed(
            keys, command, topology, options.limit, found=found, default=options.default, order=order
        )
        max_outage = max_outage_of(self._client)
        return ClusterHashRead(
            writer, topology, rows, found, outcome, options, max_outage=max_outage, pairs=pairs, order=order
        )

    def count_flight(self, keys: Any) -> ClusterCount:
        """Return a flight that deletes keys and counts them."""
        topology = topology_of(self._client)
        writer = self._routed(keys, UNLINK, topology, COMMAND_ITEMS)
        return ClusterCount(writer, topology, CountOutcome(), max_outage=max_outage_of(self._client))
