"""Moves the bytes of a flight over a connection of redis-py's pool.

A connection of a known kind is used through its socket, without blocking: whenever sending would wait, replies are
read, so that the buffers of neither side stay full for good. Any other connection is used through its public
methods, with the same results.
"""

from __future__ import annotations

import builtins
import functools
import logging
import os
import socket
import ssl
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import COMMAND_BYTES, ChunkState, Event, Flight, Send
from redis_fastbatch._transports.borrowing import borrow_single
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import push_handler, reply_reader
from redis_fastbatch._transports.redispy import sync as redispy
from redis_fastbatch._transports.redispy.sync_pool import give_back, take_from_pool
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
        self._blocking = True
        self._connection = connection
        # Whether all received bytes are in the reader and in the flight. False while they are on their way.
        self._in_order = True

    def __enter__(self) -> SocketChannel:
        return self

    def exchange(self, chunk: Chunk) -> None:
        """Send the first chunk over the connection, and receive the first bytes of its replies."""
        self._send_all(chunk)
        self.sent_all = True
        self._receive_some()

    def receive_more(self) -> None:
        """Receive further bytes of replies. Wait for them."""
        while not self._receive_some():
            self._wait(write=False)

    def _send_all(self, chunk: Chunk) -> None:
        try:
            self.socket.sendall(chunk)
        except builtins.TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise self._lost("writing to", error) from error

    def __exit__(self, *_: object) -> None:
        if not self._blocking:
            redispy.restore_socket(self._connection, self.socket)

    def _stop_blocking(self) -> None:
        if self._blocking:
            self.socket.setblocking(False)
            self._blocking = False

    def send(self, chunk: Chunk, flight: Flight) -> None:
        if self._blocking and len(chunk) <= COMMAND_BYTES and not flight.in_flight:
            self._send_first(chunk, flight)
            return
        self._stop_blocking()
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

    def _send_first(self, chunk: Chunk, flight: Flight) -> None:
        """Send a short chunk while nothing is in flight. A server reads as much before it waits for its client."""
        flight.started(chunk)
        self._send_all(chunk)
        flight.finished(chunk)

    def send_some(self, chunk: Chunk, sent: int) -> int:
        """Send what the socket accepts of a chunk, after its first `sent` bytes. Return how many."""
        self._stop_blocking()
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
            with self.reader.free_space() as free:
                size = self.socket.recv_into(free)
        except _WOULD_BLOCK:
            self._in_order = in_order
            return False
        except builtins.TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            raise self._lost("reading from", error) from error
        if size == 0:
            raise ConnectionError("Connection closed by server.")
        self.reader.received(size)
        self._in_order = in_order
        return True

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


class Forks:
    """Counts the forks that led to this process.

    The source or a hook of a batch may fork. Then the child shares the sockets with its parent.
    """

    count = 0

    @classmethod
    def forked(cls) -> None:
        """Count a fork. Called in the child process."""
        cls.count += 1

    @classmethod
    def check(cls, count: int) -> None:
        """Refuse to go on with a batch in a child process.

        Args:
            count: the number of forks when the batch began.

        Raises:
            FastBatchError: this is another process.
        """
        if cls.count != count:
            raise FastBatchError("the process was forked during a batch: only the parent can go on with it")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Forks.forked)


class Lease:
    """A connection borrowed from a client, with the retry policy that it carries.

    It is a context manager, which borrows one of the pool's connections or the client's single one.

    Args:
        client: a redis.Redis.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.

    Attributes:
        connection: the connection, within the context.
        ready: its socket, if it was taken from the pool without the pool's help: it may be used at once, but for a
            health check.
    """

    def __init__(self, client: Any, max_value_size: int = 0) -> None:
        self.client = client
        self.connection: Any = None
        self._max_value_size = max_value_size
        self._forks = Forks.count
        self._channel: Any = None
        self._failure: BaseException | None = None
        self._pool: Any = None
        self.ready: socket.socket | None = None
        # The same, until it is used: the connection may be lost then, and another socket take its place.
        self._unused: socket.socket | None = None
        self._single: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Lease:
        client = self.client
        if client.connection is None:
            self._pool = client.connection_pool
            self.connection, self.ready = take_from_pool(self._pool)
            self._unused = self.ready
        else:
            self._single = borrow_single(client)
            self.connection = self._single.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._single is not None:
            self._single.__exit__(kind, error, trace)
        else:
            give_back(self._pool, self.connection, handed_out=self.ready is None)

    def exchange(self, chunk: Chunk) -> ReplyReader | None:
        """Send a small command, and receive its reply.

        This is the short way for a batch of one command, and takes a fraction of what a flight takes. Where the
        reply is not what it usually is, a flight that begins with this chunk goes on: see run().

        Returns:
            A reader with the first received bytes. None if that failed, or the connection is not of a known kind.
        """
        try:
            Forks.check(self._forks)
            channel = self.channel()
            if not isinstance(channel, SocketChannel):
                return None
            self._channel = channel
            channel.exchange(chunk)
        except BaseException as error:
            self._failure = error
            return None
        return channel.reader

    @property
    def begun(self) -> ChunkState:
        """The state of the chunk that exchange() was to send; NEW if it was not called."""
        if self._channel is None:
            return ChunkState.NEW
        return ChunkState.SENT if self._channel.sent_all else ChunkState.SENDING

    def run(self, flight: Flight) -> None:
        """Carry out a flight, over a new connection where the retry policy allows one.

        If exchange() was called, the flight begins with its chunk in the state `begun`.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                if what was sent may not be repeated.
        """
        settled = flight.settled
        try:
            self._pump(flight)
            return
        except Exception as error:
            attempts = Attempts(flight, settled)
            attempts.first_failed(error)
        except BaseException as error:
            self.connection.disconnect()
            flight.abort(error)
            raise

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
        begun, self._channel = self._channel, None
        failure, self._failure = self._failure, None
        if begun is None and failure is not None:
            raise failure
        with begun or self.channel() as channel:
            try:
                if failure is not None:
                    raise failure
                if begun is not None:
                    channel.take(flight)
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
            if Forks.count != self._forks:
                Forks.check(self._forks)
            if event is Event.NEED_REPLIES:
                channel.receive(flight)
            elif event is Event.DONE:
                return
            elif isinstance(event, Send):
                channel.send(event.chunk, flight)
                if event.poll_after_send:
                    channel.receive_arrived(flight)

    def channel(self) -> Any:
        """Connect, and return the channel over which a flight uses the connection; a context manager."""
        sock, self._unused = self._unused, None
        connection = self.connection
        if sock is None or connection.health_check_interval:
            connection = redispy.connected(connection)
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
