"""What depends on the version of Python: the layout of dicts, and locks that an interrupt leaves taken."""

from __future__ import annotations

import sys
import sysconfig
import threading
from typing import Any

import pytest

from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.replies import new_dict
from redis_fastbatch._core.runtime.rows import writes_directly
from redis_fastbatch._transports.redispy.cluster import Nodes, unlock_cluster

NEWEST = (3, 15)

private_layout = pytest.mark.skipif(
    sys.implementation.name != "cpython"
    or sys.version_info[:2] > NEWEST
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG"))
    or sys.platform == "win32",
    reason="this Python's layout is not used",
)


@private_layout
def test_values_of_rows_are_stored_directly() -> None:
    assert writes_directly()


@private_layout
@pytest.mark.parametrize("size", [100, 80_000, 100_000, 300_000])
def test_a_dict_is_made_with_room_for_its_keys(size: int) -> None:
    made = new_dict(size, "a key")
    room = sys.getsizeof(made)
    assert made == {}
    made.update((str(i), i) for i in range(size))
    assert sys.getsizeof(made) == room
    assert list(made) == [str(i) for i in range(size)]


class FakeManager:
    slots_cache: dict[int, list[Any]] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._initialization_lock = threading.RLock()


class FakeCluster:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.nodes_manager = FakeManager()


def can_be_taken(lock: Any) -> bool:
    """Return whether another thread can take a lock."""
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken[0]


def test_the_locks_of_a_cluster_that_an_interrupt_left_taken_are_released() -> None:
    client = FakeCluster()
    topology = Topology(Nodes(client))
    manager = client.nodes_manager
    locks = [client._lock, manager._lock, manager._initialization_lock, topology._lock]
    for lock in locks:
        lock.acquire()
    topology.reload()
    topology.unlock()
    unlock_cluster(client)
    assert all(map(can_be_taken, locks))
