"""Which node of a cluster has which slot, as redis-py's RedisCluster knows it and as redirections correct it."""

from __future__ import annotations

import itertools
import random
import threading
from array import array
from typing import Any

from redis.exceptions import AskError

from redis_fastbatch._core.resp.routed import Router

SLOTS = 16384


class Topology:
    """A cluster's nodes, by number, and a Router over them. No input or output happens here.

    It is shared by all batches of a client, in all threads: numbers stay what they are, and new nodes are added
    at the end.

    Attributes:
        doubted: a batch ended early over a lost node or a redirection: the cluster should be asked for its slots
            before the next one.

    Args:
        manager: the NodesManager of a RedisCluster that is initialized.
        strategy: how reading is spread over a shard's nodes: the value of a redis-py LoadBalancingStrategy; None
            reads from masters.
    """

    def __init__(self, manager: Any, strategy: str | None = None) -> None:
        self.nodes: list[Any] = []
        self.doubted = False
        self._manager = manager
        self._strategy = strategy
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._loaded: Any = None
        self.router = Router(array("h", bytes(2 * SLOTS)))
        self.reload()

    def renew(self) -> None:
        """Takes the cluster's own view where that is another than before."""
        if self._manager.slots_cache is not self._loaded:
            self.reload()

    def reload(self) -> None:
        """Takes the cluster's own view, whatever redirections have said."""
        with self._lock:
            self._loaded = self._manager.slots_cache
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
        host, port = redirection.host or answered.host, int(redirection.port)
        host, port = self._manager.remap_host_port(host, port)
        with self._lock:
            known = self._numbers.get(f"{host}:{port}")
            if known is not None:
                return known
            return self._number(self._manager.get_node(host=host, port=port) or _like(answered, host, port))


# A topology refers to nodes, and they to the client. In the client's own hands it ends with it: a
# WeakKeyDictionary would keep both for good.
HELD_AS = "_redis_fastbatch_topologies"


def topology_of(cluster: Any, *, reading: bool = False) -> Topology:
    """The topology of a RedisCluster, synchronous or asyncio, that is initialized.

    Args:
        cluster: the client.
        reading: from replicas too, where the client was told so.
    """
    manager = cluster.nodes_manager
    strategy = _read_strategy(cluster) if reading else None
    by_strategy: dict[str | None, Topology] = vars(cluster).setdefault(HELD_AS, {})
    topology = by_strategy.get(strategy)
    if topology is None:
        topology = by_strategy[strategy] = Topology(manager, strategy)
    topology.renew()
    return topology


def _like(node: Any, host: str, port: int) -> Any:
    """A node that the cluster's manager has not heard of yet."""
    settings = getattr(node, "connection_kwargs", None)
    if settings is None:
        return type(node)(host, port, "primary")
    # redis.asyncio's nodes are their own pools.
    others = {name: value for name, value in settings.items() if name not in ("host", "port")}
    return type(node)(
        host,
        port,
        "primary",
        max_connections=node.max_connections,
        connection_class=node.connection_class,
        **others,
    )


def _read_strategy(cluster: Any) -> str | None:
    """How the cluster's client spreads what it reads: the value of a LoadBalancingStrategy, or None."""
    strategy = getattr(cluster, "load_balancing_strategy", None)
    if strategy is not None:
        return str(strategy.value)
    return "round_robin" if cluster.read_from_replicas else None
