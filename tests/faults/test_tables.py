"""Tables whose connection is lost at every place, or whose server answers wrongly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import redis
from redis.exceptions import InvalidResponse

from faults.answers import ATTRIBUTE, ERRORS, GARBAGE, PUSH
from faults.bench import (
    EXPECTED_ERRORS,
    Bench,
    Operation,
    Written,
    bench,
    check_report,
    fill,
    value_of,
    written_by,
)
from faults.matrix import DIRECTIONS, KINDS, RETRIES, SOME_CLIENTS, ending, in_turn, places
from faults.streams import Direction, Fault, Then
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")

COUNT = 3  # with two rows in a command
LARGE = 1000  # the number of failures that a report keeps

ROWS = [
    Operation("rows by MSET", "batch_set_table"),
    Operation("rows by MSETEX", "batch_set_table", {"ex": 1000}),
    Operation("rows by SET", "batch_set_table", {"ex": 1000}, "redis7"),
    Operation("hashes", "batch_set_table", {"as_": "hash"}),
    Operation("hashes that expire", "batch_set_table", {"as_": "hash", "ex": 1000}),
]
EXPIRING_HASHES = ROWS[-1]
TABLE = Operation("table", "batch_get_table")
BATCHES = [*ROWS, TABLE]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Bench]]:
    """Return a function that makes a bench for an operation. Close the benches at the end."""
    opened: list[Any] = []

    def begin(operation: Operation, **options: Any) -> Bench:
        server: EmbeddedServer = request.getfixturevalue(operation.server)
        context = bench(server, **options)
        opened.append(context)
        return context.__enter__()

    yield begin
    for context in opened:
        context.__exit__(None, None, None)


def is_hash(operation: Operation) -> bool:
    return operation.options.get("as_") == "hash"


def table_of(keys: list[str]) -> Any:
    """Return the value of each key as a row. Record batches and commands end at different rows."""
    rows = [{"key": key, **value_of(key)} for key in keys]
    return pa.Table.from_batches(pa.Table.from_pylist(rows).to_batches(max_chunksize=3))


def write_rows(ready: Bench, operation: Operation, keys: list[str], chunk_size: int = 2) -> Written:
    """Run a batch_set_table, and return its report and error."""
    options = {"key": "key", "columns": ["of", "text"], "chunk_size": chunk_size, **operation.options}
    table = table_of(keys)
    return written_by(lambda: ready.batch.batch_set_table(table, **options))


def check_rows(
    ready: Bench, operation: Operation, keys: list[str], written: Written, real_replies: bool = True
) -> None:
    """Check the report, and the expiry of the written rows."""
    stored: list[Any]
    if is_hash(operation):
        with ready.observer.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            stored = [fields or None for fields in pipe.execute()]
        own = [{name.encode(): text.encode() for name, text in value_of(key).items()} for key in keys]
    else:
        stored = ready.stored(keys)
        own = [msgpack.packb(value_of(key)) for key in keys]
    check_report(operation, range(len(keys)), written, stored, own, real_replies)
    if real_replies and "ex" in operation.options:
        with ready.observer.pipeline(transaction=False) as pipe:
            for row in set(range(written.report.total)) - set(written.report.failures):
                pipe.ttl(keys[row])
            assert all(0 < seconds <= 1000 for seconds in pipe.execute())


def read_rows(ready: Bench, keys: list[str]) -> Exception | None:
    """Run a batch_get_table of keys and a missing one. Check the rows, or return the error."""
    try:
        table = ready.batch.batch_get_table([*keys, "none"], key="key")
    except EXPECTED_ERRORS as error:
        return error
    own = [{"key": key, **value_of(key)} for key in keys]
    assert table.to_pylist() == [*own, {"key": "none", "of": None, "text": None}]
    return None


def run(ready: Bench, operation: Operation, keys: list[str], real_replies: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised."""
    if operation is TABLE:
        fill(ready, keys)
        return read_rows(ready, keys)
    written = write_rows(ready, operation, keys)
    check_rows(ready, operation, keys, written, real_replies)
    return written.error


def replies_of(operation: Operation) -> int:
    """Return the number of top-level replies to a batch of COUNT rows."""
    if operation is TABLE:
        return 1
    if is_hash(operation):
        return 2 * COUNT if "ex" in operation.options else COUNT
    return COUNT if operation.server == "redis7" else 2


