"""Batches of writes over a cluster: what replies mean for the report."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis.exceptions import InvalidResponse, RedisError

from redis_fastbatch._cluster.flight import ClusterBatch, NodeFlight, Part, outcome_unknown
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.flight import WINDOW_BYTES, WINDOW_CHUNKS, WriteFlight


class ClusterWrite(ClusterBatch, WriteFlight):
    """A batch of writes over a cluster.

    Args:
        writer: encodes the items, a command an item.
        topology: the nodes.
        patience: seconds for which an item is tried again.
        flight: what WriteFlight takes beyond.
    """

    def __init__(self, writer: RoutedWriter, topology: Topology, *, patience: float, **flight: Any) -> None:
        WriteFlight.__init__(self, writer, writer.command, **flight)
        self._routed = writer
        self._untold: deque[tuple[Part, int]] = deque()
        self._begin(topology, writer.command, patience)

    @property
    def _source(self) -> RoutedWriter:
        return self._routed

    @property
    def source_error(self) -> BaseException | None:
        return self._stop or self._routed.source_error

    def read(self, part: Part, reader: ReplyReader, pace: int | None) -> None:
        had = len(part.others)
        part.done += reader.statuses(part.replies - part.done, part.done, part.others, False)
        if part.asking:
            # An error reply to ASKING itself is followed by one to the command.
            news = part.others[had:]
            part.others[had:] = [(index // 2, reply) for index, reply in news if index % 2]

    def reply(self, part: Part, item: int, reply: Any) -> None:
        if reply in (b"OK", "OK"):
            return
        if not isinstance(reply, Exception) and not self.is_outcome(reply):
            raise InvalidResponse(f"SET was answered with {reply!r:.80}")
        part.others.append((item, reply))

    def is_outcome(self, reply: Any) -> bool:
        return reply is None and self._conditional

    def is_full(self, node: NodeFlight) -> bool:
        return node.bytes >= WINDOW_BYTES or len(node.flying) >= WINDOW_CHUNKS

    def leaving(self, part: Part) -> None:
        self.report.bytes_sent += len(part.chunk)

    def _settle(self, part: Part, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        keys, values = part.chunk.keys, part.chunk.values
        skipped = [keys[item] for item, reply in final if reply is None]
        failed = [(keys[item], values[item], reply) for item, reply in final if reply is not None]
        written = answered - len(final) - open_items
        self._books.enter(part, answered, written=written, skipped=skipped, failed=failed)
        self.settled += answered - open_items
        self._untold.append((part, answered - open_items))

    @property
    def _unconfirmed(self) -> int:
        return sum(node.bytes for node in self.nodes)

    def tell_hooks(self) -> None:
        while self._untold:
            self._tell(*self._untold.popleft())
        self._books.deliver(self._call)

    def landed(self, part: Part) -> None:
        # Before the chunk is emptied for its next use.
        self.tell_hooks()
        super().landed(part)

    def _unencoded(self) -> None:
        self._books.enter_unencoded(self._routed.failures)
        self._taken = self._routed.taken
        self._books.deliver(self._call)

    def _fail_rest(self, part: Part, error: Exception) -> None:
        keys, values = part.chunk.keys, part.chunk.values
        failed = [(keys[i], values[i], error) for i in range(part.booked, part.chunk.count)]
        self._books.enter(part, part.chunk.count, failed=failed)

    def confirmed_prefix(self) -> int:
        return min((part.position for part in self._open_parts()), default=self._routed.taken)

    def abandon(self, error: BaseException) -> None:
        self._close_prefix()
        unsent = RedisError(f"not sent: {type(error).__name__}: {error}")
        self._books.enter_unencoded(self._routed.failures)
        sent = [part for node in self.nodes for part in node.flying]
        for part in self._open_parts():
            if part in sent and part.booked < part.answered:
                final = [(item, reply) for item, reply in part.others if item < part.answered]
                self._settle(part, part.answered, final, 0)
            self._fail_rest(part, outcome_unknown(error) if part in sent or part.sent else unsent)
        self._dissolve()
        self.tell_hooks()
