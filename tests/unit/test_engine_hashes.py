"""Flights that write the rows of a table as hashes, fed with bytes in memory."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError, InvalidResponse

from flights import Driver, outcome
from redis_fastbatch._core.arrow.hashes import HashWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import Event, Send
from redis_fastbatch._engine.hashes import HashFlight, expire_command, hset_command

pa = pytest.importorskip("pyarrow")


def flight_of(options: SetOptions, size: int = 2) -> HashFlight:
    table = pa.table({"id": [0, 1, 2, 3], "name": ["a", "b", "c", "d"]})
    rows = HashWriter(
        ArrowStream(table), hset_command(options), columns=None, key=["id"], max_items=size, max_bytes=32 * 1024
    )
    return HashFlight(rows, expire_command(options), outcome())


def test_each_row_is_one_hset_and_errors_name_their_row() -> None:
    flight = flight_of(SetOptions())
    driver = Driver(flight)
    assert driver.send_all() == ([b"HSET"] * 4, Event.NEED_REPLIES)
    driver.receive(b":2\r\n:0\r\n-WRONGTYPE no hash\r\n:2\r\n")
    report = flight.report
    assert (flight.poll(), report.written, list(report.failures)) == (Event.DONE, 3, [2])


def test_expire_follows_the_rows_that_were_written() -> None:
    flight = flight_of(SetOptions(ex=10), size=4)
    driver = Driver(flight)
    event = flight.poll()
    assert isinstance(event, Send)
    assert event.poll_after_send
    driver.send_all()
    driver.receive(b":2\r\n-WRONGTYPE no hash\r\n:2\r\n:2\r\n")
    assert (flight.report.written, flight.confirmed_prefix()) == (0, 0)
    assert driver.send_all() == ([b"EXPIRE"] * 3, Event.NEED_REPLIES)
    driver.receive(b":1\r\n:0\r\n-NOPERM no\r\n")
    report = flight.report
    assert (flight.poll(), report.written, list(report.failures)) == (Event.DONE, 2, [1, 3])


def test_a_row_whose_expiry_is_not_confirmed_fails() -> None:
    flight = flight_of(SetOptions(ex=10), size=4)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b":2\r\n" * 4)
    driver.send_all()
    flight.abort(ConnectionError("gone"))
    report = flight.report
    assert (report.failed, report.confirmed_prefix) == (4, 0)
    assert str(report.failures[0]).startswith("HSET was carried out; EXPIRE: outcome unknown")


def test_a_lost_connection_sends_expire_again() -> None:
    flight = flight_of(SetOptions(ex=10), size=4)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b":2\r\n-WRONGTYPE no hash\r\n:2\r\n:2\r\n")
    driver.send_all()
    assert flight.connection_lost()
    again = Driver(flight)
    assert again.send_all() == ([b"EXPIRE"] * 3, Event.NEED_REPLIES)
    again.receive(b":1\r\n" * 3)
    assert (flight.poll(), flight.report.written, list(flight.report.failures)) == (Event.DONE, 3, [1])


@pytest.mark.parametrize("reply", [b"+OK\r\n", b":3\r\n", b":-1\r\n", b"$1\r\n2\r\n"])
def test_an_impossible_reply_to_hset_is_an_error(reply: bytes) -> None:
    driver = Driver(flight_of(SetOptions(), size=1))
    driver.send_all()
    with pytest.raises(InvalidResponse, match="HSET was answered with"):
        driver.receive(reply)


def test_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="HSET has no conditions"):
        expire_command(SetOptions(nx=True))
