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

SLOTS = 16384


class Topology:
    """A cluster's nodes, by number, and a Router over them. No input or output happens here.

    It is shared by all batches of a client, in all threads: numbers stay what they are, and new nodes are added
    at the end.

    Attributes:
        doubted: a batch ended early over a lost node or a redirection: the cluster should be asked for its slots
            before the next one.

    Args:
        known: the cluster's own view of its nodes.
        strategy: how reading is spread over a shard's nodes: the value of a redis-py LoadBalancingStrategy; None
            reads from masters.
    """

    def __init__(self, known: Nodes, strategy: str | None = None) -> None:
        self.nodes: list[Any] = []
        self.doubted = False
        self._known = known
        self._strategy = strategy
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._loaded: Any = None
        self.router = Router(array("h", bytes(2 * SLOTS)))
        self.reload()

    def renew(self) -> None:
        """Takes the cluster's own view where that is another than before."""
        if self._known.slots is not self._loaded:
            self.reload()

    def reload(self) -> None:
        """Takes the cluster's own view, whatever redirections have said."""
        with self._lock:
            self._loaded = self._known.slots
            self.router.load(self._owners())

    def _owners(self) -> array[int]:
        owners = array("h", bytes(2 * SLOTS))
        # Slots of one shard share a list, or have lists that are equal: far fewer than there are slots.
        seen: dict[int, Any] = {}
        for slot, nodes in list(self._loaded.items()):
            choose = seen.get(id(nodes))
            if choose is None:
                choose = seen[id(nodes)] = itertools.cycle(self._choices(nodes))
            owners[slot] = next(choose)
        return owners

    def _choices(self, nodes: list[Any]) -> list[int]:
        """The numbers of the nodes that may be asked for the slots of a shard; its master comes first."""
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
            # After a refresh there is a new object for it, with its present role.
            self.nodes[number] = node
        return number

    def target(self, redirection: AskError, answered: Any) -> int:
        """The number of the node that a redirection names.

        Args:
            redirection: MOVED or ASK.
            answered: the node that replied with it. Without a host it means the same one.
        """
        host, port = self._known.address(redirection, answered)
        with self._lock:
            number = self._numbers.get(f"{host}:{port}")
            return self._number(self._known.at(host, port, answered)) if number is None else number


# A topology refers to nodes, and they to the client. In the client's own hands it ends with it: a
# WeakKeyDictionary would keep both for good.
HELD_AS = "_redis_fastbatch_topologies"


def topology_of(cluster: Any, *, reading: bool = False) -> Topology:
    """The topology of a RedisCluster, synchronous or asyncio, that is initialized.

    Args:
        cluster: the client.
        reading: from replicas too, where the client was told so.
    """
    strategy = read_strategy(cluster) if reading else None
    by_strategy: dict[str | None, Topology] = vars(cluster).setdefault(HELD_AS, {})
    topology = by_strategy.get(strategy)
    if topology is None:
        topology = by_strategy[strategy] = Topology(Nodes(cluster), strategy)
    topology.renew()
    return topology
