"""Batches of any commands over a cluster, in flight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis_fastbatch._cluster.flight import ClusterBatch
from redis_fastbatch._cluster.node import NodeChunk, NodeFlight, without_asking
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._cluster.write import ClusterWrite
from redis_fastbatch._core.resp.replies import ReplyFormat, ReplyReader
from redis_fastbatch._core.resp.routed import RoutedCommandWriter
from redis_fastbatch._engine.execute import failures_of, named, unread
from redis_fastbatch._engine.flight import COMMAND_ITEMS, Explain
from redis_fastbatch._engine.outcome import HookCaller, WriteOutcome
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES, ROUND_BYTES, ValueSizes
from redis_fastbatch._engine.read import READ_WINDOW


class ClusterExecute(ClusterWrite):
    """A batch of commands over a cluster, whose replies are only counted.

    Args:
        writer: encodes the commands.
        topology, outcome, max_outage, repeatable: as for ClusterWrite.
    """

    def __init__(
        self,
        writer: RoutedCommandWriter,
        topology: Topology,
        outcome: WriteOutcome,
        *,
        max_outage: float,
        repeatable: bool,
    ) -> None:
        super().__init__(writer, topology, outcome, max_outage=max_outage, repeatable=repeatable)
        self._commands = writer

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        errors: list[tuple[int, Any]] = []
        sent.done += reader.skip(sent.replies - sent.done, sent.done, errors)
        sent.non_ok_replies += without_asking(errors) if sent.asking else errors

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        failed = failures_of(sent.chunk, final, self.outcome.report.item)
        self.outcome.record(answered - len(final) - open_items, failed=failed)
        self.settled += answered - open_items
        self._hooks_due.append((sent, answered - open_items))

    def ended_before(self, items: Iterable[Any], error: BaseException) -> None:
        self.outcome.record(failed=unread(items, self._commands.taken, error))
        self.outcome.deliver()


class ClusterReplies(ClusterBatch):
    """A batch of commands over a cluster, whose replies are kept in the order of the commands.

    A command that fails has its error in the place of a reply.

    Args:
        writer: encodes the commands.
        topology: the nodes.
        out: gets the replies.
        sizes: what is known of the replies' sizes, which the batch learns.
        form: how replies become Python objects.
        max_outage: seconds for which a command is tried again.
    """

    def __init__(
        self,
        writer: RoutedCommandWriter,
        topology: Topology,
        out: list[Any],
        sizes: ValueSizes,
        form: ReplyFormat,
        *,
        max_outage: float,
    ) -> None:
        super().__init__(topology, writer, HookCaller(), max_outage=max_outage, repeatable=False)
        self._commands = writer
        self._out = out
        self._sizes = sizes
        self._form = form
        self._size = 0
        self._found: dict[int, Any] = {}

    @property
    def _ended(self) -> bool:
        return super()._ended or self._size >= ROUND_BYTES

    def encode_for(self, node: NodeFlight, budget: int | None = None) -> None:
        self._writer.max_items = min(COMMAND_ITEMS, self._sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        super().encode_for(node, budget)

    def is_full(self, node: NodeFlight) -> bool:
        return len(node.sent) >= (READ_WINDOW if self._sizes.known else 1)

    def explain_by(self, explain: Explain) -> None:
        self._form.explain = explain

    def read(self, sent: NodeChunk, reader: ReplyReader, budget: int | None) -> None:
        wanted, before = sent.replies - sent.done, len(reader)
        replies: list[Any] = []
        errors: list[int] = []
        read = reader.replies(wanted if budget is None else min(wanted, budget), replies, errors, self._form)
        self._sizes.saw(read, before - len(reader))
        self._size += before - len(reader)
        refused = [(sent.done + i, replies[i]) for i in errors]
        if sent.asking:
            refused = without_asking(refused)
            replies = replies[1 - sent.done % 2 :: 2]
        positions = sent.chunk.keys
        first, failed = sent.answered, {item for item, _ in refused}
        sent.done += read
        sent.non_ok_replies += refused
        for item, reply in enumerate(replies, first):
            if item not in failed:
                self._found[positions[item]] = reply

    def record(self, sent: NodeChunk, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        for position, _, error in failures_of(sent.chunk, final):
            self._found[position] = error
        self.settled += answered - open_items

    def record_unencoded(self) -> None:
        for position, _, error in self._writer.failures:
            self._found[position] = error
        self._writer.failures.clear()
        if self._halted is not None:
            raise self._halted

    def fail_rest(self, sent: NodeChunk, error: Exception) -> None:
        positions, commands, first = sent.chunk.keys, sent.chunk.values, sent.settled
        sent.settled = sent.chunk.count
        for item in range(first, sent.chunk.count):
            own = type(error)(*error.args)
            self._found[positions[item]] = named(own, positions[item], commands[item])

    def completed(self) -> None:
        super().completed()
        self._deliver()

    def _deliver(self) -> None:
        """Put the replies that have come into `out`, up to the first that has not."""
        position = self._commands.first
        while position in self._found:
            self._out.append(self._found.pop(position))
            position += 1

    def abort(self, error: BaseException) -> None:
        self._dissolve()
        self._deliver()
