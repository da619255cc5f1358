"""Runs batches over a cluster with a fault proxy for each master."""

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

from faults import bench as single
from faults.bench import Blocking, Operation, Written, check_report, value_of, written_by
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault
from redis_fastbatch import AsyncFastBatch, FastBatch
from redis_fastbatch._core.resp.slots import key_slot
from servers import Cluster, slot_ranges

NODES = 3


def tags_of(cluster: Cluster) -> list[str]:
    """Return a {tag} for each master, all of the same length, so that commands to all masters are equally long."""
    ranges = slot_ranges(len(cluster.masters))
    slots = {letter: key_slot(letter.encode()) for letter in ascii_lowercase}
    return [
        next(f"{{{letter}}}" for letter, slot in slots.items() if first <= slot <= last) for first, last in ranges
    ]


class ReconnectingCluster(FastBatch):
    """A FastBatch over a cluster whose connections can be replaced and counted."""

    def reconnect_node(self, name: str) -> None:
        """Replace the connection to a node by a new one that has received a reply."""
        node = self._client.get_redis_connection(self._client.get_node(node_name=name))
        node.connection_pool.disconnect()
        node.ping()

    def borrowed(self) -> list[int]:
        """Return the number of borrowed connections of each node."""
        nodes = [node.redis_connection for node in self._client.get_nodes()]
        return [len(node.connection_pool._in_use_connections) for node in nodes if node]


class BlockingCluster(Blocking):
    """An AsyncFastBatch over a cluster with the methods of FastBatch."""

    def start(self) -> None:
        """Find the cluster's nodes."""
        self._loop.run_until_complete(self._batch.client.initialize())

    def reconnect_node(self, name: str) -> None:
        """Replace the connection to a node by a new one that has received a reply."""
        node = self._batch.client.get_node(node_name=name)
        self._loop.run_until_complete(node.disconnect())
        # A node uses the connection that was returned first, so keep only one.
        node._free.clear()
        del node._connections[1:]
        node._free.extend(node._connections)
        self._loop.run_until_complete(node.execute_command("PING"))

    def borrowed(self) -> list[int]:
        """Return the number of borrowed connections of each node."""
        # redis-py may still be returning connections that it has to reconnect.
        self._loop.run_until_complete(asyncio.sleep(0))
        nodes = self._batch.client.get_nodes()
        return [len(node._connections) - len(node._free) for node in nodes]


@dataclass
class ClusterBench:
    """A cluster, a proxy for each master, a client through the proxies, and observers without them.

    Attributes:
        cluster: the cluster.
        tags: the beginning of the keys of each master.
        proxies: the proxies of the masters, in order.
        observers: clients of the masters, in order.
        batch: the client.
        retries: the client's retries; with 0 it does not wait for a cluster that is down either.
    """

    cluster: Cluster
    tags: list[str]
    proxies: list[FaultProxy]
    observers: list[redis.Redis]
    batch: ReconnectingCluster | BlockingCluster
    retries: int

    @property
    def known(self) -> dict[str, Any]:
        """Items that are always stored, on all masters."""
        return {f"{tag}known:{i}": {"number": i, "tag": tag} for i in range(2) for tag in self.tags}

    def keys(self, count: int) -> list[str]:
        """Return new keys, for each master in turn."""
        trial = next(single._trials)
        return [f"{self.tags[i % NODES]}{trial:06}:{i}" for i in range(count)]

    def inject(self, fault: Fault, master: int) -> None:
        """Inject the fault into a new connection to a master, which the next batch uses."""
        single.injected += 1
        proxy = self.proxies[master]
        self.batch.reconnect_node(f"{proxy.host}:{proxy.port}")
        proxy.inject_now(fault)

    def traffic(self, run: Callable[[], object]) -> dict[Direction, bytes]:
        """Return the bytes in each direction, to and from one master, while something runs."""
        run()
        first = self.proxies[0]
        before = {direction: first.seen(direction) for direction in Direction}
        run()
        return {direction: first.recorded(direction)[before[direction] :] for direction in Direction}

    def release(self) -> None:
        """Release the streams that a fault has stalled."""
        for proxy in self.proxies:
            proxy.release()

    def check_connections(self) -> None:
        """Check that no connection is borrowed, and that all masters' replies are right."""
        assert self.batch.batch_get(self.known) == self.known
        assert list(self.batch.batch_get_iter([*self.known, "none"])) == [*self.known.items(), ("none", None)]
        assert not any(self.batch.borrowed())

    def stored(self, keys: list[str]) -> list[bytes | None]:
        """Return the stored values, read without the proxies."""
        found: dict[str, bytes | None] = {}
        for tag, observer in zip(self.tags, self.observers, strict=True):
            own = [key for key in keys if key.startswith(tag)]
            found.update(zip(own, observer.mget(own) if own else [], strict=True))
        return [found[key] for key in keys]

    def fill(self, keys: list[str]) -> None:
        """Store every key's own value on its master, without the proxies."""
        self._put({key: value_of(key) for key in keys})

    def know(self) -> None:
        """Store the known items."""
        self._put(self.known)

    def _put(self, items: dict[str, Any]) -> None:
        for tag, observer in zip(self.tags, self.observers, strict=True):
            observer.mset({key: msgpack.packb(value) for key, value in items.items() if key.startswith(tag)})


