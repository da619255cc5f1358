"""A proxy on loopback between a client and a server. On demand it injects faults into their streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from faults.streams import Direction, Fault, Lane, Then

LOOPBACK = "127.0.0.1"
BLOCK = 65536
PACED_SECONDS = 0.02
THREAD_TIMEOUT = 10.0

T = TypeVar("T")


class _Ended(Exception):
    """The fault closes its connection."""

    def __init__(self, reset: bool) -> None:
        super().__init__(reset)
        self.reset = reset


@dataclass
class _Injection:
    faults: tuple[Fault, ...]
    connections: int | None


class FaultProxy:
    """Listens on a free loopback port and relays to a server, with faults.

    It is a context manager. All methods may be called from any thread.

    Attributes:
        port: its port, known after the context is entered.
        connections: the number of connections that it has accepted.
    """

    host = LOOPBACK

    def __init__(self, upstream_port: int, *, upstream_host: str = LOOPBACK, record: bool = False) -> None:
        """Prepare a proxy.

        Args:
            upstream_port: the server's port.
            upstream_host: the server's host.
            record: keep all bytes from both sides, for `recorded`.
        """
        self.port = 0
        self.connections = 0
        self._upstream = upstream_host, upstream_port
        self._seen = dict.fromkeys(Direction, 0)
        self._sent = dict.fromkeys(Direction, 0)
        self._record = record
        self._records = {direction: bytearray() for direction in Direction}
        self._plans: list[_Injection] = []
        self._live: dict[asyncio.Task[None], tuple[Lane, Lane]] = {}
        self._thread: threading.Thread | None = None
        self._started: Future[None] = Future()

    def __enter__(self) -> FaultProxy:
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        self._started.result(THREAD_TIMEOUT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._call(self._stopping.set)
        self._thread.join(THREAD_TIMEOUT)
        if self._thread.is_alive():
            raise RuntimeError("the proxy's thread has not ended")

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._live)

    def seen(self, direction: Direction) -> int:
        """Return the number of bytes from the stream's source, over all connections."""
        return self._seen[direction]

    def sent(self, direction: Direction) -> int:
        """Return the number of bytes to the stream's target, with inserted ones, over all connections."""
        return self._sent[direction]

    def recorded(self, direction: Direction) -> bytes:
        """Return all bytes from the stream's source, over all connections.

        Raises:
            ValueError: the proxy was made without `record=True`.
        """
        if not self._record:
            raise ValueError("the proxy records only with record=True")
        return self._call(lambda: bytes(self._records[direction]))

    def inject(self, *faults: Fault, connections: int | None = 1) -> None:
        """Inject faults into later connections. Earlier injections are used first.

        Args:
            *faults: the faults; each of these connections gets all of them.
            connections: the number of connections; None for all of them until `clear`.
        """
        self._call(lambda: self._plans.append(_Injection(faults, connections)))

    def inject_now(self, *faults: Fault) -> None:
        """Inject faults into the open connections. Places are counted from now.

        A connection is certainly open when something has been received over it. Before that it may still wait to
        be accepted.
        """
        self._call(lambda: self._arm_live(faults))

    def clear(self) -> None:
        """Inject no faults into later connections. Faults of open connections stay."""
        self._call(self._plans.clear)

    def release(self) -> None:
        """Let all stalled streams continue."""
        self._call(self._open_gate)

    def disconnect(self) -> None:
        """Close all open connections."""
        self._call(self._cancel_all)

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function in the proxy's thread, which owns all its state."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(THREAD_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._gate = asyncio.Event()
        server = await asyncio.start_server(self._accepted, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set_result(None)
        await self._stopping.wait()
        server.close()
        tasks = self._cancel_all()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel_all(self) -> list[asyncio.Task[None]]:
        tasks = list(self._live)
        for task in tasks:
            task.cancel()
        return tasks

    def _arm_live(self, faults: tuple[Fault, ...]) -> None:
        for lanes in self._live.values():
            _arm(lanes, faults)

    def _open_gate(self) -> None:
        self._gate.set()
        self._gate = asyncio.Event()

    def _next_faults(self) -> tuple[Fault, ...]:
        if not self._plans:
            return ()
        plan = self._plans[0]
        if plan.connections is not None:
            plan.connections -= 1
            if plan.connections <= 0:
                self._plans.pop(0)
        return plan.faults

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # This task is known at once. asyncio's own task could be cancelled or get faults only after it has run.
        lanes = Lane(Direction.TO_SERVER), Lane(Direction.TO_CLIENT)
        _arm(lanes, self._next_faults())
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer, lanes))
        self._live[task] = lanes
        task.add_done_callback(self._live.pop)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lanes: tuple[Lane, Lane]
    ) -> None:
        writers = [writer]
        reset = False
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            writers.append(up_writer)
            to_server, to_client = lanes
            await _both(
                self._pump(to_server, reader, up_writer),
                self._pump(to_client, up_reader, writer),
            )
        except _Ended as ended:
            reset = ended.reset
        except OSError:
            # One side has failed, or the server does not exist. The other side must not see a normal close.
            reset = True
        finally:
            await _close(writers, reset)

    async def _pump(self, lane: Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Buffer nothing here, so that a slow reader slows down the other side as it would without a proxy.
        writer.transport.set_write_buffer_limits(high=0)
        while data := await reader.read(BLOCK):
            self._note(lane.direction, data)
            await self._relay(lane, data, writer)
        if writer.can_write_eof():
            writer.write_eof()

    async def _relay(self, lane: Lane, data: bytes, writer: asyncio.StreamWriter) -> None:
        delayed = False
        for piece, then in lane.feed(data):
            if piece and lane.delay and not delayed:
                await asyncio.sleep(lane.delay)
                delayed = True
            await _write(writer, piece, lane.bytes_per_second)
            self._sent[lane.direction] += len(piece)
            await self._do(then)

    def _note(self, direction: Direction, data: bytes) -> None:
        self._seen[direction] += len(data)
        if self._record:
            self._records[direction] += data

    async def _do(self, then: Then) -> None:
        if then in (Then.CUT, Then.RESET):
            raise _Ended(reset=then is Then.RESET)
        if then is Then.STALL:
            await self._gate.wait()


def _arm(lanes: tuple[Lane, Lane], faults: tuple[Fault, ...]) -> None:
    for lane in lanes:
        for fault in faults:
            lane.arm(fault)


async def _both(*pumps: Coroutine[None, None, None]) -> None:
    """Run both until both have ended or one has failed. Cancel the other one then."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(writer: asyncio.StreamWriter, data: bytes, bytes_per_second: float | None) -> None:
    step = max(1, int(bytes_per_second * PACED_SECONDS)) if bytes_per_second else BLOCK
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        writer.write(piece)
        await writer.drain()
        if bytes_per_second:
            await asyncio.sleep(len(piece) / bytes_per_second)


async def _close(writers: list[asyncio.StreamWriter], reset: bool) -> None:
    for writer in writers:
        if reset:
            _make_close_reset(writer)
            writer.transport.abort()
        else:
            writer.close()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _make_close_reset(writer: asyncio.StreamWriter) -> None:
    # The peer may have closed the socket.
    with contextlib.suppress(OSError):
        no_linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
