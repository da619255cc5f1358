"""Batches of commands. Their flights are fed with bytes in memory."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, ConnectionError, InvalidResponse

from flights import OK, Driver
from redis_fastbatch import BatchReport, EncodeError
from redis_fastbatch._core.resp.command_chunks import CommandWriter
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.replies import ReplyFormat
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._engine.execute import ExecuteFlight, ReplyFlight
from redis_fastbatch._engine.flight import Event
from redis_fastbatch._engine.outcome import WriteOutcome
from redis_fastbatch._engine.pacing import ROUND_BYTES, ValueSizes

LOST = ConnectionError("gone")
COMMANDS: list[Any] = [("INCR", f"key:{i}") for i in range(5)]


def writer(commands: Any, size: int = 2, position: int = 0) -> CommandWriter:
    encoder = CommandEncoder(rules=RULES)
    return CommandWriter(commands, encoder, max_items=size, max_bytes=32 * 1024, position=position)


def execute(commands: Any = COMMANDS, size: int = 2, repeatable: bool = False, **hooks: Any) -> Any:
    return ExecuteFlight(
        writer(commands, size), WriteOutcome(BatchReport(item="command"), **hooks), repeatable=repeatable
    )


def replies(commands: Any = COMMANDS, size: int = 2, position: int = 0) -> tuple[ReplyFlight, list[Any]]:
    out: list[Any] = []
    form = ReplyFormat(lambda reply: reply)
    return ReplyFlight(writer(commands, size, position), out, ValueSizes(), form, size), out


def test_replies_of_all_kinds_are_counted() -> None:
    received: list[Any] = []
    flight = execute(on_error=lambda *failure: received.append(failure))
    driver = Driver(flight)
    assert driver.send_all() == ([b"INCR"] * 5, Event.NEED_REPLIES)
    driver.receive(b":1\r\n+OK\r\n*1\r\n*2\r\n:1\r\n$2\r\n")
    assert (flight.report.written, flight.confirmed_prefix()) == (2, 2)
    driver.receive(b"ab\r\n-ERR no\r\n_\r\n")
    assert flight.poll() is Event.DONE
    assert (flight.report.written, flight.report.failed, flight.confirmed_prefix()) == (4, 1, 5)
    [(position, command, error)] = received
    assert (position, command) == (3, ("INCR", "key:3"))
    assert str(error) == "command 3 (INCR key:3): ERR no"
    assert flight.report.failures == {3: error}


def test_a_command_that_cannot_be_encoded_fails_alone() -> None:
    commands = [("SET", "a", 1), ("SET", "b", None), 5, ("SELECT", 1), ["client reply", "OFF"], ("GET", "a"), ()]
    flight = execute(commands)
    driver = Driver(flight)
    assert driver.send_all() == ([b"SET", b"GET"], Event.NEED_REPLIES)
    driver.receive(OK + b"$1\r\n1\r\n")
    assert flight.poll() is Event.DONE
    assert (flight.report.written, flight.confirmed_prefix()) == (2, 7)
    assert list(flight.report.failures) == [1, 2, 3, 4, 6]
    assert all(isinstance(error, EncodeError) for error in flight.report.failures.values())
    text = {position: str(error) for position, error in flight.report.failures.items()}
    assert text[1].startswith("command 1 (SET b None): argument 2 must be str, bytes, int or float")
    assert text[2].startswith("command 2 (5): a command must be a tuple or list")
    assert text[3] == (
        "command 3 (SELECT 1): SELECT changes the state of a connection that other callers use: "
        "make the client with db=... for another database"
    )
    assert "CLIENT REPLY turns replies off" in text[4]


def test_what_is_unknown_after_a_lost_connection() -> None:
    flight = execute()
    driver = Driver(flight)
    driver.send()
    driver.send(whole=False)
    driver.receive(b"-ERR no\r\n")
    assert not flight.connection_lost()
    flight.abort(LOST)
    text = {position: str(error) for position, error in flight.report.failures.items()}
    assert list(text) == [0, 1, 2, 3]
    assert text[0] == "command 0 (INCR key:0): ERR no"
    assert text[1] == text[3] == "outcome unknown: ConnectionError before the server confirmed it: gone"
    assert flight.report.first_failure() == "command 0 (INCR key:0): ERR no"


def test_replies_before_a_lost_connection_count() -> None:
    flight = execute(size=5)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b":1\r\n:1\r\n-ERR no\r\n:")
    flight.abort(LOST)
    assert (flight.report.written, list(flight.report.failures)) == (2, [2, 3, 4])
    assert flight.confirmed_prefix() == 5


def test_nothing_is_repeated_unless_it_may_be() -> None:
    for repeatable in (False, True):
        flight = execute(repeatable=repeatable)
        assert flight.connection_lost()
        driver = Driver(flight)
        driver.send_all()
        assert flight.connection_lost() is repeatable
    again = Driver(flight)
    assert again.send_all() == ([b"INCR"] * 5, Event.NEED_REPLIES)
    again.receive(b":2\r\n" * 5)
    assert flight.poll() is Event.DONE
    assert flight.report.written == 5


def test_a_loading_server_is_waited_for_only_where_commands_may_be_repeated() -> None:
    flight = execute()
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-LOADING data\r\n" + b":1\r\n" * 4)
    assert (flight.report.written, list(flight.report.failures)) == (4, [0])
    flight = execute(repeatable=True)
    driver = Driver(flight)
    driver.send_all()
    with pytest.raises(BusyLoadingError):
        driver.receive(b"-LOADING data\r\n")


def test_what_is_not_a_reply() -> None:
    driver = Driver(execute())
    driver.send_all()
    with pytest.raises(InvalidResponse):
        driver.receive(b"hello\r\n")


def test_items_that_were_taken_ahead_are_named_by_their_positions() -> None:
    flight = execute(COMMANDS[:2])
    Driver(flight).send_all()
    flight.ended_before([("INCR", "x"), ("INCR", "y")], LOST)
    assert list(flight.report.failures) == [2, 3]
    assert str(flight.report.failures[2]) == "not sent: ConnectionError: gone"


def test_replies_are_kept_in_order() -> None:
    flight, out = replies()
    driver = Driver(flight)
    # The first reply is waited for.
    assert driver.send_all() == ([b"INCR"] * 2, Event.NEED_REPLIES)
    driver.receive(b":1\r\n*1\r\n$1\r\na")
    assert driver.send_all() == ([b"INCR"] * 3, Event.NEED_REPLIES)
    driver.receive(b"\r\n-ERR no\r\n:4\r\n_\r\n")
    assert flight.poll() is Event.DONE
    assert [repr(reply) for reply in (out[0], out[1], out[3], out[4])] == ["1", "[b'a']", "4", "None"]
    assert str(out[2]) == "command 2 (INCR key:2): ERR no"


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("budget", [None, 1])
def test_errors_of_encoding_stand_where_replies_would(size: int, budget: int | None) -> None:
    commands: list[Any] = [None, ("A",), None, None, ("B",), ("C",), None]
    flight, out = replies(commands, size, position=10)
    driver = Driver(flight)
    for _ in range(50):
        driver.send_all(budget)
        driver.receive(b":1\r\n" if flight.in_flight else b"", budget)
    assert flight.poll() is Event.DONE
    assert [isinstance(reply, EncodeError) for reply in out] == [command is None for command in commands]
    assert str(out[6]).startswith("command 16 (None): ")


def test_only_commands_that_cannot_be_encoded() -> None:
    flight, out = replies([None] * 5)
    assert Driver(flight).send_all() == ([], Event.DONE)
    assert len(out) == 5


def test_no_more_commands_are_taken_once_the_replies_are_large() -> None:
    source = iter(COMMANDS)
    flight, out = replies(source, size=1)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"$%d\r\n%b\r\n" % (ROUND_BYTES, b"x" * ROUND_BYTES))
    assert flight.poll() is Event.DONE
    assert (len(out), next(source)) == (1, ("INCR", "key:1"))


def test_commands_whose_replies_are_kept_are_not_repeated() -> None:
    flight, out = replies()
    driver = Driver(flight)
    assert flight.connection_lost()
    driver.send_all()
    driver.receive(b":1\r\n")
    assert not flight.connection_lost()
    flight.abort(LOST)
    assert (out, flight.in_flight) == ([1], False)
