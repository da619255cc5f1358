"""Batches over a cluster whose every master is behind a proxy of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import msgpack
import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

from faults import bench as books
from faults.bench import Blocking, Operation, Written, check_books, told_of, value_of
from faults.proxy import Direction, Fault, FaultProxy
from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch._core.resp.slots import key_slot
from servers import Cluster, slot_ranges

NODES = 3


def tags_of(cluster: Cluster) -> list[str]:
    """A {tag} for each master, all of one length, so that the same bytes pass to and from all of them."""
    ranges = slot_ranges(len(cluster.masters))
    slots = {letter: key_slot(letter.encode()) for letter in ascii_lowercase}
    return [
        next(f"{{{letter}}}" for letter, slot in slots.items() if first <= slot <= last) for first, last in ranges
    ]


class PlainCluster(FastBatch):
    """FastBatch over a cluster, whose connections can be renewed and counted."""

    def reconnect_node(self, name: str) -> None:
        """The next batch has a new connection to a node, over which a reply has come already."""
        node = self._client.get_redis_connection(self._client.get_node(node_name=name))
        node.connection_pool.disconnect()
        node.ping()

    def borrowed(self) -> list[int]:
        """How many connections of each node are not in its pool."""
        nodes = [node.redis_connection for node in self._client.get_nodes()]
        return [len(node.connection_pool._in_use_connections) for node in nodes if node]


class BlockingCluster(Blocking):
    """AsyncFastBatch over a cluster with the methods of FastBatch."""

    def start(self) -> None:
        """Find the cluster's nodes."""
        self._loop.run_until_complete(self._batch.client.initialize())

    def reconnect_node(self, name: str) -> None:
        """The next batch has a new connection to a node, over which a reply has come already."""
        node = self._batch.client.get_node(node_name=name)
        self._loop.run_until_complete(node.disconnect())
        # Nodes take the connection that was given back first, which need not be the one that is made here.
        node._free.clear()
        del node._connections[1:]
        node._free.extend(node._connections)
        self._loop.run_until_complete(node.execute_command("PING"))

    def borrowed(self) -> list[int]:
        """How many connections of each node are not in its pool."""
        # redis-py may still be giving back what it was told to connect anew.
        self._loop.run_until_complete(asyncio.sleep(0))
        nodes = self._batch.client.get_nodes()
        return [len(node._connections) - len(node._free) for node in nodes]


@dataclass
class ClusterBench:
    """A cluster, a proxy before each master, a client through those, and one of each master past them.

    Attributes:
        cluster: the cluster.
        tags: what the keys of each master begin with.
        proxies: of the masters, in their order.
        lookers: of the masters too.
        batch: the client.
        retries: its own; none means that it does not wait for the cluster to become sound either.
    """

    cluster: Cluster
    tags: list[str]
    proxies: list[FaultProxy]
    lookers: list[redis.Redis]
    batch: PlainCluster | BlockingCluster
    retries: int

    @property
    def known(self) -> dict[str, Any]:
        """What is always there, on all masters."""
        return {f"{tag}known:{i}": {"number": i, "tag": tag} for i in range(2) for tag in self.tags}

    def keys(self, count: int) -> list[str]:
        """Keys that no trial has had before, of all masters in turn."""
        trial = next(books._trials)
        return [f"{self.tags[i % NODES]}{trial:06}:{i}" for i in range(count)]

    def inject(self, fault: Fault, master: int) -> None:
        """Give the fault to a new connection to a master, which the next batch takes."""
        books.injected += 1
        proxy = self.proxies[master]
        self.batch.reconnect_node(f"{proxy.host}:{proxy.port}")
        proxy.inject_now(fault)

    def traffic(self, run: Callable[[], object]) -> dict[Direction, int]:
        """Bytes that pass, in either direction, to and from a master while something runs."""
        run()
        before = {direction: self.proxies[0].seen(direction) for direction in Direction}
        run()
        return {direction: self.proxies[0].seen(direction) - before[direction] for direction in Direction}

    def release(self) -> None:
        """Release the streams that a fault has stalled."""
        for proxy in self.proxies:
            proxy.release()

    def check_connections(self) -> None:
        """Faults have left no connection borrowed, and all masters answer what they are asked."""
        assert self.batch.batch_get(self.known) == self.known
        assert list(self.batch.batch_get_iter([*self.known, "none"])) == [*self.known.items(), ("none", None)]
        assert not any(self.batch.borrowed())

    def stored(self, keys: list[str]) -> list[bytes | None]:
        """What the masters have, by connections that no fault touches."""
        found: dict[str, bytes | None] = {}
        for tag, looker in zip(self.tags, self.lookers, strict=True):
            own = [key for key in keys if key.startswith(tag)]
            found.update(zip(own, looker.mget(own) if own else [], strict=True))
        return [found[key] for key in keys]

    def fill(self, keys: list[str]) -> None:
        """Put every key's own value where it belongs, past the proxies."""
        self._put({key: value_of(key) for key in keys})

    def know(self) -> None:
        """Store the keys that are always there."""
        self._put(self.known)

    def _put(self, items: dict[str, Any]) -> None:
        for tag, looker in zip(self.tags, self.lookers, strict=True):
            looker.mset({key: msgpack.packb(value) for key, value in items.items() if key.startswith(tag)})


