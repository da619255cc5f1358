"""Clusters with a lost connection, at every place, or with a node that answers wrongly, late or not at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import redis
from redis.exceptions import ClusterDownError, InvalidResponse, TryAgainError

from faults.answers import ATTRIBUTE, ERRORS, GARBAGE, PUSH
from faults.bench import DELETE, EXPECTED_ERRORS, TO_CLIENT, Operation, check_read, read
from faults.cluster_bench import NODES, ClusterBench, check_written, cluster_bench, write
from faults.matrix import DIRECTIONS, KINDS, SOME_CLIENTS, ending, in_turn, places_in, some
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Then
from redis_fastbatch import BatchError, DecodeError
from redis_fastbatch._cluster import flight as cluster_flight
from redis_fastbatch._core.resp.slots import key_slot
from servers import Cluster, wait_until
from tiers import by_tier

COUNT = 2 * NODES
REPLIES = COUNT // NODES
"""The number of replies of each node to a batch of COUNT items."""
LARGE = 600  # fewer than the failures that a report keeps

WRITES = [
    Operation("SET", "batch_set"),
    Operation("SET EX", "batch_set", {"ex": 1000}),
    Operation("SET NX", "batch_set", {"nx": True}),
]
READS = [Operation("GET", "batch_get"), Operation("GET iter", "batch_get_iter")]
SET, ITERATION = WRITES[0], READS[1]
BATCHES = [*WRITES, *READS, DELETE]

# Error replies of nodes of a cluster, and the exception that redis-py makes from each.
REFUSALS: dict[str, tuple[bytes, type[Exception]]] = {
    **{code: (line, kind) for code, (line, kind, _) in ERRORS.items() if code != "MOVED"},
    "TRYAGAIN": (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", TryAgainError),
    "CLUSTERDOWN": (b"-CLUSTERDOWN The cluster is down\r\n", ClusterDownError),
}
WAITED_FOR = {"LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN"}


@pytest.fixture(scope="module")
def benches(cluster: Cluster) -> Iterator[Callable[..., ClusterBench]]:
    """Return a function that makes a bench. It returns the same bench for the same options."""
    made: dict[tuple[Any, ...], ClusterBench] = {}
    with ExitStack() as stack:

        def begin(**options: Any) -> ClusterBench:
            wanted = tuple(sorted(options.items()))
            if wanted not in made:
                made[wanted] = stack.enter_context(cluster_bench(cluster, **options))
            return made[wanted]

        yield begin


@pytest.fixture
def make(benches: Callable[..., ClusterBench], monkeypatch: pytest.MonkeyPatch) -> Callable[..., ClusterBench]:
    """Return a function that returns a bench whose client waits only shortly before it retries."""
    monkeypatch.setattr(cluster_flight, "FIRST_DELAY", 0.005)

    def give(**options: Any) -> ClusterBench:
        ready = benches(**options)
        # Another test may have emptied the cluster since.
        ready.know()
        return ready

    return give


def run(ready: ClusterBench, operation: Operation, keys: list[str], real_replies: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised.

    Args:
        ready: the bench.
        operation: the operation.
        keys: the keys of the items.
        real_replies: False if a proxy replaced replies of a node.
    """
    if operation.method == "batch_set":
        written = write(ready, operation, keys, chunk_size=max(1, len(keys) // 20))
        check_written(ready, operation, keys, written, real_replies)
        return written.error
    ready.fill(keys)
    if operation is DELETE:
        return run_delete(ready, keys, real_replies)
    found, error = read(ready, operation, keys)  # type: ignore[arg-type]
    check_read(keys, found, error)
    return error


def run_delete(ready: ClusterBench, keys: list[str], real_replies: bool) -> Exception | None:
    others = ready.keys(NODES)
    ready.fill(others)
    try:
        count = ready.batch.batch_delete(keys)
    except EXPECTED_ERRORS as error:
        return error
    finally:
        assert all(ready.stored(others)), "other keys were deleted"
    assert not any(ready.stored(keys))
    # Keys counted by a lost reply are not counted again.
    assert count == len(keys) or (0 <= count <= len(keys) and (ready.retries or not real_replies))
    return None


def moved(kind: str, ready: ClusterBench, master: int, to: tuple[str, int]) -> bytes:
    """Return a redirection for the keys of a master."""
    slot = key_slot(ready.tags[master].strip("{}").encode())
    return f"-{kind} {slot} {to[0]}:{to[1]}\r\n".encode()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@DIRECTIONS
def test_a_cut_at_any_place_is_reported_right(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, direction: Direction
) -> None:
    ready = make(kind=kind)
    stream = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))[direction]
    # Expiries and iteration handle a lost connection in the same way, so they try fewer places.
    every = operation.name in ("SET", "SET NX", "GET", "UNLINK") and kind == "sync"
    for place in some(places_in(stream, direction)[:: 1 if every else 5]):
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)), place % NODES)
        error = run(ready, operation, ready.keys(COUNT))
        # A connection lost between two rounds of iteration is not an error.
        assert error is not None or operation is ITERATION
        ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@DIRECTIONS
