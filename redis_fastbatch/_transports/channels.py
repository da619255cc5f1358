"""How a flight uses a connection of redis-py: through its socket, or through its public methods.

A connection of a known kind is used through its socket, without blocking: whenever sending would wait, replies are
read, so that the buffers of neither side stay full for good. Any other connection is used through its public
methods, with the same results.
"""

from __future__ import annotations

import builtins
import socket
import time
from typing import Any, Protocol

from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import COMMAND_BYTES, Flight
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import push_handler, reply_reader
from redis_fastbatch._transports.redispy import sync as redispy
from redis_fastbatch._transports.sockets import PythonSocket, opened
from redis_fastbatch._transports.waiting import wait_for

DRAIN_SECONDS = 2.0
"""How long to wait for replies after Ctrl-C."""


class Channel(Protocol):
    """A connection as a flight uses it."""

    def send(self, chunk: Chunk, flight: Flight) -> None:
        """Send the whole chunk. Receive replies whenever the server does not read on."""

    def receive(self, flight: Flight) -> None:
        """Wait for replies, and let the flight read them."""

    def receive_arrived(self, flight: Flight) -> None:
        """Let the flight read the replies that have arrived. Do not wait."""

    def drain(self, flight: Flight) -> None:
        """After Ctrl-C, wait a little for the replies to the chunks that were sent whole."""

    def finish(self) -> None:
        """Give push messages that follow the last reply to their handlers. No reply may be outstanding.

        Raises:
            redis.exceptions.InvalidResponse: a reply has arrived that was not asked for. So the replies before it
                may have been taken for the replies to other commands.
        """


