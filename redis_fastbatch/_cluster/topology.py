"""Which node of a cluster has which slot, as redis-py's RedisCluster knows it and as redirections correct it."""

from __future__ import annotations

import itertools
import random
import threading
from array import array
from typing import Any

from redis.exceptions import AskError

from redis_fastbatch._core.resp.routed import Router
from redis_fastbatch._transports.redispy.cluster import Nodes, read_strategy
from redis_fastbatch._transports.redispy.sync import unlock

SLOTS = 16384


class Topology:
    """A cluster's nodes, by number, and a Router over them. No input or output happens here.

    All batches of a client share it, in all threads: a node keeps its number, and new nodes come at the end.

    Attributes:
        is_stale: it may be out of date, because a lost node or a redirection has ended a batch early. The next
            batch asks the cluster for its slots first.

    Args:
        known: the cluster's own view of its nodes.
        strategy: how reading is spread over a shard's nodes: the value of a redis-py LoadBalancingStrategy; None
            reads from masters.
    """

    def __init__(self, known: Nodes, strategy: str | None = None) -> None:
        self.nodes: list[Any] = []
        self.is_stale = False
        self._known = known
        self._strategy = strategy
        self._numbers: dict[str, int] = {}
        # Of a kind that its thread can take again: an interrupt may leave it taken in Python 3.14, see unlock().
        self._lock = threading.RLock()
        self._loaded: Any = None
        self.router = Router(array("h", bytes(2 * SLOTS)))
        self.reload()

    def renew(self) -> None:
        """Take the cluster's own view if it has changed."""
        if self._known.slots is not self._loaded:
            self.reload()

    def reload(self) -> None:
        """Take the cluster's own view, whatever redirections have said."""
        with self._lock:
            self._loaded = self._known.slots
            self.router.load(self._owners())

    def _owners(self) -> array[int]:
        owners = array("h", bytes(2 * SLOTS))
        # The slots of a shard share a list, or have equal ones: there are far fewer lists than slots.
        seen: dict[int, Any] = {}
        for slot, nodes in list(self._loaded.items()):
            choose = seen.get(id(nodes))
            if choose is None:
                choose = seen[id(nodes)] = itertools.cycle(self._choices(nodes))
            owners[slot] = next(choose)
        return owners

    def _choices(self, nodes: list[Any]) -> list[int]:
        """Return the numbers of the nodes that may be asked for the slots of a shard."""
        if self._strategy is None or len(nodes) == 1:
            return [self._number(nodes[0])]
        numbers = [self._number(node) for node in (nodes[1:] if "replica" in self._strategy else nodes)]
        if "random" in self._strategy:
            random.shuffle(numbers)
        return numbers

    def _number(self, node: Any) -> int:
        number = self._numbers.get(node.name)
        if number is None:
            number = self._numbers[node.name] = len(self.nodes)
            self.nodes.append(node)
        else:
            # After a refresh the node has a new object, with its present role.
            self.nodes[number] = node
        return number

    def target(self, redirection: AskError, answered: Any) -> int:
        """Return the number of the node that a redirection names.

        Args:
            redirection: MOVED or ASK.
            answered: the node that replied with it. A redirection without a host names that node's host.
        """
        host, port = self._known.address(redirection, answered)
        with self._lock:
            number = self._numbers.get(f"{host}:{port}")
            return self._number(self._known.at(host, port, answered)) if number is None else number

    def unlock(self) -> None:
        """Release the lock if this thread has it. Call it after an interrupt."""
        unlock(self._lock)


# A topology refers to nodes, and they refer to the client. As an attribute of the client it is freed with it. A
# WeakKeyDictionary would keep both for good.
HELD_AS = "_redis_fastbatch_topologies"


def topology_of(cluster: Any, *, reading: bool = False) -> Topology:
    """Return the topology of a RedisCluster, synchronous or asyncio, that is initialized.

    Args:
        cluster: the client.
        reading: use replicas too, if the client reads from them.
    """
    strategy = read_strategy(cluster) if reading else None
    by_strategy: dict[str | None, Topology] = vars(cluster).setdefault(HELD_AS, {})
    topology = by_strategy.get(strategy)
    if topology is None:
        topology = by_strategy[strategy] = Topology(Nodes(cluster), strategy)
    topology.renew()
    return topology
