"""Moves the bytes of a flight over a connection of redis-py's pool.

A connection of a known kind is used through its socket, without blocking: whenever sending would wait, replies are
read, so that the buffers of neither side stay full for good. Any other connection is used through its public
methods, with the same results.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any, Protocol

from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.flight import Event, Flight, Send
from redis_fastbatch._transports.borrowing import borrow
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import push_handler, reply_reader
from redis_fastbatch._transports.redispy import sync as redispy
from redis_fastbatch._transports.retry import Attempts
from redis_fastbatch._transports.waiting import wait_for
from redis_fastbatch.errors import FastBatchError

logger = logging.getLogger("redis_fastbatch")

DRAIN_SECONDS = 2.0
"""How long to wait for replies after Ctrl-C."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


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
    """Uses the socket of a redis-py connection."""

    def __init__(self, connection: Any, sock: socket.socket, max_value_size: int) -> None:
        self.socket = sock
        self._connection = connection
        self._reader = reply_reader(max_value_size)
        # Whether all received bytes are in the reader and in the flight. False while they are on their way.
        self._in_order = True

    def __enter__(self) -> SocketChannel:
        self.socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        redispy.restore_socket(self._connection, self.socket)

    def send(self, chunk: Chunk, flight: Flight) -> None:
        flight.started(chunk)
        with memoryview(chunk) as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self.socket.send(view[sent:] if sent else view)
                except _WOULD_BLOCK as error:
                    self._wait_to_send(error)
                except OSError as error:
                    raise self._lost("writing to", error) from error
        flight.finished(chunk)

    def send_some(self, chunk: Chunk, sent: int) -> int:
        """Send what the socket accepts of a chunk, after its first `sent` bytes. Return how many."""
        with memoryview(chunk) as view:
            try:
                return self.socket.send(view[sent:])
            except _WOULD_BLOCK:
                return 0
            except OSError as error:
                raise self._lost("writing to", error) from error

    def _wait_to_send(self, reason: OSError) -> None:
        readable, _ = self._wait(write=not isinstance(reason, ssl.SSLWantReadError))
        if readable:
            self._receive_some()

    def receive(self, flight: Flight) -> None:
        while not self._receive_some():
            self._wait(write=False)
        self._take(flight)

    def receive_arrived(self, flight: Flight) -> None:
        if self._receive_some():
            self._take(flight)

    def finish(self) -> None:
        while not self._reader.finished():
            if not self._receive_some():
                self._wait(write=False)
        if self._reader.pushes:
            self._hand_on_pushes()

    def drain(self, flight: Flight) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while flight.awaiting_replies and self._in_order and time.monotonic() < deadline:
            if self._receive_some():
                self._take(flight)
            else:
                wait_for(self.socket, False, max(0.0, deadline - time.monotonic()))

    def _take(self, flight: Flight) -> None:
        self._in_order = False
        flight.receive(self._reader, self._explain)
        self._in_order = True
        if self._reader.pushes:
            self._hand_on_pushes()

    def _receive_some(self) -> bool:
        """Receive what has arrived. Return False if nothing has."""
        in_order, self._in_order = self._in_order, False
        try:
            with self._reader.free_space() as free:
                size = self.socket.recv_into(free)
        except _WOULD_BLOCK:
            self._in_order = in_order
            return False
        except OSError as error:
            raise self._lost("reading from", error) from error
        if size == 0:
            raise ConnectionError("Connection closed by server.")
        self._reader.received(size)
        self._in_order = in_order
        return True

    def _wait(self, *, write: bool) -> tuple[bool, bool]:
        """Wait until the socket can be read, or written if `write` is set, for socket_timeout at most."""
        timeout = self._connection.socket_timeout
        readable, writable = wait_for(self.socket, write, timeout)
        if not readable and not writable:
            raise TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")
        return readable, writable

    def _lost(self, doing: str, error: OSError) -> ConnectionError:
        return ConnectionError(f"Error while {doing} socket: {error}")

    def _explain(self, reply: ErrorReply) -> Exception:
        return redispy.explain(self._connection, reply)

    def _hand_on_pushes(self) -> None:
        """Give RESP3 push messages to the handlers that redis-py or the user registered."""
        handle = push_handler(self._connection)
        if handle is not None:
            for push in self._reader.pushes:
                handle(push)
        self._reader.pushes.clear()


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