def test_a_cut_is_repaired_by_retries(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, direction: Direction
) -> None:
    ready = make(kind=kind, retries=3)
    stream = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))[direction]
    for place in places_in(stream, direction)[:: by_tier(75, 15)]:
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)), place % NODES)
        error = run(ready, operation, ready.keys(COUNT))
        assert error is None or not operation.repeatable
        ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
@DIRECTIONS
def test_a_large_batch_cut_at_random_is_reported_right(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(kind=kind, retries=retries)
    stream = ready.traffic(lambda: run(ready, operation, ready.keys(LARGE)))[direction]
    for place in random.Random(len(stream)).sample(range(len(stream)), 1):
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)), place % NODES)
        error = run(ready, operation, ready.keys(LARGE))
        assert error is None or not retries or not operation.repeatable
        ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_an_error_reply_at_any_place_is_reported(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind)
    for line, expected in REFUSALS.values():
        for place in range(REPLIES):
            keys, master = ready.keys(COUNT), place % NODES
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), master)
            if operation.method != "batch_set":
                assert isinstance(run(ready, operation, keys, real_replies=False), expected)
            else:
                written = write(ready, operation, keys)
                check_written(ready, operation, keys, written, real_replies=False)
                assert list(written.report.failures) == [keys[NODES * place + master]]
                assert isinstance(written.report.first_failure(), str)
                assert all(isinstance(error, expected) for error in written.report.failures.values())
            ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_a_batch_waits_while_the_cluster_recovers(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind, retries=3)
    for code in WAITED_FOR:
        for place in range(REPLIES):
            line, _ = REFUSALS[code]
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place % NODES)
            assert run(ready, operation, ready.keys(COUNT), real_replies=False) is None
            ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_redirections_are_followed(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, code: str
) -> None:
    """The target does not have the slot either, and redirects the item again."""
    ready = make(kind=kind, retries=retries)
    for place in range(REPLIES):
        target = ready.cluster.masters[(place + 1) % NODES]
        line = moved(code, ready, place, (target.host, target.port))
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place)
        assert run(ready, operation, ready.keys(COUNT), real_replies=False) is None
        ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_redirections_to_an_unreachable_node_are_not_kept(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, code: str
) -> None:
    """The address of an unreachable node is used only once."""
    ready = make(kind=kind, retries=retries)
    for place in range(REPLIES):
        line = moved(code, ready, place, ("127.0.0.1", 1))
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place)
        error = run(ready, operation, ready.keys(COUNT), real_replies=False)
        assert isinstance(error, redis.ConnectionError) if not retries else error is None
        ready.check_connections()


def is_expected(operation: Operation, name: str) -> bool:
    """Return whether a node could send this reply: for an existing key with NX, or for a missing key."""
    return (operation in READS or operation.name == "SET NX") and name.startswith("null")


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply_is_an_error(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind)
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        if operation in READS and is_expected(operation, name):
            continue
        for place in in_turn(range(REPLIES if kind == "sync" else 1), number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage), place % NODES)
            error = run(ready, operation, ready.keys(COUNT), real_replies=False)
            if not is_expected(operation, name):
                assert isinstance(error, (InvalidResponse, DecodeError, redis.TimeoutError)), (name, place)
            ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies_is_an_error(make: Callable[..., ClusterBench], operation: Operation) -> None:
    ready = make(kind="sync")
    for name, garbage in GARBAGE.items():
        # If the garbage is a valid reply, the real reply arrives too late to be noticed.
        if is_expected(operation, name) or (operation in READS and name == "bulk"):
            continue
        ready.inject(Fault(insert=garbage), 0)
        error = run(ready, operation, ready.keys(COUNT), real_replies=False)
        assert isinstance(error, (InvalidResponse, redis.TimeoutError)), name
        ready.check_connections()


