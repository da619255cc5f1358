"""Ctrl-C before each line that keeps a batch's books: what the report then says is so, and leaves nothing out."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_fastbatch import BatchReport, FastBatch, MsgpackCodec, client, report
from redis_fastbatch._cluster import flight as cluster_flight
from redis_fastbatch._cluster import sync as cluster
from redis_fastbatch._cluster import write as cluster_write
from redis_fastbatch._cluster.topology import topology_of
from redis_fastbatch._core.resp.slots import key_slot
from redis_fastbatch._engine import flight
from redis_fastbatch._engine import hashes as table_hash
from redis_fastbatch._engine import outcome as books
from redis_fastbatch._engine import transaction as atomic_flight
from redis_fastbatch._tables import write as table
from redis_fastbatch._transports import sync as transport
from redis_fastbatch._transports import threads as workers
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, Cluster

Values = dict[str, Any]


# So often at least each is struck, in whatever batch: no test is of nothing.
LEAST = {
    atomic_flight: 10,
    books: 15,
    client: 30,
    cluster: 200,
    cluster_flight: 250,
    cluster_write: 60,
    flight: 60,
    report: 5,
    table: 50,
    table_hash: 20,
    transport: 100,
    workers: 100,
}


class Struck(KeyboardInterrupt):
    """Ctrl-C at a chosen line."""


def follow(module: ModuleType, step: Callable[[int], object], run: Callable[[], object]) -> None:
    """Runs something; `step` hears of each line of a module before it is run."""

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            step(frame.f_lineno)
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename == module.__file__ else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        run()
    finally:
        sys.settrace(before)


def strike(module: ModuleType, line: int, time: int, run: Callable[[], object]) -> Struck | None:
    """Interrupts `run` when it comes to a line of a module for the `time`th time; None where it does not."""
    left = time

    def step(at: int) -> None:
        nonlocal left
        left -= at == line
        if at == line and left == 0:
            raise Struck

    try:
        follow(module, step, run)
    except Struck as struck:
        return struck
    return None


class Items:
    """Items that remember which of them were taken.

    Args:
        values: them.
        midway: called once half of them were taken.
        begun: what is taken is begun, and not only held ready.
    """

    def __init__(self, values: Values, midway: Callable[[], object] | None = None, *, begun: bool = True) -> None:
        self.values = values
        self.begun = begun
        self.taken: list[str] = []
        self._midway = midway

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key, value in self.values.items():
            if self._midway is not None and len(self.taken) == len(self.values) // 2:
                self._midway()
            self.taken.append(key)
            yield key, value


def check_books(told: BatchReport, items: Items, there: set[str]) -> None:
    """What a report says of a batch that was interrupted, against what the server has."""
    named = set(told.failures) | set(told.skipped_keys)
    assert told.failed == len(told.failures)
    assert told.skipped == len(told.skipped_keys)
    assert told.written == len(there - named)
    assert set(items.taken[: told.confirmed_prefix]) <= there | named
    if items.begun:
        assert told.total == len(items.taken)
        assert set(items.taken) <= there | named
    unsent = {key for key, error in told.failures.items() if str(error).startswith("not sent")}
    assert not unsent & there


def strike_everywhere(
    module: ModuleType,
    begin: Callable[[], Items],
    write: Callable[[Items], object],
    present: Callable[[], set[str]],
    *,
    every: bool = False,
    least: int | None = None,
) -> None:
    """Strikes before each line of a module, the first time that it is run, the second, and the last.

    Args:
        begin: makes all as it was, and the items.
        write: writes them.
        present: the keys whose new values the server has afterwards.
        every: each time that it is run, and not those three only.
        least: it must strike so often, by default what LEAST has for the module.
    """
    runs: Counter[int] = Counter()
    items = begin()
    follow(module, lambda line: runs.update((line,)), lambda: write(items))
    strikes = 0
    for line, times in runs.items():
        for time in range(1, times + 1) if every else {1, min(2, times), times}:
            items = begin()
            struck = strike(module, line, time, lambda items=items: write(items))  # type: ignore[misc]
            if struck is not None:
                strikes += 1
                try:
                    # Before the batch has begun there is no report.
                    check_books(getattr(struck, "report", BatchReport()), items, present())
                except AssertionError as error:
                    raise AssertionError(f"{module.__file__}:{line}, time {time} of {times}: {error}") from error
    assert strikes >= (LEAST[module] if least is None else least)


def least_of(module: ModuleType, options: dict[str, Any]) -> int | None:
    """None but for a module that has no part in a batch of such options."""
    if module is table_hash and "as_" not in options:
        return 0
    return 0 if module is atomic_flight and not options.get("atomic") else None


KEYS = [f"line:{i}" for i in range(24)]
WITH_BAD = {key: {key} if key in ("line:5", "line:17") else 1 for key in KEYS}

MODULES = [atomic_flight, books, flight, report]

BATCHES: dict[str, tuple[Values, dict[str, Any]]] = {
    "plain": (WITH_BAD, {"chunk_size": 5}),
    "msetex": (WITH_BAD, {"chunk_size": 5, "ex": 100}),
    "listener": (WITH_BAD, {"chunk_size": 5}),
    "conditions": (WITH_BAD, {"chunk_size": 5, "nx": True}),
    "atomic": (dict.fromkeys(KEYS, 1), {"atomic": True, "nx": True}),
    "atomic, with a bad one": (WITH_BAD, {"atomic": True}),
    "atomic, large": (dict.fromkeys(KEYS, "x" * 10_000), {"atomic": True, "ex": 100}),
    "atomic, large, with a bad one": (
        {**dict.fromkeys(KEYS, "x" * 10_000), "line:20": {1}},
        {"atomic": True, "ex": 100},
    ),
}


@pytest.mark.parametrize("module", [*MODULES, client], ids=lambda module: module.__name__)
@pytest.mark.parametrize("batch", BATCHES)
def test_single_server(valkey_client: redis.Redis, batch: str, module: ModuleType) -> None:
    values, options = BATCHES[batch]
    options = {"on_error": "report", **options}
    heard: list[str] = []
    if batch == "listener":
        options["on_error"] = lambda key, value, error: heard.append(key)
    fast = FastBatch(valkey_client)

    def begin() -> Items:
        heard.clear()
        valkey_client.flushdb()
        if "nx" in options:
            valkey_client.mset(dict.fromkeys(KEYS[::4], "old"))
        return Items(values)

    def present() -> set[str]:
        assert len(heard) == len(set(heard))
        stored = zip(KEYS, valkey_client.mget(KEYS), strict=True)
        return {key for key, value in stored if value not in (None, b"old")}

    def write(items: Items) -> None:
        fast.batch_set(items, **options)

    least = 300 if module is flight and "atomic" not in options else least_of(module, options)
    strike_everywhere(module, begin, write, present, every=True, least=least)


@pytest.mark.parametrize("module", [*MODULES, transport], ids=lambda module: module.__name__)
@pytest.mark.parametrize("options", [{}, {"nx": True}, {"atomic": True}, {"atomic": True, "nx": True}], ids=str)
def test_lost_connections(valkey: EmbeddedServer, options: dict[str, Any], module: ModuleType) -> None:
    """A batch goes on over another connection, or ends there if it may not be repeated."""
    values = dict.fromkeys(KEYS, "x" * 10_000)
    retry = Retry(NoBackoff(), 1)
    with valkey.client(retry=retry, client_name="lost") as losing, valkey.client() as admin:
        fast = FastBatch(losing)

        def lose() -> None:
            for each in admin.client_list():
                if each["name"] == "lost":
                    admin.client_kill_filter(_id=each["id"])

        def begin() -> Items:
            admin.flushdb()
            return Items(values, lose)

        def present() -> set[str]:
            return {key.decode() for key in admin.scan_iter()}

        def write(items: Items) -> None:
            with contextlib.suppress(redis.ConnectionError):
                fast.batch_set(items, chunk_size=2, on_error="report", **options)

        strike_everywhere(module, begin, write, present, least=least_of(module, options))


@pytest.mark.parametrize("module", [client, report, workers], ids=lambda module: module.__name__)
@pytest.mark.parametrize("nx", [False, True], ids=["set", "nx"])
def test_several_threads(
    valkey_client: redis.Redis, nx: bool, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the threads have not begun is in no book: whoever starts again at confirmed_prefix writes it."""
    monkeypatch.setattr(workers, "SLICE", 3)
    fast = FastBatch(valkey_client)

    def begin() -> Items:
        valkey_client.flushdb()
        if nx:
            valkey_client.mset(dict.fromkeys(KEYS[::4], "old"))
        return Items(WITH_BAD, begun=False)

    def present() -> set[str]:
        stored = zip(KEYS, valkey_client.mget(KEYS), strict=True)
        return {key for key, value in stored if value not in (None, b"old")}

    def write(items: Items) -> None:
        fast.batch_set(items, workers=3, chunk_size=2, nx=nx, on_error="report")

    # The rest of the client's lines are for one thread.
    strike_everywhere(module, begin, write, present, least=20 if module is client else None)


