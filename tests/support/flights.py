"""Drives flights without a connection. A Driver takes chunks from poll() and feeds encoded replies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ResponseError,
)

from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._core.resp.routed import slot_of_key
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


HALF = 8192
KEYS = [f"key:{i}" for i in range(12)]
LOW = [key for key in KEYS if slot_of_key(key, "utf-8", "strict") < HALF]
HIGH = [key for key in KEYS if key not in LOW]
LOST = ConnectionError("gone")


class TwoNodes:
    """Stands in for a cluster client: two nodes share the slots."""

    def __init__(self) -> None:
        nodes = [SimpleNamespace(name=f"127.0.0.1:{port}") for port in (7000, 7001)]
        shards = [[node] for node in nodes]
        self.slots = {slot: shards[slot >= HALF] for slot in range(2 * HALF)}

    def address(self, redirection: Any, answered: Any) -> tuple[str, int]:
        return redirection.host, int(redirection.port)


def two_nodes() -> Topology:
    """Return the topology of two nodes that share the slots."""
    known: Any = TwoNodes()
    return Topology(known)


def moved(key: str, port: int, word: bytes = b"MOVED") -> bytes:
    """Return a redirection of a key to the node with a port."""
    return b"-%s %d 127.0.0.1:%d\r\n" % (word, slot_of_key(key, "utf-8", "strict"), port)
