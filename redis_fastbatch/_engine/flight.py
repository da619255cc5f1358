"""A batch in flight, as a state machine. No input or output happens here.

A flight says by poll() what is to be done next: it gives a chunk to send, or says what it needs. It reads the
replies, and knows at any time which items are settled. So a transport needs only to move bytes.

Ctrl-C may come between any two lines. Then counts may leave out the chunk that was being settled. Nothing else may
be wrong: a chunk enters its next queue before it leaves the one before, so that `confirmed_prefix` never counts
an item that is not settled, and a chunk is marked as settled before it is counted, so that none is counted twice.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, TypeVar

from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.outcome import HookCaller
from redis_fastbatch._engine.pacing import FlushTimer

Explain: TypeAlias = Callable[[ErrorReply], Exception]
"""Makes redis-py's exception of an error reply."""

FIRST_COMMAND_BYTES = 32 * 1024
"""The size at which the first commands of a batch end: the server works on one while the next is encoded."""

COMMAND_BYTES = 96 * 1024
"""The size at which later commands end. It grows with what was sent, to an eighth of it at most: the first and the
last command overlap with nothing, so they must be a small part of the batch."""

COMMAND_ITEMS = 1000
"""The most items of a command by default: well under a millisecond of the server's time."""

WINDOW_BYTES = 512 * 1024
"""The most bytes that are sent and not yet confirmed."""

WINDOW_CHUNKS = 128
"""The most commands that are sent and not yet confirmed. It matters where `chunk_size` makes them small: then what
Python keeps for each takes more memory than its bytes."""

NO_LIMIT = 2**62

AnyChunk = TypeVar("AnyChunk", bound="InFlightChunk")


class Event(enum.Enum):
    """What a flight needs, if it has nothing to send."""

    NEED_REPLIES = "nothing can be sent before replies come"
    NEED_ITEMS = "an asynchronous source has no item ready; replies may be outstanding too"
    PAUSED = "nothing to send yet: poll again, on an event loop after its turn"
    IDLE = "nothing to do for this node of a cluster until the batch goes on elsewhere"
    DONE = "everything is sent and settled"


class Send:
    """A chunk to send now.

    Attributes:
        chunk: the chunk, sealed.
        poll_after_send: look for replies after it without waiting for them.
    """

    __slots__ = ("chunk", "poll_after_send")

    def __init__(self, chunk: Chunk, poll_after_send: bool = False) -> None:
        self.chunk = chunk
        self.poll_after_send = poll_after_send


class Flight(Protocol):
    """A batch in flight, as a transport sees it.

    A transport calls poll() until it returns Event.DONE, and does what each event asks for.

    Attributes:
        wait_while_loading: a server that is still loading its data is waited for.
    """

    wait_while_loading: bool

    def poll(self, budget: int | None = None) -> Send | Event:
        """Return what is to be done next. A chunk is returned again until started() is called.

        Args:
            budget: the most items to encode; None for no limit.
        """

    def started(self, chunk: Chunk) -> None:
        """Note that the first byte of the chunk is about to leave."""

    def finished(self, chunk: Chunk) -> None:
        """Note that the last byte of the chunk has left."""

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        """Read the replies that have arrived.

        Args:
            reader: holds them.
            explain: makes exceptions of error replies.
            budget: about how many items to settle; call again until no further reply is read. None for no limit.
        """

    def connection_lost(self) -> bool:
        """Put what was in flight back, to be sent again. Return False if it may not be."""

    def abort(self, error: BaseException) -> None:
        """End the batch. What was sent and not confirmed has an unknown outcome."""

    @property
    def in_flight(self) -> bool:
        """Whether replies are outstanding."""

    @property
    def awaiting_replies(self) -> bool:
        """Whether replies are outstanding to writes that have been sent whole."""

    @property
    def flush_seconds(self) -> float | None:
        """After how many seconds at most to poll again if no item comes; None for no limit."""

    @property
    def settled(self) -> int:
        """A number that grows whenever replies settle something."""

    @property
    def hook_raised(self) -> bool:
        """Whether a hook of the caller's has raised, which ends the batch."""


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


class ServerFlight:
    """What flights to a single server have in common.

    Args:
        writer: encodes the items.
        outcome: records what became of them.
    """

    _poll_after_send = False
    _flush_timer: FlushTimer | None = None

    def __init__(self, writer: BatchWriter, outcome: HookCaller) -> None:
        self.wait_while_loading = True
        self.settled = 0
        self._writer = writer
        self._hooks = outcome
        self._in_flight: deque[Any] = deque()
        self._ready: deque[Any] = deque()
        self._filling: Any = None

    def poll(self, budget: int | None = None) -> Send | Event:
        if self._in_flight and self._full:
            return Event.NEED_REPLIES
        if not (self._ready or self._writer.exhausted) and self._takes_items:
            self._encode(budget)
            if not self._ready and self._takes_items:
                return Event.NEED_ITEMS if self._writer.source_pending else Event.PAUSED
        if self._ready:
            return Send(self._ready[0].chunk, self._poll_after_send)
        return Event.NEED_REPLIES if self._in_flight else Event.DONE

    @property
    @abstractmethod
    def _full(self) -> bool:
        """Whether as much is in flight as may be."""

    @property
    @abstractmethod
    def _takes_items(self) -> bool:
        """Whether further items are encoded."""

    @abstractmethod
    def _encode(self, budget: int | None) -> None:
        """Encode items until a chunk is ready, or the source has no item, or the budget is used up."""

    @property
    def in_flight(self) -> bool:
        return bool(self._in_flight)

    @property
    def awaiting_replies(self) -> bool:
        return False

    @property
    def flush_seconds(self) -> float | None:
        filling, timer = self._filling, self._flush_timer
        return timer.left if timer is not None and filling is not None and filling.chunk.count else None

    @property
    def hook_raised(self) -> bool:
        return self._hooks.hook_raised


def each_once(*queues: Iterable[AnyChunk]) -> list[AnyChunk]:
    """Return the chunks of several queues. A chunk that is in two of them is taken from the first."""
    found: dict[int, AnyChunk] = {}
    for queue in queues:
        for each in tuple(queue):
            found.setdefault(id(each.chunk), each)
    return list(found.values())
