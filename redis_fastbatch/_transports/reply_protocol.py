"""Receives the bytes of a connection's asyncio transport for a batch."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from redis_fastbatch._core.resp.replies import ReplyReader

MAX_UNREAD_BYTES = 512 * 1024
"""Bytes received and not read at which receiving pauses while no task waits for more."""


class Deadlines:
    """Ends waits for replies that last too long, by one timer for all waits of a client.

    A timer for each wait takes as long as sending a small batch.
    """

    def __init__(self) -> None:
        self._waiting: dict[ReplyProtocol, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0

    def add(self, protocol: ReplyProtocol, loop: asyncio.AbstractEventLoop, timeout: float) -> bool:
        """Let a protocol's wait end after `timeout` seconds. Return False if there are waits in another loop."""
        if loop is not self._loop:
            if self._waiting:
                return False
            self._loop, self._timer = loop, None
        deadline = self._waiting[protocol] = loop.time() + timeout
        if self._timer is None or deadline < self._when:
            self._set_timer(deadline)
        return True

    def remove(self, protocol: ReplyProtocol) -> None:
        """Note that a protocol's wait has ended. The timer goes on, as the next wait needs it."""
        self._waiting.pop(protocol, None)

    def _set_timer(self, when: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)
        self._when = when

    def _ring(self) -> None:
        assert self._loop is not None
        self._timer = None
        now = self._loop.time()
        for protocol, deadline in tuple(self._waiting.items()):
            if deadline <= now:
                del self._waiting[protocol]
                protocol.time_out()
        if self._waiting:
            self._set_timer(min(self._waiting.values()))


class ReplyProtocol(asyncio.BufferedProtocol):
    """The protocol of a borrowed transport. Receives into a reply reader, and wakes the one task that waits.

    Args:
        transport: the transport of a redis-py connection.
        reader: gets the bytes.
        deadlines: those of the client; by default, each wait has a timer of its own.

    Attributes:
        blocked: the transport has enough to send.
        error: why the connection is lost; None while it is not.
    """

    def __init__(
        self, transport: asyncio.Transport, reader: ReplyReader, deadlines: Deadlines | None = None
    ) -> None:
        self.reader = reader
        self._deadlines = deadlines
        self.blocked = False
        self.error: ConnectionError | None = None
        self._transport = transport
        self._owner: Any = transport.get_protocol()
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._timeout = 0.0

    def take_over(self) -> None:
        """Receive into the reader from now on."""
        self._transport.set_protocol(self)

    def give_back(self) -> None:
        """Give the transport its own protocol again."""
        if self._is_paused:
            self._resume()
        self._transport.set_protocol(self._owner)

    # The transport calls these. Its own protocol gets all of the calls that carry no bytes.

    def get_buffer(self, sizehint: int) -> memoryview:
        space: memoryview = self.reader.free_space()
        return space

    def buffer_updated(self, nbytes: int) -> None:
        self.reader.received(nbytes)
        if len(self.reader) >= MAX_UNREAD_BYTES and not self._is_paused:
            self._transport.pause_reading()
            self._is_paused = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def eof_received(self) -> bool | None:
        self.error = ConnectionError("Connection closed by server.")
        self.wake()
        keep_open: bool | None = self._owner.eof_received()
        return keep_open

    def connection_lost(self, error: Exception | None) -> None:
        if self.error is None:
            self.error = ConnectionError(f"Connection lost: {error or 'closed'}")
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
        """End wait(), if the task is waiting."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._is_paused = False

    async def wait(self, timeout: float | None) -> None:
        """Wait until bytes have arrived, or the transport can take more.

        Raises:
            redis.exceptions.ConnectionError: the connection is lost.
            redis.exceptions.TimeoutError: nothing happened within `timeout` seconds.
        """
        if self.error is not None:
            raise self.error
        if self._is_paused:
            self._resume()
        loop = asyncio.get_running_loop()
        self._waiter = asyncio.Future(loop=loop)
        deadlines, timer = self._deadlines, None
        if timeout is not None:
            self._timeout = timeout
            if deadlines is None or not deadlines.add(self, loop, timeout):
                timer = loop.call_later(timeout, self.time_out)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
            elif deadlines is not None:
                deadlines.remove(self)

    def time_out(self) -> None:
        """End wait() with an error: it has lasted for its timeout."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(
                TimeoutError(f"no answer from the server within socket_timeout, {self._timeout} seconds")
            )
