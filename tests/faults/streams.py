"""Faults in the stream of one direction of a connection, without sockets."""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass


class Direction(enum.Enum):
    """One of a connection's two streams."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Then(enum.Enum):
    """What happens to the connection after a fault.

    Attributes:
        PASS: it continues.
        CUT: both ends are closed, after all earlier bytes are delivered.
        RESET: both ends are reset (RST). Bytes that were not read yet may be lost.
        STALL: in the fault's direction no byte is read or passed until `FaultProxy.release`.
    """

    PASS = "pass"
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True)
class Fault:
    """A fault that happens once, at one place of one stream.

    The place is counted in the original stream, from the connection's beginning (`FaultProxy.inject`) or from
    the call of `FaultProxy.inject_now`. At the place, `insert` is added, then bytes or replies are dropped, then
    `then` happens. A fault at place 0, or one that drops something, happens when the next byte arrives, not while
    the stream is idle. Any other fault happens when all bytes before it have passed.

    Attributes:
        direction: the stream.
        after_bytes: the place, in bytes; 0 if neither place is given.
        after_replies: the place, in whole replies of the server; RESP3 push messages are not replies.
        insert: bytes to add: garbage, an error reply, a push message.
        drop_bytes: the number of bytes to drop from there.
        drop_replies: the number of replies to drop from there, and the rest of a reply that has begun.
        then: what happens to the connection.
        delay: seconds to delay every later read of up to 64 KiB.
        bytes_per_second: the maximum speed from there; None for no limit.
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
            raise ValueError("a fault has one place: give after_bytes or after_replies")
        if self.drop_bytes and self.drop_replies:
            raise ValueError("a fault drops bytes or replies, not both")
        if self.direction is Direction.TO_SERVER and (self.after_replies is not None or self.drop_replies):
            raise ValueError("replies only pass in the direction TO_CLIENT")
        if min(self.after_bytes or 0, self.after_replies or 0, self.drop_bytes, self.drop_replies) < 0:
            raise ValueError("places and lengths must not be negative")
        if self.bytes_per_second is not None and self.bytes_per_second <= 0:
            raise ValueError("bytes_per_second must be positive; to stop a stream, use Then.STALL")


class ReplyFramer:
    """Finds where replies end in a stream of RESP2 or RESP3 that arrives in pieces.

    Attributes:
        count: the number of whole replies.
        lost: whether the stream contained something other than RESP. Nothing is found after that.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lost = False
        self._position = 0
        self._line = bytearray()
        self._blob_left = 0
        # The number of missing elements in each open aggregate, and its type; the outermost is first.
        self._open: list[tuple[int, bytes]] = []
        self._found: list[tuple[int, int]] = []

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Take the next piece of the stream.

        Returns:
            The ends of top-level messages, in bytes from the stream's beginning, each with the number of whole
            replies up to there. Push messages do not count.
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
        # An attribute precedes the element that it belongs to, and does not count as an element.
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
    """A place in a stream, as a number of bytes or of replies from its beginning."""

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
    """One stream of one connection, without sockets. It takes bytes and returns what to do with them."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.delay = 0.0
        self.bytes_per_second: float | None = None
        self._passed = 0
        self._armed: list[_Armed] = []
        self._drops = 0
        self._framer = ReplyFramer() if direction is Direction.TO_CLIENT else None
        # Ends of top-level messages: the last one before the current data, and those in it.
        self._ends = [0]
        self._counts = [0]

    def arm(self, fault: Fault) -> None:
        """Add a fault. Its place is counted from the bytes that have passed."""
        if fault.direction is self.direction:
            self._armed.append(_Armed(self._mark(fault.after_bytes or 0, fault.after_replies), fault))

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Then]]:
        """Take the next piece of the stream.

        Yields:
            Bytes to pass on, and what happens to the connection after them.
        """
        start, end = self._passed, self._passed + len(data)
        self._frame(data)
        yield from self._apply_due(more=True)
        while self._passed < end:
            piece_start, self._passed = self._passed, self._next_stop(end)
            if not self._drops:
                yield data[piece_start - start : self._passed - start], Then.PASS
            yield from self._apply_due(more=self._passed < end)

    def _frame(self, data: bytes) -> None:
        del self._ends[:-1], self._counts[:-1]
        for end, count in self._framer.feed(data) if self._framer else ():
            self._ends.append(end)
            self._counts.append(count)

    def _mark(self, length: int, replies: int | None) -> _Mark:
        if replies is None:
            return _Mark(position=self._passed + length)
        last = bisect_right(self._ends, self._passed) - 1
        within_reply = self._ends[last] != self._passed
        return _Mark(reply=self._counts[last] + within_reply + replies)

    def _position_of(self, mark: _Mark) -> int | None:
        """Return the position of a mark, or None if it is not known yet."""
        if mark.reply is None:
            return mark.position
        if mark.reply <= self._counts[0]:
            return self._ends[0]
        index = bisect_left(self._counts, mark.reply)
        return self._ends[index] if index < len(self._ends) else None

    def _next_stop(self, end: int) -> int:
        places = (self._position_of(armed.mark) for armed in self._armed)
        return min([end, *(place for place in places if place is not None)])

    def _apply_due(self, more: bool) -> Iterator[tuple[bytes, Then]]:
        while due := [armed for armed in self._armed if self._is_due(armed, more)]:
            self._armed.remove(due[0])
            yield from self._apply(due[0])

    def _is_due(self, armed: _Armed, more: bool) -> bool:
        # A replacement of a reply must not arrive before the command: redis-py closes a connection that has
        # unread bytes when it takes it from the pool.
        if armed.drops and not armed.ends_drop and not more:
            return False
        place = self._position_of(armed.mark)
        return place is not None and place <= self._passed

    def _apply(self, armed: _Armed) -> Iterator[tuple[bytes, Then]]:
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
