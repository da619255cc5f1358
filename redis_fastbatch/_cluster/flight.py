"""What of a batch over a cluster is under way, and where redirections lead it. No input or output here.

A batch is one flight to its caller, and one flight for each node to whoever moves the bytes: the sync and the
asyncio transport carry out each node's as they do that of a single server. What a node refuses because the slot
is elsewhere goes back to the batch, which hands it to the node that has it.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Any

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.encoder import Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._core.resp.routed import AskingCommand, RoutedWriter
from redis_fastbatch._engine.flight import Explain, _Flying
from redis_fastbatch._engine.pacing import LINGER, MOST_ITEMS

PATIENCE = 30.0
"""Seconds for which an item is tried again and again while the cluster has no node for it: a failover takes
cluster-node-timeout, 15 s by default, and a little more."""

FIRST_DELAY = 0.05
"""Seconds to wait after a node was lost, or the cluster was down; doubled each time up to MAX_DELAY."""

MAX_DELAY = 1.0

MAX_HOPS = 16
"""Redirections in a row after which an item waits before it is tried again."""

QUEUED = 16
"""Chunks that wait for one node while others still get theirs; then no more items are taken."""

# The command did nothing, and another node, or the same one later, will carry it out.
DETOURS = (AskError, MovedError, TryAgainError, ClusterDownError, MasterDownError, BusyLoadingError)


class Part(_Flying):
    """A chunk for one node.

    Attributes:
        asking: an ASKING goes before each item's command, and has a reply of its own.
        since: when the first of its items met with trouble; None if none has.
        hops: how often its items were redirected.
        successors: what takes the place of its items that are booked and go again, until that is handed on: each
            with the number of its node, or None if it is to wait. So there is no moment at which they are nowhere.
    """

    __slots__ = ("asking", "hops", "since", "successors")

    def __init__(self, chunk: Chunk, position: int) -> None:
        super().__init__(chunk, position)
        self.asking = False
        self.since: float | None = None
        self.hops = 0
        self.successors: list[tuple[int | None, Part]] = []

    @property
    def replies(self) -> int:
        """Replies the node sends for it."""
        return self.chunk.count * 2 if self.asking else self.chunk.count

    @property
    def answered(self) -> int:
        """Items that have their reply."""
        return self.done // 2 if self.asking else self.done

    def successor(self, chunk: Chunk, *, asking: bool = False, hop: bool = False) -> Part:
        """Some of its items, to be sent once more."""
        part = Part(chunk, self.position)
        part.asking = asking
        part.sent = self.sent
        part.since = time.monotonic() if self.since is None else self.since
        part.hops = self.hops + hop
        return part


class NodeFlight:
    """What a batch has for one node: a Flight, whose end is that of the whole batch.

    Attributes:
        number: of the node in the batch's topology.
        held_until: the node was lost: nothing is sent to it before that time.
    """

    def __init__(self, batch: ClusterBatch, number: int) -> None:
        self.patient = True
        self.number = number
        self.pace: int | None = None
        self.held_until: float | None = None
        self.losses = 0
        self.bytes = 0
        self.ready: deque[Part] = deque()
        self.flying: deque[Part] = deque()
        self.repeatable = batch.repeatable
        self._batch = batch

    @property
    def node(self) -> Any:
        """redis-py's node."""
        return self._batch.topology.nodes[self.number]

    @property
    def hook_raised(self) -> bool:
        return self._batch.hook_raised

    @property
    def done(self) -> bool:
        return self._batch.done

    @property
    def settled(self) -> int:
        return self._batch.settled

    @property
    def in_flight(self) -> bool:
        return bool(self.flying)

    @property
    def owed(self) -> bool:
        return False

    @property
    def halfway(self) -> bool:
        if self.held_until is not None or self.ready or self._batch.is_full(self):
            return False
        return self._batch.hungry

    @property
    def dry(self) -> bool:
        return self._batch.dry

    @property
    def late(self) -> bool:
        return False

    def next_chunk(self) -> Chunk | None:
        if self.held_until is not None or self._batch.is_full(self):
            return None
        if not self.ready:
            self._batch.feed(self)
        return self.ready[0].chunk if self.ready else None

    def hurry(self) -> None:
        """The batch sees to slow sources."""

    def started(self, chunk: Chunk) -> None:
        part = self.ready[0]
        part.started = time.monotonic()
        self.flying.append(part)
        self.ready.popleft()
        self.bytes += len(chunk)
        self._batch.leaving(part)

    def finished(self, chunk: Chunk) -> None:
        self.flying[-1].whole = True

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        while self.flying:
            part = self.flying[0]
            had = len(part.others)
            self._batch.read(part, reader, self.pace)
            for i in range(had, len(part.others)):
                item, reply = part.others[i]
                if isinstance(reply, ErrorReply):
                    part.others[i] = item, explain(reply)
                elif not self._batch.is_outcome(reply):
                    # Here and not when the part lands: what came before is still counted, and once only.
                    part.done = 2 * item if part.asking else item
                    del part.others[i:]
                    raise InvalidResponse(f"a key's command was answered with {reply!r:.80}")
            if part.done < part.replies:
                return
            self._land()
            if self.pace is not None:
                return

    def take_reply(self, reply: Any) -> None:
        part = self.flying[0]
        item, of_item = divmod(part.done, 2) if part.asking else (part.done, 1)
        if of_item:
            self._batch.reply(part, item, reply)
        part.done += 1
        if part.done == part.replies:
            self._land()

    def _land(self) -> None:
        part = self.flying[0]
        self.held_until, self.losses = None, 0
        self._batch.land(self, part)
        self.flying.popleft()
        self.bytes -= len(part.chunk)
        self._batch.landed(part)

    def interrupted(self) -> bool:
        """The batch is told by lost()."""
        return True

    def abandon(self, error: BaseException) -> None:
        """The batch is abandoned as a whole."""


