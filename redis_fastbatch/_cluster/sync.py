"""Carries out batches over a cluster from one thread, all nodes at the same time.

The connections are those of redis-py's RedisCluster: a pool for each node, made and refreshed by it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from redis_fastbatch._cluster.flight import (
    DETOURS,
    FIRST_DELAY,
    MAX_DELAY,
    MAX_HOPS,
    PATIENCE,
    ClusterBatch,
    NodeFlight,
)
from redis_fastbatch._cluster.topology import Topology, topology_of
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.routed import slot_of_key
from redis_fastbatch._engine.flight import InFlightChunk, Send
from redis_fastbatch._engine.transaction import AtomicFlight
from redis_fastbatch._transports.redispy import cluster as redispy
from redis_fastbatch._transports.sync import SocketChannel, check_not_forked, lease
from redis_fastbatch._transports.waiting import Watch
from redis_fastbatch.errors import EncodeError

logger = logging.getLogger("redis_fastbatch")

REFRESH_SECONDS = 0.5
"""A cluster's view of its slots is refreshed once in that time at most: single redirections say enough."""

CHECK_SECONDS = 0.1
"""How often nodes are looked at that keep silent while others are busy."""

# No other node would make these good.
FINAL = (AuthenticationError, AuthorizationError, MaxConnectionsError)


def patience_of(cluster: Any) -> float:
    """Seconds for which a batch waits for a cluster to become sound: none where its client never retries."""
    return PATIENCE if redispy.retries(cluster) else 0.0


class Link:
    """A node's connection while a batch uses it.

    Args:
        flight: what the batch has for the node.
        client: redis-py's client of the node.
        max_value_size: as FastBatch takes it.
        pid: of the process that began the batch.
    """

    def __init__(self, flight: NodeFlight, client: Any, max_value_size: int, pid: int) -> None:
        self.flight = flight
        self._pid = pid
        self._stack = ExitStack()
        self._out: Chunk | None = None
        self._sent = 0
        self._active = time.monotonic()
        with ExitStack() as opening:
            self._lease = opening.enter_context(lease(client, max_value_size))
            self.channel = opening.enter_context(self._lease.channel())
            self._stack = opening.pop_all()

        self.polled = isinstance(self.channel, SocketChannel)

    @property
    def blocked(self) -> bool:
        """A chunk has left in part."""
        return self._out is not None

    @property
    def deadline(self) -> float | None:
        """When the node has kept silent for too long."""
        timeout = self._lease.connection.socket_timeout
        return None if timeout is None or not self.flight.in_flight else self._active + timeout

    def advance(self) -> bool:
        """Sends what can be sent of a chunk without waiting; False when nothing can."""
        if self._out is None:
            event = self.flight.poll()
            check_not_forked(self._pid)
            if not isinstance(event, Send):
                return False
            chunk = event.chunk
            if not self.flight.in_flight:
                self._active = time.monotonic()
            if not self.polled:
                self.channel.send(chunk, self.flight)
                return True
            self.flight.started(chunk)
            self._out, self._sent = chunk, 0
        some: int = self.channel.send_some(self._out, self._sent)
        self._sent += some
        if self._sent == len(self._out):
            self.flight.finished(self._out)
            self._out = None
        return some > 0

    def receive(self) -> None:
        """Lets the flight take what has arrived."""
        self._active = time.monotonic()
        if self.polled:
            self.channel.receive_arrived(self.flight)
        elif self.flight.in_flight:
            self.channel.receive(self.flight)

    def expire(self) -> None:
        """Raises TimeoutError when the node has kept silent for too long."""
        deadline = self.deadline
        if deadline is not None and time.monotonic() >= deadline:
            timeout = self._lease.connection.socket_timeout
            raise TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")

    def give_back(self) -> None:
        """All is answered: the connection goes back to its pool as it was."""
        with self._stack:
            try:
                self.channel.finish()
            except BaseException:
                self._lease.connection.disconnect()
                raise

    def drop(self) -> None:
        """The connection is closed."""
        with self._stack:
            self._lease.connection.disconnect()


