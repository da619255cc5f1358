"""A batch of hashes over a cluster in flight."""

from __future__ import annotations

import time
from typing import Any

from redis_fastbatch._cluster.node import NodeChunk, NodeFlight, without_asking
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._cluster.write import ClusterWrite
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.hashes import ExpireChunk, counts
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.hashes import without_expiry
from redis_fastbatch._engine.outcome import WriteOutcome
from redis_fastbatch._engine.pacing import FLUSH_SECONDS


class ClusterHashWrite(ClusterWrite):
    """A batch of hashes over a cluster. EXPIRE follows the reply to HSET, as in a HashFlight.

    Args:
        writer: encodes the hashes, an HSET for each.
        topology: the nodes.
        expire: the command that lets a hash expire, or None.
        outcome: records what became of the hashes.
        max_outage: seconds for which an item is tried again.
    """

    def __init__(
        self,
        writer: RoutedWriter,
        topology: Topology,
        expire: Command | None,
        outcome: WriteOutcome,
        *,
        max_outage: float,
    ) -> None:
        super().__init__(writer, topology, outcome, max_outage=max_outage)
        self._expire = expire
        self._slow = False

    @property
    def _replies_first(self) -> bool:
        """Whether no hash may wait for its expiry until a slow source has given its next items."""
        return self._slow and any(node.sent or node.ready for node in self.nodes)

    @property
    def takes_items(self) -> bool:
        return super().takes_items and not self._replies_first

    def encode_for(self, node: NodeFlight, budget: int | None = None) -> None:
        if self._expire is None:
            super().encode_for(node, budget)
        elif not self._replies_first:
            began = time.monotonic()
            super().encode_for(node, budget)
            # A source that was slow once may be again, such as one that reads pages.
            self._slow |= time.monotonic() - began > FLUSH_SECONDS

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        chunk: Any = sent.chunk
        others: list[tuple[int, Any]] = []
        sent.done += counts(reader, sent.replies - sent.done, sent.done, others, chunk.most_fields)
        sent.non_ok_replies += without_asking(others) if sent.asking else others

    def is_outcome(self, reply: Any) -> bool:
        return False

    def _expires(self, sent: NodeChunk) -> bool:
        """Return whether the hashes of a chunk are to expire when they are written."""
        return self._expire is not None and not isinstance(sent.chunk, ExpireChunk)

    def settle(self, node: NodeFlight, sent: NodeChunk) -> None:
        super().settle(node, sent)
        written = _written(sent)
        if written and self._expire is not None and self._expires(sent):
            expiring = NodeChunk(ExpireChunk(self._expire, sent.chunk, written), sent.position)
            self._hand(node.number, expiring)

    def settled_whole(self, sent: NodeChunk) -> None:
        if self._expire is None:
            super().settled_whole(sent)
        else:
            # The items of HSETs are needed until the EXPIREs after them are settled.
            self.call_hooks()

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        keys, values = sent.chunk.keys, sent.chunk.values
        failed = [(keys[item], values[item], error) for item, error in final]
        written = 0 if self._expires(sent) else answered - len(final) - open_items
        self.outcome.record(written, failed=failed)
        self.settled += answered - open_items
        self._hooks_due.append((sent, written + len(failed)))

    def record_answered(self, sent: NodeChunk, unsent: Exception) -> None:
        written = _written(sent)
        super().record_answered(sent, unsent)
        if written and self._expire is not None and self._expires(sent):
            expiring = ExpireChunk(self._expire, sent.chunk, written)
            self.fail_rest(NodeChunk(expiring, sent.position), unsent)

    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        super().fail_rest(sent, without_expiry(error, sent.chunk))


def _written(sent: NodeChunk) -> list[int]:
    """Return the positions of those items of a chunk of HSETs that were written."""
    refused = {item for item, _ in sent.non_ok_replies}
    return [item for item in range(sent.answered) if item not in refused]
