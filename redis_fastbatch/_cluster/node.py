"""What a batch over a cluster has for one node. No input or output happens here."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from typing import Any

from redis.exceptions import InvalidResponse

from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import COMMAND_BYTES, ChunkState, Event, Explain, InFlightChunk, Send


class NodeChunk(InFlightChunk):
    """A chunk for one node.

    Attributes:
        asking: an ASKING goes before each item's command, and has a reply of its own.
        hops: how often its items were redirected.
        settled: how many of its items, from the first, are settled or carried by other chunks.
        since: when the first of its items could not be carried out for the first time; None if none.
    """

    __slots__ = ("asking", "hops", "settled", "since")

    def __init__(self, chunk: Chunk, position: int) -> None:
        super().__init__(chunk, position)
        self.asking = False
        self.hops = 0
        self.settled = 0
        self.since: float | None = None

    @property
    def replies(self) -> int:
        """How many replies the node sends for it."""
        return self.chunk.count * 2 if self.asking else self.chunk.count

    @property
    def answered(self) -> int:
        """How many items have their reply."""
        return self.done // 2 if self.asking else self.done

    def successor(self, chunk: Chunk, *, asking: bool = False, hop: bool = False) -> NodeChunk:
        """Return a chunk that carries some of its items once more."""
        successor = NodeChunk(chunk, self.position)
        successor.asking = asking
        successor.state = ChunkState.SENT_BEFORE if self.left else ChunkState.NEW
        successor.since = time.monotonic() if self.since is None else self.since
        successor.hops = self.hops + hop
        return successor


def without_asking(replies: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return the replies to commands that each had an ASKING before it, with the indices of their items.

    The replies to ASKING itself are left out: after an error reply to it, the command gets one too.
    """
    return [(index // 2, reply) for index, reply in replies if index % 2]


class NodesBatch:
    """A batch over a cluster, as the flights of its nodes see it.

    Attributes:
        topology: the nodes.
        settled: how many items have their outcome.
    """

    topology: Topology
    settled: int

    # From items to chunks.

    @abstractmethod
    def encode_for(self, node: NodeFlight, budget: int | None = None) -> None:
        """Encode items until a chunk for the node is ready, too many wait for another, or the budget is spent."""

    @property
    @abstractmethod
    def takes_items(self) -> bool:
        """Whether encode_for() would take further items."""

    @property
    @abstractmethod
    def source_pending(self) -> bool:
        """Whether the source had no item ready."""

    @property
    @abstractmethod
    def flush_seconds(self) -> float | None:
        """After how many seconds the chunks that are partly full are sent; None if there are none."""

    # From chunks to replies.

    @abstractmethod
    def is_full(self, node: NodeFlight) -> bool:
        """Return whether as much is in flight to the node as may be."""

    def leaving(self, leaving: NodeChunk) -> None:
        """Note that the first byte of a chunk is about to leave."""

    @abstractmethod
    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        """Read the replies to a chunk that have arrived. Put those that are not OK into its `non_ok_replies`."""

    def explain_by(self, explain: Explain) -> None:
        """Take what makes exceptions of error replies, for the replies that are read next."""

    def is_outcome(self, reply: Any) -> bool:
        """Return whether a reply that is neither OK nor an error is one that the command has."""
        return True

    @abstractmethod
    def settle(self, node: NodeFlight, sent: NodeChunk) -> None:
        """Settle the items of a chunk that have replies. Those that the node has refused are sent elsewhere."""

    @abstractmethod
    def settled_whole(self, sent: NodeChunk) -> None:
        """Call the hooks for a chunk that has all its replies, and recycle it."""

    @property
    @abstractmethod
    def hook_raised(self) -> bool:
        """Whether a hook of the caller's has raised, which ends the batch."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether everything is sent and settled."""


class NodeFlight:
    """The flight of one node. It ends when the whole batch ends.

    Args:
        batch: the batch.
        number: the node's number in the batch's topology.

    Attributes:
        number: as given.
        held_until: the node was lost, and nothing is sent to it before that time.
        losses: how often it was lost in a row.
        bytes: how many were sent and are not yet confirmed.
        ready: chunks to be sent.
        sent: chunks in flight.
    """

    awaiting_replies = False

    def __init__(self, batch: NodesBatch, number: int) -> None:
        self.wait_while_loading = True
        self.number = number
        self.held_until: float | None = None
        self.losses = 0
        self.bytes = 0
        self.ready: deque[NodeChunk] = deque()
        self.sent: deque[NodeChunk] = deque()
        self._batch = batch

    @property
    def node(self) -> Any:
        """redis-py's node."""
        return self._batch.topology.nodes[self.number]

    @property
    def hook_raised(self) -> bool:
        return self._batch.hook_raised

    @property
    def settled(self) -> int:
        return self._batch.settled

    @property
    def in_flight(self) -> bool:
        return bool(self.sent)

    @property
    def is_short(self) -> bool:
        """Whether at most one short chunk is to be sent, and it may be sent now."""
        if self.held_until is not None or self.sent or len(self.ready) > 1:
            return False
        return not self.ready or len(self.ready[0].chunk) <= COMMAND_BYTES

    @property
    def flush_seconds(self) -> float | None:
        return self._batch.flush_seconds

    def poll(self, budget: int | None = None) -> Send | Event:
        batch = self._batch
        if self.held_until is None and not batch.is_full(self):
            if not self.ready:
                batch.encode_for(self, budget)
            if self.ready:
                return Send(self.ready[0].chunk)
            if batch.takes_items:
                return Event.NEED_ITEMS if batch.source_pending else Event.PAUSED
        if self.sent:
            return Event.NEED_REPLIES
        return Event.DONE if batch.done else Event.IDLE

    def started(self, chunk: Chunk) -> None:
        leaving = self.ready[0]
        leaving.state = ChunkState.SENDING
        leaving.started = time.monotonic()
        self.sent.append(leaving)
        self.ready.popleft()
        self.bytes += len(chunk)
        self._batch.leaving(leaving)

    def finished(self, chunk: Chunk) -> None:
        self.sent[-1].state = ChunkState.SENT

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        while self.sent:
            oldest = self.sent[0]
            replies = oldest.non_ok_replies
            seen = len(replies)
            self._batch.explain_by(explain)
            self._batch.read(oldest, reader, budget)
            for i in range(seen, len(replies)):
                item, reply = replies[i]
                if isinstance(reply, ErrorReply):
                    replies[i] = item, explain(reply)
                elif not self._batch.is_outcome(reply):
                    # Raised before all replies are there, so that the items before it are counted, and only once.
                    oldest.done = 2 * item if oldest.asking else item
                    del replies[i:]
                    raise InvalidResponse(f"a key's command was answered with {reply!r:.80}")
            if oldest.done < oldest.replies:
                return
            self._settle_oldest()
            if budget is not None:
                return

    def _settle_oldest(self) -> None:
        oldest = self.sent[0]
        self.held_until, self.losses = None, 0
        self._batch.settle(self, oldest)
        self.sent.popleft()
        self.bytes -= len(oldest.chunk)
        self._batch.settled_whole(oldest)

    def connection_lost(self) -> bool:
        """Return True: the transport reports the loss to the batch, by lost()."""
        return True

    def abort(self, error: BaseException) -> None:
        """Do nothing: the batch is aborted as a whole."""