@contextmanager
def cluster_bench(
    cluster: Cluster, *, kind: str = "sync", retries: int = 0, timeout: float = 5.0, protocol: int = 2
) -> Iterator[ClusterBench]:
    """A bench over a cluster, whose replicas are reached past the proxies.

    Args:
        cluster: the cluster.
        kind: "sync" or "asyncio".
        retries: the client's.
        timeout: the client's socket_timeout.
        protocol: 2 or 3.
    """
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(master.port)) for master in cluster.masters]
        lookers = [stack.enter_context(master.client()) for master in cluster.masters]
        pairs = zip(cluster.masters, proxies, strict=True)
        remap = {(master.host, master.port): (proxy.host, proxy.port) for master, proxy in pairs}
        options: dict[str, Any] = {
            "host": proxies[0].host,
            "port": proxies[0].port,
            "address_remap": lambda address: remap.get(address, address),
            # One more than a batch has: where redis-py looks for the masters amid one, it takes another.
            "max_connections": 2,
            "socket_timeout": timeout,
            "protocol": protocol,
        }
        batch = _client(kind, retries, options)
        stack.callback(batch.close)
        made = ClusterBench(cluster, tags_of(cluster), proxies, lookers, batch, retries)
        made.know()
        made.check_connections()
        yield made


def _client(kind: str, retries: int, options: dict[str, Any]) -> PlainCluster | BlockingCluster:
    if kind == "sync":
        return PlainCluster(redis.RedisCluster(retry=Retry(NoBackoff(), retries), **options))
    retry = redis.asyncio.retry.Retry(NoBackoff(), retries)
    loop = asyncio.new_event_loop()

    async def connect() -> AsyncFastBatch:
        return AsyncFastBatch(redis.asyncio.RedisCluster(retry=retry, **options))

    batch = BlockingCluster(loop.run_until_complete(connect()), loop)
    batch.start()
    return batch


def write(ready: ClusterBench, operation: Operation, keys: list[str], chunk_size: int = 1) -> Written:
    """Run a batch_set, with any outcome."""
    items = ((key, value_of(key)) for key in keys)
    return told_of(lambda: ready.batch.batch_set(items, chunk_size=chunk_size, **operation.options))


def check_written(
    ready: ClusterBench, operation: Operation, keys: list[str], told: Written, truthful: bool = True
) -> None:
    """The books of a batch_set are right, see check_books()."""
    own = [msgpack.packb(value_of(key)) for key in keys]
    check_books(operation, keys, told, ready.stored(keys), own, truthful)
