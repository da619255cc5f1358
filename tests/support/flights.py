"""Drives flights without a connection. A Driver takes chunks from poll() and feeds encoded replies."""

from __future__ import annotations

from typing import Any

from redis.exceptions import AskError, BusyLoadingError, ClusterDownError, MovedError, ResponseError

from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.flight import Event, Send
from redis_fastbatch._engine.outcome import WriteOutcome
from redis_fastbatch._transports.redispy import reply_reader
from redis_fastbatch.report import BatchReport

CODEC = MsgpackCodec()
SET = Command(b"SET", many=False)
OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"


def explain(reply: ErrorReply) -> Exception:
    """Return the exception that redis-py makes from an error reply, for the kinds that the tests use."""
    word, _, rest = str(reply).partition(" ")
    kinds: dict[str, Any] = {
        "MOVED": MovedError,
        "ASK": AskError,
        "LOADING": BusyLoadingError,
        "CLUSTERDOWN": ClusterDownError,
    }
    return kinds[word](rest) if word in kinds else ResponseError(str(reply))


def writer(items: Any, command: Command, max_items: int = 1000) -> BatchWriter:
    """Return an encoder of items for a flight."""
    return BatchWriter(items, command, CODEC, max_items=max_items, max_bytes=32 * 1024)


def outcome(**hooks: Any) -> WriteOutcome:
    """Return an outcome recorder with a new report."""
    return WriteOutcome(BatchReport(), **hooks)


def words(data: Any) -> list[bytes]:
    """Return the first words of the commands in a chunk."""
    found, rest = [], bytes(data)
    while rest:
        head, rest = rest.split(b"\r\n", 1)
        for index in range(int(head[1:])):
            size, rest = rest.split(b"\r\n", 1)
            if index == 0:
                found.append(rest[: int(size[1:])])
            rest = rest[int(size[1:]) + 2 :]
    return found


class Driver:
    """Takes the place of a connection.

    Args:
        flight: the flight to drive.
    """

    def __init__(self, flight: Any) -> None:
        self.flight = flight
        self.reader = reply_reader(0)

    def send(self, *, whole: bool = True) -> bytes:
        """Send the chunk that poll() returns: all of it, or only its first bytes. Return its bytes."""
        event = self.flight.poll()
        assert isinstance(event, Send), event
        self.flight.started(event.chunk)
        if whole:
            self.flight.finished(event.chunk)
        return bytes(memoryview(event.chunk))

    def send_all(self, budget: int | None = None) -> tuple[list[bytes], Event]:
        """Send chunks while poll() returns any. Return the commands' first words, and the next event."""
        sent: list[bytes] = []
        while True:
            event = self.flight.poll(budget)
            if event is Event.PAUSED and budget is None:
                continue
            if not isinstance(event, Send):
                return sent, event
            self.flight.started(event.chunk)
            self.flight.finished(event.chunk)
            sent += words(memoryview(event.chunk))

    def receive(self, data: bytes, budget: int | None = None) -> None:
        """Feed replies to the flight."""
        self.reader.feed(data)
        self.flight.receive(self.reader, explain, budget)
