"""Moves a flight's bytes over a connection of a redis.asyncio pool.

Together with transport.py this is where redis-py's private parts are touched. While a flight has a connection,
its asyncio transport is handed to a protocol that receives straight into the reply reader; everything else
about the transport (TCP, TLS, unix sockets, uvloop's) stays what it was. A connection of an unknown kind is
used through its public methods, with the same results.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError, TimeoutError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import Flight
from redis_fastbatch._engine.pacing import HOLD, LINGER, Pace
from redis_fastbatch._transports.async_source import Age, Feed, acting_task, starve
from redis_fastbatch._transports.sync import (
    GET_CONNECTION_ARGUMENTS,
    Attempts,
    _wait_for,
    check_free,
    is_cluster,
    lent,
)

logger = logging.getLogger("redis_fastbatch")

FIRST_PACE = 64
"""Items dealt with at a time, while it is not known how long they take."""

MAX_PACE = 512

PIECE = 256 * 1024
"""Bytes handed to the asyncio transport at a time."""

ENOUGH = 512 * 1024
"""Bytes received and not yet read, at which receiving rests while nobody waits for more."""


def loop_pace() -> Pace:
    """How many items of one kind of work fit into a slice that holds the event loop for a short time only."""
    return Pace(HOLD, FIRST_PACE, MAX_PACE)


class Turns:
    """Gives the event loop its turn when the running task has held it for long enough."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def had(self) -> None:
        """The loop has just had a turn."""
        self._since = time.perf_counter()

    async def give(self) -> None:
        """Lets the loop go round if it is time."""
        if time.perf_counter() - self._since > HOLD:
            await asyncio.sleep(0)
            self.had()


class Wire(asyncio.BufferedProtocol):
    """The protocol of a borrowed transport: receives into a reply reader, and wakes the one task that waits.

    Args:
        transport: of a redis-py connection.
        reader: gets the bytes.
    """

    def __init__(self, transport: asyncio.Transport, reader: ReplyReader) -> None:
        self.reader = reader
        self.blocked = False
        self.lost: ConnectionError | None = None
        self._transport = transport
        self._owner: Any = transport.get_protocol()
        self._resting = False
        self._waiter: asyncio.Future[None] | None = None

    def take_over(self) -> None:
        """From here on the bytes come to the reader."""
        self._transport.set_protocol(self)

    def give_back(self) -> None:
        """The transport's own protocol is in its place again."""
        self._receive_again()
        self._transport.set_protocol(self._owner)

    # What the transport calls. The protocol that it belongs to hears of all but the bytes.

    def get_buffer(self, sizehint: int) -> memoryview:
        space: memoryview = self.reader.free_space()
        return space

    def buffer_updated(self, nbytes: int) -> None:
        self.reader.received(nbytes)
        if len(self.reader) >= ENOUGH and not self._resting:
            self._transport.pause_reading()
            self._resting = True
        self.wake()

    def eof_received(self) -> bool | None:
        self.lost = ConnectionError("Connection closed by server.")
        self.wake()
        keep_open: bool | None = self._owner.eof_received()
        return keep_open

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost is None:
            self.lost = ConnectionError(f"Connection lost: {error or 'closed'}")
        self.wake()
        self._owner.connection_lost(error)

    def pause_writing(self) -> None:
        self.blocked = True
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self.blocked = False
        self._owner.resume_writing()
        self.wake()

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _receive_again(self) -> None:
        if self._resting and not self._transport.is_closing():
            self._transport.resume_reading()
        self._resting = False

    async def wait(self, timeout: float | None) -> None:
        """Waits until bytes have come, or the transport can take more.

        Raises:
            redis.exceptions.ConnectionError: the connection is lost, now or already.
            redis.exceptions.TimeoutError: nothing happened within `timeout` seconds.
        """
        if self.lost is not None:
            raise self.lost
        self._receive_again()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self._time_out, timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _time_out(self, timeout: float) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(
                TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")
            )