@contextmanager
def cluster_bench(
    cluster: Cluster, *, kind: str = "sync", retries: int = 0, timeout: float = 5.0, protocol: int = 2
) -> Iterator[ClusterBench]:
    """Make a bench over a cluster. Its replicas have no proxies.

    Args:
        cluster: the cluster.
        kind: "sync" or "asyncio".
        retries: the client's retries.
        timeout: the client's socket_timeout.
        protocol: 2 or 3.
    """
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(master.port, record=True)) for master in cluster.masters]
        observers = [stack.enter_context(master.client()) for master in cluster.masters]
        pairs = zip(cluster.masters, proxies, strict=True)
        remap = {(master.host, master.port): (proxy.host, proxy.port) for master, proxy in pairs}
        options: dict[str, Any] = {
            "host": proxies[0].host,
            "port": proxies[0].port,
            "address_remap": lambda address: remap.get(address, address),
            # One more than a batch needs, because redis-py may search for the masters during the batch.
            "max_connections": 2,
            "socket_timeout": timeout,
            "protocol": protocol,
        }
        batch = _client(kind, retries, options)
        stack.callback(batch.close)
        made = ClusterBench(cluster, tags_of(cluster), proxies, observers, batch, retries)
        made.know()
        made.check_connections()
        yield made


def _client(kind: str, retries: int, options: dict[str, Any]) -> ReconnectingCluster | BlockingCluster:
    if kind == "sync":
        return ReconnectingCluster(redis.RedisCluster(retry=Retry(NoBackoff(), retries), **options))
    retry = redis.asyncio.retry.Retry(NoBackoff(), retries)
    loop = asyncio.new_event_loop()

    async def connect() -> AsyncFastBatch:
        return AsyncFastBatch(redis.asyncio.RedisCluster(retry=retry, **options))

    batch = BlockingCluster(loop.run_until_complete(connect()), loop)
    batch.start()
    return batch


def write(ready: ClusterBench, operation: Operation, keys: list[str], chunk_size: int = 1) -> Written:
    """Run a batch_set, and return its report and error."""
    items = ((key, value_of(key)) for key in keys)
    return written_by(lambda: ready.batch.batch_set(items, chunk_size=chunk_size, **operation.options))


def check_written(
    ready: ClusterBench, operation: Operation, keys: list[str], written: Written, real_replies: bool = True
) -> None:
    """Check the report of a batch_set, see check_report()."""
    own = [msgpack.packb(value_of(key)) for key in keys]
    check_report(operation, keys, written, ready.stored(keys), own, real_replies)
