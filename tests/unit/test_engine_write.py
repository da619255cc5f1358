"""Flights that write, fed with bytes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, ConnectionError, InvalidResponse

from flights import OK, SET, Driver, outcome, words, writer
from redis_fastbatch import ChunkStats
from redis_fastbatch._core.resp.encoder import SourcePending
from redis_fastbatch._engine.commands import MSET, SetOptions
from redis_fastbatch._engine.flight import WINDOW_CHUNKS, ChunkState, Event, Send
from redis_fastbatch._engine.write import WriteFlight

ITEMS = {f"key:{i}": i for i in range(5)}
LOST = ConnectionError("gone")


def flight_of(items: Any = ITEMS, options: SetOptions | None = None, size: int = 2, **more: Any) -> WriteFlight:
    options = options or SetOptions()
    hooks = {name: more.pop(name) for name in ("on_error", "progress", "on_chunk") if name in more}
    encoder = writer(items, options.command(msetex=True), size)
    return WriteFlight(encoder, options.single, outcome(**hooks), repeatable=options.repeatable, **more)


def test_chunks_are_sent_and_confirmed_until_done() -> None:
    flight = flight_of()
    driver = Driver(flight)
    assert driver.send_all() == ([b"MSET"] * 3, Event.NEED_REPLIES)
    assert flight.awaiting_replies
    driver.receive(OK + OK[:2])
    assert (flight.report.written, flight.confirmed_prefix(), flight.in_flight) == (2, 2, True)
    assert flight.poll() is Event.NEED_REPLIES
    driver.receive(OK[2:] + OK)
    assert flight.poll() is Event.DONE
    assert (flight.report.written, flight.confirmed_prefix(), flight.in_flight) == (5, 5, False)


def test_poll_returns_the_same_chunk_until_it_is_started() -> None:
    flight = flight_of()
    first, second = flight.poll(), flight.poll()
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert first.chunk is second.chunk


def test_an_empty_batch_is_done_at_once() -> None:
    assert flight_of({}).poll() is Event.DONE


def test_the_window_limits_the_chunks_in_flight() -> None:
    driver = Driver(flight_of({f"key:{i}": i for i in range(WINDOW_CHUNKS + 50)}, size=1))
    assert len(driver.send_all()[0]) == WINDOW_CHUNKS
    driver.receive(OK * 10)
    assert driver.send_all() == ([b"MSET"] * 10, Event.NEED_REPLIES)


def test_a_budget_pauses_encoding_and_decoding() -> None:
    flight = flight_of(size=4)
    driver = Driver(flight)
    assert flight.poll(3) is Event.PAUSED
    assert driver.send_all(3) == ([b"MSET", b"MSET"], Event.NEED_REPLIES)
    driver.receive(OK + OK, budget=1)
    assert flight.report.written == 4
    driver.receive(b"", budget=1)
    assert flight.report.written == 5


class PendingSource:
    """A source that has no item at the moment, but has not ended."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.items:
            return self.items.pop(0)
        raise StopIteration if self.ended else SourcePending


def test_a_partial_chunk_is_sent_when_the_source_stays_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = PendingSource()
    flight = flight_of(source, size=3)
    driver = Driver(flight)
    assert driver.send_all(100) == ([], Event.NEED_ITEMS)
    assert flight.flush_seconds is None
    source.items = [("a", 1), ("b", 2)]
    assert flight.poll(100) is Event.NEED_ITEMS
    assert flight.flush_seconds is not None
    monkeypatch.setattr("redis_fastbatch._engine.pacing.FLUSH_SECONDS", 0.0)
    event = flight.poll(100)
    assert isinstance(event, Send)
    assert event.poll_after_send
    assert event.chunk.count == 2
    driver.send_all(100)
    driver.receive(OK)
    source.ended = True
    assert flight.poll(100) is Event.DONE


