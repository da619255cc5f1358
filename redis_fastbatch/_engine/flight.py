"""A batch in flight, as a state machine. No input or output happens here.

A flight gives out chunks to send, is told when they leave, and reads their replies. It knows at any time which
items are settled. So a transport needs only to move bytes.

Ctrl-C may come between any two lines. Then counts may leave out the chunk that was being settled. Nothing else may
be wrong: a chunk enters its next queue before it leaves the one before, so that `confirmed_prefix` never counts
an item that is not settled, and a chunk is marked as settled before it is counted, so that none is counted twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, TypeVar

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader

Explain: TypeAlias = Callable[[ErrorReply], Exception]
"""Makes redis-py's exception of an error reply."""

FIRST_COMMAND_BYTES = 32 * 1024
"""The size at which the first commands of a batch end: the server works on one while the next is encoded."""

COMMAND_BYTES = 96 * 1024
"""The size at which later commands end. It grows with what was sent, to an eighth of it at most: the first and the
last command have nothing to overlap with, and are to be a small part of the batch."""

COMMAND_ITEMS = 1000
"""The most items of a command by default: well under a millisecond of the server's time."""

WINDOW_BYTES = 512 * 1024
"""The most bytes that are sent and not yet confirmed."""

WINDOW_CHUNKS = 128
"""The most commands that are sent and not yet confirmed. It matters where `chunk_size` makes them small: then what
is kept for each takes more memory than its bytes."""

NO_LIMIT = 2**62

AnyChunk = TypeVar("AnyChunk", bound="InFlightChunk")


class Flight(Protocol):
    """A batch in flight, as a transport sees it.

    Attributes:
        wait_while_loading: a server that is still loading its data is waited for.
        pace: the most items that next_chunk() and take() deal with at a time; None for no limit. A transport that
            sets it calls next_chunk() again while a chunk is partly full, and take() until it leaves what has
            arrived alone.
    """

    wait_while_loading: bool
    pace: int | None

    @property
    def hook_raised(self) -> bool:
        """Whether a hook of the caller's has raised, which ends the batch."""

    @property
    def poll_after_send(self) -> bool:
        """Whether to look for replies after each chunk, and not only when the window is full."""

    @property
    def has_partial_chunk(self) -> bool:
        """Whether a chunk is partly full, and next_chunk() would go on with it."""

    @property
    def source_pending(self) -> bool:
        """Whether the source had no item ready when a chunk was being filled."""

    @property
    def done(self) -> bool:
        """Whether everything is sent and settled."""

    @property
    def settled(self) -> int:
        """A number that grows whenever replies settle something."""

    @property
    def in_flight(self) -> bool:
        """Whether replies are outstanding."""

    @property
    def awaiting_replies(self) -> bool:
        """Whether replies are outstanding to writes that have been sent whole."""

    def next_chunk(self) -> Chunk | None:
        """Return a sealed chunk to send now, or None while the window is full or when there are no more."""

    def flush_partial(self) -> None:
        """Seal the chunk that is partly full, to send it as it is."""

    def started(self, chunk: Chunk) -> None:
        """Note that the first byte of the chunk is about to leave."""

    def finished(self, chunk: Chunk) -> None:
        """Note that the last byte of the chunk has left."""

    def take(self, reader: ReplyReader, explain: Explain) -> None:
        """Read the replies that have arrived."""

    def connection_lost(self) -> bool:
        """Put what was in flight back, to be sent again. Return False if it may not be."""

    def abort(self, error: BaseException) -> None:
        """End the batch. What was sent and not confirmed has an unknown outcome."""


class ChunkState(enum.Enum):
    """How far a chunk has come. A lost connection takes SENDING and SENT back to SENT_BEFORE."""

    NEW = "none of its bytes has left"
    SENT_BEFORE = "bytes have left over a connection that was lost"
    SENDING = "its first byte has left, or is about to"
    SENT = "its last byte has left"
    SETTLED = "the outcome of its items is counted, or another chunk carries them"


class InFlightChunk:
    """A chunk, from its first item to its last reply.

    Attributes:
        chunk: the encoded commands.
        position: where its first item stands in the input.
        done: how many of its replies have been read.
        non_ok_replies: the replies other than OK, each with its index.
        started: when its first byte left, on the monotonic clock.
    """

    __slots__ = ("chunk", "done", "non_ok_replies", "position", "started", "state")

    def __init__(self, chunk: Chunk, position: int) -> None:
        self.chunk = chunk
        self.position = position
        self.state = ChunkState.NEW
        self.done = 0
        self.non_ok_replies: list[tuple[int, Any]] = []
        self.started = 0.0

    @property
    def left(self) -> bool:
        """Whether any byte of it has left."""
        return self.state is not ChunkState.NEW

    def again(self) -> InFlightChunk:
        """Return the same chunk as it is to be sent over another connection."""
        again = InFlightChunk(self.chunk, self.position)
        again.state = ChunkState.SENT_BEFORE
        return again


def each_once(*queues: Iterable[AnyChunk]) -> list[AnyChunk]:
    """Return the chunks of several queues. One on its way between two of them is taken from the first."""
    found: dict[int, AnyChunk] = {}
    for queue in queues:
        for each in tuple(queue):
            found.setdefault(id(each.chunk), each)
    return list(found.values())
