"""Clusters of which a node's connection is lost at every byte, or a node answers wrongly, late, or not at all."""

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
from faults.bench import DELETE, TO_CLIENT, TOLD, Operation, check_read, read
from faults.cluster_bench import NODES, ClusterBench, check_written, cluster_bench, write
from faults.matrix import DIRECTIONS, KINDS, SOME_CLIENTS, in_turn, some, ways
from faults.proxy import Direction, Fault, FaultProxy, Then
from redis_fastbatch import BatchError, DecodeError
from redis_fastbatch._cluster import flight as cluster_flight
from redis_fastbatch._core.resp.slots import key_slot
from servers import Cluster, wait_until
from tiers import by_tier

COUNT = 2 * NODES
REPLIES = COUNT // NODES
"""Replies of each node to a batch of COUNT items."""
LARGE = 600  # fewer than the failures that a report names

WRITES = [
    Operation("SET", "batch_set"),
    Operation("SET EX", "batch_set", {"ex": 1000}),
    Operation("SET NX", "batch_set", {"nx": True}),
]
READS = [Operation("GET", "batch_get"), Operation("GET iter", "batch_get_iter")]
BATCHES = [*WRITES, *READS, DELETE]

# What nodes of a cluster say besides, and the exception that redis-py makes of it.
REFUSALS: dict[str, tuple[bytes, type[Exception]]] = {
    **{code: (line, kind) for code, (line, kind, _) in ERRORS.items() if code != "MOVED"},
    "TRYAGAIN": (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", TryAgainError),
    "CLUSTERDOWN": (b"-CLUSTERDOWN The cluster is down\r\n", ClusterDownError),
}
WAITED_FOR = {"LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN"}


@pytest.fixture(scope="module")
def benches(cluster: Cluster) -> Iterator[Callable[..., ClusterBench]]:
    """Makes a bench, which is kept for tests that ask for the same."""
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
    """Gives a bench, whose client waits for next to no time before it tries again."""
    monkeypatch.setattr(cluster_flight, "FIRST_DELAY", 0.005)

    def give(**options: Any) -> ClusterBench:
        ready = benches(**options)
        # Another test may have emptied the cluster since.
        ready.know()
        return ready

    return give


def run(ready: ClusterBench, operation: Operation, keys: list[str], truthful: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised.

    Args:
        ready: the bench.
        operation: what is to be run.
        keys: of the items.
        truthful: False where a proxy has put other replies in the place of a node's.
    """
    if operation.method == "batch_set":
        told = write(ready, operation, keys, chunk_size=max(1, len(keys) // 20))
        check_written(ready, operation, keys, told, truthful)
        return told.error
    ready.fill(keys)
    if operation is DELETE:
        return run_delete(ready, keys, truthful)
    found, error = read(ready, operation, keys)  # type: ignore[arg-type]
    check_read(keys, found, error)
    return error


def run_delete(ready: ClusterBench, keys: list[str], truthful: bool) -> Exception | None:
    others = ready.keys(NODES)
    ready.fill(others)
    try:
        count = ready.batch.batch_delete(keys)
    except TOLD as error:
        return error
    finally:
        assert all(ready.stored(others)), "deleted, and never asked for"
    assert not any(ready.stored(keys))
    # What a lost reply had counted is not counted again.
    assert count == len(keys) or (0 <= count <= len(keys) and (ready.retries or not truthful))
    return None


def moved(kind: str, ready: ClusterBench, master: int, to: tuple[str, int]) -> bytes:
    """A redirection of the keys of a master."""
    slot = key_slot(ready.tags[master].strip("{}").encode())
    return f"-{kind} {slot} {to[0]}:{to[1]}\r\n".encode()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@DIRECTIONS
def test_cut_at_every_byte(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, direction: Direction
) -> None:
    ready = make(kind=kind)
    length = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))[direction]
    # SET's expiry and rounds of reading change nothing about what a lost connection means.
    every = operation.name in ("SET", "SET NX", "GET", "UNLINK") and kind == "sync"
    for place in some(range(0, length, 1 if every else 11)):
        ready.inject(Fault(direction, after_bytes=place, then=ways(place)), place % NODES)
        error = run(ready, operation, ready.keys(COUNT))
        # Between two rounds nothing is lost with a connection.
        assert error is not None or operation is READS[1]
        ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@DIRECTIONS
def test_a_cut_is_mended_where_the_client_retries(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, direction: Direction
) -> None:
    ready = make(kind=kind, retries=3)
    length = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))[direction]
    for place in range(0, length, by_tier(185, 37)):
        ready.inject(Fault(direction, after_bytes=place, then=ways(place)), place % NODES)
        error = run(ready, operation, ready.keys(COUNT))
        assert error is None or not operation.repeatable
        ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
@DIRECTIONS
def test_large_batches_cut_here_and_there(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(kind=kind, retries=retries)
    length = ready.traffic(lambda: run(ready, operation, ready.keys(LARGE)))[direction]
    for place in random.Random(length).sample(range(length), 1):
        ready.inject(Fault(direction, after_bytes=place, then=ways(place)), place % NODES)
        error = run(ready, operation, ready.keys(LARGE))
        assert error is None or not retries or not operation.repeatable
        ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_error_replies_at_every_place(make: Callable[..., ClusterBench], operation: Operation, kind: str) -> None:
    ready = make(kind=kind)
    for line, expected in REFUSALS.values():
        for place in range(REPLIES):
            keys, master = ready.keys(COUNT), place % NODES
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), master)
            if operation.method != "batch_set":
                assert isinstance(run(ready, operation, keys, truthful=False), expected)
            else:
                told = write(ready, operation, keys)
                check_written(ready, operation, keys, told, truthful=False)
                assert list(told.report.failures) == [keys[NODES * place + master]]
                assert isinstance(told.report.first_failure(), str)
                assert all(isinstance(error, expected) for error in told.report.failures.values())
            ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_error_replies_of_a_cluster_that_is_waited_for(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    ready = make(kind=kind, retries=3)
    for code in WAITED_FOR:
        for place in range(REPLIES):
            line, _ = REFUSALS[code]
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place % NODES)
            assert run(ready, operation, ready.keys(COUNT), truthful=False) is None
            ready.check_connections()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_redirections_are_followed(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, code: str
) -> None:
    """To a node that has the slot no more than the other, and says where it is."""
    ready = make(kind=kind, retries=retries)
    for place in range(REPLIES):
        target = ready.cluster.masters[(place + 1) % NODES]
        line = moved(code, ready, place, (target.host, target.port))
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place)
        assert run(ready, operation, ready.keys(COUNT), truthful=False) is None
        ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_redirections_to_where_nobody_is(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int, code: str
) -> None:
    """What they have said of the slot is not believed for longer than that."""
    ready = make(kind=kind, retries=retries)
    for place in range(REPLIES):
        line = moved(code, ready, place, ("127.0.0.1", 1))
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line), place)
        error = run(ready, operation, ready.keys(COUNT), truthful=False)
        assert isinstance(error, redis.ConnectionError) if not retries else error is None
        ready.check_connections()


def is_expected(operation: Operation, name: str) -> bool:
    """Return whether a node could have answered so: a key of NX that is there already, or one that is missing."""
    return (operation in READS or operation.name == "SET NX") and name.startswith("null")


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply(make: Callable[..., ClusterBench], operation: Operation, kind: str) -> None:
    ready = make(kind=kind)
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        if operation in READS and is_expected(operation, name):
            continue
        for place in in_turn(range(REPLIES if kind == "sync" else 1), number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage), place % NODES)
            error = run(ready, operation, ready.keys(COUNT), truthful=False)
            if not is_expected(operation, name):
                assert isinstance(error, (InvalidResponse, DecodeError, redis.TimeoutError)), (name, place)
            ready.check_connections()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies(make: Callable[..., ClusterBench], operation: Operation) -> None:
    ready = make(kind="sync")
    for name, garbage in GARBAGE.items():
        # What passes for a value, or for a key that is there already, leaves a reply behind that comes too late to
        # be noticed.
        if is_expected(operation, name) or (operation in READS and name == "bulk"):
            continue
        ready.inject(Fault(insert=garbage), 0)
        error = run(ready, operation, ready.keys(COUNT), truthful=False)
        assert isinstance(error, (InvalidResponse, redis.TimeoutError)), name
        ready.check_connections()


SURPLUS = {"status": b"+OK\r\n", "number": b":1\r\n", "value": b"$1\r\n\x07\r\n", "error": b"-ERR no\r\n"}


def added_by(proxy: FaultProxy) -> int:
    """How many bytes a proxy has sent to clients beyond those that came from its server."""
    return proxy.sent(TO_CLIENT) - proxy.seen(TO_CLIENT)


def has_added(proxy: FaultProxy, total: int) -> bool:
    return added_by(proxy) == total


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_a_reply_too_many(make: Callable[..., ClusterBench], operation: Operation, kind: str) -> None:
    """It is not taken for the answer to what is asked next."""
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
def test_replies_that_do_not_come(
    make: Callable[..., ClusterBench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(kind=kind, timeout=0.8, retries=retries)
    for fault in (Fault(after_replies=0, drop_replies=1), Fault(after_replies=1, then=Then.STALL)):
        ready.inject(fault, 0)
        error = run(ready, operation, ready.keys(COUNT))
        mended = retries and operation.repeatable
        assert error is None if mended else isinstance(error, (redis.TimeoutError, BatchError))
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
def test_a_node_that_is_lost_for_good(
    make: Callable[..., ClusterBench], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent to it once may be there, however often it was tried since: it is not said to be unsent."""
    monkeypatch.setattr("redis_fastbatch._cluster.sync.PATIENCE", 0.2)
    ready = make(kind=kind, retries=3)
    keys = ready.keys(COUNT)
    ready.inject(Fault(after_bytes=0, then=Then.CUT), 0)
    ready.proxies[0].inject(Fault(after_bytes=0, then=Then.CUT), connections=None)
    told = write(ready, WRITES[0], keys)
    ready.proxies[0].clear()
    check_written(ready, WRITES[0], keys, told)
    assert isinstance(told.error, redis.ConnectionError)
    assert set(told.report.failures) == set(keys[::NODES])
    ready.check_connections()


@pytest.mark.parametrize("operation", WRITES, ids=str)
@KINDS
def test_a_refusal_before_garbage_is_counted_once(
    make: Callable[..., ClusterBench], operation: Operation, kind: str
) -> None:
    """Both in the replies to one command: what was answered before the garbage stays so."""
    ready = make(kind=kind)
    for first in (b"+OK\r\n", REFUSALS["OOM"][0]):
        keys = ready.keys(2 * COUNT)
        ready.inject(
            Fault(after_replies=0, drop_replies=1, insert=first),
            1,
        )
        ready.proxies[1].inject_now(Fault(after_replies=1, drop_replies=1, insert=b":5\r\n"))
        told = write(ready, operation, keys, chunk_size=4)
        check_written(ready, operation, keys, told, truthful=False)
        assert isinstance(told.error, InvalidResponse)
        assert keys[4] in told.report.failures
        ready.check_connections()


@KINDS
def test_what_was_lost_with_the_last_reply_is_delivered(make: Callable[..., ClusterBench], kind: str) -> None:
    """Under nx nothing is sent again: no reply follows that would have what failed delivered."""
    ready = make(kind=kind, retries=3)
    items = {key: 1 for key in ready.keys(COUNT) if key.startswith(ready.tags[0])}
    ready.inject(Fault(after_replies=0, then=Then.CUT), 0)
    dead: list[Any] = []
    report = ready.batch.batch_set(items, nx=True, on_error=lambda key, *_: dead.append(key))
    assert report.failed == len(items)
    assert dead == list(items)
    ready.check_connections()