def check_not_forked(pid: int) -> None:
    """Refuse to go on with a batch in a child process, which shares the sockets with its parent.

    The source or a hook of a batch may fork.

    Args:
        pid: the process that began the batch.

    Raises:
        FastBatchError: this is another process.
    """
    if os.getpid() != pid:
        raise FastBatchError("the process was forked during a batch: only the parent can go on with it")


class Lease:
    """A connection borrowed from a client's pool, with the retry policy that it carries.

    Args:
        client: a redis.Redis.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
    """

    def __init__(self, client: Any, connection: Any, max_value_size: int = 0) -> None:
        self.client = client
        self.connection = connection
        self._max_value_size = max_value_size
        self._pid = os.getpid()

    def run(self, flight: Flight) -> None:
        """Carry out a flight, over a new connection where the retry policy allows one.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                if what was sent may not be repeated.
        """
        attempts = Attempts(flight)

        def attempt() -> None:
            attempts.begin()
            try:
                self._pump(flight)
            except Exception as error:
                raise attempts.failed(error) from error.__cause__

        while True:
            try:
                self.connection.retry.call_with_retry(attempt, lambda error: self.connection.disconnect())
                return
            except BaseException as error:
                final = attempts.verdict(error)
                if final is None:
                    continue
                self.connection.disconnect()
                flight.abort(final)
                if final is error:
                    raise
            # Raised outside of the except clause, so that its __context__ stays as it is.
            raise final

    def _pump(self, flight: Flight) -> None:
        with self.channel() as channel:
            try:
                self._carry(flight, channel)
                channel.finish()
            except Exception:
                raise
            except BaseException:
                # Such as Ctrl-C. The server carries out what it has received, and the report should say so.
                try:
                    channel.drain(flight)
                except (RedisError, OSError) as error:
                    logger.debug("no further replies after an interruption: %s", error)
                raise

    def _carry(self, flight: Flight, channel: Channel) -> None:
        while True:
            event = flight.poll()
            check_not_forked(self._pid)
            if isinstance(event, Send):
                channel.send(event.chunk, flight)
                if event.poll_after_send:
                    channel.receive_arrived(flight)
            elif event is Event.NEED_REPLIES:
                channel.receive(flight)
            elif event is Event.DONE:
                return

    def channel(self) -> Any:
        """Connect, and return the channel over which a flight uses the connection; a context manager."""
        self.connection.connect()
        self.connection.check_health()
        connection = redispy.without_cache(self.connection)
        sock = redispy.known_socket(connection)
        if sock is None:
            return PublicChannel(connection, self._max_value_size)
        return SocketChannel(connection, sock, self._max_value_size)

    def ask(self, *command: str) -> Any:
        """Send one command by the connection's own methods, and return its reply.

        Raises:
            redis.exceptions.ResponseError: the server has refused the command.
        """
        ask = functools.partial(self._ask, command)
        return self.connection.retry.call_with_retry(ask, lambda error: self.connection.disconnect())

    def _ask(self, command: tuple[str, ...]) -> Any:
        try:
            self.connection.send_command(*command)
            return self.connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except BaseException:
            # Such as Ctrl-C between the two: the reply would be taken for the reply to the next command.
            self.connection.disconnect()
            raise


@contextlib.contextmanager
def lease(client: Any, max_value_size: int = 0) -> Iterator[Lease]:
    """Borrow a connection of a redis.Redis, to carry out flights.

    Args:
        client: the client.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
    """
    with borrow(client) as connection:
        yield Lease(client, connection, max_value_size)
