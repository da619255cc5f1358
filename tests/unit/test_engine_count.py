"""Flights that count keys, fed with bytes in memory."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, ConnectionError, InvalidResponse, ResponseError

from flights import Driver, writer
from redis_fastbatch._engine.commands import UNLINK
from redis_fastbatch._engine.count import COUNT_WINDOW, CountFlight
from redis_fastbatch._engine.flight import ChunkState, Event
from redis_fastbatch._engine.outcome import CountOutcome
from redis_fastbatch.errors import EncodeError

KEYS = [f"key:{i}" for i in range(40)]


def flight_of(keys: Any, size: int = 1000) -> CountFlight:
    return CountFlight(writer(keys, UNLINK, size), CountOutcome())


def test_counts_are_added_up() -> None:
    flight = flight_of([f"key:{i}" for i in range(1500)])
    driver = Driver(flight)
    assert driver.send_all() == ([b"UNLINK"] * 2, Event.NEED_REPLIES)
    driver.receive(b":1000\r\n:")
    assert (flight.settled, flight.in_flight) == (1, True)
    driver.receive(b"7\r\n")
    assert (flight.poll(), flight.outcome.total) == (Event.DONE, 1007)
    flight.outcome.raise_error()


def test_no_keys() -> None:
    flight = flight_of([])
    assert (Driver(flight).send_all(), flight.outcome.total) == (([], Event.DONE), 0)


def test_no_more_commands_than_the_window_has_room_for() -> None:
    flight = flight_of(KEYS, size=2)
    driver = Driver(flight)
    assert driver.send_all() == ([b"UNLINK"] * COUNT_WINDOW, Event.NEED_REPLIES)
    driver.receive(b":2\r\n" * COUNT_WINDOW)
    assert driver.send_all() == ([b"UNLINK"] * COUNT_WINDOW, Event.NEED_REPLIES)


def test_a_budget_pauses_encoding() -> None:
    flight = flight_of(KEYS, size=4)
    assert flight.poll(3) is Event.PAUSED
    assert flight.flush_seconds is not None
    assert Driver(flight).send_all(3) == ([b"UNLINK"], Event.PAUSED)


@pytest.mark.parametrize("reply", [b":41\r\n", b":-1\r\n", b"+OK\r\n"])
def test_an_impossible_reply_to_unlink_is_an_error(reply: bytes) -> None:
    driver = Driver(flight_of(KEYS))
    driver.send_all()
    with pytest.raises(InvalidResponse, match="a number of keys was expected"):
        driver.receive(reply)


def test_a_lost_connection_sends_again_what_has_no_reply() -> None:
    flight = flight_of(KEYS[:6], size=2)
    driver = Driver(flight)
    first, second, third = driver.send(), driver.send(), driver.send(whole=False)
    driver.receive(b":2\r\n")
    assert flight.connection_lost()
    again = Driver(flight)
    assert [again.send(), again.send()] == [second, third] != [first, second]
    again.receive(b":1\r\n:0\r\n")
    assert (flight.poll(), flight.outcome.total) == (Event.DONE, 3)


@pytest.mark.parametrize("cut", range(4))
def test_a_command_that_was_sent_before_the_flight_was_made(cut: int) -> None:
    encoder = writer(KEYS[:3], UNLINK)
    chunk = encoder.blank()
    encoder.fill_some(chunk, 100)
    flight = CountFlight(encoder, CountOutcome())
    flight.begin_with(chunk, ChunkState.SENT)
    driver = Driver(flight)
    assert driver.send_all() == ([], Event.NEED_REPLIES)
    driver.receive(b":2\r\n"[:cut])
    driver.receive(b":2\r\n"[cut:])
    assert (flight.poll(), flight.outcome.total) == (Event.DONE, 2)


def test_a_command_that_was_encoded_before_the_flight_was_made() -> None:
    encoder = writer([*KEYS[:3], None, *KEYS[3:6]], UNLINK)
    chunk = encoder.blank()
    encoder.fill_some(chunk, 100)
    flight = CountFlight(encoder, CountOutcome())
    flight.begin_with(chunk, ChunkState.NEW)
    driver = Driver(flight)
    assert driver.send_all() == ([b"UNLINK"], Event.NEED_REPLIES)
    driver.receive(b":6\r\n")
    with pytest.raises(EncodeError):
        flight.outcome.raise_error()


def test_a_refused_command_ends_the_batch() -> None:
    flight = flight_of(KEYS, size=2)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-NOPERM no\r\n" + b":2\r\n" * (COUNT_WINDOW - 1))
    assert flight.poll() is Event.DONE
    with pytest.raises(ResponseError, match="NOPERM no"):
        flight.outcome.raise_error()


def test_a_server_that_is_loading_is_waited_for() -> None:
    flight = flight_of(KEYS)
    driver = Driver(flight)
    driver.send_all()
    with pytest.raises(BusyLoadingError):
        driver.receive(b"-LOADING wait\r\n")
    assert flight.connection_lost()
    assert Driver(flight).send_all()[0] == [b"UNLINK"]
    flight.wait_while_loading = False
    driver.receive(b"-LOADING wait\r\n")
    with pytest.raises(BusyLoadingError):
        flight.outcome.raise_error()


def test_a_key_of_a_wrong_type_ends_the_batch() -> None:
    flight = flight_of(["a", object(), "b"])
    Driver(flight).send_all()
    with pytest.raises(EncodeError):
        flight.outcome.raise_error()


def test_a_source_that_raises_ends_the_batch() -> None:
    def keys() -> Any:
        yield "a"
        raise LookupError("no more")

    flight = flight_of(keys())
    driver = Driver(flight)
    assert driver.send_all() == ([b"UNLINK"], Event.NEED_REPLIES)
    driver.receive(b":1\r\n")
    assert flight.poll() is Event.DONE
    with pytest.raises(LookupError, match="no more"):
        flight.outcome.raise_error()


def test_an_abort_leaves_nothing_in_flight() -> None:
    flight = flight_of(KEYS)
    Driver(flight).send_all()
    flight.abort(ConnectionError("gone"))
    assert not flight.in_flight
