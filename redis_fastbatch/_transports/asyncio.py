"""Moves the bytes of a flight over a connection of a redis.asyncio pool."""

from __future__ import annotations

import asyncio
import functools
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from redis.exceptions import ResponseError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._engine.flight import ChunkState, Event, Flight, Send
from redis_fastbatch._engine.pacing import Pace
from redis_fastbatch._transports.async_channels import PublicChannel, TransportChannel
from redis_fastbatch._transports.async_source import AsyncSource
from redis_fastbatch._transports.borrowing import borrow_single_async, is_single
from redis_fastbatch._transports.loop_budget import FirstSlices, LoopBudget, loop_pace
from redis_fastbatch._transports.redispy import asyncio as redispy
from redis_fastbatch._transports.redispy.async_pool import give_back, take_from_pool, take_ready
from redis_fastbatch._transports.reply_protocol import Deadlines
from redis_fastbatch._transports.retry import Attempts


class AsyncLease:
    """A connection borrowed from a client, with the retry policy that it carries.

    It is an async context manager, which borrows one of the pool's connections or the client's single one.

    Args:
        client: a redis.asyncio.Redis.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
        connection: a connection that the caller has borrowed. Then it is used without the context.
        slices: what is known about the time that items take.
        deadlines: ends waits that last too long; by default, each has a timer of its own.

    Attributes:
        connection: the connection, within the context.
    """

    def __init__(
        self,
        client: Any,
        max_value_size: int = 0,
        connection: Any = None,
        slices: FirstSlices | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.client = client
        self.connection = connection
        self._max_value_size = max_value_size
        self._slices = slices
        self._deadlines = deadlines
        self._channel: TransportChannel | None = None
        self._failure: BaseException | None = None
        self._single: AbstractAsyncContextManager[Any] | None = None
        self._pool: Any = None
        self._taken_ready = False
        # The transport of a connection that was ready when it was taken, until it is used or other tasks run.
        self._transport: asyncio.Transport | None = None

    async def __aenter__(self) -> AsyncLease:
        if is_single(self.client):
            self._single = borrow_single_async(self.client)
            self.connection = await self._single.__aenter__()
            return self
        pool = self._pool = self.client.connection_pool
        ready = take_ready(pool)
        if ready is None:
            await self.client.initialize()
            self.connection = await take_from_pool(pool)
        else:
            self.connection, self._transport = ready
            self._taken_ready = True
        return self

    def waited(self) -> None:
        """Note that other tasks have run since the connection was taken. So it is checked again before its use."""
        self._transport = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._channel is not None:
                # No flight has gone on with what exchange() has begun.
                self._channel.give_back()
                if error is not None:
                    # Perhaps not all of the reply has been read.
                    await self._disconnect()
        finally:
            if self._single is not None:
                await self._single.__aexit__(kind, error, trace)
            elif not (self._taken_ready and give_back(self._pool, self.connection)):
                await self._pool.release(self.connection)

    async def exchange(self, chunk: Chunk) -> ReplyReader | None:
        """Send a small command, and receive its reply, as Lease.exchange() does.

        Returns:
            A reader with the first received bytes. None if that failed, or the connection is not of a known kind.
            Then run() is to be called with a flight that begins with this chunk.
        """
        try:
            channel = self._channel or self._ready_channel() or await self.channel()
            if not isinstance(channel, TransportChannel):
                return None
            self._channel = channel
            await channel.exchange(chunk)
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

    async def run(self, flight: Flight, source: AsyncSource | None = None) -> None:
        """Carry out a flight, over a new connection where the retry policy allows one.

        If exchange() was called, the flight begins with its chunk in the state `begun`.

        Args:
            flight: what to carry out.
            source: the flight's source, if that is asynchronous.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                if what was sent may not be repeated.
            asyncio.CancelledError: the task was cancelled. The connection is closed if replies are outstanding.
        """
        attempts = Attempts(flight, flight.settled)
        try:
            await self._pump(flight, source)
            return
        except Exception as error:
            attempts.first_failed(error)
        except BaseException as error:
            await self._give_up(flight, error)
            raise

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
                await self._give_up(flight, final)
                if final is error:
                    raise
            # Raised outside of the except clause, so that its __context__ stays as it is.
            raise final

    async def _give_up(self, flight: Flight, error: BaseException) -> None:
        """End a flight with an error. The connection stays open only if nothing can come over it any longer."""
        if flight.in_flight or not isinstance(error, asyncio.CancelledError):
            await self._disconnect()
        flight.abort(error)

    async def _disconnect(self, error: Exception | None = None) -> None:
        await self.connection.disconnect(nowait=True)

    async def _pump(self, flight: Flight, source: AsyncSource | None) -> None:
        begun, self._channel = self._channel, None
        failure, self._failure = self._failure, None
        if begun is None and failure is not None:
            raise failure
        async with begun or await self.channel() as channel:
            if failure is not None:
                raise failure
            await self._carry(flight, channel, source)
            await channel.finish()

    async def _carry(self, flight: Flight, channel: Any, source: AsyncSource | None) -> None:
        slices = self._slices or FirstSlices()
        encoding, decoding, budget = loop_pace(slices.encoding), loop_pace(slices.decoding), LoopBudget()
        clock = time.perf_counter
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
                slices.learn(encoding, decoding)
                return
            elif receive_some(channel, flight, decoding):
                await channel.hand_on_pushes()
            elif event is Event.NEED_ITEMS and source is not None:
                await wait_for_items(channel, flight, source)
                budget.renew()
            else:
                await channel.arrival()
                budget.renew()
            await budget.yield_if_spent()

    async def channel(self) -> Any:
        """Connect, and return the channel over which a flight uses the connection; an async context manager."""
        ready = self._ready_channel()
        if ready is not None:
            return ready
        await self._make_ready()
        transport = redispy.known_transport(self.connection)
        if transport is None:
            return PublicChannel(self.connection, self._max_value_size)
        return self._transport_channel(transport)

    def _ready_channel(self) -> TransportChannel | None:
        """Return a channel if the connection is ready, without connecting or checking its health; else None."""
        transport, self._transport = self._transport, None
        if transport is None:
            transport = redispy.ready_transport(self.connection, asyncio.get_running_loop())
        if transport is None:
            return None
        return self._transport_channel(transport)

    def _transport_channel(self, transport: asyncio.Transport) -> TransportChannel:
        return TransportChannel(self.connection, transport, self._max_value_size, deadlines=self._deadlines)

    async def _make_ready(self) -> None:
        cancelled = _times_cancelled()
        await redispy.close_if_stale(self.connection)
        await self.connection.connect()
        await self.connection.check_health()
        if _times_cancelled() > cancelled:
            # redis-py connects with asyncio.wait_for(), which may lose a cancellation on Python 3.11.
            raise asyncio.CancelledError

    async def ask(self, *command: str) -> Any:
        """Send one command by the connection's own methods, and return its reply.

        Raises:
            redis.exceptions.ResponseError: the server has refused the command.
        """
        self.waited()
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
