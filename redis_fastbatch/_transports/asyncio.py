"""Moves the bytes of a flight over a connection of a redis.asyncio pool.

While a flight uses a connection of a known kind, the connection's asyncio transport has a protocol that receives
straight into the reply reader. Everything else about the transport (TCP, TLS, unix sockets, uvloop's) stays the
same. Any other connection is used through its public methods, with the same results.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ConnectionError, ResponseError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import Event, Flight, Send
from redis_fastbatch._engine.pacing import FLUSH_SECONDS, Pace
from redis_fastbatch._transports.async_source import AsyncSource
from redis_fastbatch._transports.borrowing import borrow_async
from redis_fastbatch._transports.loop_budget import LoopBudget, loop_pace
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import asyncio as redispy
from redis_fastbatch._transports.redispy import push_handler, reply_reader
from redis_fastbatch._transports.reply_protocol import ReplyProtocol
from redis_fastbatch._transports.retry import Attempts

MAX_WRITE_BYTES = 256 * 1024
"""The most bytes that the asyncio transport is given at a time."""


class TransportChannel:
    """Uses the asyncio transport of a redis-py connection.

    Args:
        connection: the connection.
        transport: its transport.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
        reader: reads the replies; a new one by default.
    """

    def __init__(
        self,
        connection: Any,
        transport: asyncio.Transport,
        max_value_size: int = 0,
        reader: ReplyReader | None = None,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._reader = reply_reader(max_value_size) if reader is None else reader
        self._protocol = ReplyProtocol(self._transport, self._reader)

    async def __aenter__(self) -> TransportChannel:
        self._protocol.take_over()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._protocol.give_back()
        if len(self._reader):
            # Such as a part of a push message, if the task was cancelled. The rest of it is not a reply.
            await self._connection.disconnect(nowait=True)

    async def send(self, chunk: Chunk, flight: Flight) -> None:
        """Give the chunk to the transport. Wait whenever that has enough to send."""
        flight.started(chunk)
        with memoryview(chunk) as view:
            for start in range(0, len(view), MAX_WRITE_BYTES):
                if self._protocol.error is not None:
                    raise self._protocol.error
                # A copy: the transport may keep what it is given.
                self._transport.write(bytes(view[start : start + MAX_WRITE_BYTES]))
                while self._protocol.blocked:
                    await self._protocol.wait(self._connection.socket_timeout)
        flight.finished(chunk)

    def receive(self, flight: Flight, budget: int) -> bool:
        """Let the flight read replies; return False if it needs more than has arrived."""
        before = len(self._reader)
        flight.receive(self._reader, self._explain, budget)
        return len(self._reader) < before

    async def arrival(self) -> None:
        """Wait for bytes to arrive."""
        await self._protocol.wait(self._connection.socket_timeout)

    async def arrival_or_item(self, source: AsyncSource, seconds: float | None) -> None:
        """Wait for bytes to arrive or for the source's next item, for `seconds` at most."""
        with source.notifying(self._protocol.wake, seconds):
            await self.arrival()

    async def finish(self) -> None:
        """Do what the synchronous SocketChannel does."""
        while not self._reader.finished():
            await self.arrival()
        await self.hand_on_pushes()

    async def hand_on_pushes(self) -> None:
        """Give RESP3 push messages to the handlers that redis-py or the user registered."""
        if not self._reader.pushes:
            return
        handle = push_handler(self._connection)
        pushes = self._reader.pushes[:]
        self._reader.pushes.clear()
        if handle is not None:
            for push in pushes:
                await handle(push)

    def _explain(self, reply: ErrorReply) -> Exception:
        return redispy.explain(self._connection, reply)


