"""Carries out batches over a cluster from one thread, all nodes at the same time.

The connections come from redis-py's RedisCluster, which has a pool for each node.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MaxConnectionsError,
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from redis_fastbatch._cluster.flight import MAX_OUTAGE_SECONDS, ClusterBatch
from redis_fastbatch._cluster.node import NodeFlight
from redis_fastbatch._cluster.slot_route import OneSlotWrite, Redirected, SlotRoute
from redis_fastbatch._cluster.topology import Topology, topology_of
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._engine.flight import Send
from redis_fastbatch._transports.channels import SocketChannel
from redis_fastbatch._transports.redispy import cluster as redispy
from redis_fastbatch._transports.sync import Forks, Lease
from redis_fastbatch._transports.waiting import Watch

logger = logging.getLogger("redis_fastbatch")

REFRESH_SECONDS = 0.5
"""The client's view of the slots is refreshed at most once in that time. Redirections correct it meanwhile."""

CHECK_SECONDS = 0.1
"""Seconds between two checks for nodes that send nothing while others are busy."""

# No other node would do better.
FINAL = (AuthenticationError, AuthorizationError, MaxConnectionsError)


def max_outage_of(cluster: Any) -> float:
    """Return for how many seconds a batch goes on while no node answers: 0 if its client never retries."""
    return MAX_OUTAGE_SECONDS if redispy.retries(cluster) else 0.0


class Link:
    """A node's connection while a batch uses it.

    Args:
        flight: the node's flight.
        client: redis-py's client of the node.
        max_value_size: as FastBatch takes it.
        forks: the number of forks when the batch began.
    """

    def __init__(self, flight: NodeFlight, client: Any, max_value_size: int, forks: int) -> None:
        self.flight = flight
        self._forks = forks
        self._out: Chunk | None = None
        self._sent = 0
        self._active = time.monotonic()
        self._lease = Lease(client, max_value_size).__enter__()
        try:
            self.channel = self._lease.channel()
        except BaseException:
            self._lease.__exit__(None, None, None)
            raise
        self.polled = isinstance(self.channel, SocketChannel)

    @property
    def blocked(self) -> bool:
        """Whether a chunk has been sent in part."""
        return self._out is not None

    @property
    def deadline(self) -> float | None:
        """When the node has sent nothing for too long; None for no limit."""
        timeout = self._lease.connection.socket_timeout
        return None if timeout is None or not self.flight.in_flight else self._active + timeout

    def send(self) -> bool:
        """Send the node's next chunk, and wait until that is done."""
        event = self.flight.poll()
        Forks.check(self._forks)
        if not isinstance(event, Send):
            return False
        self._active = time.monotonic()
        self.channel.send(event.chunk, self.flight)
        return True

    def receive_all(self) -> bool:
        """Receive the replies to all chunks in flight, and wait for them."""
        while self.flight.in_flight:
            self.channel.receive(self.flight)
            self._active = time.monotonic()
        return True

    def advance(self) -> bool:
        """Send as much of a chunk as goes without waiting. Return False if nothing can be sent."""
        if self._out is None:
            event = self.flight.poll()
            Forks.check(self._forks)
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
        """Let the flight read what has arrived."""
        self._active = time.monotonic()
        if self.polled:
            self.channel.receive_arrived(self.flight)
        elif self.flight.in_flight:
            self.channel.receive(self.flight)

    def expire(self) -> None:
        """Raise TimeoutError if the node has sent nothing for too long."""
        deadline = self.deadline
        if deadline is not None and time.monotonic() >= deadline:
            timeout = self._lease.connection.socket_timeout
            raise TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")

    def give_back(self) -> None:
        """Give the connection back to its pool: all replies have come."""
        try:
            self.channel.finish()
        except BaseException:
            self._lease.connection.disconnect()
            raise
        finally:
            self._release()

    def drop(self) -> None:
        """Close the connection and give it back."""
        try:
            self._lease.connection.disconnect()
        finally:
            self._release()

    def _release(self) -> None:
        try:
            self.channel.__exit__(None, None, None)
        finally:
            self._lease.__exit__(None, None, None)


