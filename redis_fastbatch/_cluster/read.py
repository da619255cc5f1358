"""Batches over a cluster that read values, in flight."""

from __future__ import annotations

from typing import Any

from redis.exceptions import InvalidResponse

from redis_fastbatch._cluster.flight import ClusterBatch
from redis_fastbatch._cluster.node import NodeChunk, NodeFlight
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.flight import NO_LIMIT
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES
from redis_fastbatch._engine.read import READ_WINDOW, ReadFailure
from redis_fastbatch._redirections import is_wrong_type


class ClusterRead(ClusterBatch):
    """A batch of GETs over a cluster.

    Args:
        writer: encodes the keys, a command for each, and puts them into `out`.
        topology: the nodes.
        codec: decodes the values.
        out: gets the values.
        outcome: counts the values and handles those that cannot be decoded.
        options: how they are read.
        max_outage: seconds for which a key is tried again.
        pairs: where given, gets (key, value) of all keys in their order at the end.
        order: the keys in their order, for that.
    """

    # If a reply was missing, those after it were taken for the replies to other keys.
    answers_stand = False

    def __init__(
        self,
        writer: RoutedWriter,
        topology: Topology,
        codec: ValueCodec,
        out: dict[Any, Any],
        outcome: ReadOutcome,
        options: ReadOptions,
        *,
        max_outage: float,
        pairs: list[tuple[Any, Any]] | None = None,
        order: list[Any] | None = None,
    ) -> None:
        super().__init__(topology, writer, outcome, max_outage=max_outage)
        self.outcome = outcome
        self._codec = codec
        self._out = out
        self._pairs = pairs
        self._order = order
        self._default = options.default
        self._limit = options.limit
        self._budget = options.budget

    @property
    def _ended(self) -> bool:
        return super()._ended or self.outcome.error is not None or self.outcome.size >= self._budget

    def completed(self) -> None:
        super().completed()
        if self._pairs is not None:
            self._pairs.extend((key, self._out[key]) for key in self._order or ())

    def encode_for(self, node: NodeFlight, budget: int | None = None) -> None:
        self._writer.max_items = min(self._limit, self.outcome.sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        super().encode_for(node, budget)

    def is_full(self, node: NodeFlight) -> bool:
        return len(node.sent) >= (READ_WINDOW if self.outcome.sizes.known else 1)

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        if sent.asking:
            self._read_asked(sent, reader)
            return
        keys = sent.chunk.keys
        failures: list[ReadFailure] = []
        before, had = len(reader), sent.done
        sent.done = self._values(reader, keys, had, failures, NO_LIMIT if budget is None else budget)
        self.outcome.count(sent.done - had, before - len(reader))
        refused: dict[Any, Exception] = {}
        for key, data, error in failures:
            if isinstance(error, ErrorReply):
                refused[key] = error
            else:
                self.outcome.fail(key, data, error)
        if refused:
            numbers = (item for item in range(had, sent.done) if keys[item] in refused)
            sent.non_ok_replies += [(item, refused[keys[item]]) for item in numbers]

    def _values(
        self, reader: ReplyReader, keys: list[Any], done: int, failures: list[ReadFailure], most: int
    ) -> int:
        """Read the values of `keys`, from key number `done` on. See ReplyReader.values()."""
        return reader.values(keys, done, self._codec, self._default, self._out, failures, most)

    def _read_asked(self, sent: NodeChunk, reader: ReplyReader) -> None:
        while sent.done < sent.replies:
            whole = reader.reply()
            if whole is None:
                return
            if sent.done % 2:
                self._take(sent, sent.done // 2, whole[0])
            sent.done += 1

    def _take(self, sent: NodeChunk, item: int, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not is_wrong_type(reply):
                sent.non_ok_replies.append((item, reply))
            return
        if reply is not None and not isinstance(reply, bytes):
            raise InvalidResponse(f"GET was answered with {reply!r:.80}")
        key = sent.chunk.keys[item]
        self._out[key] = self.outcome.loads(key, reply)
        self.outcome.count(1, len(reply or b""))

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        for item, error in final:
            self.outcome.fail(sent.chunk.keys[item], None, error)

    def record_unencoded(self) -> None:
        failures = self._writer.failures[:]
        self._writer.failures.clear()
        for key, _, error in failures:
            self.outcome.fail(key, None, error)
        if self._writer.source_error is not None:
            self.outcome.end_with(self._writer.source_error)
        if self._halted is not None:
            raise self._halted

    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        """Do nothing: reading can always be repeated."""

    def abort(self, error: BaseException) -> None:
        """End the batch."""
        self._dissolve()
