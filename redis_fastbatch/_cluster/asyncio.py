"""Carries out batches over a cluster on an event loop: a task for each node.

The connections come from redis.asyncio's RedisCluster, whose nodes are their own pools.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError

from redis_fastbatch._cluster.flight import ClusterBatch
from redis_fastbatch._cluster.node import NodeFlight
from redis_fastbatch._cluster.slot_route import OneSlotWrite, Redirected, SlotRoute
from redis_fastbatch._cluster.sync import FINAL, REFRESH_SECONDS, max_outage_of
from redis_fastbatch._cluster.topology import Topology, topology_of
from redis_fastbatch._engine.flight import NO_LIMIT, Event, Send
from redis_fastbatch._transports.async_source import AsyncSource
from redis_fastbatch._transports.asyncio import AsyncLease, receive_some, wait_for_items
from redis_fastbatch._transports.loop_budget import LoopBudget, loop_pace
from redis_fastbatch._transports.redispy import cluster as redispy

logger = logging.getLogger("redis_fastbatch")


@contextlib.asynccontextmanager
async def node_lease(cluster: Any, node: Any, max_value_size: int) -> AsyncIterator[AsyncLease]:
    """Borrow a connection of one of a cluster's nodes."""
    async with redispy.borrow_from_node(node) as connection:
        yield AsyncLease(cluster, max_value_size, connection)


@contextlib.asynccontextmanager
async def cluster_lease(client: Any, max_value_size: int = 0) -> AsyncIterator[AsyncClusterLease]:
    """Yield an AsyncClusterLease for a redis.asyncio.RedisCluster. It borrows connections as it needs them."""
    await client.initialize()
    yield AsyncClusterLease(client, max_value_size)


