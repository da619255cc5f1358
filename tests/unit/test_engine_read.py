"""Flights that read, fed with bytes in memory."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError, ResponseError

from flights import CODEC, Driver, writer
from redis_fastbatch._engine.commands import MGET
from redis_fastbatch._engine.flight import ChunkState, Event
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.pacing import FIRST_KEYS, ValueSizes
from redis_fastbatch._engine.read import READ_WINDOW, ReadFlight, read_ended
from redis_fastbatch.errors import DecodeError, EncodeError

KEYS = [f"key:{i}" for i in range(40)]


def flight_of(
    keys: Any, out: Any, size: int = 1000, sizes: ValueSizes | None = None, **options: Any
) -> ReadFlight:
    asked = ReadOptions(limit=size, **options)
    recorder = ReadOutcome(CODEC, sizes=sizes, default=asked.default, on_error=asked.on_error)
    return ReadFlight(writer(keys, MGET, size), CODEC, out, recorder, asked)


def values(*found: Any) -> bytes:
    """Return an array of values as a server sends it; None for a key that is missing."""
    data = [None if value is None else CODEC.dumps(value) for value in found]
    parts = [b"$-1\r\n" if each is None else b"$%d\r\n%s\r\n" % (len(each), each) for each in data]
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


def test_the_second_command_waits_for_the_first_reply() -> None:
    keys = [f"key:{i}" for i in range(FIRST_KEYS + 24)]
    found: dict[str, Any] = {}
    flight = flight_of(keys, found)
    driver = Driver(flight)
    assert driver.send_all() == ([b"MGET"], Event.NEED_REPLIES)
    driver.receive(values(*range(FIRST_KEYS)))
    assert driver.send_all() == ([b"MGET"], Event.NEED_REPLIES)
    driver.receive(values(*range(FIRST_KEYS, len(keys))))
    assert flight.poll() is Event.DONE
    assert found == {key: i for i, key in enumerate(keys)}
    read_ended(flight.outcome, "raise")


@pytest.mark.parametrize("count", [1, 17, FIRST_KEYS])
def test_a_batch_of_up_to_a_full_command_is_one_round_trip(count: int) -> None:
    keys = [f"key:{i}" for i in range(count)]
    flight = flight_of(keys, {})
    driver = Driver(flight)
    assert driver.send_all() == ([b"MGET"], Event.NEED_REPLIES)
    driver.receive(values(*range(count)))
    assert flight.poll() is Event.DONE


@pytest.mark.parametrize("cut", [0, 1, 9, 15])
def test_a_command_that_was_sent_before_the_flight_was_made(cut: int) -> None:
    found: dict[str, Any] = {}
    encoder = writer(KEYS[:3], MGET)
    chunk = encoder.blank()
    encoder.fill_some(chunk, 100)
    flight = ReadFlight(encoder, CODEC, found, ReadOutcome(CODEC), ReadOptions())
    flight.begin_with(chunk, ChunkState.SENT)
    driver = Driver(flight)
    assert driver.send_all() == ([], Event.NEED_REPLIES)
    data = values(0, None, 2)
    driver.receive(data[:cut])
    driver.receive(data[cut:])
    assert flight.poll() is Event.DONE
    assert found == {"key:0": 0, "key:1": None, "key:2": 2}


def test_the_window_limits_the_commands_in_flight() -> None:
    driver = Driver(flight_of(KEYS, {}, size=2, sizes=ValueSizes(8)))
    assert len(driver.send_all()[0]) == READ_WINDOW


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_reply_may_arrive_in_two_pieces(cut: int) -> None:
    found: list[Any] = []
    flight = flight_of(KEYS[:3], found, default="none")
    driver = Driver(flight)
    driver.send_all()
    data = values({"a": 1}, None, "text" * 5)
    driver.receive(data[:cut])
    driver.receive(data[cut:])
    assert flight.poll() is Event.DONE
    assert found == [("key:0", {"a": 1}), ("key:1", "none"), ("key:2", "text" * 5)]


def test_a_budget_pauses_decoding() -> None:
    found: dict[str, Any] = {}
    driver = Driver(flight_of(KEYS[:4], found))
    driver.send_all()
    driver.receive(values(0, 1, 2, 3), budget=3)
    assert len(found) == 3
    driver.receive(b"", budget=3)
    assert len(found) == 4


@pytest.mark.parametrize("out", [dict, list])
def test_a_lost_connection_sends_unanswered_commands_again(out: type[Any]) -> None:
    found: Any = out()
    flight = flight_of(KEYS[:4], found, size=2, sizes=ValueSizes(8))
    driver = Driver(flight)
    driver.send_all()
    driver.receive(values(0, 1) + values(2, 3)[:9])
    assert flight.connection_lost()
    again = Driver(flight)
    assert again.send_all() == ([b"MGET"], Event.NEED_REPLIES)
    again.receive(values(2, 3))
    assert flight.poll() is Event.DONE
    assert (list(found.items()) if out is dict else found) == [(key, i) for i, key in enumerate(KEYS[:4])]


def test_a_refused_command_ends_the_batch() -> None:
    flight = flight_of(KEYS, {}, size=2, sizes=ValueSizes(8))
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-NOPERM no\r\n")
    driver.receive(values(2, 3) * (READ_WINDOW - 1))
    assert flight.poll() is Event.DONE
    with pytest.raises(ResponseError, match="NOPERM no"):
        read_ended(flight.outcome, "raise")


@pytest.mark.parametrize("on_error", ["raise", "report", "hook"])
def test_a_value_that_cannot_be_decoded_follows_on_error(on_error: str) -> None:
    failures: list[Any] = []
    found: dict[str, Any] = {}
    handler: Any = (lambda key, data, error: failures.append((key, data))) if on_error == "hook" else on_error
    flight = flight_of(KEYS[:3], found, default="none", on_error=handler)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"*3\r\n$1\r\n\x01\r\n$1\r\n\xc1\r\n$1\r\n\x03\r\n")
    assert flight.poll() is Event.DONE
    assert found == {"key:0": 1, "key:1": "none", "key:2": 3}
    assert flight.outcome.failed == 1
    assert failures == ([("key:1", b"\xc1")] if on_error == "hook" else [])
    if on_error == "raise":
        with pytest.raises(DecodeError, match="key:1"):
            read_ended(flight.outcome, on_error)
    else:
        read_ended(flight.outcome, handler)


def test_a_key_of_a_wrong_type_is_an_encode_error() -> None:
    flight = flight_of(["a", object()], {})
    Driver(flight).send_all()
    with pytest.raises(EncodeError):
        read_ended(flight.outcome, "raise")


def test_no_keys_are_taken_beyond_the_budget_of_bytes() -> None:
    flight = flight_of(KEYS, {}, size=2, budget=2)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(values("a", "b"))
    assert flight.poll() is Event.DONE


def test_an_abort_leaves_nothing_in_flight() -> None:
    flight = flight_of(KEYS, {})
    Driver(flight).send_all()
    flight.abort(ConnectionError("gone"))
    assert not flight.in_flight
