"""Waits for sockets to become readable or writable."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Any


def wait_for(sock: socket.socket, write: bool, timeout: float | None) -> tuple[bool, bool]:
    """Wait until a socket can be read, or can be written if `write` is set.

    Args:
        sock: the socket. TLS may hold bytes that it has decrypted already: then it can be read.
        write: whether to wait until it can be written, too.
        timeout: in seconds; None for no limit.

    Returns:
        Whether it can be read, and whether it can be written. Both are False after the timeout.
    """
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True, False
    if not hasattr(select, "poll"):
        readable, writable, _ = select.select([sock], [sock] if write else [], [], timeout)
        return bool(readable), bool(writable)
    poller = select.poll()
    poller.register(sock, select.POLLIN | (select.POLLOUT if write else 0))
    for _, event in poller.poll(None if timeout is None else timeout * 1000):
        # An error or hang-up shows when the socket is read.
        return bool(event & ~select.POLLOUT), bool(event & select.POLLOUT)
    return False, False


class Watch:
    """Waits for several sockets at the same time, each under a name of the caller's."""

    def __init__(self) -> None:
        self._poller = select.poll() if hasattr(select, "poll") else None
        self._watched: dict[int, tuple[socket.socket, Any]] = {}
        self._writing: set[int] = set()
        self._tls = False

    def add(self, sock: socket.socket, name: Any) -> None:
        """Watch a socket: from now on wait() returns its name when it can be read."""
        number = sock.fileno()
        self._watched[number] = sock, name
        self._tls |= isinstance(sock, ssl.SSLSocket)
        if self._poller is not None:
            self._poller.register(number, select.POLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Watch a socket no longer: its connection is closed, or is given back."""
        number = next((number for number, (one, _) in self._watched.items() if one is sock), None)
        if number is None:
            # Ctrl-C came before it was added.
            return
        del self._watched[number]
        self._writing.discard(number)
        if self._poller is not None:
            self._poller.unregister(number)

    def writing(self, sock: socket.socket, wanted: bool) -> None:
        """Say whether wait() is to end when the socket can be written."""
        number = sock.fileno()
        if wanted == (number in self._writing):
            return
        if wanted:
            self._writing.add(number)
        else:
            self._writing.discard(number)
        if self._poller is not None:
            self._poller.modify(number, select.POLLIN | (select.POLLOUT if wanted else 0))

    def wait(self, timeout: float | None) -> list[Any]:
        """Wait until a socket can be read or, where that is wanted, be written.

        Args:
            timeout: in seconds; None for no limit.

        Returns:
            The names of the sockets that can be read.
        """
        if self._tls:
            pending = [name for sock, name in self._watched.values() if has_decrypted(sock)]
            if pending:
                return pending
        if self._poller is None:
            readable, _, _ = select.select(list(self._watched), list(self._writing), [], timeout)
            return [self._watched[number][1] for number in readable]
        events = self._poller.poll(None if timeout is None else timeout * 1000)
        # An error or hang-up shows when the socket is read.
        return [self._watched[number][1] for number, event in events if event & ~select.POLLOUT]


def has_decrypted(sock: socket.socket) -> bool:
    """Return whether TLS holds decrypted bytes that were not read. poll() does not report those."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
