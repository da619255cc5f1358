"""A TCP proxy that delays and throttles as a network does.

Linux's netem is more exact, but it needs root and a kernel that has it. This proxy runs in a process of its own:
`python -m benchmarks.proxy PORT --delay 1 --rate 1000` prints the proxy's port when it listens.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 16 * 1024
"""Bytes that are delayed as one. They take 0.13 ms at 1 Gbit/s."""
IN_FLIGHT_BLOCKS = 256
"""Blocks that can be on the way in one direction, as a connection's window bounds them: 4 MiB."""
PR_SET_TIMERSLACK = 29


@dataclass(frozen=True)
class Link:
    """A network between client and server.

    Attributes:
        delay: milliseconds from end to end, in each direction.
        rate: megabits per second in each direction.
    """

    delay: float
    rate: float


@contextmanager
def proxied(port: int, link: Link) -> Iterator[int]:
    """Start a proxy to a port on this machine, and stop it at the end.

    Returns:
        The proxy's port.
    """
    command = [sys.executable, "-m", "benchmarks.proxy", str(port)]
    command += ["--delay", str(link.delay), "--rate", str(link.rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


class _Direction:
    """Moves the bytes of a connection in one direction."""

    def __init__(self, source: socket.socket, target: socket.socket, link: Link) -> None:
        self._source = source
        self._target = target
        self._delay = link.delay / 1000
        self._seconds_a_byte = 8 / (link.rate * 1e6)
        self._on_the_way: queue.Queue[tuple[float, bytes]] = queue.Queue(IN_FLIGHT_BLOCKS)

    def start(self) -> None:
        for work in (self._take, self._deliver):
            threading.Thread(target=work, daemon=True).start()

    def _take(self) -> None:
        free = 0.0
        while True:
            try:
                block = self._source.recv(BLOCK)
            except OSError:
                block = b""
            free = max(time.perf_counter(), free) + len(block) * self._seconds_a_byte
            self._on_the_way.put((free + self._delay, block))
            if not block:
                return

    def _deliver(self) -> None:
        _sleep_exactly()
        while True:
            due, block = self._on_the_way.get()
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            # The other side may have closed its connection.
            with contextlib.suppress(OSError):
                if block:
                    self._target.sendall(block)
                else:
                    self._target.shutdown(socket.SHUT_WR)
            if not block:
                return


def _sleep_exactly() -> None:
    """Let this thread's sleeps end within a microsecond. By default Linux adds up to 50."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Forward connections until the process is killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description="Delays and throttles.")
    parser.add_argument("port", type=int, help="the server's port on this machine")
    parser.add_argument("--delay", type=float, required=True, metavar="MS", help="milliseconds in each direction")
    parser.add_argument("--rate", type=float, required=True, metavar="MBIT", help="megabits per second")
    options = parser.parse_args(arguments)
    link = Link(options.delay, options.rate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", options.port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Direction(client, server, link).start()
            _Direction(server, client, link).start()


if __name__ == "__main__":
    main()