SURPLUS = {"status": b"+OK\r\n", "number": b":1\r\n", "value": b"$1\r\n\x07\r\n", "error": b"-ERR no\r\n"}


def added_by(proxy: FaultProxy) -> int:
    """Return the number of bytes that a proxy has inserted on the way to clients."""
    return proxy.sent(TO_CLIENT) - proxy.seen(TO_CLIENT)


def has_added(proxy: FaultProxy, total: int) -> bool:
    return added_by(proxy) == total


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_a_surplus_reply_is_not_read_by_the_next_batch(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    """The next batch must not read the surplus reply."""
    ready = make(kind=kind)
    proxy = ready.proxies[0]
    for surplus in SURPLUS.values():
        ready.inject(Fault(after_replies=REPLIES, then=Then.STALL), 0)
        proxy.inject_now(Fault(after_replies=REPLIES, insert=surplus))
        total = added_by(proxy) + len(surplus)
        assert run(ready, operation, ready.keys(COUNT)) is None
        proxy.release()
        wait_until(partial(has_added, proxy, total), "the surplus arrives")
        ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
def test_missing_replies_are_a_timeout(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(kind=kind, timeout=0.8, retries=retries)
    for fault in (Fault(after_replies=0, drop_replies=1), Fault(after_replies=1, then=Then.STALL)):
        ready.inject(fault, 0)
        error = run(ready, operation, ready.keys(COUNT))
        recovered = retries and operation.repeatable
        assert error is None if recovered else isinstance(error, (redis.TimeoutError, BatchError))
        ready.release()
        ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("notice", [PUSH, ATTRIBUTE], ids=["push", "attribute"])
def test_messages_between_replies_change_nothing(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, notice: bytes
) -> None:
    ready = make(kind=kind, protocol=3)
    for place in range(REPLIES + 1):
        ready.inject(Fault(after_replies=place, insert=notice * 3), place % NODES)
        assert run(ready, operation, ready.keys(COUNT)) is None
        ready.check_connections()


@KINDS
def test_a_node_that_stays_lost_fails_its_items(
    make: Callable[..., ClusterBench], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items sent before the loss may be stored, so they must not be reported as not sent."""
    monkeypatch.setattr("redis_fastbatch._cluster.sync.MAX_OUTAGE_SECONDS", 0.2)
    ready = make(kind=kind, retries=3)
    keys = ready.keys(COUNT)
    ready.inject(Fault(after_bytes=0, then=Then.CUT), 0)
    ready.proxies[0].inject(Fault(after_bytes=0, then=Then.CUT), connections=None)
    written = write(ready, SET, keys)
    ready.proxies[0].clear()
    check_written(ready, SET, keys, written)
    assert isinstance(written.error, redis.ConnectionError)
    assert set(written.report.failures) == set(keys[::NODES])
    ready.check_connections()


@pytest.mark.parametrize("operation", WRITES, ids=str)
@KINDS
def test_a_refusal_before_garbage_is_counted_once(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    """The reply before the garbage still counts."""
    ready = make(kind=kind)
    for first in (b"+OK\r\n", REFUSALS["OOM"][0]):
        keys = ready.keys(2 * COUNT)
        ready.inject(
            Fault(after_replies=0, drop_replies=1, insert=first),
            1,
        )
        ready.proxies[1].inject_now(Fault(after_replies=1, drop_replies=1, insert=b":5\r\n"))
        written = write(ready, operation, keys, chunk_size=4)
        check_written(ready, operation, keys, written, real_replies=False)
        assert isinstance(written.error, InvalidResponse)
        assert keys[4] in written.report.failures
        ready.check_connections()


@KINDS
def test_on_error_gets_items_lost_with_the_last_reply(make: Callable[..., ClusterBench], kind: str) -> None:
    """With nx nothing is sent again, so on_error must be called without a further reply."""
    ready = make(kind=kind, retries=3)
    items = {key: 1 for key in ready.keys(COUNT) if key.startswith(ready.tags[0])}
    ready.inject(Fault(after_replies=0, then=Then.CUT), 0)
    failed: list[Any] = []
    report = ready.batch.batch_set(items, nx=True, on_error=lambda key, *_: failed.append(key))
    assert report.failed == len(items)
    assert failed == list(items)
    ready.check_connections()
