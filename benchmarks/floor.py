"""The floor: the time of the network and the server alone, with nothing to encode or decode.

A bare blocking socket sends commands that were encoded beforehand, and drops the replies as it receives them. How
the bytes are split into sends matters, because the server works on the first ones while the next are on their way.
So each batch is sent in several ways, and the fastest is the floor.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import hiredis

from benchmarks import wire
from benchmarks.servers import Endpoint
from benchmarks.wire import Command, Pair

SLICE = 32 * 1024
KEYS_PER_MGET = 1_000
# Up to this many bytes of unread replies fit into the buffers of the two sockets. So the server never waits for us
# before it reads on, and a blocking send cannot deadlock. A single piece may owe more, such as a buffer of 100,000
# SETs: the server then keeps the rest of the replies in memory, and still reads on.
UNREAD = 64 * 1024
TIMEOUT_SECONDS = 120


class FloorError(Exception):
    """The server sent other replies than the batch must have."""


@dataclass(frozen=True)
class Piece:
    """The bytes of one send, and how many bytes of replies the commands that end in it must have."""

    data: memoryview
    owed: int


@dataclass(frozen=True)
class Script:
    """A batch, cut into sends.

    Attributes:
        unread: before the next send, replies are read until at most this many bytes of them are missing.
        reply: all bytes of the replies that the server must send.
    """

    name: str
    pieces: Sequence[Piece]
    unread: int
    reply: bytes


def write_scripts(pairs: Sequence[Pair], seconds: int | None, msetex: bool) -> list[Script]:
    """Return the ways of storing the pairs, to expire or not.

    With expiry and without MSETEX, these are a SET for each pair.
    """
    command = _write_command(seconds, msetex)
    whole = command(pairs)
    parts = [command(run) for run in wire.by_bytes(pairs, SLICE)]
    a_command_each = seconds is not None and not msetex
    ends = _ends([command([pair]) for pair in pairs] if a_command_each else [whole])
    return [
        Script("floor, one buffer", [Piece(memoryview(whole.data), len(whole.reply))], UNREAD, whole.reply),
        Script("floor, 32 KiB commands", _piece_each(parts), UNREAD, _replies(parts)),
        Script("floor, 32 KiB slices", _sliced(whole, ends), UNREAD, whole.reply),
    ]


def read_scripts(pairs: Sequence[Pair]) -> list[Script]:
    """Return the ways of reading the pairs back, once they are stored."""
    whole = wire.mget(pairs)
    parts = [wire.mget(pairs[start : start + KEYS_PER_MGET]) for start in range(0, len(pairs), KEYS_PER_MGET)]
    reply = _replies(parts)
    # With a second command in flight the server works on one while we receive the other's reply.
    two = max(len(part.reply) for part in parts)
    return [
        Script("floor, one MGET", [Piece(memoryview(whole.data), len(whole.reply))], 0, whole.reply),
        Script("floor, 1,000 keys a MGET", _piece_each(parts), 0, reply),
        Script("floor, 1,000 keys a MGET, two in flight", _piece_each(parts), two, reply),
    ]


class BareSocket:
    """A connection without a client library."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._socket = socket.create_connection((endpoint.host, endpoint.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's timeout, because Python's own polls before every send and receive.
        timeout = struct.pack("ll", TIMEOUT_SECONDS, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._scrap = memoryview(bytearray(256 * 1024))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def run(self, script: Script) -> None:
        """Send a script and receive all of its replies, count their bytes and drop them.

        Raises:
            FloorError: the replies are longer than they should be.
        """
        self._exchange(script, self._drop)

    def check(self, script: Script) -> None:
        """Do the same and compare every byte of the replies.

        Raises:
            FloorError: there is a difference.
        """
        received = bytearray()

        def keep() -> int:
            data = self._socket.recv(len(self._scrap))
            received.extend(data)
            return len(data)

        self._exchange(script, keep)
        if received != script.reply:
            raise FloorError(f"{script.name}: the replies begin with {bytes(received[:80])!r}")

    def _drop(self) -> int:
        return self._socket.recv_into(self._scrap)

    def _exchange(self, script: Script, receive: Callable[[], int]) -> None:
        send = self._socket.sendall
        owed = 0
        for piece in script.pieces:
            send(piece.data)
            owed += piece.owed
            while owed > script.unread:
                owed -= _some(receive())
        while owed > 0:
            owed -= _some(receive())
        if owed:
            raise FloorError(f"{script.name}: {-owed} bytes more than the replies are long")


class Sliced:
    """A bare socket that sends commands of any kind in slices of 32 KiB, and drops the replies.

    Args:
        endpoint: the server, in the state in which the replies have their size.
        data: the commands.
        count: how many replies they have.
    """

    def __init__(self, endpoint: Endpoint, data: bytes, count: int) -> None:
        self._socket = socket.create_connection((endpoint.host, endpoint.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = memoryview(data)
        self._scrap = memoryview(bytearray(256 * 1024))
        self._wanted = self._reply_bytes(count)

    def __enter__(self) -> Sliced:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self) -> None:
        """Send all commands and receive their replies."""
        sock, data, scrap, wanted = self._socket, self._data, self._scrap, self._wanted
        received = 0
        for start in range(0, len(data), SLICE):
            sock.sendall(data[start : start + SLICE])
            # So that neither side's buffers fill up.
            while wanted * start // len(data) - received > UNREAD:
                received += _some(sock.recv_into(scrap))
        while received < wanted:
            received += _some(sock.recv_into(scrap))

    def _reply_bytes(self, count: int) -> int:
        """Send all commands once, and return how many bytes their replies have."""
        reader, size, replies, sent = hiredis.Reader(), 0, 0, 0
        self._socket.setblocking(False)
        while replies < count:
            if sent < len(self._data):
                with contextlib.suppress(BlockingIOError):
                    sent += self._socket.send(self._data[sent : sent + SLICE])
            try:
                some = self._socket.recv(65536)
            except BlockingIOError:
                continue
            size += _some(len(some))
            reader.feed(some)
            while reader.gets() is not False:
                replies += 1
        self._socket.setblocking(True)
        return size


def _some(received: int) -> int:
    if not received:
        raise FloorError("the server closed the connection")
    return received


def _write_command(seconds: int | None, msetex: bool) -> Callable[[Sequence[Pair]], Command]:
    if seconds is None:
        return wire.mset
    expiring = wire.msetex if msetex else wire.set_ex
    return lambda pairs: expiring(pairs, seconds)


def _piece_each(commands: Iterable[Command]) -> list[Piece]:
    return [Piece(memoryview(command.data), len(command.reply)) for command in commands]


def _replies(commands: Iterable[Command]) -> bytes:
    return b"".join(command.reply for command in commands)


def _ends(commands: Sequence[Command]) -> list[int]:
    return list(accumulate(len(command.data) for command in commands))


def _sliced(whole: Command, ends: Sequence[int]) -> list[Piece]:
    """Cut at every 32 KiB, at any byte; `ends` has the positions where commands end."""
    view = memoryview(whole.data)
    reply_length = len(whole.reply) // len(ends)
    pieces = []
    for start in range(0, len(view), SLICE):
        ended = bisect_right(ends, start + SLICE) - bisect_right(ends, start)
        pieces.append(Piece(view[start : start + SLICE], ended * reply_length))
    return pieces