class WireChannel:
    """Speaks through the asyncio transport of a redis-py connection."""

    def __init__(self, connection: Any, max_value_size: int) -> None:
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport
        self._reader = ReplyReader(max_value_size)
        self._wire = Wire(self._transport, self._reader)

    async def __aenter__(self) -> WireChannel:
        self._wire.take_over()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._wire.give_back()
        if len(self._reader):
            # Such as a part of a push message, when the task was cancelled: what follows it is no reply.
            await self._connection.disconnect(nowait=True)

    async def send(self, chunk: Chunk, flight: Flight) -> None:
        """Hands the chunk to the transport, waiting whenever that has enough to do."""
        flight.started(chunk)
        with memoryview(chunk) as view:
            for start in range(0, len(view), PIECE):
                if self._wire.lost is not None:
                    raise self._wire.lost
                # A copy: the transport may keep what it is given.
                self._transport.write(bytes(view[start : start + PIECE]))
                while self._wire.blocked:
                    await self._wire.wait(self._connection.socket_timeout)
        flight.finished(chunk)

    def take(self, flight: Flight) -> bool:
        """Lets the flight take replies; False when it needs more than has arrived."""
        before = len(self._reader)
        flight.take(self._reader, self._explain)
        return len(self._reader) < before

    async def arrival(self) -> None:
        """Waits for something to take."""
        await self._wire.wait(self._connection.socket_timeout)

    async def arrival_or_item(self, feed: Feed, seconds: float | None) -> None:
        """Waits for something to take, or for the source's next item; for so many seconds at most."""
        with feed.telling(self._wire.wake, seconds):
            await self.arrival()

    async def finish(self) -> None:
        """As the synchronous SocketChannel's."""
        while not self._reader.finished():
            await self.arrival()
        await self.hand_on_pushes()

    async def hand_on_pushes(self) -> None:
        """RESP3 push messages go to the handlers that redis-py or the user registered."""
        if not self._reader.pushes:
            return
        handle = getattr(self._connection._parser, "handle_push_response", None)
        pushes = self._reader.pushes[:]
        self._reader.pushes.clear()
        for push in pushes:
            if handle is None or "push_request" in inspect.signature(handle).parameters:
                logger.debug("a push message was left alone: this redis-py has no handlers for it")
            else:
                await handle(push)

    def _explain(self, reply: ErrorReply) -> Exception:
        error: Exception = self._connection._parser.parse_error(str(reply))
        if isinstance(error, ReadOnlyError) and _is_sentinel_master(self._connection):
            # As redis-py does it: the connection is closed, and asks Sentinel for the new master.
            raise ConnectionError("The previous master is now a slave") from error
        return error