class ClusterLease:
    """Carries out flights over the nodes of a RedisCluster, as Lease does over one connection.

    It is a context manager, as Lease is, but borrows a connection from each node only while a flight needs it.

    Args:
        client: the RedisCluster.
        max_value_size: as FastBatch takes it.
    """

    def __init__(self, client: Any, max_value_size: int = 0) -> None:
        self.client = client
        self._max_value_size = max_value_size
        self._forks = Forks.count
        self._links: dict[int, Link] = {}
        self._watch: Watch | None = None
        self._checked = 0.0
        self._refreshed = 0.0

    def __enter__(self) -> ClusterLease:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: after each flight the connections are given back."""

    def run(self, flight: Any) -> None:
        """Carry out a flight: a ClusterBatch over all nodes, a OneSlotWrite over the node that has its slot.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: a node was lost, and no other node
                took its slots over in time.
        """
        if isinstance(flight, OneSlotWrite):
            self._run_on_one(flight)
            return
        if flight.topology.is_stale:
            self._refresh(flight.topology)
        try:
            self._begin(flight)
            while not flight.done:
                self._round(flight)
            while self._links:
                self._forget(next(iter(self._links))).give_back()
        except BaseException as error:
            if not isinstance(error, Exception):
                flight.topology.unlock()
                redispy.unlock_cluster(self.client)
            while self._links:
                link = self._forget(next(iter(self._links)))
                with contextlib.suppress(RedisError, OSError):
                    link.drop() if link.flight.in_flight else link.give_back()
            flight.topology.is_stale |= flight.stale
            flight.abort(error)
            raise
        if flight.stale:
            self._refresh(flight.topology)
        flight.completed()

    def _begin(self, batch: ClusterBatch) -> None:
        """Carry out a batch that has at most one short chunk for each node, without polling the sockets.

        For any other batch, do nothing. What redirections and lost nodes leave is carried out in rounds.
        """
        if not batch.encode_short():
            return
        for node in list(batch.nodes):
            if node.ready:
                self._attempt(batch, node, lambda node: self._link(node).send())
        for link in list(self._links.values()):
            self._attempt(batch, link.flight, lambda _, link=link: link.receive_all())

    def _round(self, batch: ClusterBatch) -> None:
        moved = False
        watch = self._watched()
        for node in list(batch.nodes):
            link = self._links.get(node.number)
            if node.held_until is None and ((link is not None and link.blocked) or not batch.is_full(node)):
                moved |= self._attempt(batch, node, lambda node: self._advance(node, watch))
        wake = batch.wake()
        if wake is not None and time.monotonic() >= wake:
            self._refresh(batch.topology)
            batch.revive()
            moved = True
        if not moved and not batch.done:
            self._wait(batch, wake, watch)

    def _watched(self) -> Watch:
        """Return what watches the sockets of all links."""
        if self._watch is None:
            self._watch = Watch()
            for link in self._links.values():
                if link.polled:
                    self._watch.add(link.channel.socket, link)
        return self._watch

    def _attempt(self, batch: ClusterBatch, node: NodeFlight, step: Any) -> bool:
        """Do a step that may lose the node's connection. Return whether anything was done."""
        Forks.check(self._forks)
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

    def _advance(self, node: NodeFlight, watch: Watch) -> bool:
        if node.number not in self._links and not isinstance(node.poll(), Send):
            return False
        link = self._link(node)
        moved = link.advance()
        if link.polled:
            watch.writing(link.channel.socket, link.blocked)
        return moved

    def _link(self, node: NodeFlight) -> Link:
        """Return the node's link. Borrow a connection for it if it has none."""
        link = self._links.get(node.number)
        if link is None:
            client = self.client.get_redis_connection(node.node)
            link = self._links[node.number] = Link(node, client, self._max_value_size, self._forks)
            if link.polled and self._watch is not None:
                self._watch.add(link.channel.socket, link)
        return link

    def _forget(self, number: int) -> Link:
        link = self._links.pop(number)
        if link.polled and self._watch is not None:
            self._watch.remove(link.channel.socket)
        return link

    def _wait(self, batch: ClusterBatch, wake: float | None, watch: Watch) -> None:
        """Wait until a node can be read or written, or has sent nothing for too long, or it is time to wake."""
        public = [link for link in self._links.values() if not link.polled and link.flight.in_flight]
        if public:
            # The socket of such a connection is not known: it is read until it has answered.
            for link in public:
                self._attempt(batch, link.flight, lambda node, link=link: link.receive())
            return
        times = [when for when in (wake, *(link.deadline for link in self._links.values())) if when is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        readable: list[Link] = watch.wait(timeout)
        for link in readable:
            self._attempt(batch, link.flight, lambda node, link=link: link.receive())
        now = time.monotonic()
        if not readable or now - self._checked > CHECK_SECONDS:
            self._checked = now
            for link in list(self._links.values()):
                self._attempt(batch, link.flight, lambda node, link=link: link.expire())

    def _refresh(self, topology: Topology) -> None:
        """Let the client ask the cluster which node has which slot."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        try:
            redispy.refresh(self.client)
            topology.is_stale = False
        except (RedisError, RedisClusterException, OSError) as error:
            logger.debug("the cluster cannot be asked for its slots: %s", error)
        self._refreshed = time.monotonic()
        topology.renew()

    def _run_on_one(self, flight: OneSlotWrite) -> None:
        topology = topology_of(self.client)
        if topology.is_stale:
            self._refresh(topology)
        route = SlotRoute(topology, flight, max_outage_of(self.client))
        while True:
            try:
                with Lease(self.client.get_redis_connection(route.node()), self._max_value_size) as borrowed:
                    borrowed.run(flight)
                return
            except Redirected as refusal:
                seconds = route.redirected(refusal)
                if seconds:
                    time.sleep(seconds)
                    self._refresh(topology)
            except (ConnectionError, TimeoutError, OSError):
                route.lost()
                raise