@pytest.mark.parametrize("module", [books, flight, report, table, table_hash], ids=lambda module: module.__name__)
@pytest.mark.parametrize("options", [{}, {"nx": True}, {"as_": "hash"}, {"as_": "hash", "ex": 100}], ids=str)
def test_rows_of_a_table(valkey_client: redis.Redis, options: dict[str, Any], module: ModuleType) -> None:
    pa = pytest.importorskip("pyarrow")
    fast = FastBatch(valkey_client)
    ids = [None if i == 7 else i for i in range(24)]
    rows = pa.table({"id": ids, "text": ["x" * 1000] * 24})

    def begin() -> Items:
        valkey_client.flushdb()
        if options:
            valkey_client.mset({str(i): "old" for i in range(0, 24, 5)})
        items = Items({}, begun=False)
        items.taken = [str(i) for i in range(24)]
        return items

    def present() -> set[str]:
        kind = "hash" if "as_" in options else "string"
        keys = {key.decode() for key in valkey_client.scan_iter(_type=kind)}
        return {key for key in keys if kind == "hash" or valkey_client.get(key) != b"old"}

    def write(items: Items) -> None:
        try:
            fast.batch_set_table(rows, key="id", chunk_size=5, on_error="report", **options)
        except Struck as struck:
            told: BatchReport | None = getattr(struck, "report", None)
            if told is not None:
                told.failures = {str(row): error for row, error in told.failures.items()}
                told.skipped_keys = [str(row) for row in told.skipped_keys]
            raise

    strike_everywhere(module, begin, write, present, every="ex" in options, least=least_of(module, options))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"atomic": True}, {"atomic": True, "ex": 100}], ids=str)