class PublicChannel:
    """Uses the public methods of a connection."""

    def __init__(self, connection: Any, max_value_size: int) -> None:
        self._connection = connection
        self._replies: Any = ParsedReplies(max_value_size)

    async def __aenter__(self) -> PublicChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: the connection is as it was."""

    async def send(self, chunk: Chunk, flight: Flight) -> None:
        """Send the chunk as redis-py sends a command."""
        flight.started(chunk)
        if redispy.is_closing(self._connection):
            # Since Python 3.12 writing to it raises AttributeError.
            raise ConnectionError("Connection closed by server.")
        await self._connection.send_packed_command(bytes(memoryview(chunk)))
        flight.finished(chunk)

    def receive(self, flight: Flight, budget: int) -> bool:
        """Let the flight read the reply that arrival() waited for, or some of it; False if it has read all."""
        if self._replies.finished():
            return False
        flight.receive(self._replies, explain, budget)
        return True

    async def arrival(self) -> None:
        """Read a reply."""
        try:
            self._replies.feed(await self._connection.read_response(disable_decoding=True))
        except ResponseError as error:
            self._replies.feed(error)

    async def arrival_or_item(self, source: AsyncSource, seconds: float | None) -> None:
        """Wait for the source's next item, for `seconds` at most; then for a reply.

        Reading a reply cannot be interrupted, so that items that arrive during it have to wait.
        """
        await source.wait(FLUSH_SECONDS if seconds is None else seconds)
        if seconds is None and source.is_empty:
            await self.arrival()

    async def hand_on_pushes(self) -> None:
        """Do nothing: read_response() has done it."""

    async def finish(self) -> None:
        """Do nothing: redis-py has read no more than the replies that were asked for."""


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

    async def run(self, flight: Flight, source: AsyncSource | None = None) -> None:
        """Carry out a flight, over a new connection where the retry policy allows one.

        Args:
            flight: what to carry out.
            source: the flight's source, if that is asynchronous.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                if what was sent may not be repeated.
            asyncio.CancelledError: the task was cancelled. The connection is closed if replies are outstanding.
        """
        attempts = Attempts(flight, flight.settled)

        async def attempt() -> None:
            attempts.begin()
            try:
                await self._pump(flight, source)
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
                flight.abort(final)
                if final is error:
                    raise
            # Raised outside of the except clause, so that its __context__ stays as it is.
            raise final

    async def _disconnect(self, error: Exception | None = None) -> None:
        await self.connection.disconnect(nowait=True)

    async def _pump(self, flight: Flight, source: AsyncSource | None) -> None:
        encoding, decoding, budget = loop_pace(), loop_pace(), LoopBudget()
        clock = time.perf_counter
        async with await self.channel() as channel:
            while True:
                began = clock()
                event = flight.poll(encoding.items)
                if isinstance(event, Send):
                    encoding.took(clock() - began)
                    await channel.send(event.chunk, flight)
                    if event.poll_after_send:
                        channel.receive(flight, decoding.items)
                elif event is Event.PAUSED:
                    encoding.took(clock() - began)
                elif event is Event.DONE:
                    break
                elif receive_some(channel, flight, decoding):
                    await channel.hand_on_pushes()
                elif event is Event.NEED_ITEMS and source is not None:
                    await wait_for_items(channel, flight, source)
                    budget.renew()
                else:
                    await channel.arrival()
                    budget.renew()
                await budget.yield_if_spent()
            await channel.finish()

    async def channel(self) -> Any:
        """Connect, and return the channel over which a flight uses the connection; an async context manager."""
        cancelled = _times_cancelled()
        await redispy.close_if_stale(self.connection)
        await self.connection.connect()
        await self.connection.check_health()
        if _times_cancelled() > cancelled:
            # redis-py connects with asyncio.wait_for(), which may lose a cancellation on Python 3.11.
            raise asyncio.CancelledError
        transport = redispy.known_transport(self.connection)
        if transport is None:
            return PublicChannel(self.connection, self._max_value_size)
        return TransportChannel(self.connection, transport, self._max_value_size)

    async def ask(self, *command: str) -> Any:
        """Send one command by the connection's own methods, and return its reply.

        Raises:
            redis.exceptions.ResponseError: the server has refused the command.
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
            # Such as a cancellation between the two: the reply would be taken for the reply to the next command.
            await self._disconnect()
            raise


def receive_some(channel: Any, flight: Flight, pace: Pace) -> bool:
    """Let a flight read some of the replies that have arrived; return False if there are none."""
    if not flight.in_flight:
        return False
    began = time.perf_counter()
    if not channel.receive(flight, pace.items):
        return False
    pace.took(time.perf_counter() - began)
    return True


async def wait_for_items(channel: Any, flight: Flight, source: AsyncSource) -> None:
    """Wait until the source has an item, or replies come, or it is time to send what the source gave before."""
    if flight.in_flight:
        await channel.arrival_or_item(source, flight.flush_seconds)
    else:
        await source.wait(flight.flush_seconds)


def _times_cancelled() -> int:
    """Return how often the running task was cancelled; 0 on Python 3.10, which does not count that."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None and hasattr(task, "cancelling") else 0


@contextlib.asynccontextmanager
async def lease(client: Any, max_value_size: int = 0) -> AsyncIterator[AsyncLease]:
    """Borrow a connection of a redis.asyncio.Redis, to carry out flights.

    Args:
        client: the client.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
    """
    async with borrow_async(client) as connection:
        yield AsyncLease(client, connection, max_value_size)