class ClusterBatch:
    """What batches of all kinds over a cluster have in common; a kind of flight is mixed in.

    Attributes:
        topology: the nodes.
        nodes: a flight for each of them.
        patience: seconds for which items are tried again; 0 once that was in vain, until something succeeds.
        stale: a node has redirected: the cluster's own view should be refreshed.
        handed: parts handed to nodes so far.
        answers_stand: where a connection is lost amid the replies to a part, those that came are kept.
    """

    hook_raised: bool
    repeatable: bool
    settled: int
    answers_stand = True

    def _begin(self, topology: Topology, command: Command, patience: float) -> None:
        self.topology = topology
        self.nodes: list[NodeFlight] = []
        self.patience = self._patience = patience
        self.stale = False
        self.handed = 0
        self.pace: int | None = None
        self._command = command
        self._asking = AskingCommand(command)
        self._parked: list[Part] = []
        self._parked_until = 0.0
        self._delay = FIRST_DELAY
        self._fed = time.monotonic()
        self._stop: BaseException | None = None
        self.know_nodes()

    # What kinds of batch differ in.

    @property
    @abstractmethod
    def _source(self) -> RoutedWriter:
        """Encodes the items."""

    @abstractmethod
    def read(self, part: Part, reader: ReplyReader, pace: int | None) -> None:
        """Reads what replies to a part have arrived. Noteworthy ones go to its `others`."""

    @abstractmethod
    def reply(self, part: Part, item: int, reply: Any) -> None:
        """The reply to an item, read by somebody else: an exception for an error."""

    def is_outcome(self, reply: Any) -> bool:
        """Whether a noteworthy reply, which is no error, is one that the command has."""
        return True

    @abstractmethod
    def is_full(self, node: NodeFlight) -> bool:
        """The node has enough to do."""

    @abstractmethod
    def _settle(self, part: Part, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        """So many items of a part were answered: those in `final` as it says, all others well, but for
        `open_items`, which are tried again."""

    @abstractmethod
    def _fail_rest(self, part: Part, error: Exception) -> None:
        """The items of a part that are not booked are not carried out, or it is not known."""

    @abstractmethod
    def _unencoded(self) -> None:
        """Tells of items that could not be encoded, and of how far the source was taken."""

    # The flow of items.

    @property
    def done(self) -> bool:
        """Everything is sent and settled."""
        return (
            self._over
            and not self._parked
            and not any(node.flying or node.ready for node in self.nodes)
            and not self._source.begun()
        )

    @property
    def _over(self) -> bool:
        """No further item is taken."""
        return self._source.exhausted or self._stop is not None

    @property
    def dry(self) -> bool:
        """The source had no item at hand."""
        return self._source.dry

    @property
    def begun(self) -> bool:
        """Chunks are half full."""
        return bool(self._source.begun())

    def know_nodes(self) -> None:
        """Makes flights for nodes that were added to the topology."""
        while len(self.nodes) < len(self.topology.nodes):
            self.nodes.append(NodeFlight(self, len(self.nodes)))

    @property
    def _crowded(self) -> bool:
        return any(len(node.ready) >= QUEUED for node in self.nodes)

    def feed(self, node: NodeFlight) -> None:
        """Encodes items until there is a chunk for a node, or enough wait for another; a slice if paced."""
        source, most = self._source, MOST_ITEMS if self.pace is None else self.pace
        crowded = self._crowded
        while not node.ready and not crowded and not self._over:
            try:
                full = source.advance(most)
            except BaseException as halt:
                # Such as Ctrl-C while the source was at work: what it gave before is still carried out.
                self._stop = halt
                full = -1
            if full >= 0:
                self._queue(full)
                crowded = len(self.nodes[full].ready) >= QUEUED
            else:
                self._flush_late()
            if source.failures:
                self._unencoded()
            if self.pace is not None or source.dry:
                break
        if self._over:
            self._flush()
            self._unencoded()

    def _flush_late(self) -> None:
        """Sends what a slow source has given on its way."""
        now = time.monotonic()
        if now - self._fed > LINGER:
            self._flush()
            self._fed = now

    @property
    def hungry(self) -> bool:
        """feed() would take further items."""
        return not self._over and not self._crowded

    def _queue(self, number: int) -> None:
        sealed = self._source.sealed(number)
        if sealed is None:
            return
        self.know_nodes()
        ready = self.nodes[number].ready
        # Not a second time, where Ctrl-C came before it left.
        if not ready or ready[-1].chunk is not sealed[0]:
            self._hand(number, Part(*sealed))
        self._source.leave(number)

    def _hand(self, number: int, part: Part) -> None:
        self.nodes[number].ready.append(part)
        self.handed += 1

    def _flush(self) -> None:
        for number, _ in self._source.begun():
            self._queue(number)

    # Replies.

    def land(self, node: NodeFlight, part: Part) -> None:
        """A node has answered a part, or as much of it as it ever will."""
        final: list[tuple[int, Any]] = []
        detours: list[tuple[int, Exception]] = []
        for item, reply in part.others:
            if isinstance(reply, DETOURS) and self._is_tried_again(part, reply):
                detours.append((item, reply))
            else:
                final.append((item, reply))
        if len(detours) + len(final) < part.answered:
            self.patience, self._delay = self._patience, FIRST_DELAY
        if detours:
            part.successors = self._redirected(node, part, detours)
        self._settle(part, part.answered, final, len(detours))
        self._hand_on(part)

    def _is_tried_again(self, part: Part, refusal: Exception) -> bool:
        if isinstance(refusal, AskError) and part.hops < MAX_HOPS:
            # Nothing is waited for where the node is known.
            return True
        if part.since is None or time.monotonic() - part.since <= self.patience:
            return self.patience > 0
        self.patience = 0.0
        return False

    def _redirected(
        self, node: NodeFlight, part: Part, detours: list[tuple[int, Exception]]
    ) -> list[tuple[int | None, Part]]:
        """What takes the place of a part's items that a node has refused."""
        moved: list[int] = []
        asked: dict[int, list[int]] = {}
        parked: list[int] = []
        for item, error in detours:
            if part.hops >= MAX_HOPS or not isinstance(error, AskError):
                parked.append(item)
            elif isinstance(error, MovedError):
                self.topology.router.move(error.slot_id, self.topology.target(error, node.node))
                self.stale = True
                moved.append(item)
            else:
                asked.setdefault(self.topology.target(error, node.node), []).append(item)
        successors = self._routed_anew(part, moved, hop=True) if moved else []
        for number, items in asked.items():
            chunk = part.chunk.extract(self._asking, items)
            successors.append((number, part.successor(chunk, asking=True, hop=True)))
        if parked:
            successors.append((None, part.successor(part.chunk.extract(self._command, parked))))
        return successors

    def _routed_anew(
        self, part: Part, items: Iterable[int] | None = None, *, hop: bool = False
    ) -> list[tuple[int | None, Part]]:
        """Some items of a part, or all, for the nodes that have them by now."""
        chunks = self.topology.router.split(part.chunk, self._command, items)
        return [(number, part.successor(chunk, hop=hop)) for number, chunk in chunks.items()]

    def _hand_on(self, part: Part) -> None:
        """Its successors go where they belong."""
        self.know_nodes()
        for number, successor in part.successors:
            if number is None:
                self._park(successor)
            else:
                self._hand(number, successor)
        part.successors = []

    def _reroute(self, part: Part) -> None:
        """A part that waited goes to the nodes that have its items by now."""
        part.successors, part.booked = self._routed_anew(part), part.chunk.count
        self._hand_on(part)

    def _park(self, part: Part) -> None:
        """A part waits until the cluster is sound again."""
        if not self._parked:
            self._parked_until = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, MAX_DELAY)
        self._parked.append(part)

    # Nodes that are lost.

    def lost(self, node: NodeFlight, error: Exception) -> None:
        """The connection to a node is lost. What it had goes, after a while, to whoever has the slots then.

        Raises:
            Exception: `error`, when nobody took the slots over for `patience` seconds.
        """
        again: list[Part] = []
        for part in node.flying:
            answered = part.answered if self.answers_stand else 0
            if answered:
                self.land(node, part)
            if self.repeatable:
                rest = range(answered, part.chunk.count)
                left = part.successor(part.chunk.extract(self._command, rest))
                left.sent = True
                part.successors, part.booked = [(node.number, left)], part.chunk.count
                again.append(left)
            else:
                self._fail_rest(part, outcome_unknown(error))
        node.ready.extendleft(reversed(again))
        node.flying.clear()
        node.bytes = 0
        self._hold(node, error)
        self.tell_hooks()

    def _hold(self, node: NodeFlight, error: Exception) -> None:
        self.stale = True
        now = time.monotonic()
        oldest = min((part.since for part in node.ready if part.since is not None), default=now)
        if node.ready and now - oldest >= self.patience:
            raise error
        for part in node.ready:
            part.since = now if part.since is None else part.since
        node.held_until = now + min(FIRST_DELAY * 2**node.losses, MAX_DELAY)
        node.losses += 1

    def wake(self) -> float | None:
        """When revive() has something to do; None if nothing waits."""
        times = [node.held_until for node in self.nodes if node.held_until is not None]
        if self._parked:
            times.append(self._parked_until)
        return min(times, default=None)

    def revive(self) -> None:
        """Hands what has waited long enough to the nodes that have it now. Refresh the topology before."""
        self.know_nodes()
        now = time.monotonic()
        for node in self.nodes:
            if node.held_until is not None and node.held_until <= now:
                node.held_until = None
                for part in [*node.ready]:
                    self._reroute(part)
                node.ready = deque(part for part in node.ready if not part.booked)
        if self._parked and self._parked_until <= now:
            for part in self._parked:
                self._reroute(part)
            self._parked = []

    # Accounts.

    def tell_hooks(self) -> None:
        """The books are in order: what the caller wants called may be, and may raise."""

    def leaving(self, part: Part) -> None:
        """The first byte of a part is about to leave."""

    def completed(self) -> None:
        """The batch is done, and nothing has gone wrong with it as a whole."""
        self._dissolve()

    def _dissolve(self) -> None:
        """Nothing is under way any more."""
        self._parked.clear()
        # Each of them refers to the batch: in a circle, its items would stay until the garbage collector came.
        self.nodes.clear()

    def landed(self, part: Part) -> None:
        """A part is done with."""
        self._source.recycle(part.chunk)

    def _open_parts(self) -> list[Part]:
        """All that is not settled, what is being encoded included."""
        self._flush()
        waiting = [part for node in self.nodes for part in (*node.flying, *node.ready)]
        # Ctrl-C between two lines finds one that is on its way from one place to the next in both.
        parts: dict[Part, None] = {}
        for part in waiting + self._parked:
            if part.booked < part.chunk.count:
                parts[part] = None
            if part.booked:
                parts.update(dict.fromkeys(successor for _, successor in part.successors))
        return list(parts)


def outcome_unknown(error: BaseException) -> RedisError:
    """The error of an item that was sent, and has no reply."""
    return RedisError(f"outcome unknown: {type(error).__name__} before the server confirmed it: {error}")
