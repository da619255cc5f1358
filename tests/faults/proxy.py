"""A proxy on loopback between a client and a server that spoils, on demand, what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

LOOPBACK = "127.0.0.1"
BLOCK = 65536
PACED_SECONDS = 0.02
THREAD_TIMEOUT = 10.0

T = TypeVar("T")


class Direction(enum.Enum):
    """Which of a connection's two streams."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Then(enum.Enum):
    """What becomes of the connection once a fault has struck.

    Attributes:
        PASS: it goes on.
        CUT: both ends are closed, after what has passed so far was delivered.
        RESET: both ends are reset (RST); what was passed but not yet read may be lost with it.
        STALL: nothing more passes, nor is read, in the fault's direction, until `FaultProxy.release`.
    """

    PASS = "pass"
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, once, at one place of one stream.

    The place is counted in the original stream, from the connection's beginning (`FaultProxy.inject`) or from
    the moment of `FaultProxy.inject_now`. At that place `insert` is added, then what is to be dropped is
    dropped, then `then` happens. A fault at place 0, or one that drops something, strikes when the next byte
    arrives, not while the stream is idle; any other as soon as all that precedes it has passed.

    Attributes:
        direction: which stream.
        after_bytes: the place, in bytes; 0 where neither place is given.
        after_replies: the place, in whole replies of the server; RESP3 push messages are not replies.
        insert: bytes added there: garbage, an error reply, a push message.
        drop_bytes: how many bytes from there on are swallowed.
        drop_replies: how many replies from there on are swallowed, with the rest of one struck midway.
        then: what becomes of the connection.
        delay: seconds for which, from there on, every read of up to 64 KiB is held up.
        bytes_per_second: the most that passes from there on; None for no limit.
    """

    direction: Direction = Direction.TO_CLIENT
    after_bytes: int | None = None
    after_replies: int | None = None
    insert: bytes = b""
    drop_bytes: int = 0
    drop_replies: int = 0
    then: Then = Then.PASS
    delay: float = 0.0
    bytes_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.after_bytes is not None and self.after_replies is not None:
            raise ValueError("a fault has one place: after_bytes or after_replies")
        if self.drop_bytes and self.drop_replies:
            raise ValueError("a fault drops bytes or replies, not both")
        if self.direction is Direction.TO_SERVER and (self.after_replies is not None or self.drop_replies):
            raise ValueError("replies pass in the direction TO_CLIENT only")
        if min(self.after_bytes or 0, self.after_replies or 0, self.drop_bytes, self.drop_replies) < 0:
            raise ValueError("places and lengths are not negative")
        if self.bytes_per_second is not None and self.bytes_per_second <= 0:
            raise ValueError("bytes_per_second is positive; to stop a stream, use Then.STALL")


class ReplyFramer:
    """Finds where replies end in a stream of RESP2 or RESP3, however it is cut into pieces.

    Attributes:
        count: whole replies so far.
        lost: whether something came that is not RESP; nothing is found after that.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lost = False
        self._position = 0
        self._line = bytearray()
        self._blob_left = 0
        # The elements still to come in each open aggregate, outermost first, and its type.
        self._open: list[tuple[int, bytes]] = []
        self._found: list[tuple[int, int]] = []

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Take the next piece of the stream.

        Returns:
            Where top-level messages end, in bytes from the stream's beginning, each with the number of
            replies whole by then, which a push message does not raise.
        """
        self._found = []
        offset = 0
        while offset < len(data) and not self.lost:
            taken = self._take_blob(data, offset) if self._blob_left else self._take_line(data, offset)
            offset += taken
        return self._found

    def _take_blob(self, data: bytes, offset: int) -> int:
        taken = min(self._blob_left, len(data) - offset)
        self._blob_left -= taken
        self._position += taken
        if self._blob_left == 0:
            self._close(b"$")
        return taken

    def _take_line(self, data: bytes, offset: int) -> int:
        end = data.find(b"\n", offset) + 1
        taken = (end or len(data)) - offset
        self._line += data[offset : offset + taken]
        self._position += taken
        if end:
            line = bytes(self._line)
            self._line.clear()
            self._read(line)
        return taken

    def _read(self, line: bytes) -> None:
        kind = line[:1]
        if kind in b"+-:_,#(":
            self._close(kind)
            return
        try:
            length = int(line[1:])
        except ValueError:
            self.lost = True
            return
        self._read_sized(kind, length)

    def _read_sized(self, kind: bytes, length: int) -> None:
        if kind in b"*~>%|" and length > 0:
            self._open.append((2 * length if kind in b"%|" else length, kind))
        elif kind in b"$=!" and length >= 0:
            self._blob_left = length + len(b"\r\n")
        elif kind in b"*~>%|$=!":
            self._close(kind)
        else:
            self.lost = True

    def _close(self, kind: bytes) -> None:
        # An attribute goes before the element that it belongs to, and is none itself.
        while self._open and kind != b"|":
            left, kind_around = self._open.pop()
            if left > 1:
                self._open.append((left - 1, kind_around))
                return
            kind = kind_around
        if not self._open and kind != b"|":
            self.count += kind != b">"
            self._found.append((self._position, self.count))


@dataclass(frozen=True)
class _Mark:
    """A place in a stream: so many bytes, or so many replies, from its beginning."""

    position: int | None = None
    reply: int | None = None


@dataclass(frozen=True)
class _Armed:
    mark: _Mark
    fault: Fault
    ends_drop: bool = False

    @property
    def drops(self) -> bool:
        return bool(self.fault.drop_bytes or self.fault.drop_replies)


class Lane:
    """One stream of one connection, without its sockets: bytes in, what to do with them out."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.delay = 0.0
        self.bytes_per_second: float | None = None
        self._passed = 0
        self._armed: list[_Armed] = []
        self._drops = 0
        self._framer = ReplyFramer() if direction is Direction.TO_CLIENT else None
        # Ends of top-level messages: the last one before the data at hand, and those in it.
        self._ends = [0]
        self._counts = [0]

    def arm(self, fault: Fault) -> None:
        """Add a fault whose place is counted from what has passed so far."""
        if fault.direction is self.direction:
            self._armed.append(_Armed(self._mark(fault.after_bytes or 0, fault.after_replies), fault))

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Then]]:
        """Take the next piece of the stream.

        Yields:
            Bytes to be passed on, and what happens to the connection once they are.
        """
        start, end = self._passed, self._passed + len(data)
        self._frame(data)
        yield from self._strike(more=True)
        while self._passed < end:
            piece_start, self._passed = self._passed, self._next_stop(end)
            if not self._drops:
                yield data[piece_start - start : self._passed - start], Then.PASS
            yield from self._strike(more=self._passed < end)

    def _frame(self, data: bytes) -> None:
        del self._ends[:-1], self._counts[:-1]
        for end, count in self._framer.feed(data) if self._framer else ():
            self._ends.append(end)
            self._counts.append(count)

    def _mark(self, length: int, replies: int | None) -> _Mark:
        if replies is None:
            return _Mark(position=self._passed + length)
        last = bisect_right(self._ends, self._passed) - 1
        struck_midway = self._ends[last] != self._passed
        return _Mark(reply=self._counts[last] + struck_midway + replies)

    def _position_of(self, mark: _Mark) -> int | None:
        """Where a mark is, None when that is not known yet."""
        if mark.reply is None:
            return mark.position
        if mark.reply <= self._counts[0]:
            return self._ends[0]
        index = bisect_left(self._counts, mark.reply)
        return self._ends[index] if index < len(self._ends) else None

    def _next_stop(self, end: int) -> int:
        places = (self._position_of(armed.mark) for armed in self._armed)
        return min([end, *(place for place in places if place is not None)])

    def _strike(self, more: bool) -> Iterator[tuple[bytes, Then]]:
        while due := [armed for armed in self._armed if self._is_due(armed, more)]:
            self._armed.remove(due[0])
            yield from self._strike_one(due[0])

    def _is_due(self, armed: _Armed, more: bool) -> bool:
        # What stands in for a reply must not come before the question: redis-py drops a connection on
        # which it finds something unread when it takes it from the pool.
        if armed.drops and not armed.ends_drop and not more:
            return False
        place = self._position_of(armed.mark)
        return place is not None and place <= self._passed

    def _strike_one(self, armed: _Armed) -> Iterator[tuple[bytes, Then]]:
        fault = armed.fault
        if armed.ends_drop:
            self._drops -= 1
        else:
            yield fault.insert, Then.PASS
            if armed.drops:
                self._drops += 1
                until = self._mark(fault.drop_bytes, fault.drop_replies or None)
                self._armed.append(_Armed(until, fault, ends_drop=True))
                return
        self.delay = fault.delay or self.delay
        self.bytes_per_second = fault.bytes_per_second or self.bytes_per_second
        yield b"", fault.then


