"""The channels over which a batch uses a connection of redis.asyncio.

While a flight uses a connection of a known kind, the connection's asyncio transport has a protocol that receives
straight into the reply reader. Everything else about the transport (TCP, TLS, unix sockets, uvloop's) stays the
same. Any other connection is used through its public methods, with the same results.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError, ResponseError

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import Flight
from redis_fastbatch._engine.pacing import FLUSH_SECONDS
from redis_fastbatch._transports.async_source import AsyncSource
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import asyncio as redispy
from redis_fastbatch._transports.redispy import push_handler, reply_reader
from redis_fastbatch._transports.reply_protocol import Deadlines, ReplyProtocol

MAX_WRITE_BYTES = 256 * 1024
"""The most bytes that the asyncio transport is given at a time."""


class TransportChannel:
    """Uses the asyncio transport of a redis-py connection.

    Args:
        connection: the connection.
        transport: its transport.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
        reader: reads the replies; a new one by default.
        deadlines: ends waits that last too long; by default, each has a timer of its own.

    Attributes:
        reader: holds the received bytes.
        sent_all: exchange() has sent its chunk.
    """

    def __init__(
        self,
        connection: Any,
        transport: asyncio.Transport,
        max_value_size: int = 0,
        reader: ReplyReader | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.reader = reply_reader(max_value_size) if reader is None else reader
        self.sent_all = False
        self._connection = connection
        self._transport = transport
        self._protocol = ReplyProtocol(transport, self.reader, deadlines)

    async def __aenter__(self) -> TransportChannel:
        self._protocol.take_over()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()
        if len(self.reader):
            # Such as a part of a push message, if the task was cancelled. The rest of it is not a reply.
            await self._connection.disconnect(nowait=True)

    def give_back(self) -> None:
        """Let the connection's own protocol receive from now on."""
        self._protocol.give_back()

    async def exchange(self, chunk: Chunk) -> None:
        """Send a chunk over the connection, and receive the first bytes of its replies."""
        self.sent_all = False
        protocol, timeout = self._protocol, self._connection.socket_timeout
        protocol.take_over()
        # A copy: the transport may keep what it is given.
        self._transport.write(bytes(chunk))
        while protocol.blocked:
            await protocol.wait(timeout)
        self.sent_all = True
        if not self.reader:
            await protocol.wait(timeout)

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
        before = len(self.reader)
        flight.receive(self.reader, self._explain, budget)
        return len(self.reader) < before

    async def arrival(self) -> None:
        """Wait for bytes to arrive."""
        await self._protocol.wait(self._connection.socket_timeout)

    async def arrival_or_item(self, source: AsyncSource, seconds: float | None) -> None:
        """Wait for bytes to arrive or for the source's next item, for `seconds` at most."""
        with source.notifying(self._protocol.wake, seconds):
            await self.arrival()

    async def finish(self) -> None:
        """Do what the synchronous SocketChannel does."""
        while not self.reader.finished():
            await self.arrival()
        await self.hand_on_pushes()

    async def hand_on_pushes(self) -> None:
        """Give RESP3 push messages to the handlers that redis-py or the user registered."""
        if not self.reader.pushes:
            return
        handle = push_handler(self._connection)
        pushes = self.reader.pushes[:]
        self.reader.pushes.clear()
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
