"""Carries out flights over connections of redis-py's pool. Where the retry policy allows it, sends them again."""

from __future__ import annotations

import functools
import logging
import os
import socket
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError, ResponseError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._engine.flight import ChunkState, Event, Flight, Send
from redis_fastbatch._transports.borrowing import borrow_single
from redis_fastbatch._transports.channels import Channel, PublicChannel, SocketChannel
from redis_fastbatch._transports.redispy import sync as redispy
from redis_fastbatch._transports.redispy.sync_pool import give_back, take_from_pool
from redis_fastbatch._transports.retry import Attempts
from redis_fastbatch.errors import FastBatchError

logger = logging.getLogger("redis_fastbatch")


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
        if error is not None and self._channel is not None:
            # Interrupted after exchange(): a part of the reply may still come.
            self.connection.disconnect()
        if self._single is not None:
            self._single.__exit__(kind, error, trace)
        else:
            give_back(self._pool, self.connection, handed_out=self.ready is None)

    def exchange(self, chunk: Chunk) -> ReplyReader | None:
        """Send a small command, and receive its reply.

        This is the short way for a batch of one command, and takes a fraction of what a flight takes. Where the
        reply is not what it usually is, a flight that begins with this chunk goes on: see run(). Once all of the
        reply is read, this may be called again.

        Returns:
            A reader with the first received bytes. None if that failed, or the connection is not of a known kind.
        """
        try:
            Forks.check(self._forks)
            channel = self._channel or self.channel()
            if not isinstance(channel, SocketChannel):
                return None
            self._channel = channel
            channel.exchange(chunk)
        except BaseException as error:
            self._failure = error
            return None
        return channel.reader

    def give_up(self) -> None:
        """Close the connection after exchange(). The caller sends the command again in another way.

        Raises:
            BaseException: what has interrupted exchange(), such as KeyboardInterrupt.
        """
        self.connection.disconnect()
        failure, self._failure, self._channel = self._failure, None, None
        if failure is not None and not isinstance(failure, Exception):
            raise failure

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