class ClusterLease:
    """Carries out flights over the nodes of a RedisCluster, as Lease does over one connection.

    Args:
        client: the RedisCluster.
        max_value_size: as FastBatch takes it.
    """

    def __init__(self, client: Any, max_value_size: int = 0) -> None:
        self.client = client
        self._max_value_size = max_value_size
        self._pid = os.getpid()
        self._links: dict[int, Link] = {}
        self._watch = Watch()
        self._checked = 0.0
        self._refreshed = 0.0

    def run(self, flight: Any) -> None:
        """Carries out a flight: a ClusterBatch over all nodes, one of a single slot over the node that has it.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: a node was lost, and nobody took its
                slots over in time.
        """
        if isinstance(flight, OneSlotWrite):
            self._run_on_one(flight)
            return
        if flight.topology.doubted:
            self._refresh(flight.topology)
        try:
            while not flight.done:
                self._round(flight)
            while self._links:
                self._forget(next(iter(self._links))).give_back()
        except BaseException as error:
            while self._links:
                link = self._forget(next(iter(self._links)))
                with contextlib.suppress(RedisError, OSError):
                    link.drop() if link.flight.in_flight else link.give_back()
            flight.topology.doubted |= flight.stale
            flight.abort(error)
            raise
        if flight.stale:
            self._refresh(flight.topology)
        flight.completed()

    def _round(self, batch: ClusterBatch) -> None:
        moved = False
        for node in list(batch.nodes):
            link = self._links.get(node.number)
            if node.held_until is None and ((link is not None and link.blocked) or not batch.is_full(node)):
                moved |= self._attempt(batch, node, self._advance)
        wake = batch.wake()
        if wake is not None and time.monotonic() >= wake:
            self._refresh(batch.topology)
            batch.revive()
            moved = True
        if not moved and not batch.done:
            self._wait(batch, wake)

    def _attempt(self, batch: ClusterBatch, node: NodeFlight, step: Any) -> bool:
        """A step that may lose the node's connection."""
        check_not_forked(self._pid)
        try:
            return bool(step(node))
        except FINAL:
            raise
        except (ConnectionError, TimeoutError, OSError) as error:
            if batch.hook_raised:
                raise
            logger.debug("node %s was lost: %s", node.node.name, error)
            if node.number in self._links:
                self._forget(node.number).drop()
            batch.lost(node, error)
            return True

    def _advance(self, node: NodeFlight) -> bool:
        link = self._links.get(node.number)
        if link is None:
            if not isinstance(node.poll(), Send):
                return False
            client = self.client.get_redis_connection(node.node)
            link = self._links[node.number] = Link(node, client, self._max_value_size, self._pid)
            if link.polled:
                self._watch.add(link.channel.socket, link)
        moved = link.advance()
        if link.polled:
            self._watch.writing(link.channel.socket, link.blocked)
        return moved

    def _forget(self, number: int) -> Link:
        link = self._links.pop(number)
        if link.polled:
            self._watch.remove(link.channel.socket)
        return link

    def _wait(self, batch: ClusterBatch, wake: float | None) -> None:
        """Waits until a node can be read or written, or has kept silent for too long, or it is time to wake."""
        public = [link for link in self._links.values() if not link.polled and link.flight.in_flight]
        if public:
            # Nothing tells when such a connection can be read: it is read until it has answered.
            for link in public:
                self._attempt(batch, link.flight, lambda node, link=link: link.receive())
            return
        times = [when for when in (wake, *(link.deadline for link in self._links.values())) if when is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        readable: list[Link] = self._watch.wait(timeout)
        for link in readable:
            self._attempt(batch, link.flight, lambda node, link=link: link.receive())
        now = time.monotonic()
        if not readable or now - self._checked > CHECK_SECONDS:
            self._checked = now
            for link in list(self._links.values()):
                self._attempt(batch, link.flight, lambda node, link=link: link.expire())

    def _refresh(self, topology: Topology) -> None:
        """Has the cluster's client ask again who has which slot."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        try:
            redispy.refresh(self.client)
            topology.doubted = False
        except (RedisError, RedisClusterException, OSError) as error:
            logger.debug("the cluster cannot be asked for its slots: %s", error)
        self._refreshed = time.monotonic()
        topology.renew()

    def _run_on_one(self, flight: OneSlotWrite) -> None:
        topology = topology_of(self.client)
        if topology.doubted:
            self._refresh(topology)
        deadline = time.monotonic() + patience_of(self.client)
        delay, hops = FIRST_DELAY, 0
        while True:
            node = topology.nodes[topology.router.owner(flight.slot)]
            try:
                with lease(self.client.get_redis_connection(node), self._max_value_size) as borrowed:
                    borrowed.run(flight)
                return
            except Redirected as redirected:
                error = redirected.error
                if isinstance(error, MovedError) and hops < MAX_HOPS:
                    topology.router.move(flight.slot, topology.target(error, node))
                    hops += 1
                elif time.monotonic() > deadline:
                    topology.doubted = True
                    flight.abort(error)
                    raise error from None
                else:
                    time.sleep(delay)
                    delay = min(2 * delay, MAX_DELAY)
                    self._refresh(topology)
            except (ConnectionError, TimeoutError, OSError):
                topology.doubted = True
                raise


@contextlib.contextmanager
def cluster_lease(client: Any, max_value_size: int = 0) -> Iterator[ClusterLease]:
    """Give what carries out flights over a RedisCluster. It borrows of each node the connection that it needs."""
    yield ClusterLease(client, max_value_size)


class Redirected(Exception):
    """A node did nothing of an atomic batch, because another one has its slot, or none has for the moment."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class OneSlotWrite(AtomicFlight):
    """An atomic batch, whose keys share a slot.

    Args:
        slot: theirs.
        flight: what AtomicFlight takes.
    """

    def __init__(self, slot: int, *arguments: Any, **flight: Any) -> None:
        super().__init__(*arguments, **flight)
        self.slot = slot

    def _settle_many(self, settled: InFlightChunk) -> None:
        _raise_redirection(settled)
        super()._settle_many(settled)

    def _settle_closing(self, closing: InFlightChunk) -> None:
        for queued in self._queued:
            _raise_redirection(queued)
        super()._settle_closing(closing)

    def abort(self, error: BaseException) -> None:
        if isinstance(error, Redirected):
            # It was refused as a whole, and will be sent once more.
            self._start_over()
        else:
            super().abort(error)


def _raise_redirection(settled: InFlightChunk) -> None:
    for _, reply in settled.non_ok_replies:
        if isinstance(reply, (*DETOURS, AskError)):
            raise Redirected(reply)


def one_slot(items: Any, encoding: str, errors: str) -> tuple[list[Any], int]:
    """The items of an atomic batch, and the slot of all their keys.

    Args:
        items: a mapping or pairs.
        encoding, errors: how str keys become bytes.

    Raises:
        TypeError: one string, which is no batch.
        ValueError: keys are of several slots.
    """
    if isinstance(items, (str, bytes, bytearray)):
        raise TypeError(f"a batch of items is expected, not one {type(items).__name__}")
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    first: tuple[Any, int] | None = None
    for pair in pairs:
        # The flight reports items that are not pairs, and keys that cannot be encoded.
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            continue
        with contextlib.suppress(EncodeError, TypeError, ValueError):
            key = pair[0]
            slot = slot_of_key(key, encoding, errors)
            first = first or (key, slot)
            if slot != first[1]:
                break
    else:
        return pairs, first[1] if first else 0
    raise ValueError(
        "an atomic batch is one command, and a cluster carries one out only where all keys share a slot: "
        f"{first[0]!r} is in slot {first[1]}, {key!r} in {slot}; keys with a common {{tag}} share one"
    )
