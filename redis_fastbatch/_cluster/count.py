"""Batches over a cluster of commands that are answered with a number for each key, in flight."""

from __future__ import annotations

from typing import Any

from redis.exceptions import InvalidResponse

from redis_fastbatch._cluster.flight import ClusterBatch
from redis_fastbatch._cluster.node import NodeChunk, NodeFlight, without_asking
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.count import COUNT_WINDOW
from redis_fastbatch._engine.outcome import CountOutcome


class ClusterCount(ClusterBatch):
    """A batch of commands over a cluster that each say whether they found a key, such as UNLINK.

    Args:
        writer: encodes the keys, a command for each.
        topology: the nodes.
        outcome: adds up the numbers.
        max_outage: seconds for which a key is tried again.
    """

    def __init__(
        self, writer: RoutedWriter, topology: Topology, outcome: CountOutcome, *, max_outage: float
    ) -> None:
        super().__init__(topology, writer, outcome, max_outage=max_outage)
        self.outcome = outcome

    @property
    def _ended(self) -> bool:
        return super()._ended or self.outcome.error is not None

    def is_full(self, node: NodeFlight) -> bool:
        return len(node.sent) >= COUNT_WINDOW

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        had, answered = len(sent.non_ok_replies), sent.answered
        sent.done += reader.statuses(sent.replies - sent.done, sent.done, sent.non_ok_replies, False)
        news = sent.non_ok_replies[had:]
        del sent.non_ok_replies[had:]
        if sent.asking:
            news = without_asking(news)
        if len(news) < sent.answered - answered:
            raise InvalidResponse("a number was expected, got OK")
        for item, reply in news:
            self._count(sent, item, reply)

    def _count(self, sent: NodeChunk, item: int, reply: Any) -> None:
        if isinstance(reply, Exception):
            sent.non_ok_replies.append((item, reply))
        elif type(reply) is int and 0 <= reply <= 1:
            self.outcome.total += reply
            self.settled += 1
        else:
            raise InvalidResponse(f"0 or 1 was expected, got {reply!r:.80}")

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        for _, error in final:
            self.outcome.end_with(error)

    def record_unencoded(self) -> None:
        self.outcome.record_unencoded(self._writer)
        if self._halted is not None:
            raise self._halted

    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        """Do nothing: counting can always be repeated."""

    def abort(self, error: BaseException) -> None:
        """End the batch."""
        self._dissolve()
