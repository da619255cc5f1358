"""Flights of atomic batches, fed with bytes in memory."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError, ExecAbortError, InvalidResponse

from flights import OK, QUEUED, Driver, outcome, writer
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import Event
from redis_fastbatch._engine.transaction import TRANSITIONS, AtomicFlight, State, Step

ITEMS = {f"key:{i}": i for i in range(4)}
LOST = ConnectionError("gone")


def flight_of(items: Any = ITEMS, options: SetOptions | None = None, size: int = 2, **more: Any) -> AtomicFlight:
    options = options or SetOptions(atomic=True)
    encoder = writer(items, options.command(msetex=True), size)
    return AtomicFlight(encoder, options.single, outcome(), repeatable=options.repeatable, **more)


def opened(flight: AtomicFlight) -> Driver:
    """Send a transaction up to EXEC. Receive the replies to MULTI and to the commands, but not to EXEC."""
    driver = Driver(flight)
    assert driver.send_all() == ([b"MULTI"], Event.NEED_REPLIES)
    driver.receive(OK)
    assert driver.send_all() == ([b"MSET", b"MSET", b"EXEC"], Event.NEED_REPLIES)
    driver.receive(QUEUED * 2)
    return driver


def test_one_command_is_sent_without_multi() -> None:
    flight = flight_of(size=10)
    driver = Driver(flight)
    assert driver.send_all() == ([b"MSET"], Event.NEED_REPLIES)
    driver.receive(OK)
    assert (flight.poll(), flight.report.written, flight.confirmed_prefix()) == (Event.DONE, 4, 4)


def test_several_commands_are_sent_between_multi_and_exec() -> None:
    flight = flight_of()
    driver = opened(flight)
    assert (flight.report.written, flight.confirmed_prefix()) == (0, 0)
    driver.receive(b"*2\r\n" + OK * 2)
    assert (flight.poll(), flight.report.written, flight.confirmed_prefix()) == (Event.DONE, 4, 4)


def test_execs_reply_says_which_items_were_skipped() -> None:
    flight = flight_of(options=SetOptions(atomic=True, nx=True))
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK)
    assert driver.send_all() == ([b"SET"] * 4 + [b"EXEC"], Event.NEED_REPLIES)
    driver.receive(QUEUED * 4 + b"*4\r\n" + OK + b"$-1\r\n" + OK + b"$-1\r\n")
    report = flight.report
    assert (flight.poll(), report.written, report.skipped_keys) == (Event.DONE, 2, ["key:1", "key:3"])


def test_an_item_that_cannot_be_encoded_discards_the_batch() -> None:
    flight = flight_of({**ITEMS, "bad": {1}})
    driver = Driver(flight)
    assert driver.send_all() == ([b"MULTI"], Event.NEED_REPLIES)
    driver.receive(OK)
    assert driver.send_all() == ([b"MSET", b"MSET", b"DISCARD"], Event.NEED_REPLIES)
    driver.receive(QUEUED * 2 + OK)
    assert (flight.poll(), flight.report.written, flight.report.failed) == (Event.DONE, 0, 5)
    assert "another item of the atomic batch failed" in str(flight.report.failures["key:0"])


def test_nothing_is_sent_if_the_only_command_cannot_be_encoded() -> None:
    flight = flight_of({**ITEMS, "bad": {1}}, size=10)
    assert Driver(flight).send_all() == ([], Event.DONE)
    assert flight.report.failed == 5


def test_only_discard_follows_a_refused_multi() -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-NOPERM no multi\r\n")
    assert driver.send_all() == ([b"DISCARD"], Event.NEED_REPLIES)
    driver.receive(b"-ERR DISCARD without MULTI\r\n")
    assert (flight.poll(), flight.report.failed) == (Event.DONE, 4)
    assert {str(error) for error in flight.report.failures.values()} == {"NOPERM no multi"}


def test_a_refused_command_fails_the_batch() -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK)
    driver.send_all()
    driver.receive(b"-NOPERM no key:0\r\n" + QUEUED + b"-EXECABORT discarded\r\n")
    assert (flight.poll(), flight.report.failed) == (Event.DONE, 4)
    assert str(flight.report.failures["key:0"]) == "NOPERM no key:0"
    assert isinstance(flight.report.failures["key:3"], ExecAbortError)


def test_without_msetex_the_transaction_is_sent_again_with_sets() -> None:
    flight = flight_of(options=SetOptions(atomic=True, ex=10))
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK)
    assert driver.send_all() == ([b"MSETEX", b"MSETEX", b"EXEC"], Event.NEED_REPLIES)
    driver.receive(b"-ERR unknown command 'MSETEX'\r\n" * 2 + b"-EXECABORT discarded\r\n")
    assert driver.send_all() == ([b"MULTI"], Event.NEED_REPLIES)
    driver.receive(OK)
    assert driver.send_all() == ([b"SET"] * 4 + [b"EXEC"], Event.NEED_REPLIES)
    driver.receive(QUEUED * 4 + b"*4\r\n" + OK * 4)
    assert (flight.poll(), flight.report.written) == (Event.DONE, 4)


def test_without_msetex_a_single_command_becomes_a_transaction() -> None:
    flight = flight_of(options=SetOptions(atomic=True, ex=10), size=10)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-ERR unknown command 'MSETEX'\r\n")
    assert driver.send_all() == ([b"MULTI"], Event.NEED_REPLIES)


@pytest.mark.parametrize("replies", [b"", OK])
def test_a_connection_lost_before_exec_sends_all_again(replies: bytes) -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    driver.receive(replies)
    if replies:
        driver.send()
    assert flight.connection_lost()
    opened(flight).receive(b"*2\r\n" + OK * 2)
    assert (flight.poll(), flight.report.written) == (Event.DONE, 4)


def test_a_connection_lost_after_exec_leaves_the_outcome_unknown() -> None:
    flight = flight_of()
    opened(flight)
    assert not flight.connection_lost()
    flight.abort(LOST)
    report = flight.report
    assert (report.failed, report.confirmed_prefix) == (4, 0)
    assert all(str(error).startswith("outcome unknown") for error in report.failures.values())


def test_an_abort_before_exec_reports_all_items_as_not_sent() -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK)
    driver.send()
    flight.abort(LOST)
    assert {str(error).partition(":")[0] for error in flight.report.failures.values()} == {"not sent"}


def test_a_connection_lost_after_the_end_changes_nothing() -> None:
    flight = flight_of()
    opened(flight).receive(b"*2\r\n" + OK * 2)
    assert flight.connection_lost()
    assert flight.poll() is Event.DONE


@pytest.mark.parametrize("reply", [b"*1\r\n" + OK, OK, b"$-1\r\n"])
def test_an_impossible_reply_to_exec_is_an_error(reply: bytes) -> None:
    driver = opened(flight_of())
    with pytest.raises(InvalidResponse, match="EXEC was answered with"):
        driver.receive(reply)


def test_a_partial_chunk_has_no_flush_timer() -> None:
    flight = flight_of()
    assert flight.poll(1) is Event.PAUSED
    assert flight.flush_seconds is None


def test_every_state_but_the_last_has_a_transition() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}
    assert {step for _, step in TRANSITIONS} == set(Step)
