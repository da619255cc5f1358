"""Sockets with the operations that channels need.

The core uses those that nothing lies above, with few system calls. Others are used by their own methods: TLS, and
the sockets of libraries such as gevent, which must not block the thread.
"""

from __future__ import annotations

import _socket
import functools
import socket
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from redis_fastbatch._core.runtime.buffer import ReceiveBuffer
from redis_fastbatch._transports.waiting import wait_for

if TYPE_CHECKING:
    from redis_fastbatch._core.runtime import sockets as core
else:
    try:
        from redis_fastbatch._core.runtime import sockets as core
    except ImportError:
        # Windows.
        core = None


_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class OpenSocket(Protocol):
    """A socket as a channel uses it.

    At first a call waits for the socket's timeout at most. After stop_blocking() it does not wait.
    """

    def stop_blocking(self) -> None:
        """From now on, do not wait."""

    def send_all(self, message: Any) -> None:
        """Send a whole message. Call it before stop_blocking() only."""

    def send_some(self, message: Any, start: int) -> int:
        """Send what is accepted at once of a message, from byte `start` on. Return how many bytes."""

    def receive(self, buffer: ReceiveBuffer) -> int:
        """Receive bytes. Return how many; 0 if the connection was closed; -1 if none have arrived."""


class PythonSocket:
    """A socket that is used by its own methods."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def stop_blocking(self) -> None:
        self._sock.setblocking(False)

    def send_all(self, message: Any) -> None:
        self._sock.sendall(message)

    def send_some(self, message: Any, start: int) -> int:
        with memoryview(message) as view:
            try:
                return self._sock.send(view[start:])
            except _WOULD_BLOCK:
                return 0

    def receive(self, buffer: ReceiveBuffer) -> int:
        with buffer.free_space() as free:
            try:
                size = self._sock.recv_into(free)
            except _WOULD_BLOCK:
                return -1
        buffer.received(size)
        return size


@functools.lru_cache(maxsize=64)
def _is_plain(kind: type) -> bool:
    """Return whether the sockets of a class send and receive as Python's own do."""
    methods = ("send", "sendall", "recv", "recv_into", "gettimeout", "fileno")
    return core is not None and all(
        getattr(kind, name, None) is getattr(_socket.socket, name, NotImplemented) for name in methods
    )


def opened(sock: socket.socket) -> OpenSocket:
    """Return a socket with the operations that channels need. Its own state is as before until stop_blocking()."""
    kind: Any = type(sock)
    return core.PlainSocket(sock) if _is_plain(kind) else PythonSocket(sock)


def has_arrived(sock: socket.socket) -> bool:
    """Return whether a socket can be read at once: bytes have arrived, or the connection is closed or lost."""
    kind: Any = type(sock)
    return core.has_arrived(sock) if _is_plain(kind) else wait_for(sock, False, 0.0)[0]


def has_arrived_below(sock: Any) -> bool:
    """Return the same for the socket of an asyncio transport. TLS above it is not looked into."""
    return core.has_arrived(sock) if core is not None else wait_for(sock, False, 0.0)[0]
