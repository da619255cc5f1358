"""Receives the bytes of a connection's asyncio transport for a batch."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from redis_fastbatch._core.resp.replies import ReplyReader

MAX_UNREAD_BYTES = 512 * 1024
"""Bytes received and not read at which receiving pauses while no task waits for more."""


class ReplyProtocol(asyncio.BufferedProtocol):
    """The protocol of a borrowed transport. Receives into a reply reader, and wakes the one task that waits.

    Args:
        transport: the transport of a redis-py connection.
        reader: gets the bytes.

    Attributes:
        blocked: the transport has enough to send.
        error: why the connection is lost; None while it is not.
    """

    def __init__(self, transport: asyncio.Transport, reader: ReplyReader) -> None:
        self.reader = reader
        self.blocked = False
        self.error: ConnectionError | None = None
        self._transport = transport
        self._owner: Any = transport.get_protocol()
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None

    def take_over(self) -> None:
        """Receive into the reader from now on."""
        self._transport.set_protocol(self)

    def give_back(self) -> None:
        """Give the transport its own protocol again."""
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
        self.wake()

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
        if self._is_paused and not self._transport.is_closing():
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
        self._resume()
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
