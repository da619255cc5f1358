"""A batch of writes over a cluster in flight."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis_fastbatch._cluster.flight import ClusterBatch
from redis_fastbatch._cluster.node import NodeChunk, NodeFlight, without_asking
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.flight import WINDOW_BYTES, WINDOW_CHUNKS
from redis_fastbatch._engine.outcome import RecordedBatch, WriteOutcome, not_sent, outcome_unknown


class ClusterWrite(ClusterBatch, RecordedBatch):
    """A batch of writes over a cluster.

    Args:
        writer: encodes the items, a command for each.
        topology: the nodes.
        outcome: records what became of the items.
        max_outage: seconds for which an item is tried again.
        repeatable: whether commands of unknown outcome may be sent again.
    """

    def __init__(
        self,
        writer: RoutedWriter,
        topology: Topology,
        outcome: WriteOutcome,
        *,
        max_outage: float,
        repeatable: bool = True,
    ) -> None:
        super().__init__(topology, writer, outcome, max_outage=max_outage, repeatable=repeatable)
        self.outcome = outcome
        self._conditional = b"NX" in writer.command.tail or b"XX" in writer.command.tail
        self._hooks_due: deque[tuple[NodeChunk, int]] = deque()

    @property
    def source_error(self) -> BaseException | None:
        return self._halted or self._writer.source_error

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        replies = sent.non_ok_replies
        seen = len(replies)
        sent.done += reader.statuses(sent.replies - sent.done, sent.done, replies, False)
        if sent.asking:
            replies[seen:] = without_asking(replies[seen:])

    def is_outcome(self, reply: Any) -> bool:
        return reply is None and self._conditional

    def is_full(self, node: NodeFlight) -> bool:
        return node.bytes >= WINDOW_BYTES or len(node.sent) >= WINDOW_CHUNKS

    def leaving(self, leaving: NodeChunk) -> None:
        self.outcome.report.bytes_sent += len(leaving.chunk)

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        keys, values = sent.chunk.keys, sent.chunk.values
        skipped = [keys[item] for item, reply in final if reply is None]
        failed = [(keys[item], values[item], reply) for item, reply in final if reply is not None]
        self.outcome.record(answered - len(final) - open_items, skipped, failed)
        self.settled += answered - open_items
        self._hooks_due.append((sent, answered - open_items))

    def call_hooks(self) -> None:
        while self._hooks_due:
            sent, items = self._hooks_due.popleft()
            unconfirmed = sum(node.bytes for node in self.nodes)
            self.outcome.chunk_settled(items, len(sent.chunk), sent.started, unconfirmed)
        self.outcome.deliver()

    def record_unencoded(self) -> None:
        self.outcome.record_unencoded(self._writer.failures)
        self.outcome.deliver()

    def record_answered(self, sent: NodeChunk, unsent: Exception) -> None:
        """Record the items of a chunk that have their replies when the batch ends early.

        Args:
            sent: the chunk.
            unsent: the error of what would have been sent after it.
        """
        sent.settled = answered = sent.answered
        self.record(sent, answered, [each for each in sent.non_ok_replies if each[0] < answered], 0)

    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        keys, values, first = sent.chunk.keys, sent.chunk.values, sent.settled
        sent.settled = sent.chunk.count
        self.outcome.record(failed=[(keys[i], values[i], error) for i in range(first, sent.chunk.count)])

    def confirmed_prefix(self) -> int:
        return min((chunk.position for chunk in self._open_chunks()), default=self._writer.taken)

    def abort(self, error: BaseException) -> None:
        self.outcome.fix_prefix(self.confirmed_prefix())
        self.outcome.record_unencoded(self._writer.failures)
        unknown, unsent = outcome_unknown(error), not_sent(error)
        in_flight = [chunk for node in self.nodes for chunk in node.sent]
        for chunk in self._open_chunks():
            if chunk in in_flight and chunk.settled < chunk.answered:
                self.record_answered(chunk, unsent)
            self.fail_rest(chunk, unknown if chunk.left else unsent)
        self._dissolve()
        self.call_hooks()
