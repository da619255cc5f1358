"""Servers that answer wrongly, late or not at all.

The replies are errors, garbage, too many, too few or of a wrong type, or push messages are between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import InvalidResponse

from faults.answers import ATTRIBUTE, ERRORS, GARBAGE, PUSH
from faults.bench import (
    DELETE,
    MSET,
    MULTI,
    READS,
    SET,
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
from faults.streams import Fault, Then
from redis_fastbatch.server import EmbeddedServer

COUNT = 6
BATCHES = [*WRITES, *READS, DELETE]


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


def run(ready: Bench, operation: Operation, keys: list[str], real_replies: bool = True) -> Exception | None:
    """Run an operation, check its report, and return the error it raised."""
    if operation.method == "batch_set":
        written = write(ready, operation, keys)
        check_written(ready, operation, keys, written, real_replies)
        return written.error
    fill(ready, keys)
    if operation.method == "batch_delete":
        try:
            count = ready.batch.batch_delete(keys)
        except redis.RedisError as error:
            return error
        assert not any(ready.stored(keys))
        assert count == len(keys) or not real_replies
        return None
    found, error = read(ready, operation, keys)
    check_read(keys, found, error)
    return error


def replies_of(operation: Operation) -> int:
    """Return the number of top-level replies to a batch of COUNT items."""
    commands = {"MSET": 3, "MSETEX": 3, "SET": 6, "SET NX": 6, "atomic MSET": 5, "MULTI": COUNT + 2}
    return commands.get(operation.name, 2 if operation.name == "MGET iter" else 1)


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
def test_an_error_of_the_server_fails_the_items_of_its_command(
    make: Callable[..., Bench], kind: str, code: str
) -> None:
    """An error of the server fails the items of the command. Other errors have the items sent one by one."""
    line, expected, of_server = ERRORS[code]
    ready = make(MSET, kind=kind)
    for place in range(3):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        written = write(ready, MSET, keys)
        # The batch waits for a server that loads.
        if not of_server or code == "LOADING":
            assert written.error is None
            assert written.report.written == COUNT
            continue
        assert list(written.report.failures) == keys[2 * place : 2 * place + 2]
        assert all(isinstance(error, expected) for error in written.report.failures.values())


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_an_error_reply_to_one_item_fails_that_item(make: Callable[..., Bench], kind: str, code: str) -> None:
    line, expected, _ = ERRORS[code]
    operation = SET
    ready = make(operation, kind=kind)
    run(ready, operation, ready.keys(COUNT))
    for place in range(COUNT):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        written = write(ready, operation, keys)
        if code == "LOADING":
            assert written.report.written == COUNT
            continue
        assert list(written.report.failures) == [keys[place]]
        assert isinstance(written.report.failures[keys[place]], expected)


@pytest.mark.parametrize("code", ERRORS)
@KINDS
def test_an_error_reply_in_a_transaction_fails_all_items(make: Callable[..., Bench], kind: str, code: str) -> None:
    line, _, _ = ERRORS[code]
    operation = MULTI
    ready = make(operation, kind=kind)
    for place in range(1, COUNT + 2):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=place, drop_replies=1, insert=line))
        written = write(ready, operation, keys)
        if code == "LOADING" and written.error is None:
            # Nothing was executed before EXEC, so the batch waits for the server and is sent again.
            assert written.report.written == len(keys)
            continue
        assert written.report.written == 0
        assert list(written.report.failures) == keys


def is_expected(operation: Operation, place: int, name: str) -> bool:
    """Return whether a server could send this reply."""
    if name == "queued":
        return "atomic" in operation.options and 0 < place < replies_of(operation) - 1
    if name.startswith("null"):
        return operation.name == "SET NX"
    return name == "number" and operation is DELETE


@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
def test_garbage_instead_of_a_reply_is_an_error(
    make: Callable[..., Bench], operation: Operation, kind: str
) -> None:
    """Garbage is an error. It must never become a value, or confirm an item."""
    ready = make(operation, kind=kind, timeout=0.8)
    run(ready, operation, ready.keys(COUNT))
    places = range(replies_of(operation)) if kind == "sync" else [0]
    for number, (name, garbage) in enumerate(GARBAGE.items()):
        for place in in_turn(places, number):
            ready.inject(Fault(after_replies=place, drop_replies=1, insert=garbage))
            error = run(ready, operation, ready.keys(COUNT), real_replies=False)
            if not is_expected(operation, place, name):
                assert isinstance(error, (InvalidResponse, redis.TimeoutError)), name
            ready.check_connection()


@pytest.mark.parametrize("operation", BATCHES, ids=str)
def test_garbage_between_replies_confirms_nothing(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation, timeout=0.8)
    run(ready, operation, ready.keys(COUNT))
    places = range(replies_of(operation))
    unnoticed = tried = 0
    for number, garbage in enumerate(GARBAGE.values()):
        for place in in_turn(places, number):
            tried += 1
            ready.inject(Fault(after_replies=place, insert=garbage))
            run(ready, operation, ready.keys(COUNT), real_replies=False)
            try:
                ready.check_connection()
            except InvalidResponse:
                # A surplus reply may arrive so late that only the next batch notices it.
                unnoticed += 1
                ready.check_connection()
    assert unnoticed < max(2, tried / 10)


@pytest.mark.parametrize("operation", WRITES, ids=str)
def test_null_confirms_nothing(make: Callable[..., Bench], operation: Operation) -> None:
    ready = make(operation)
    for null in (b"$-1\r\n", b"*-1\r\n", b"_\r\n"):
        keys = ready.keys(COUNT)
        ready.inject(Fault(after_replies=replies_of(operation) - 1, drop_replies=1, insert=null))
        written = write(ready, operation, keys)
        assert written.report.written < COUNT
        if operation.name == "SET NX" and null != b"*-1\r\n":
            assert written.report.skipped_keys == keys[-1:]


def check_lost_delete(ready: Bench, keys: list[str]) -> None:
    if ready.retries:
        # Keys deleted before the loss are not counted again.
        assert ready.batch.batch_delete(keys) == 0
    else:
        with pytest.raises(redis.TimeoutError):
            ready.batch.batch_delete(keys)
    assert not any(ready.stored(keys))


@pytest.mark.full
@pytest.mark.parametrize("operation", BATCHES, ids=str)
@KINDS
@pytest.mark.parametrize("retries", [0, 1])
def test_missing_replies_are_a_timeout(
    make: Callable[..., Bench], operation: Operation, kind: str, retries: int
) -> None:
    ready = make(operation, kind=kind, timeout=0.3, retries=retries)
    run(ready, operation, ready.keys(COUNT))
    # Each costs the time of a timeout. The clients differ in what they do after it, not in where it happens.
    some = range(0, replies_of(operation), 2 if kind == "sync" and not retries else COUNT)
    for fault in ({"drop_replies": 1}, {"then": Then.STALL}):
        for place in some:
            keys = ready.keys(COUNT)
            if operation is DELETE:
                fill(ready, keys)
            ready.inject(Fault(TO_CLIENT, after_replies=place, **fault))
            if operation is DELETE:
                check_lost_delete(ready, keys)
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
    # The same connection is still in the pool.
    ready.check_connection()


def test_a_push_message_after_the_last_reply_may_arrive_in_two_pieces(make: Callable[..., Bench]) -> None:
    ready = make(MSET, protocol=3)
    for place in range(1, len(PUSH)):
        keys = ready.keys(2)
        ready.inject(Fault(after_replies=1, insert=PUSH[:place]))
        ready.proxy.inject_now(Fault(after_replies=1, insert=PUSH[place:]))
        assert run(ready, MSET, keys) is None
    ready.check_connection()
