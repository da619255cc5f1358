"""Sockets as channels use them: those of the core, and those used by their own methods."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from redis_fastbatch._core.runtime.buffer import ReceiveBuffer
from redis_fastbatch._transports.sockets import PythonSocket, has_arrived, opened


class OwnSocket(socket.socket):
    """Like the sockets of gevent: its methods are its own."""

    def recv_into(self, *arguments: Any) -> int:  # type: ignore[override]
        return super().recv_into(*arguments)


@pytest.fixture(params=[opened, PythonSocket], ids=["opened", "python"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def test_bytes_are_sent_and_received(kind: Any, ends: Any) -> None:
    ours, theirs = ends
    buffer = ReceiveBuffer()
    plain = kind(ours)
    plain.send_all(bytearray(b"hello"))
    assert theirs.recv(10) == b"hello"
    assert plain.send_some(b"hello", 2) == 3
    assert theirs.recv(10) == b"llo"
    theirs.sendall(b"+OK\r\n")
    assert plain.receive(buffer) == 5
    assert len(buffer) == 5
    theirs.close()
    assert plain.receive(buffer) == 0


def test_a_message_larger_than_the_buffers_is_sent_whole(kind: Any, ends: Any) -> None:
    ours, theirs = ends
    message = bytes(range(256)) * 20_000
    arrived = bytearray()

    def read() -> None:
        while len(arrived) < len(message):
            arrived.extend(theirs.recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    kind(ours).send_all(message)
    reader.join(10)
    assert arrived == message


def test_without_blocking_nothing_waits(kind: Any, ends: Any) -> None:
    ours, _ = ends
    plain = kind(ours)
    plain.stop_blocking()
    assert plain.receive(ReceiveBuffer()) == -1
    message, sent = bytes(1 << 24), 0
    while some := plain.send_some(message, sent):
        sent += some
    assert 0 < sent < len(message)


def test_waiting_ends_with_the_timeout(kind: Any, ends: Any) -> None:
    ours, _ = ends
    ours.settimeout(0.05)
    plain = kind(ours)
    with pytest.raises(TimeoutError):
        plain.receive(ReceiveBuffer())
    with pytest.raises(TimeoutError):
        plain.send_all(bytes(1 << 24))


def test_a_socket_without_a_timeout_waits_for_bytes(kind: Any, ends: Any) -> None:
    ours, theirs = ends
    ours.settimeout(None)
    later = threading.Timer(0.05, theirs.sendall, (b"late",))
    later.start()
    assert kind(ours).receive(ReceiveBuffer()) == 4
    later.join()


def test_a_lost_connection_is_an_os_error(kind: Any, ends: Any) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(BrokenPipeError):
        kind(ours).send_all(b"hello")
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        kind(ours).send_all(b"hello")
    with pytest.raises(OSError, match="Bad file descriptor"):
        kind(ours).receive(ReceiveBuffer())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no setitimer()")
@pytest.mark.parametrize("raises", [True, False])
def test_a_signal_is_handled_while_it_waits(kind: Any, ends: Any, raises: bool) -> None:
    ours, theirs = ends
    caught: list[int] = []

    def handle(number: int, frame: Any) -> None:
        caught.append(number)
        if raises:
            raise KeyboardInterrupt
        theirs.sendall(b"after")

    earlier = signal.signal(signal.SIGALRM, handle)
    buffer = ReceiveBuffer()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        if raises:
            with pytest.raises(KeyboardInterrupt):
                kind(ours).receive(buffer)
        else:
            assert kind(ours).receive(buffer) == 5
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert caught == [signal.SIGALRM]
    # The buffer may move again.
    assert len(buffer.free_space()) > 0


@pytest.mark.parametrize("family", [socket.socket, OwnSocket])
def test_arrived_bytes_and_closed_connections_show(family: type[socket.socket]) -> None:
    ours, theirs = socket.socketpair()
    with family(fileno=ours.detach()) as ours, theirs:
        assert not has_arrived(ours)
        theirs.sendall(b"x")
        assert has_arrived(ours)
        ours.recv(1)
        assert not has_arrived(ours)
        theirs.close()
        assert has_arrived(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="the core has no functions for sockets on Windows")
def test_sockets_with_methods_of_their_own_are_used_by_these(ends: Any) -> None:
    ours, theirs = ends
    assert not isinstance(opened(ours), PythonSocket)
    with OwnSocket(fileno=theirs.detach()) as own:
        assert isinstance(opened(own), PythonSocket)


def test_a_start_beyond_the_message_is_refused(ends: Any) -> None:
    with pytest.raises(ValueError, match="expected a start from 0 to 5, the size of the message, got 6"):
        opened(ends[0]).send_some(b"hello", 6)