class AsyncClusterLease:
    """Carries out flights over the nodes of a redis.asyncio.RedisCluster, as AsyncLease does over one connection.

    Args:
        client: the RedisCluster, initialized.
        max_value_size: as FastBatch takes it.
    """

    def __init__(self, client: Any, max_value_size: int = 0) -> None:
        self.client = client
        self._max_value_size = max_value_size
        self._refreshed = 0.0

    async def run(self, flight: Any, source: AsyncSource | None = None) -> None:
        """Carry out a flight: a ClusterBatch over all nodes, a OneSlotWrite over the node that has its slot.

        Args:
            flight: what to carry out.
            source: the flight's source, where that is asynchronous.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: a node was lost, and no other node
                took its slots over in time.
            asyncio.CancelledError: the task was cancelled. Connections with replies outstanding are closed.
        """
        if isinstance(flight, OneSlotWrite):
            await self._run_on_one(flight)
            return
        if flight.topology.is_stale:
            await self.refresh(flight.topology)
        try:
            if source is None:
                await self._begin(flight)
            if not flight.done:
                await ClusterTasks(self, flight, source).run()
        except BaseException as error:
            flight.topology.is_stale |= flight.stale
            flight.abort(error)
            raise
        if flight.stale:
            await self.refresh(flight.topology)
        flight.completed()

    async def _begin(self, batch: ClusterBatch) -> None:
        """Carry out a batch that has at most one short chunk for each node, without a task for each.

        For any other batch, do nothing. What redirections and lost nodes leave is carried out by tasks.
        """
        if not batch.encode_short():
            return
        exchanges = [NodeExchange(self, batch, node) for node in batch.nodes if node.ready]
        try:
            for each in exchanges:
                await each.attempt(each.send)
            for each in exchanges:
                await each.attempt(each.receive)
        except BaseException:
            for each in exchanges:
                await each.close()
            raise

    def node_lease(self, node: NodeFlight) -> Any:
        """Borrow a connection of a node. Return an async context manager."""
        return node_lease(self.client, node.node, self._max_value_size)

    async def refresh(self, topology: Topology) -> None:
        """Let the client ask the cluster which node has which slot."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        try:
            await redispy.refresh(self.client)
            topology.is_stale = False
        except (RedisError, RedisClusterException, OSError) as error:
            logger.debug("the cluster cannot be asked for its slots: %s", error)
        self._refreshed = time.monotonic()
        topology.renew()

    async def _run_on_one(self, flight: OneSlotWrite) -> None:
        topology = topology_of(self.client)
        if topology.is_stale:
            await self.refresh(topology)
        route = SlotRoute(topology, flight, max_outage_of(self.client))
        while True:
            try:
                async with node_lease(self.client, route.node(), self._max_value_size) as borrowed:
                    await borrowed.run(flight)
                return
            except Redirected as refusal:
                seconds = route.redirected(refusal)
                if seconds:
                    await asyncio.sleep(seconds)
                    await self.refresh(topology)
            except (ConnectionError, TimeoutError, OSError):
                route.lost()
                raise


class NodeExchange:
    """One short chunk for a node, and its replies.

    Args:
        lease: gives the connection.
        batch: the batch.
        node: the node's flight.
    """

    def __init__(self, lease: AsyncClusterLease, batch: ClusterBatch, node: NodeFlight) -> None:
        self._lease = lease
        self._batch = batch
        self._node = node
        self._borrowing = contextlib.AsyncExitStack()
        self._connection: Any = None
        self._channel: Any = None

    async def attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step. If that loses the node's connection, the batch decides whether to send the items again."""
        try:
            await step()
        except FINAL:
            raise
        except (ConnectionError, TimeoutError, OSError) as error:
            if self._batch.hook_raised:
                raise
            logger.debug("node %s was lost: %s", self._node.node.name, error)
            await self.close(lost=True)
            self._batch.lost(self._node, error)

    async def send(self) -> None:
        """Borrow a connection and send the chunk."""
        borrowed = await self._borrowing.enter_async_context(self._lease.node_lease(self._node))
        self._connection = borrowed.connection
        self._channel = await self._borrowing.enter_async_context(await borrowed.channel())
        event = self._node.poll()
        if isinstance(event, Send):
            await self._channel.send(event.chunk, self._node)

    async def receive(self) -> None:
        """Receive the replies and give the connection back. Do nothing if it was lost."""
        channel = self._channel
        if channel is None:
            return
        while self._node.in_flight:
            if channel.receive(self._node, NO_LIMIT):
                await channel.hand_on_pushes()
            else:
                await channel.arrival()
        await channel.finish()
        await self.close()

    async def close(self, *, lost: bool = False) -> None:
        """Give the connection back, if there is one. Close it before if it was lost or replies may still come."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and (lost or self._node.in_flight):
            await connection.disconnect(nowait=True)
        await self._borrowing.aclose()


class ClusterTasks:
    """The tasks of one batch: one for each node, and one that revives what has waited long enough.

    Args:
        lease: gives connections.
        batch: what to carry out.
        source: the batch's source, where that is asynchronous.
    """

    def __init__(self, lease: AsyncClusterLease, batch: ClusterBatch, source: AsyncSource | None) -> None:
        self._lease = lease
        self._batch = batch
        self._source = source
        self._news = asyncio.Event()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._encoding = loop_pace()
        # Cancelling the tasks is not enough: up to Python 3.11 asyncio.wait_for(), which redis-py calls when it
        # connects, may lose a cancellation.
        self._stopped = False

    @property
    def _is_over(self) -> bool:
        return self._stopped or self._batch.done

    async def run(self) -> None:
        """Carry out the batch. Raise what ends it early."""
        try:
            self._wake_all()
            await self._end
        finally:
            self._stopped = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Up to Python 3.10 a cancelled task keeps its frames, which refer to this object.
            self._tasks.clear()

    def _wake_all(self) -> None:
        """Let all tasks that wait look again: something has changed."""
        self._batch.know_nodes()
        while len(self._tasks) < len(self._batch.nodes) + 1:
            number = len(self._tasks) - 1
            work = self._revive() if number < 0 else self._serve(self._batch.nodes[number])
            self._tasks.append(asyncio.ensure_future(self._guarded(work)))
        if self._batch.done and not self._end.done():
            self._end.set_result(None)
        self._news.set()
        self._news = asyncio.Event()
        if self._source is not None:
            self._source.wake()

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except BaseException as error:
            if self._stopped and isinstance(error, asyncio.CancelledError):
                raise
            if not self._end.done():
                self._end.set_exception(error)

    async def _revive(self) -> None:
        """Hand chunks that have waited long enough to the nodes that have their slots now."""
        while not self._batch.done:
            wake = self._batch.wake()
            if wake is None:
                await self._news.wait()
                continue
            await asyncio.sleep(max(0.0, wake - time.monotonic()))
            await self._lease.refresh(self._batch.topology)
            self._batch.revive()
            self._wake_all()

    async def _serve(self, node: NodeFlight) -> None:
        while not self._is_over:
            if self._poll(node) in (Event.NEED_REPLIES, Event.IDLE, Event.DONE):
                if not self._is_over:
                    await self._news.wait()
                continue
            try:
                async with self._lease.node_lease(node) as borrowed:
                    await self._use(node, borrowed)
            except FINAL:
                raise
            except (ConnectionError, TimeoutError, OSError) as error:
                if self._batch.hook_raised:
                    raise
                logger.debug("node %s was lost: %s", node.node.name, error)
                self._batch.lost(node, error)
            self._wake_all()

    def _poll(self, node: NodeFlight) -> Send | Event:
        """Poll a node's flight. Wake the tasks of other nodes for which chunks were encoded on the way."""
        handed = self._batch.handed
        event = node.poll(self._encoding.items)
        if self._batch.handed != handed or self._batch.done:
            self._wake_all()
        return event

    async def _use(self, node: NodeFlight, borrowed: AsyncLease) -> None:
        """Use a connection from its first chunk until it is lost or the batch ends."""
        try:
            async with await borrowed.channel() as channel:
                await self._pump(node, channel)
                if self._stopped:
                    raise asyncio.CancelledError
                await channel.finish()
        except BaseException as error:
            if node.in_flight or not isinstance(error, asyncio.CancelledError):
                await borrowed.connection.disconnect(nowait=True)
            raise

    async def _pump(self, node: NodeFlight, channel: Any) -> None:
        encoding, decoding, budget = self._encoding, loop_pace(), LoopBudget()
        clock = time.perf_counter
        while not self._is_over and node.held_until is None:
            began = clock()
            event = self._poll(node)
            if isinstance(event, Send):
                encoding.took(clock() - began)
                await channel.send(event.chunk, node)
            elif event is Event.PAUSED:
                encoding.took(clock() - began)
            elif receive_some(channel, node, decoding):
                await channel.hand_on_pushes()
                self._wake_all()
            elif event is Event.NEED_ITEMS and self._source is not None:
                await wait_for_items(channel, node, self._source)
                budget.renew()
            elif event is Event.NEED_REPLIES:
                await channel.arrival()
                budget.renew()
            elif not self._is_over:
                await self._news.wait()
                budget.renew()
            await budget.yield_if_spent()
        self._wake_all()