class SocketChannel:
    """Uses the socket of a redis-py connection.

    At first the socket is as redis-py uses it: a call waits for socket_timeout at most. That is enough, and takes
    the fewest system calls, while one chunk is sent and its replies are awaited. Once there is more to do at the
    same time, the socket does not block any longer.

    Args:
        connection: the connection.
        sock: its socket.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
        reader: reads the replies; a new one by default.

    Attributes:
        reader: holds the received bytes.
        sent_all: exchange() has sent its chunk.
    """

    def __init__(
        self, connection: Any, sock: socket.socket, max_value_size: int = 0, reader: ReplyReader | None = None
    ) -> None:
        self.socket = sock
        self.reader = reply_reader(max_value_size) if reader is None else reader
        self.sent_all = False
        self._opened = opened(sock)
        self._blocking = True
        self._connection = connection
        # Whether all received bytes are in the reader and in the flight. False while they are on their way.
        self._in_order = True

    def __enter__(self) -> SocketChannel:
        return self

    def exchange(self, chunk: Chunk) -> None:
        """Send a chunk over the connection, and receive the first bytes of its replies."""
        self.sent_all = False
        self._send_all(chunk)
        self.sent_all = True
        self._receive_some()

    def receive_more(self) -> None:
        """Receive further bytes of replies. Wait for them."""
        while not self._receive_some():
            self._wait(write=False)

    def _send_all(self, chunk: Chunk) -> None:
        try:
            self._opened.send_all(chunk)
        except builtins.TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise self._lost("writing to", error) from error

    def __exit__(self, *_: object) -> None:
        if not self._blocking and isinstance(self._opened, PythonSocket):
            redispy.restore_socket(self._connection, self.socket)

    def _stop_blocking(self) -> None:
        if self._blocking:
            self._opened.stop_blocking()
            self._blocking = False

    def send(self, chunk: Chunk, flight: Flight) -> None:
        if self._blocking and len(chunk) <= COMMAND_BYTES and not flight.in_flight:
            self._send_first(chunk, flight)
            return
        self._stop_blocking()
        flight.started(chunk)
        sent, size = self._send_now(chunk, 0), len(chunk)
        while sent < size:
            readable, _ = self._wait(write=True)
            if readable:
                self._receive_some()
            sent += self._send_now(chunk, sent)
        flight.finished(chunk)

    def _send_first(self, chunk: Chunk, flight: Flight) -> None:
        """Send a short chunk while nothing is in flight. A server reads as much before it waits for its client."""
        flight.started(chunk)
        self._send_all(chunk)
        flight.finished(chunk)

    def send_some(self, chunk: Chunk, sent: int) -> int:
        """Send what the socket accepts of a chunk, after its first `sent` bytes. Return how many."""
        self._stop_blocking()
        return self._send_now(chunk, sent)

    def _send_now(self, chunk: Chunk, sent: int) -> int:
        try:
            return self._opened.send_some(chunk, sent)
        except OSError as error:
            raise self._lost("writing to", error) from error

    def receive(self, flight: Flight) -> None:
        self.receive_more()
        self.take(flight)

    def receive_arrived(self, flight: Flight) -> None:
        self._stop_blocking()
        if self._receive_some():
            self.take(flight)

    def finish(self) -> None:
        while not self.reader.finished():
            self.receive_more()
        if self.reader.pushes:
            self._hand_on_pushes()

    def drain(self, flight: Flight) -> None:
        self._stop_blocking()
        deadline = time.monotonic() + DRAIN_SECONDS
        while flight.awaiting_replies and self._in_order and time.monotonic() < deadline:
            if self._receive_some():
                self.take(flight)
            else:
                wait_for(self.socket, False, max(0.0, deadline - time.monotonic()))

    def take(self, flight: Flight) -> None:
        """Let the flight read the received bytes."""
        self._in_order = False
        flight.receive(self.reader, self._explain)
        self._in_order = True
        if self.reader.pushes:
            self._hand_on_pushes()

    def _receive_some(self) -> bool:
        """Receive what has arrived. Return False if nothing has; a socket that blocks waits for it."""
        in_order, self._in_order = self._in_order, False
        try:
            size = self._opened.receive(self.reader)
        except builtins.TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise self._lost("reading from", error) from error
        if size == 0:
            raise ConnectionError("Connection closed by server.")
        self._in_order = in_order
        return size > 0

    def _wait(self, *, write: bool) -> tuple[bool, bool]:
        """Wait until the socket can be read, or written if `write` is set, for socket_timeout at most."""
        readable, writable = wait_for(self.socket, write, self._connection.socket_timeout)
        if not readable and not writable:
            raise self._late()
        return readable, writable

    def _late(self) -> TimeoutError:
        timeout = self._connection.socket_timeout
        return TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")

    def _lost(self, doing: str, error: OSError) -> ConnectionError:
        return ConnectionError(f"Error while {doing} socket: {error}")

    def _explain(self, reply: ErrorReply) -> Exception:
        return redispy.explain(self._connection, reply)

    def _hand_on_pushes(self) -> None:
        """Give RESP3 push messages to the handlers that redis-py or the user registered."""
        handle = push_handler(self._connection)
        if handle is not None:
            for push in self.reader.pushes:
                handle(push)
        self.reader.pushes.clear()


class PublicChannel:
    """Uses the public methods of a connection."""

    def __init__(self, connection: Any, max_value_size: int) -> None:
        self._connection = connection
        self._replies: Any = ParsedReplies(max_value_size)

    def __enter__(self) -> PublicChannel:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the connection is as it was."""

    def send(self, chunk: Chunk, flight: Flight) -> None:
        flight.started(chunk)
        self._connection.send_packed_command([bytes(memoryview(chunk))])
        flight.finished(chunk)

    def receive(self, flight: Flight) -> None:
        try:
            self._replies.feed(self._connection.read_response(disable_decoding=True))
        except ResponseError as error:
            self._replies.feed(error)
        flight.receive(self._replies, explain)

    def receive_arrived(self, flight: Flight) -> None:
        while flight.in_flight and self._connection.can_read(timeout=0):
            self.receive(flight)

    def drain(self, flight: Flight) -> None:
        """Read nothing more: Ctrl-C may have struck while redis-py was reading a reply."""

    def finish(self) -> None:
        """Do nothing: redis-py has read no more than the replies that were asked for."""