class _Ended(Exception):
    """The fault's connection is to be closed."""

    def __init__(self, reset: bool) -> None:
        super().__init__(reset)
        self.reset = reset


@dataclass
class _Plan:
    faults: tuple[Fault, ...]
    connections: int | None


class FaultProxy:
    """Listens on a free loopback port and relays to a server, with faults.

    It is a context manager; all methods may be called from any thread.

    Attributes:
        port: where it listens; known once the context is entered.
        connections: how many connections it has accepted.
    """

    host = LOOPBACK

    def __init__(self, upstream_port: int, *, upstream_host: str = LOOPBACK, record: bool = False) -> None:
        """Prepare a proxy.

        Args:
            upstream_port: of the server.
            upstream_host: of the server.
            record: keep all bytes that come from either side, for `recorded`.
        """
        self.port = 0
        self.connections = 0
        self._upstream = upstream_host, upstream_port
        self._seen = dict.fromkeys(Direction, 0)
        self._sent = dict.fromkeys(Direction, 0)
        self._record = record
        self._records = {direction: bytearray() for direction in Direction}
        self._plans: list[_Plan] = []
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
            raise RuntimeError("the proxy's thread does not end")

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        return len(self._live)

    def seen(self, direction: Direction) -> int:
        """How many bytes have come from the stream's source, over all connections."""
        return self._seen[direction]

    def sent(self, direction: Direction) -> int:
        """How many bytes have gone to the stream's target, what was added included, over all connections."""
        return self._sent[direction]

    def recorded(self, direction: Direction) -> bytes:
        """All the bytes that have come from the stream's source, as they came, over all connections.

        Raises:
            ValueError: the proxy was made without `record`.
        """
        if not self._record:
            raise ValueError("nothing is recorded without record=True")
        return self._call(lambda: bytes(self._records[direction]))

    def inject(self, *faults: Fault, connections: int | None = 1) -> None:
        """Spoil connections to come; what was injected earlier is used up first.

        Args:
            *faults: all of which every such connection meets.
            connections: how many; None for all of them until `clear`.
        """
        self._call(lambda: self._plans.append(_Plan(faults, connections)))

    def inject_now(self, *faults: Fault) -> None:
        """Spoil the connections that are open, places counted from now.

        A connection counts as open once something has come back over it: until then it may still wait to be
        accepted.
        """
        self._call(lambda: self._arm_live(faults))

    def clear(self) -> None:
        """Spoil no further connections; faults that connections have been given already stay."""
        self._call(self._plans.clear)

    def release(self) -> None:
        """Let all streams go on that a fault has stalled."""
        self._call(self._open_gate)

    def disconnect(self) -> None:
        """Close all connections that are open."""
        self._call(self._cancel_all)

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function in the proxy's thread, where all its state is kept."""
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
        # A task of our own, known from the first moment: one that asyncio made would first be cancelled or
        # given faults after it had run.
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
            # One side has broken off, or the server is not there: the other is to see no orderly end.
            reset = True
        finally:
            await _close(writers, reset)

    async def _pump(self, lane: Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Nothing is kept back here, so that a reader who stops is felt at the other side as it would be
        # without a proxy.
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
    """Run both until both have ended or one has failed, and then neither is left running."""
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
    # The peer may have closed it already.
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
