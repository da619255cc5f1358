"""Batches over a cluster. The flights of its nodes are fed with bytes in memory."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ClusterDownError, InvalidResponse, MovedError

from flights import (
    CODEC,
    HIGH,
    KEYS,
    LOST,
    LOW,
    OK,
    SET,
    Driver,
    moved,
    outcome,
    two_nodes,
    writer,
)
from redis_fastbatch._cluster import flight as limits
from redis_fastbatch._cluster.count import ClusterCount
from redis_fastbatch._cluster.factory import GET, UNLINK
from redis_fastbatch._cluster.read import ClusterRead
from redis_fastbatch._cluster.slot_route import OneSlotWrite, Redirected, SlotRoute
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._cluster.write import ClusterWrite
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.routed import RoutedWriter, slot_of_key
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import Event
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import CountOutcome, ReadOutcome


def routed(items: Any, command: Command, topology: Topology, **more: Any) -> RoutedWriter:
    return RoutedWriter(items, command, CODEC, topology.router, max_items=1000, max_bytes=64 * 1024, **more)


def write(items: Any, command: Command = SET, **options: Any) -> tuple[ClusterWrite, list[Driver]]:
    topology = two_nodes()
    batch = ClusterWrite(routed(items, command, topology), topology, outcome(), max_outage=30.0, **options)
    return batch, [Driver(node) for node in batch.nodes]


def read(keys: Any) -> tuple[ClusterRead, list[Driver], dict[str, Any]]:
    topology, found = two_nodes(), dict[str, Any]()
    encoder = routed(keys, GET, topology, found=found)
    batch = ClusterRead(encoder, topology, CODEC, found, ReadOutcome(CODEC), ReadOptions(), max_outage=30.0)
    return batch, [Driver(node) for node in batch.nodes], found


def values(*found: int) -> bytes:
    return b"".join(b"$1\r\n%c\r\n" % value for value in found)


def test_each_node_gets_its_items() -> None:
    batch, (low, high) = write(dict.fromkeys(KEYS, 1))
    assert low.send_all() == ([b"SET"] * len(LOW), Event.NEED_REPLIES)
    assert high.send_all() == ([b"SET"] * len(HIGH), Event.NEED_REPLIES)
    low.receive(OK * len(LOW))
    assert low.flight.poll() is Event.IDLE
    high.receive(OK * len(HIGH))
    assert low.flight.poll() is Event.DONE
    assert batch.done
    assert batch.outcome.report.written == batch.confirmed_prefix() == len(KEYS)


def test_a_moved_item_goes_to_its_new_node() -> None:
    batch, (low, high) = write(dict.fromkeys(LOW, 1))
    low.send_all()
    low.receive(OK + moved(LOW[1], 7001) + OK * (len(LOW) - 2))
    assert batch.stale
    assert batch.outcome.report.written == len(LOW) - 1
    assert high.send_all() == ([b"SET"], Event.NEED_REPLIES)
    high.receive(OK)
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_an_item_of_a_moving_slot_is_sent_after_asking() -> None:
    batch, (low, high) = write(dict.fromkeys(LOW, 1))
    low.send_all()
    low.receive(moved(LOW[0], 7001, b"ASK") + OK * (len(LOW) - 1))
    assert high.send_all() == ([b"ASKING", b"SET"], Event.NEED_REPLIES)
    high.receive(OK * 2)
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_an_item_waits_while_the_cluster_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FIRST_DELAY", 0.0)
    batch, (low, _) = write({LOW[0]: 1})
    low.send_all()
    low.receive(b"-CLUSTERDOWN the cluster is down\r\n")
    assert not batch.done
    assert low.flight.poll() is Event.IDLE
    assert batch.wake() is not None
    batch.revive()
    assert low.send_all() == ([b"SET"], Event.NEED_REPLIES)
    low.receive(OK)
    assert batch.done


def test_a_lost_node_gets_unconfirmed_items_again() -> None:
    batch, (low, _) = write(dict.fromkeys(LOW, 1))
    low.send_all()
    low.receive(OK)
    batch.lost(low.flight, LOST)
    assert batch.outcome.report.written == 1
    assert low.flight.poll() is Event.IDLE
    low.flight.held_until = 0.0
    batch.revive()
    again = Driver(low.flight)
    assert again.send_all() == ([b"SET"] * (len(LOW) - 1), Event.NEED_REPLIES)
    again.receive(OK * (len(LOW) - 1))
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_items_with_conditions_are_not_sent_to_a_lost_node_again() -> None:
    batch, (low, _) = write(dict.fromkeys(LOW, 1), Command(b"SET", many=False, tail=(b"NX",)), repeatable=False)
    low.send_all()
    low.receive(OK + b"$-1\r\n")
    batch.lost(low.flight, LOST)
    report = batch.outcome.report
    assert (report.written, report.skipped, report.failed) == (1, 1, len(LOW) - 2)
    assert all(str(error).startswith("outcome unknown") for error in report.failures.values())
    assert batch.done


def test_an_abort_reports_each_item_once() -> None:
    batch, (low, high) = write(dict.fromkeys(KEYS, 1))
    low.send_all()
    low.receive(OK)
    assert not isinstance(high.flight.poll(), Event)
    batch.abort(LOST)
    report = batch.outcome.report
    assert (report.written, report.failed) == (1, len(KEYS) - 1)
    unsent = {key for key, error in report.failures.items() if str(error).startswith("not sent")}
    assert unsent == set(HIGH)


def test_an_impossible_reply_to_set_is_an_error() -> None:
    batch, (low, _) = write(dict.fromkeys(LOW, 1))
    low.send_all()
    with pytest.raises(InvalidResponse):
        low.receive(OK + b":1\r\n")
    batch.abort(InvalidResponse("no"))
    assert (batch.outcome.report.written, batch.outcome.report.failed) == (1, len(LOW) - 1)


def test_values_of_two_nodes_keep_the_order_of_the_keys() -> None:
    batch, (low, high), found = read(KEYS)
    low.send_all()
    high.send_all()
    low.receive(values(*range(len(LOW))))
    high.receive(values(*range(len(HIGH))))
    assert batch.done
    assert found == {**{key: i for i, key in enumerate(LOW)}, **{key: i for i, key in enumerate(HIGH)}}
    assert list(found) == KEYS


def test_a_moved_value_and_a_moving_value_are_read_from_the_new_node() -> None:
    batch, (low, high), found = read(LOW[:3])
    low.send_all()
    low.receive(values(7) + moved(LOW[1], 7001) + moved(LOW[2], 7001, b"ASK"))
    assert high.send_all() == ([b"GET", b"ASKING", b"GET"], Event.NEED_REPLIES)
    high.receive(values(8) + OK + values(9))
    assert batch.done
    assert list(found.values()) == [7, 8, 9]


def test_counts_of_two_nodes_are_added_up() -> None:
    topology = two_nodes()
    batch = ClusterCount(routed(KEYS, UNLINK, topology), topology, CountOutcome(), max_outage=30.0)
    low, high = (Driver(node) for node in batch.nodes)
    low.send_all()
    high.send_all()
    low.receive(b":1\r\n" * len(LOW))
    high.receive(b":0\r\n" * len(HIGH))
    assert batch.done
    assert batch.outcome.total == len(LOW)


def one_slot_write(max_outage: float = 30.0) -> tuple[OneSlotWrite, SlotRoute, Topology]:
    topology = two_nodes()
    options = SetOptions(atomic=True)
    encoder = writer({LOW[0]: 1}, options.command(msetex=False))
    slot = slot_of_key(LOW[0], "utf-8", "strict")
    batch = OneSlotWrite(slot, encoder, options.single, outcome(), repeatable=False)
    return batch, SlotRoute(topology, batch, max_outage), topology


def test_an_atomic_batch_follows_a_redirection() -> None:
    batch, route, topology = one_slot_write()
    assert route.node() is topology.nodes[0]
    driver = Driver(batch)
    driver.send_all()
    with pytest.raises(Redirected) as refusal:
        driver.receive(moved(LOW[0], 7001))
    batch.abort(refusal.value)
    assert route.redirected(refusal.value) == 0.0
    assert route.node() is topology.nodes[1]
    again = Driver(batch)
    assert again.send_all() == ([b"MSET"], Event.NEED_REPLIES)
    again.receive(OK)
    assert (batch.poll(), batch.report.written) == (Event.DONE, 1)


def test_an_atomic_batch_waits_longer_each_time_and_then_gives_up() -> None:
    _, route, topology = one_slot_write()
    node = route.node()
    down = Redirected(ClusterDownError("down"))
    waits = [route.redirected(down) for _ in range(8)]
    assert waits[0] == limits.FIRST_DELAY
    assert waits == sorted(waits)
    assert waits[-1] == limits.MAX_DELAY
    assert route.node() is node
    _, route, topology = one_slot_write(max_outage=-1.0)
    with pytest.raises(ClusterDownError):
        route.redirected(down)
    assert topology.is_stale


def test_an_atomic_batch_waits_after_too_many_redirections() -> None:
    _, route, _ = one_slot_write()
    there, back = (
        Redirected(MovedError(f"{slot_of_key(LOW[0], 'utf-8', 'strict')} 127.0.0.1:{port}"))
        for port in (7001, 7000)
    )
    for hop in range(limits.MAX_HOPS):
        route.node()
        assert route.redirected(back if hop % 2 else there) == 0.0
    assert route.redirected(there) == limits.FIRST_DELAY
