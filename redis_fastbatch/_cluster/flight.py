"""A batch over a cluster in flight, and where redirections lead its items. No input or output happens here.

To its caller it is one batch. To a transport it is a flight for each node, which is carried out like that of a
single server. Items that a node refuses, because another node has their slot, go back to the batch, which hands
them to that node.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    TryAgainError,
)

from redis_fastbatch._cluster.node import NodeChunk, NodeFlight, NodesBatch
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.routed import AskingCommand, RoutedWriter
from redis_fastbatch._engine.flight import each_once
from redis_fastbatch._engine.outcome import HookCaller, outcome_unknown
from redis_fastbatch._engine.pacing import MOST_ITEMS, FlushTimer

MAX_OUTAGE_SECONDS = 30.0
"""Seconds for which an item is tried again while no node carries it out: a failover takes
cluster-node-timeout, 15 s by default, and a little more."""

FIRST_DELAY = 0.05
"""Seconds to wait after a node was lost, or while the cluster is down. Each further wait is twice as long, up to
MAX_DELAY."""

MAX_DELAY = 1.0

MAX_HOPS = 16
"""Redirections in a row after which an item waits before it is tried again."""

QUEUED = 16
"""Chunks that may wait for one node. Then no more items are taken, for other nodes either."""

# The command did nothing, and another node, or the same one later, will carry it out.
DETOURS = (AskError, MovedError, TryAgainError, ClusterDownError, MasterDownError, BusyLoadingError)


class ClusterBatch(NodesBatch):
    """What batches of all kinds over a cluster have in common.

    Args:
        topology: the nodes.
        writer: encodes the items.
        outcome: records what became of the items.
        max_outage: seconds for which an item is tried again while no node carries it out.
        repeatable: whether commands of unknown outcome may be sent again.

    Attributes:
        topology: the nodes.
        nodes: a flight for each of them.
        settled: how many items have their outcome.
        stale: a node has redirected: the cluster's own view should be refreshed.
        handed: chunks handed to nodes so far.
        answers_stand: replies that came before a connection was lost count. Otherwise their items are sent again.
    """

    answers_stand = True

    def __init__(
        self,
        topology: Topology,
        writer: RoutedWriter,
        outcome: HookCaller,
        *,
        max_outage: float,
        repeatable: bool = True,
    ) -> None:
        self.topology = topology
        self.nodes: list[NodeFlight] = []
        self.settled = 0
        self._max_outage = max_outage
        # 0 after an item was tried for that long without success, until an item succeeds: others do not wait too.
        self._allowed_outage = max_outage
        self.stale = False
        self.handed = 0
        self._hooks = outcome
        self._writer = writer
        self._repeatable = repeatable
        self._command: Command = writer.command
        self._asking = AskingCommand(writer.command)
        self._postponed: list[NodeChunk] = []
        self._postponed_until = 0.0
        self._delay = FIRST_DELAY
        self._flush_timer = FlushTimer()
        self._halted: BaseException | None = None
        self.know_nodes()

    @property
    def hook_raised(self) -> bool:
        return self._hooks.hook_raised

    # What differs between the kinds of batches, with those methods of NodesBatch that it leaves out.

    @abstractmethod
    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        """Record the outcome of a chunk's first items.

        Args:
            sent: the chunk.
            answered: how many of its items were answered.
            final: the replies other than OK, each with its item's index.
            open_items: how many of the answered items are tried again.
        """

    @abstractmethod
    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        """Record the items of a chunk as failed that are not settled."""

    @abstractmethod
    def record_unencoded(self) -> None:
        """Record the items that could not be encoded, and how far the source was taken."""

    def call_hooks(self) -> None:
        """Call the caller's hooks for what was settled. They may raise."""

    # From items to chunks.

    @property
    def done(self) -> bool:
        return (
            self._ended
            and not self._postponed
            and not any(node.sent or node.ready for node in self.nodes)
            and not self._writer.begun()
        )

    @property
    def _ended(self) -> bool:
        """Whether no further item is taken."""
        return self._writer.exhausted or self._halted is not None

    @property
    def source_pending(self) -> bool:
        return self._writer.source_pending

    @property
    def flush_seconds(self) -> float | None:
        return self._flush_timer.left if self._writer.begun() else None

    def know_nodes(self) -> None:
        """Make flights for nodes that were added to the topology."""
        while len(self.nodes) < len(self.topology.nodes):
            self.nodes.append(NodeFlight(self, len(self.nodes)))

    @property
    def _crowded(self) -> bool:
        return any(len(node.ready) >= QUEUED for node in self.nodes)

    def encode_for(self, node: NodeFlight, budget: int | None = None) -> None:
        writer, most = self._writer, MOST_ITEMS if budget is None else budget
        crowded = self._crowded
        while not node.ready and not crowded and not self._ended:
            try:
                full = writer.advance(most)
            except BaseException as halt:
                # Such as Ctrl-C while the source was at work: the items that it gave before are still written.
                self._halted = halt
                full = -1
            if full >= 0:
                self._queue(full)
                crowded = len(self.nodes[full].ready) >= QUEUED
            elif not self._flush_timer.left:
                self._flush()
                self._flush_timer.restart()
            if writer.failures:
                self.record_unencoded()
            if budget is not None or writer.source_pending:
                break
        if self._ended:
            self._flush()
            self.record_unencoded()

    def encode_short(self) -> bool:
        """Encode the items. Return whether they are all encoded, and each node has one short chunk at most.

        Only items in memory are taken, as others may have to be waited for.
        """
        if not self._writer.in_memory or self._postponed or not self.nodes:
            return False
        self.encode_for(self.nodes[0])
        if not self._ended or self._halted is not None:
            return False
        return all(node.is_short for node in self.nodes)

    @property
    def takes_items(self) -> bool:
        return not self._ended and not self._crowded

    def _queue(self, number: int) -> None:
        sealed = self._writer.sealed(number)
        if sealed is not None:
            self.know_nodes()
            self._hand(number, NodeChunk(*sealed))
            self._writer.leave(number)

    def _hand(self, number: int, chunk: NodeChunk) -> None:
        self.nodes[number].ready.append(chunk)
        self.handed += 1

    def _flush(self) -> None:
        for number, _ in self._writer.begun():
            self._queue(number)

    # From chunks to replies.

    def settle(self, node: NodeFlight, sent: NodeChunk) -> None:
        final: list[tuple[int, Any]] = []
        detours: list[tuple[int, Exception]] = []
        for item, reply in sent.non_ok_replies:
            if isinstance(reply, DETOURS) and self._is_tried_again(sent, reply):
                detours.append((item, reply))
            else:
                final.append((item, reply))
        answered = sent.answered
        if len(detours) + len(final) < answered:
            self._allowed_outage, self._delay = self._max_outage, FIRST_DELAY
        successors = self._redirected(node, sent, detours) if detours else []
        sent.settled = answered
        self.record(sent, answered, final, len(detours))
        self._hand_on(successors)

    def settled_whole(self, sent: NodeChunk) -> None:
        # Before the chunk is emptied for its next use.
        self.call_hooks()
        self._writer.recycle(sent.chunk)

    def _is_tried_again(self, sent: NodeChunk, refusal: Exception) -> bool:
        if isinstance(refusal, AskError) and sent.hops < MAX_HOPS:
            # The other node is known, so there is nothing to wait for.
            return True
        if sent.since is None or time.monotonic() - sent.since <= self._allowed_outage:
            return self._allowed_outage > 0
        self._allowed_outage = 0.0
        return False

    def _redirected(
        self, node: NodeFlight, refused: NodeChunk, detours: list[tuple[int, Exception]]
    ) -> list[tuple[int | None, NodeChunk]]:
        """Return chunks of the items that a node has refused, each with its node's number, or None if it waits."""
        moved: list[int] = []
        asked: dict[int, list[int]] = {}
        postponed: list[int] = []
        for item, error in detours:
            if refused.hops >= MAX_HOPS or not isinstance(error, AskError):
                postponed.append(item)
            elif isinstance(error, MovedError):
                self.topology.router.move(error.slot_id, self.topology.target(error, node.node))
                self.stale = True
                moved.append(item)
            else:
                asked.setdefault(self.topology.target(error, node.node), []).append(item)
        successors = self._routed(refused, moved, hop=True) if moved else []
        for number, items in asked.items():
            chunk = refused.chunk.extract(self._asking, items)
            successors.append((number, refused.successor(chunk, asking=True, hop=True)))
        if postponed:
            successors.append((None, refused.successor(refused.chunk.extract(self._command, postponed))))
        return successors

    def _routed(
        self, sent: NodeChunk, items: Iterable[int] | None = None, *, hop: bool = False
    ) -> list[tuple[int | None, NodeChunk]]:
        """Return chunks of some items, or all, for the nodes that have them by now."""
        chunks = self.topology.router.split(sent.chunk, self._command, items)
        return [(number, sent.successor(chunk, hop=hop)) for number, chunk in chunks.items()]

    def _hand_on(self, successors: list[tuple[int | None, NodeChunk]]) -> None:
        self.know_nodes()
        for number, successor in successors:
            if number is None:
                self._postpone(successor)
            else:
                self._hand(number, successor)

    def _reroute(self, waiting: NodeChunk) -> None:
        """Hand a chunk that has waited to the nodes that have its items by now."""
        successors = self._routed(waiting)
        waiting.settled = waiting.chunk.count
        self._hand_on(successors)

    def _postpone(self, chunk: NodeChunk) -> None:
        """Keep a chunk for a while, after which its items are tried again."""
        if not self._postponed:
            self._postponed_until = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, MAX_DELAY)
        self._postponed.append(chunk)

    # Nodes that are lost.

    def lost(self, node: NodeFlight, error: Exception) -> None:
        """Take back the chunks of a node whose connection is lost. The node that has their slots later gets them.

        Raises:
            Exception: `error`, when no node has taken the slots over within `max_outage` seconds.
        """
        again: list[NodeChunk] = []
        for sent in node.sent:
            answered = sent.answered if self.answers_stand else 0
            if answered:
                self.settle(node, sent)
            if self._repeatable:
                rest = sent.chunk.extract(self._command, range(answered, sent.chunk.count))
                again.append(sent.successor(rest))
                sent.settled = sent.chunk.count
            else:
                self.fail_rest(sent, outcome_unknown(error))
        node.ready.extendleft(reversed(again))
        node.sent.clear()
        node.bytes = 0
        self._hold(node, error)
        self.call_hooks()

    def _hold(self, node: NodeFlight, error: Exception) -> None:
        self.stale = True
        now = time.monotonic()
        oldest = min((chunk.since for chunk in node.ready if chunk.since is not None), default=now)
        if node.ready and now - oldest >= self._allowed_outage:
            raise error
        for chunk in node.ready:
            chunk.since = now if chunk.since is None else chunk.since
        node.held_until = now + min(FIRST_DELAY * 2**node.losses, MAX_DELAY)
        node.losses += 1

    def wake(self) -> float | None:
        """Return when revive() has something to do; None if nothing waits."""
        times = [node.held_until for node in self.nodes if node.held_until is not None]
        if self._postponed:
            times.append(self._postponed_until)
        return min(times, default=None)

    def revive(self) -> None:
        """Hand chunks that have waited long enough to the nodes that have their slots now.

        Refresh the topology before.
        """
        self.know_nodes()
        now = time.monotonic()
        for node in self.nodes:
            if node.held_until is not None and node.held_until <= now:
                node.held_until = None
                waiting = [*node.ready]
                for chunk in waiting:
                    self._reroute(chunk)
                for _ in waiting:
                    node.ready.popleft()
        if self._postponed and self._postponed_until <= now:
            for chunk in self._postponed:
                self._reroute(chunk)
            self._postponed = []

    # The end.

    def completed(self) -> None:
        """End a batch that is done and that no error has ended."""
        self._dissolve()

    def _dissolve(self) -> None:
        """Forget the nodes' flights."""
        self._postponed.clear()
        # Each of them refers to the batch, whose items would otherwise stay until the cyclic collector runs.
        self.nodes.clear()

    def _open_chunks(self) -> list[NodeChunk]:
        """Return the chunks with items that are not settled, including those that are being filled."""
        self._flush()
        sent = (chunk for node in self.nodes for chunk in node.sent)
        ready = (chunk for node in self.nodes for chunk in node.ready)
        return each_once(sent, ready, self._postponed)