def test_refused_keys(acl_server: AclUser, options: dict[str, Any], module: ModuleType) -> None:
    """A command that is refused for some of its keys goes again, an item at a time."""
    values = {f"{'allowed' if i % 3 else 'forbidden'}:{i}": "x" * 6000 for i in range(12)}
    with acl_server.client() as limited, acl_server.server.client() as admin:
        fast = FastBatch(limited)

        def begin() -> Items:
            admin.flushdb()
            return Items(values)

        def present() -> set[str]:
            return {key.decode() for key in admin.scan_iter()}

        def write(items: Items) -> None:
            fast.batch_set(items, chunk_size=4, on_error="report", **options)

        strike_everywhere(module, begin, write, present, least=least_of(module, options))


CLUSTER_MODULES = [books, cluster, cluster_flight, cluster_write, flight, report]


@pytest.mark.parametrize("module", CLUSTER_MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("nx", [False, True], ids=["set", "nx"])
@pytest.mark.parametrize("trouble", ["none", "moved", "parked", "lost"])
def test_cluster(
    cluster: Cluster,
    cluster_client: redis.RedisCluster,
    module: ModuleType,
    nx: bool,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_flight, "FIRST_DELAY", 0.001)
    if trouble == "parked":
        # What a node does not have waits at once, until the slots have been asked for again.
        monkeypatch.setattr(cluster_flight, "MAX_HOPS", 0)
    fast = FastBatch(cluster_client)
    keys = [f"line:{i}" for i in range(12)]
    values = {**dict.fromkeys(keys, 1), "line:4": {4}}
    topology = topology_of(cluster_client)
    admins = [node.client() for node in cluster.masters]

    def mislead() -> None:
        """Some slots are taken for another node's, which will answer with MOVED."""
        for key in keys[::2]:
            slot = key_slot(key.encode())
            topology.router.move(slot, (topology.router.owner(slot) + 1) % 3)

    def lose() -> None:
        """The connections of a batch are gone, with what was sent on them."""
        for admin in admins:
            admin.client_kill_filter(_type="normal", skipme=True)

    def begin() -> Items:
        fast.batch_delete(keys)
        if nx:
            fast.batch_set(dict.fromkeys(keys[::3], "old"))
        if trouble in ("moved", "parked"):
            mislead()
        return Items(values, lose if trouble == "lost" else None)

    def present() -> set[str]:
        return {key for key, value in fast.batch_get(keys).items() if value not in (None, "old")}

    def write(items: Items) -> None:
        fast.batch_set(items, chunk_size=2, nx=nx, on_error="report")

    try:
        least = 200 if module is cluster_write and trouble == "none" else None
        strike_everywhere(module, begin, write, present, every=trouble == "none", least=least)
    finally:
        topology.reload()
        for admin in admins:
            admin.close()


@pytest.mark.parametrize("kind", ["valkey_client", "cluster_client"])
def test_while_an_item_is_encoded(kind: str, request: pytest.FixtureRequest) -> None:
    """That item counts as not taken: whoever starts again at confirmed_prefix writes it."""

    def default(value: Any) -> Any:
        raise Struck

    redis_client = request.getfixturevalue(kind)
    fast = FastBatch(redis_client, codec=MsgpackCodec(default=default))
    keys = [f"encoded:{i}" for i in range(10)]
    fast.batch_delete(keys)
    with pytest.raises(Struck) as struck:
        fast.batch_set({key: object() if key == keys[7] else 1 for key in keys}, chunk_size=2)
    told: BatchReport = struck.value.report  # type: ignore[attr-defined]
    there = [key for key in keys if redis_client.exists(key)]
    assert there == keys[:7]
    assert (told.written, told.failed, told.confirmed_prefix) == (7, 0, 7)