class PublicChannel:
    """Speaks through the public methods of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reply: Any = None
        self._has_reply = False

    async def __aenter__(self) -> PublicChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """The connection was never changed."""

    async def send(self, chunk: Chunk, flight: Flight) -> None:
        """Sends the chunk as redis-py sends a command."""
        flight.started(chunk)
        if _is_closing(self._connection):
            # From Python 3.12 on, writing to it is an AttributeError.
            raise ConnectionError("Connection closed by server.")
        await self._connection.send_packed_command(bytes(memoryview(chunk)))
        flight.finished(chunk)

    def take(self, flight: Flight) -> bool:
        """Gives the flight the reply that arrival() waited for."""
        if not self._has_reply:
            return False
        self._has_reply = False
        flight.take_reply(self._reply)
        return True

    async def arrival(self) -> None:
        """Reads a reply."""
        try:
            self._reply = await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            self._reply = error
        self._has_reply = True

    async def arrival_or_item(self, feed: Feed, seconds: float | None) -> None:
        """Waits for the source's next item, so many seconds at most, then for a reply: reading it cannot be left
        halfway, and items that come then wait for it."""
        await feed.wait(LINGER if seconds is None else seconds)
        if seconds is None and feed.is_empty:
            await self.arrival()

    async def hand_on_pushes(self) -> None:
        """read_response() has done it."""

    async def finish(self) -> None:
        """redis-py has taken no more than it was asked for."""


def _is_sentinel_master(connection: Any) -> bool:
    return isinstance(connection, SentinelManagedConnection) and bool(connection.connection_pool.is_master)


def _is_known(connection: Any) -> bool:
    """Whether this connection's transport may be used: redis-py's own reading and writing, nothing received
    that its stream or its parser holds back."""
    kind = type(connection)
    if not isinstance(connection, AbstractConnection):
        return False
    if kind.send_packed_command is not AbstractConnection.send_packed_command:
        return False
    if kind.read_response not in (
        AbstractConnection.read_response,
        SentinelManagedConnection.read_response,
    ):
        return False
    stream: Any = connection._reader
    writer, parser = connection._writer, connection._parser
    if type(stream) is not asyncio.StreamReader or type(writer) is not asyncio.StreamWriter:
        return False
    if writer.transport.is_closing() or getattr(stream, "_buffer", None):
        return False
    if hasattr(parser, "_reader"):
        return not parser._reader.has_data()
    return not getattr(parser, "_buffer", True)


def _has_streams(connection: Any) -> bool:
    """Whether it reads and writes through asyncio's streams, as redis-py's own do while they are connected."""
    reader, writer = getattr(connection, "_reader", None), getattr(connection, "_writer", None)
    return isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)


def _has_arrived(connection: Any) -> bool:
    """Whether the socket of a connection that is idle can be read, or what was read from it was left alone."""
    if _is_closing(connection) or getattr(connection._reader, "_buffer", None) or _parser_holds(connection):
        return True
    sock = connection._writer.get_extra_info("socket")
    return sock is not None and any(_wait_for(sock, False, 0.0))


def _is_spoilt(connection: Any) -> bool:
    """Whether an idle connection has ended, or holds a reply; a push message is for redis-py to read."""
    stream = connection._reader
    if stream is None or stream.at_eof() or _is_closing(connection) or _parser_holds(connection):
        return True
    held = bytes(getattr(stream, "_buffer", b""))
    return bool(held) and not held.startswith(b">")


def _is_closing(connection: Any) -> bool:
    is_closing = getattr(getattr(connection, "_writer", None), "is_closing", None)
    return is_closing is not None and bool(is_closing())


def _parser_holds(connection: Any) -> bool:
    parser: Any = getattr(connection, "_parser", None)
    return bool(parser._reader.has_data() if hasattr(parser, "_reader") else getattr(parser, "_buffer", None))


class AsyncLease:
    """A connection borrowed from a client's pool, with the retry policy that it carries.

    Args:
        client: a redis.asyncio.Redis.
        connection: the client's.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
    """

    def __init__(self, client: Any, connection: Any, max_value_size: int = 0) -> None:
        self.client = client
        self.connection = connection
        self._max_value_size = max_value_size

    async def run(self, flight: Flight, feed: Feed | None = None) -> None:
        """Carries out a flight, over a new connection where the retry policy allows one.

        Args:
            flight: what to carry out.
            feed: the flight's source, where that is asynchronous.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                where what was under way may not be repeated.
            asyncio.CancelledError: the task was cancelled. The connection is closed if replies are outstanding.
        """
        attempts = Attempts(flight)

        async def attempt() -> None:
            attempts.begin()
            try:
                await self._pump(flight, feed)
            except Exception as error:
                raise attempts.failed(error) from error.__cause__

        while True:
            try:
                await self.connection.retry.call_with_retry(attempt, self._disconnect)
                return
            except BaseException as error:
                final = attempts.verdict(error)
                if final is None:
                    continue
                if flight.in_flight or not isinstance(final, asyncio.CancelledError):
                    await self._disconnect()
                flight.abandon(final)
                if final is error:
                    raise
            # Out here what it was raised from stays what it was.
            raise final

    async def _disconnect(self, error: Exception | None = None) -> None:
        await self.connection.disconnect(nowait=True)

    async def _pump(self, flight: Flight, feed: Feed | None) -> None:
        encoding, decoding, turns, age = loop_pace(), loop_pace(), Turns(), Age()
        clock = time.perf_counter
        async with await self.channel() as channel:
            while not flight.done:
                began = clock()
                flight.pace = encoding.items
                chunk = flight.next_chunk()
                if chunk is not None or flight.halfway:
                    encoding.took(clock() - began)
                starved = feed is not None and feed.is_empty and flight.dry
                if chunk is not None:
                    await channel.send(chunk, flight)
                    if age.late:
                        channel.take(flight)
                    age.over()
                elif flight.halfway and not starved:
                    if age.exceeded():
                        flight.hurry()
                elif take_some(channel, flight, decoding):
                    await channel.hand_on_pushes()
                elif feed is not None and flight.halfway:
                    await starve(channel, flight, feed, age)
                    turns.had()
                elif flight.in_flight:
                    await channel.arrival()
                    turns.had()
                await turns.give()
            await channel.finish()

    async def channel(self) -> Any:
        """The connection, connected, as a flight uses it; an async context manager."""
        cancelled = _times_cancelled()
        await self._renew()
        await self.connection.connect()
        await self.connection.check_health()
        if _times_cancelled() > cancelled:
            # asyncio.wait_for() of Python 3.11, which redis-py calls when it connects, may lose that.
            raise asyncio.CancelledError
        if _is_known(self.connection):
            return WireChannel(self.connection, self._max_value_size)
        return PublicChannel(self.connection)

    async def _renew(self) -> None:
        """Closes a connection that was idle when the server's end came, or a reply that nobody asked for, which
        would be taken for the answer to what is asked next."""
        if not self.connection.is_connected or not _has_streams(self.connection):
            return
        if not _has_arrived(self.connection):
            return
        # In the round of the event loop that begins with the first it reads the socket, behind this task's turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if _is_spoilt(self.connection):
            await self._disconnect()

    async def ask(self, *command: str) -> Any:
        """One command and its reply, as the connection's own methods send and read them.

        Raises:
            redis.exceptions.ResponseError: the server refused it.
        """
        ask = functools.partial(self._ask, command)
        return await self.connection.retry.call_with_retry(ask, self._disconnect)

    async def _ask(self, command: tuple[str, ...]) -> Any:
        try:
            await self.connection.send_command(*command)
            return await self.connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except BaseException:
            # Such as being cancelled between the two: the reply would be taken for that to the next command.
            await self._disconnect()
            raise


def take_some(channel: Any, flight: Any, pace: Pace) -> bool:
    """Lets a flight take some of the replies that have arrived; False when there are none."""
    if not flight.in_flight:
        return False
    began = time.perf_counter()
    flight.pace = pace.items
    if not channel.take(flight):
        return False
    pace.took(time.perf_counter() - began)
    return True


def _times_cancelled() -> int:
    """How often the running task was cancelled; Python 3.10 does not tell."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None and hasattr(task, "cancelling") else 0


