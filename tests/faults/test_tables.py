"""Tables whose connection is lost at every byte, or whose server answers wrongly: rows as values and as hashes."""

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
    TOLD,
    Bench,
    Operation,
    Written,
    bench,
    check_books,
    fill,
    told_of,
    value_of,
)
from faults.matrix import DIRECTIONS, KINDS, RETRIES, SOME_CLIENTS, in_turn, places, ways
from faults.proxy import Direction, Fault, Then
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")

COUNT = 3  # in commands of two
LARGE = 1000  # as many failures as a report names

ROWS = [
    Operation("rows by MSET", "batch_set_table"),
    Operation("rows by MSETEX", "batch_set_table", {"ex": 1000}),
    Operation("rows by SET", "batch_set_table", {"ex": 1000}, "redis7"),
    Operation("hashes", "batch_set_table", {"as_": "hash"}),
    Operation("hashes that expire", "batch_set_table", {"as_": "hash", "ex": 1000}),
]
TABLE = Operation("table", "batch_get_table")
BATCHES = [*ROWS, TABLE]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Bench]]:
    """Makes a bench for an operation, ended with the test."""
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
    """The value of each key as a row, in record batches that end elsewhere than commands do."""
    rows = [{"key": key, **value_of(key)} for key in keys]
    return pa.Table.from_batches(pa.Table.from_pylist(rows).to_batches(max_chunksize=3))


def write_rows(ready: Bench, operation: Operation, keys: list[str], chunk_size: int = 2) -> Written:
    """Run a batch_set_table, with any outcome."""
    how = {"key": "key", "columns": ["of", "text"], "chunk_size": chunk_size, **operation.options}
    table = table_of(keys)
    return told_of(lambda: ready.batch.batch_set_table(table, **how))


def check_rows(ready: Bench, operation: Operation, keys: list[str], told: Written, truthful: bool = True) -> None:
    """The books are right, and what was written with an expiry has one."""
    stored: list[Any]
    if is_hash(operation):
        with ready.looker.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            stored = [fields or None for fields in pipe.execute()]
        own = [{name.encode(): text.encode() for name, text in value_of(key).items()} for key in keys]
    else:
        stored = ready.stored(keys)
        own = [msgpack.packb(value_of(key)) for key in keys]
    check_books(operation, range(len(keys)), told, stored, own, truthful)
    if truthful and "ex" in operation.options:
        with ready.looker.pipeline(transaction=False) as pipe:
            for row in set(range(told.report.total)) - set(told.report.failures):
                pipe.ttl(keys[row])
            assert all(0 < seconds <= 1000 for seconds in pipe.execute())


def read_rows(ready: Bench, keys: list[str]) -> Exception | None:
    """Run a batch_get_table of keys and one that is missing: a row a key, in order, or an error."""
    try:
        table = ready.batch.batch_get_table([*keys, "none"], key="key")
    except TOLD as error:
        return error
    own = [{"key": key, **value_of(key)} for key in keys]
    assert table.to_pylist() == [*own, {"key": "none", "of": None, "text": None}]
    return None


def run(ready: Bench, operation: Operation, keys: list[str], truthful: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised."""
    if operation is TABLE:
        fill(ready, keys)
        return read_rows(ready, keys)
    told = write_rows(ready, operation, keys)
    check_rows(ready, operation, keys, told, truthful)
    return told.error


def replies_of(operation: Operation) -> int:
    """Top-level replies to a batch of COUNT rows."""
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
def test_cut_at_every_byte(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(operation, kind=kind, retries=retries)
    length = ready.traffic(lambda: run(ready, operation, ready.keys(COUNT)))[direction]
    for place in places(length, kind, retries, step=13):
        check_cut(ready, operation, Fault(direction, after_bytes=place, then=ways(place)))


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
@DIRECTIONS
def test_large_tables_cut_here_and_there(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    ready = make(operation, kind=kind, retries=retries)

    def run_large() -> Exception | None:
        keys = ready.keys(LARGE)
        if operation is TABLE:
            fill(ready, keys)
            return read_rows(ready, keys)
        told = write_rows(ready, operation, keys, chunk_size=100)
        check_rows(ready, operation, keys, told)
        return told.error

    length = ready.traffic(run_large)[direction]
    for place in random.Random(length).sample(range(length), 2):
        ready.inject(Fault(direction, after_bytes=place, then=ways(place)))
        error = run_large()
        assert error is None or not retries
        ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_error_replies_at_every_place(make: Callable[..., Bench], operation: Operation, kind: str) -> None:
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    for line, _, _ in ERRORS.values():
        for place in range(replies_of(operation)):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
            run(ready, operation, ready.keys(COUNT), truthful=False)
            ready.check_connection()


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_error_replies_to_hashes_name_the_row(make: Callable[..., Bench], kind: str, code: str) -> None:
    """Whether HSET was refused or the EXPIRE that follows, the row has not what it should; and no other row is
    told to have failed."""
    line, expected, _ = ERRORS[code]
    operation = ROWS[4]
    ready = make(operation, kind=kind)
    rows: set[int] = set()
    # Which reply is at which place is a matter of time: EXPIREs go when those to HSETs have come.
    for place in range(2 * COUNT):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        told = write_rows(ready, operation, keys)
        if code == "LOADING":
            # A server that loads is waited for.
            assert told.report.written == COUNT
            continue
        [(row, error)] = told.report.failures.items()
        assert isinstance(error, expected)
        rows.add(row)
        others = [ready.looker.ttl(key) for other, key in enumerate(keys) if other != row]
        assert len(others) == told.report.written == COUNT - 1
        assert all(0 < seconds <= 1000 for seconds in others)
    assert code == "LOADING" or len(rows) > COUNT // 2


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply(make: Callable[..., Bench], operation: Operation, kind: str) -> None:
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    wanted = range(replies_of(operation)) if kind == "sync" else [0]
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        for place in in_turn(wanted, number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage))
            error = run(ready, operation, ready.keys(COUNT), truthful=False)
            assert isinstance(error, (InvalidResponse, redis.TimeoutError)), (name, place)
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation)
    run(ready, operation, ready.keys(COUNT))
    for number, garbage in enumerate(GARBAGE.values()):
        for place in in_turn(range(replies_of(operation)), number):
            ready.inject(Fault(after_replies=place, insert=garbage))
            run(ready, operation, ready.keys(COUNT), truthful=False)
            ready.check_connection()


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@SOME_CLIENTS
def test_replies_that_do_not_come(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(operation, kind=kind, timeout=0.8, retries=retries)
    run(ready, operation, ready.keys(COUNT))
    last = replies_of(operation) - 1
    for fault in (Fault(after_replies=0, drop_replies=1), Fault(after_replies=last, then=Then.STALL)):
        ready.inject(fault)
        error = run(ready, operation, ready.keys(COUNT))
        # Where HSET's answers and EXPIRE's alternate, one for the other shows before time is up.
        shifted = operation is ROWS[4] and isinstance(error, InvalidResponse)
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