def test_the_items_of_a_refused_command_are_sent_again_one_by_one() -> None:
    flight = flight_of(size=5)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-NOPERM no access to one of the keys\r\n")
    assert driver.send_all() == ([b"SET"] * 5, Event.NEED_REPLIES)
    driver.receive(OK * 3 + b"-NOPERM this one\r\n" + OK)
    assert flight.poll() is Event.DONE
    report = flight.report
    assert (report.written, report.failed, list(report.failures)) == (4, 1, ["key:3"])


def test_items_are_not_sent_again_if_the_server_refuses_all_writes() -> None:
    flight = flight_of(size=5)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b"-MISCONF cannot write to disk\r\n")
    assert flight.poll() is Event.DONE
    assert flight.report.failed == 5


def test_without_msetex_sets_are_sent() -> None:
    lost: list[bool] = []
    flight = flight_of(options=SetOptions(ex=10), size=3, on_msetex_lost=lambda: lost.append(True))
    driver = Driver(flight)
    assert words(driver.send()) == [b"MSETEX"]
    driver.receive(b"-ERR unknown command 'MSETEX'\r\n")
    assert lost == [True]
    assert driver.send_all() == ([b"SET"] * 5, Event.NEED_REPLIES)
    driver.receive(OK * 5)
    assert (flight.poll(), flight.report.written) == (Event.DONE, 5)


def test_skipped_and_failed_items_are_reported_with_their_keys() -> None:
    failures: list[tuple[Any, Any]] = []
    flight = flight_of(
        {**ITEMS, "bad": {1}},
        SetOptions(nx=True),
        6,
        on_error=lambda key, value, error: failures.append((key, value)),
    )
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK + b"$-1\r\n" + OK + b"_\r\n" + b"-ERR no\r\n")
    report = flight.report
    assert (report.written, report.skipped, report.failed) == (2, 2, 2)
    assert report.skipped_keys == ["key:1", "key:3"]
    assert failures == [("bad", {1}), ("key:4", 4)]


@pytest.mark.parametrize("reply", [b":1\r\n", b"$3\r\nyes\r\n", b"*0\r\n"])
def test_an_impossible_reply_to_mset_is_an_error(reply: bytes) -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    with pytest.raises(InvalidResponse, match="MSET was answered with"):
        driver.receive(reply)
    flight.abort(InvalidResponse("no"))
    assert (flight.report.written, flight.report.failed) == (0, 5)
    assert flight.report.confirmed_prefix == 0


def test_a_lost_connection_sends_unconfirmed_chunks_again() -> None:
    flight = flight_of(size=1)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK * 2)
    assert flight.connection_lost()
    again = Driver(flight)
    assert again.send_all() == ([b"MSET"] * 3, Event.NEED_REPLIES)
    again.receive(OK * 3)
    assert (flight.poll(), flight.report.written) == (Event.DONE, 5)


def test_a_batch_with_conditions_is_not_sent_again() -> None:
    flight = flight_of(options=SetOptions(nx=True), size=2)
    driver = Driver(flight)
    assert flight.connection_lost()
    driver.send()
    driver.receive(OK)
    driver.send()
    assert not flight.connection_lost()
    flight.abort(LOST)
    report = flight.report
    assert (report.written, report.failed, report.confirmed_prefix) == (0, 4, 0)
    assert all(str(error).startswith("outcome unknown: ConnectionError") for error in report.failures.values())


def test_an_abort_reports_each_item_once() -> None:
    flight = flight_of(size=1)
    driver = Driver(flight)
    driver.send()
    driver.receive(OK)
    driver.send(whole=False)
    assert not flight.awaiting_replies
    assert isinstance(flight.poll(), Send)
    flight.abort(LOST)
    flight.abort(LOST)
    report = flight.report
    assert (report.written, report.failed, report.confirmed_prefix) == (1, 2, 1)
    assert [str(error).partition(":")[0] for error in report.failures.values()] == ["outcome unknown", "not sent"]


