"""Servers that answer wrongly, late, or not at all: error replies at every place, garbage, replies too many or too
few, of a wrong type, and push messages in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import InvalidResponse

from faults.answers import ATTRIBUTE, ERRORS, GARBAGE, PUSH
from faults.bench import (
    DELETE,
    READS,
    TO_CLIENT,
    WRITES,
    Bench,
    Operation,
    bench,
    check_read,
    check_written,
    fill,
    read,
    write,
)
from faults.matrix import KINDS, in_turn
from faults.proxy import Fault, Then
from redis_fastbatch.server import EmbeddedServer

COUNT = 6
BATCHES = [*WRITES, *READS, DELETE]


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


def run(ready: Bench, operation: Operation, keys: list[str], truthful: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised."""
    if operation.method == "batch_set":
        told = write(ready, operation, keys)
        check_written(ready, operation, keys, told, truthful)
        return told.error
    fill(ready, keys)
    if operation.method == "batch_delete":
        try:
            count = ready.batch.batch_delete(keys)
        except redis.RedisError as error:
            return error
        assert not any(ready.stored(keys))
        assert count == len(keys) or not truthful
        return None
    found, error = read(ready, operation, keys)
    check_read(keys, found, error)
    return error


def replies_of(operation: Operation) -> int:
    """Top-level replies to a batch of COUNT items."""
    commands = {"MSET": 3, "MSETEX": 3, "SET": 6, "SET NX": 6, "atomic MSET": 5, "MULTI": COUNT + 2}
    return commands.get(operation.name, 2 if operation.name == "MGET iter" else 1)


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
def test_error_replies_to_a_command_of_many_items(make: Callable[..., Bench], kind: str, code: str) -> None:
    """What is of the server fails the command's items; what may be of one item has them sent one by one."""
    line, expected, of_server = ERRORS[code]
    ready = make(WRITES[0], kind=kind)
    for place in range(3):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        told = write(ready, WRITES[0], keys)
        # A server that loads is waited for.
        if not of_server or code == "LOADING":
            assert told.error is None
            assert told.report.written == COUNT
            continue
        assert list(told.report.failures) == keys[2 * place : 2 * place + 2]
        assert all(isinstance(error, expected) for error in told.report.failures.values())


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_error_replies_to_single_items(make: Callable[..., Bench], kind: str, code: str) -> None:
    line, expected, _ = ERRORS[code]
    operation = WRITES[2]
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    for place in range(COUNT):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        told = write(ready, operation, keys)
        if code == "LOADING":
            assert told.report.written == COUNT
            continue
        assert list(told.report.failures) == [keys[place]]
        assert isinstance(told.report.failures[keys[place]], expected)


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_error_replies_in_a_transaction_fail_all_of_it(make: Callable[..., Bench], kind: str, code: str) -> None:
    line, _, _ = ERRORS[code]
    operation = WRITES[5]
    ready = make(operation, kind=kind)
    for place in range(1, COUNT + 2):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        told = write(ready, operation, keys)
        if code == "LOADING" and told.error is None:
            # Before EXEC has left nothing was carried out: the server is waited for, and all of it sent again.
            assert told.report.written == len(keys)
            continue
        assert told.report.written == 0
        assert list(told.report.failures) == keys


def is_expected(operation: Operation, place: int, name: str) -> bool:
    """Return whether a server could have answered so."""
    if name == "queued":
        return "atomic" in operation.options and 0 < place < replies_of(operation) - 1
    if name.startswith("null"):
        return operation.name == "SET NX"
    return name == "number" and operation is DELETE


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply(make: Callable[..., Bench], operation: Operation, kind: str) -> None:
    """Never a value that is not the key's, never one reported as written that is not there: an error."""
    ready = make(operation, kind=kind, timeout=0.3)
    run(ready, operation, ready.keys(COUNT))
    places = range(replies_of(operation)) if kind == "sync" else [0]
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        for place in in_turn(places, number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage))
            error = run(ready, operation, ready.keys(COUNT), truthful=False)
            if not is_expected(operation, place, name):
                assert isinstance(error, (InvalidResponse, redis.TimeoutError)), name
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation, timeout=0.3)
    run(ready, operation, ready.keys(COUNT))
    places = range(replies_of(operation))
    late = tried = 0
    for number, garbage in enumerate(GARBAGE.values()):
        for place in in_turn(places, number):
            tried += 1
            ready.inject(Fault(after_replies=place, insert=garbage))
            run(ready, operation, ready.keys(COUNT), truthful=False)
            try:
                ready.check_connection()
            except InvalidResponse:
                # One reply too many may come so late that only the batch behind it can tell.
                late += 1
                ready.check_connection()
    assert late < max(2, tried / 10)


@pytest.mark.parametrize("operation", WRITES, ids=str)
def test_null_confirms_nothing(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation)
    for null in (b"$-1\r\n", b"*-1\r\n", b"_\r\n"):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=replies_of(operation) - 1, drop_replies=1, insert=null))
        told = write(ready, operation, keys)
        assert told.report.written < COUNT
        if operation.name == "SET NX" and null != b"*-1\r\n":
            assert told.report.skipped_keys == keys[-1:]


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 1])
def test_replies_that_do_not_come(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(operation, kind=kind, timeout=0.3, retries=retries)
    run(ready, operation, ready.keys(COUNT))
    faults = {"swallowed": {"drop_replies": 1}, "stalled": {"then": Then.STALL}}
    for number, fault in enumerate(faults.values()):
        for place in in_turn(range(0, replies_of(operation), 2), number):
            keys = ready.keys(COUNT)
            ready.inject(Fault(TO_CLIENT, after_replies=place, **fault))
            if operation is DELETE:
                # What was deleted before the loss is not counted after it.
                with_retry = ready.batch.batch_delete(keys) if retries else 0
                assert with_retry == 0
                ready.proxy.release()
                continue
            error = run(ready, operation, keys)
            again = operation.repeatable or operation.options.get("atomic")
            assert isinstance(error, redis.TimeoutError) or (retries and again and error is None)
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
    # The connection that carried them is still the one in the pool.
    ready.check_connection()


def test_a_push_message_in_two_pieces_behind_the_last_reply(make: Callable[..., Bench]) -> None:
    ready = make(WRITES[0], protocol=3)
    for place in range(1, len(PUSH)):
        keys = ready.keys(2)
        ready.inject(Fault(after_replies=1, insert=PUSH[:place]))
        ready.proxy.inject_now(Fault(after_replies=1, insert=PUSH[place:]))
        assert run(ready, WRITES[0], keys) is None
    ready.check_connection()
