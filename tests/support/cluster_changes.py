"""Changes to a cluster while tests write to it: slots that move."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from redis_fastbatch._core.resp.slots import key_slot
from redis_fastbatch.server import EmbeddedServer
from servers import SLOTS, Cluster, wait_until


def tags_of(slots: range) -> dict[int, str]:
    """Return a {tag} for each slot, by slot. Keys with the tag belong to the slot."""
    found: dict[int, str] = {}
    for n in itertools.count():
        slot = key_slot(b"%d" % n)
        if slot in slots and slot not in found:
            found[slot] = f"{{{n}}}"
            if len(found) == len(slots):
                return found
    raise AssertionError


def first_slots(cluster: Cluster, master: int, count: int) -> range:
    """Return the first slots that a master had when the cluster started."""
    start = SLOTS * master // len(cluster.masters)
    return range(start, start + count)


class SlotMove:
    """Moves a slot from one master to another, step by step."""

    def __init__(self, cluster: Cluster, slot: int, source: EmbeddedServer, target: EmbeddedServer) -> None:
        self.slot = slot
        self._nodes = [node for node in cluster.masters if node.running]
        self._source, self._target = source, target
        self._source_id, self._target_id = cluster.node_id(source), cluster.node_id(target)

    def begin(self) -> None:
        """Begin. After this the source answers with ASK for keys that it does not have."""
        self._setslot(self._target, "IMPORTING", self._source_id)
        self._setslot(self._source, "MIGRATING", self._target_id)

    def move_keys(self) -> None:
        """Move all keys that the source has at the moment."""
        with self._source.client() as client:
            while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 100):
                client.execute_command(
                    "MIGRATE", self._target.host, self._target.port, "", 0, 5000, "REPLACE", "KEYS", *keys
                )

    def end(self) -> None:
        """Give the slot to the target. After this the source answers with MOVED."""
        for node in (self._target, self._source, *self._nodes):
            self._setslot(node, "NODE", self._target_id)

    def run(self) -> None:
        """Carry out all steps."""
        self.begin()
        self.move_keys()
        self.end()

    def _setslot(self, node: EmbeddedServer, *arguments: str) -> None:
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", self.slot, *arguments)


@contextmanager
def resharding(cluster: Cluster, slots: range, source: int, target: int) -> Iterator[None]:
    """Move slots to another master and back, in another thread. At the end they are where they were."""
    stopping = threading.Event()
    problems: list[BaseException] = []
    here, there = cluster.masters[source], cluster.masters[target]

    def run() -> None:
        try:
            for origin, destination in itertools.cycle([(here, there), (there, here)]):
                for slot in slots:
                    SlotMove(cluster, slot, origin, destination).run()
                if stopping.is_set() and destination is here:
                    return
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(120)
    assert not problems, problems


def wait_until_replicated(master: EmbeddedServer) -> None:
    """Wait until a master's replica has confirmed all earlier writes."""
    with master.client() as client:

        def confirmed() -> bool:
            return int(client.execute_command("WAIT", 1, 1000)) >= 1

        wait_until(confirmed, "the replica has all writes")


def calls(node: EmbeddedServer, command: str) -> int:
    """Return how often a node has executed a command."""
    with node.client() as client:
        stats: Any = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def redirections(cluster: Cluster) -> int:
    """Return how often the masters have answered with MOVED or ASK."""
    total = 0
    for node in cluster.masters:
        with node.client() as client:
            stats: Any = client.info("errorstats")
        total += sum(int(stats.get(f"errorstat_{kind}", {"count": 0})["count"]) for kind in ("MOVED", "ASK"))
    return total


def keys_in(node: EmbeddedServer, slot: int) -> int:
    """Return the number of keys that a node has in a slot."""
    with node.client() as client:
        return int(client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot))


def reading(strategy: str) -> dict[str, Any]:
    """Return the arguments with which a RedisCluster reads from replicas by a load balancing strategy."""
    if strategy == "round_robin":
        return {"read_from_replicas": True}
    if not hasattr(redis.cluster, "LoadBalancingStrategy"):
        pytest.skip("this redis-py has no load balancing strategies")
    return {"load_balancing_strategy": redis.cluster.LoadBalancingStrategy(strategy)}