def test_a_loading_server_fails_the_items_once_the_transport_stops_waiting() -> None:
    flight = flight_of()
    driver = Driver(flight)
    driver.send_all()
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    with pytest.raises(BusyLoadingError):
        driver.receive(loading)
    assert flight.connection_lost()
    flight.wait_while_loading = False
    again = Driver(flight)
    again.send_all()
    again.receive(loading * 3)
    assert (flight.poll(), flight.report.failed) == (Event.DONE, 5)


def test_on_chunk_is_called_for_each_chunk() -> None:
    stats: list[ChunkStats] = []
    flight = flight_of(size=2, on_chunk=stats.append)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(OK * 3)
    assert [each.items for each in stats] == [2, 2, 1]
    assert [each.in_flight > 0 for each in stats] == [True, True, False]


def test_a_hook_that_raises_is_called_once() -> None:
    def hook(key: Any, value: Any, error: Exception) -> None:
        raise ConnectionError("the dead-letter queue")

    flight = flight_of({"a": {1}, "b": {2}}, on_error=hook)
    with pytest.raises(ConnectionError):
        flight.poll()
    assert flight.hook_raised
    flight.abort(ConnectionError("the dead-letter queue"))
    assert flight.report.failed == 2


def test_an_interrupted_source_ends_the_batch_after_its_items() -> None:
    def source() -> Iterator[tuple[str, int]]:
        yield "a", 1
        yield "b", 2
        raise KeyboardInterrupt

    flight = flight_of(source(), size=10)
    driver = Driver(flight)
    assert driver.send_all() == ([b"MSET"], Event.NEED_REPLIES)
    driver.receive(OK)
    assert flight.poll() is Event.DONE
    assert isinstance(flight.source_error, KeyboardInterrupt)
    assert (flight.report.written, flight.confirmed_prefix()) == (2, 2)


def test_items_taken_before_the_flight_began_fail_with_it() -> None:
    flight = flight_of({})
    flight.ended_before([("a", 1), "no pair"], LOST)
    assert list(flight.report.failures) == ["a", "no pair"]
    assert flight.report.failed == 2


def test_a_command_has_exactly_these_bytes() -> None:
    chunk = Driver(WriteFlight(writer({"k": "v"}, MSET), SET, outcome())).send()
    assert chunk == b"*3\r\n$4\r\nMSET\r\n$1\r\nk\r\n$2\r\n\xa1v\r\n"


@pytest.mark.parametrize("state", [ChunkState.NEW, ChunkState.SENDING, ChunkState.SENT])
def test_a_chunk_that_was_encoded_before_the_flight_was_made(state: ChunkState) -> None:
    encoder = writer({"a": 1, "b": object(), "c": 3}, MSET)
    chunk = encoder.blank()
    encoder.fill_some(chunk, 100)
    flight = WriteFlight(encoder, SET, outcome(on_error="report"))
    with flight:
        flight.begin_with(chunk, state)
        driver = Driver(flight)
        sent, event = driver.send_all()
        assert (sent, event) == ([b"MSET"] if state is ChunkState.NEW else [], Event.NEED_REPLIES)
        driver.receive(OK)
        assert flight.poll() is Event.DONE
    report = flight.report
    assert (report.written, report.failed, report.confirmed_prefix) == (2, 1, 3)
    assert report.bytes_sent == len(chunk)


def test_a_chunk_that_was_sent_before_is_unknown_when_the_batch_is_aborted() -> None:
    encoder = writer({"a": 1, "b": 2}, MSET)
    chunk = encoder.blank()
    encoder.fill_some(chunk, 100)
    flight = WriteFlight(encoder, SET, outcome(on_error="report"))
    flight.begin_with(chunk, ChunkState.SENDING)
    flight.abort(ConnectionError("gone"))
    assert (flight.report.failed, flight.report.confirmed_prefix) == (2, 0)
    assert all("outcome unknown" in str(error) for error in flight.report.failures.values())
