"""Hashes whose connection is lost at every place, or whose server answers wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.exceptions import InvalidResponse

from faults.answers import ATTRIBUTE, ERRORS, GARBAGE, PUSH
from faults.bench import EXPECTED_ERRORS, Bench, Operation, Written, bench, check_report, value_of, written_by
from faults.cluster_bench import NODES, ClusterBench, cluster_bench
from faults.matrix import DIRECTIONS, KINDS, RETRIES, ending, in_turn, places
from faults.streams import Direction, Fault
from redis_fastbatch._cluster import flight as cluster_flight
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

COUNT = 6  # with two items in a command

WRITES = [Operation("hset", "batch_hset"), Operation("hset ex", "batch_hset", {"ex": 1000})]
READS = [
    Operation("hgetall", "batch_hgetall"),
    Operation("hmget", "batch_hmget"),
    Operation("hgetall iter", "batch_hgetall_iter"),
    Operation("table of hashes", "batch_get_table"),
]
BATCHES = [*WRITES, *READS]
AnyBench = Bench | ClusterBench


@pytest.fixture
def make(valkey: EmbeddedServer) -> Iterator[Callable[..., Bench]]:
    """Return a function that makes a bench. Close the benches at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(bench(valkey, **options))


def observer_of(ready: AnyBench, key: str) -> redis.Redis:
    """Return a client of the server that has a key, without the proxies."""
    if isinstance(ready, Bench):
        return ready.observer
    return dict(zip(ready.tags, ready.observers, strict=True))[key[: len(ready.tags[0])]]


def hashes_in(ready: AnyBench, keys: list[str]) -> list[Any]:
    """Return the stored hashes, read without the proxies; None for a missing one."""
    return [observer_of(ready, key).hgetall(key) or None for key in keys]


def own_hashes(keys: list[str]) -> list[Any]:
    return [{name.encode(): text.encode() for name, text in value_of(key).items()} for key in keys]


def run(ready: AnyBench, operation: Operation, keys: list[str], real_replies: bool = True) -> Exception | None:
    """Run an operation, check its report or result, and return the error it raised."""
    if operation in READS:
        return run_read(ready, operation, keys)
    written: Written = written_by(
        lambda: ready.batch.batch_hset({key: value_of(key) for key in keys}, chunk_size=2, **operation.options)
    )
    check_report(operation, keys, written, hashes_in(ready, keys), own_hashes(keys), real_replies)
    if real_replies and "ex" in operation.options:
        expiring = [key for key in keys[: written.report.total] if key not in written.report.failures]
        assert all(1 <= observer_of(ready, key).ttl(key) <= 1000 for key in expiring)
    return written.error


def fill(ready: AnyBench, keys: list[str]) -> None:
    for key in keys:
        observer_of(ready, key).hset(key, mapping=value_of(key))


def run_read(ready: AnyBench, operation: Operation, keys: list[str]) -> Exception | None:
    """Read hashes, check that each key has its own, and return the error."""
    fill(ready, keys)
    found: dict[str, Any] = {}
    error: Exception | None = None
    read: Any = getattr(ready.batch, operation.method)
    try:
        if operation.method == "batch_hmget":
            found = read([*keys, "none"], ["of", "text"], types=str)
        elif operation.method == "batch_get_table":
            rows = read([*keys, "none"], as_="hash", columns=["of", "text"], key="key").to_pylist()
            found = {row.pop("key"): row if row["of"] else None for row in rows}
        elif operation.method == "batch_hgetall":
            found = read([*keys, "none"], types=str)
        else:
            for key, row in read([*keys, "none"], types=str, chunk_size=3):
                found[key] = row
    except EXPECTED_ERRORS as failure:
        error = failure
    expected = {**{key: value_of(key) for key in keys}, "none": None}
    assert list(found.items()) == list(expected.items())[: len(found)]
    assert error is not None or len(found) == len(expected)
    return error


def replies_of(operation: Operation) -> int:
    """Return the number of top-level replies to a batch of COUNT items; each of the reads has one item more."""
    return 2 * COUNT if "ex" in operation.options else COUNT


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_a_cut_at_any_place_is_reported_right(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(kind=kind, retries=retries)
    traffic = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))
    for place in places(traffic, direction, kind, retries):
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        error = run(ready, operation, ready.keys(COUNT))
        assert error is None or not retries
        ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_an_error_reply_at_any_place_is_reported(
    make: Callable[..., Bench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind)
    run(ready, operation, ready.keys(COUNT))
    for number, (line, _, _) in enumerate(ERRORS.values()):
        for place in in_turn(range(replies_of(operation)), number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
            run(ready, operation, ready.keys(COUNT), real_replies=False)
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply_is_an_error(
    make: Callable[..., Bench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind)
    run(ready, operation, ready.keys(COUNT))
    wanted = range(replies_of(operation)) if kind == "sync" else [0]
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        if name == "empty array" and operation.method.startswith("batch_hgetall"):
            # It is the reply for a missing key.
            continue
        for place in in_turn(wanted, number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage))
            error = run(ready, operation, ready.keys(COUNT), real_replies=False)
            assert isinstance(error, (InvalidResponse, redis.TimeoutError)), (name, place)
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("notice", [PUSH, ATTRIBUTE], ids=["push", "attribute"])
def test_messages_between_replies_change_nothing(
    make: Callable[..., Bench], operation: Operation, kind: str, notice: bytes
) -> None:
    ready = make(kind=kind, protocol=3)
    run(ready, operation, ready.keys(COUNT))
    for place in range(replies_of(operation) + 1):
        ready.inject(Fault(after_replies=place, insert=notice * 3))
        assert run(ready, operation, ready.keys(COUNT)) is None
    ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@pytest.mark.parametrize("retries", [0, 3])
@KINDS
@DIRECTIONS
def test_a_node_cut_at_any_place_is_reported_right(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    operation: Operation,
    kind: str,
    retries: int,
    direction: Direction,
) -> None:
    monkeypatch.setattr(cluster_flight, "FIRST_DELAY", 0.005)
    with cluster_bench(cluster, kind=kind, retries=retries) as ready:
        traffic = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))
        for place in places(traffic, direction, kind, retries):
            ready.inject(Fault(direction, after_bytes=place, then=ending(place)), place % NODES)
            error = run(ready, operation, ready.keys(COUNT))
            assert error is None or not retries
            ready.check_connections()