def check_cut(ready: Bench, operation: Operation, fault: Fault) -> None:
    keys = ready.keys(COUNT)
    if operation is TABLE:
        fill(ready, keys)
    ready.inject(fault)
    error = run(ready, operation, keys)
    assert error is None or not ready.retries
    ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_a_cut_at_any_place_is_reported_right(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(operation, kind=kind, retries=retries)
    traffic = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))
    for place in places(traffic, direction, kind, retries):
        check_cut(ready, operation, Fault(direction, after_bytes=place, then=ending(place)))


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
@DIRECTIONS
def test_a_large_table_cut_at_random_is_reported_right(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(operation, kind=kind, retries=retries)

    def run_large() -> Exception | None:
        keys = ready.keys(LARGE)
        if operation is TABLE:
            fill(ready, keys)
            return read_rows(ready, keys)
        written = write_rows(ready, operation, keys, chunk_size=100)
        check_rows(ready, operation, keys, written)
        return written.error

    stream = ready.traffic(run_large)[direction]
    for place in random.Random(len(stream)).sample(range(len(stream)), 2):
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        error = run_large()
        assert error is None or not retries
        ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_an_error_reply_at_any_place_is_reported(
    make: Callable[..., Bench], operation: Operation, kind: str
) -> None:
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    for line, _, _ in ERRORS.values():
        for place in range(replies_of(operation)):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
            run(ready, operation, ready.keys(COUNT), real_replies=False)
            ready.check_connection()


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_an_error_reply_to_a_hash_fails_its_row(make: Callable[..., Bench], kind: str, code: str) -> None:
    """A refused HSET or EXPIRE fails its row, and no other row."""
    line, expected, _ = ERRORS[code]
    operation = EXPIRING_HASHES
    ready = make(operation, kind=kind)
    rows: set[int] = set()
    # The order of the replies depends on timing, as each EXPIRE is sent after the reply to its HSET.
    for place in range(2 * COUNT):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        written = write_rows(ready, operation, keys)
        if code == "LOADING":
            # The batch waits for a server that loads.
            assert written.report.written == COUNT
            continue
        [(row, error)] = written.report.failures.items()
        assert isinstance(error, expected)
        rows.add(row)
        others = [ready.observer.ttl(key) for other, key in enumerate(keys) if other != row]
        assert len(others) == written.report.written == COUNT - 1
        assert all(0 < seconds <= 1000 for seconds in others)
    assert code == "LOADING" or len(rows) > COUNT // 2


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply_is_an_error(
    make: Callable[..., Bench], operation: Operation, kind: str
) -> None:
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    wanted = range(replies_of(operation)) if kind == "sync" else [0]
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        for place in in_turn(wanted, number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage))
            error = run(ready, operation, ready.keys(COUNT), real_replies=False)
            assert isinstance(error, (InvalidResponse, redis.TimeoutError)), (name, place)
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies_confirms_nothing(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation)
    run(ready, operation, ready.keys(COUNT))
    for number, garbage in enumerate(GARBAGE.values()):
        for place in in_turn(range(replies_of(operation)), number):
            ready.inject(Fault(after_replies=place, insert=garbage))
            run(ready, operation, ready.keys(COUNT), real_replies=False)
            ready.check_connection()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
def test_missing_replies_are_a_timeout(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(operation, kind=kind, timeout=0.8, retries=retries)
    run(ready, operation, ready.keys(COUNT))
    last = replies_of(operation) - 1
    for fault in (Fault(after_replies=0, drop_replies=1), Fault(after_replies=last, then=Then.STALL)):
        ready.inject(fault)
        error = run(ready, operation, ready.keys(COUNT))
        # If replies to HSET and EXPIRE alternate, a missing one is noticed before the timeout.
        shifted = operation is EXPIRING_HASHES and isinstance(error, InvalidResponse)
        assert isinstance(error, redis.TimeoutError) or shifted or (retries and error is None)
        ready.proxy.release()
        ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("notice", [PUSH, ATTRIBUTE], ids=["push", "attribute"])
def test_messages_between_replies_change_nothing(
    make: Callable[..., Bench], operation: Operation, kind: str, notice: bytes
) -> None:
    ready = make(operation, kind=kind, protocol=3)
    run(ready, operation, ready.keys(COUNT))
    for place in range(replies_of(operation) + 1):
        ready.inject(Fault(after_replies=place, insert=notice * 3))
        assert run(ready, operation, ready.keys(COUNT)) is None
    ready.check_connection()