def check_loop(connection: Any) -> None:
    """Refuses a connection of another event loop, whose replies would be waited for in vain."""
    loop = getattr(connection._writer, "_loop", None)
    if loop is not None and loop is not asyncio.get_running_loop():
        raise RuntimeError(
            "the client's connection belongs to another event loop, as after a second asyncio.run(): "
            "make the client within the loop that uses it, or close it before the loop ends"
        )


@contextlib.asynccontextmanager
async def lease(client: Any, max_value_size: int = 0) -> AsyncIterator[AsyncLease]:
    """Borrows a connection of the client's pool, or the one connection of a single-connection client.

    For a RedisCluster it gives an AsyncClusterLease, which borrows of each node what it needs.
    """
    # Before anything that takes the lock of a single connection, which the task itself may have.
    check_free(getattr(client, "connection", None), acting_task())
    await client.initialize()
    if is_cluster(client):
        from redis_fastbatch._cluster.asyncio import AsyncClusterLease

        yield AsyncClusterLease(client, max_value_size)  # type: ignore[misc]
        return
    if client.connection is not None:
        async with client._single_conn_lock:
            with lent(client.connection, acting_task()):
                check_loop(client.connection)
                yield AsyncLease(client, client.connection, max_value_size)
        return
    pool = client.connection_pool
    connection = await pool.get_connection(*GET_CONNECTION_ARGUMENTS)
    try:
        check_loop(connection)
        yield AsyncLease(client, connection, max_value_size)
    finally:
        await pool.release(connection)
