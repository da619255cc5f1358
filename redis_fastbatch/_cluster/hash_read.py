"""A batch over a cluster that reads hashes, in flight."""

from __future__ import annotations

from typing import Any

from redis_fastbatch._cluster.node import NodeChunk
from redis_fastbatch._cluster.read import ClusterRead
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import ReadOutcome
from redis_fastbatch._engine.read import ReadFailure


class ClusterHashRead(ClusterRead):
    """A batch of HGETALLs or HMGETs over a cluster.

    Args:
        writer: encodes the keys, a command for each, and puts them into `out`.
        topology: the nodes.
        rows: reads the replies.
        out, outcome, options, max_outage, pairs, order: as for ClusterRead.
    """

    def __init__(
        self,
        writer: RoutedWriter,
        topology: Topology,
        rows: HashRows,
        out: dict[Any, Any],
        outcome: ReadOutcome,
        options: ReadOptions,
        *,
        max_outage: float,
        pairs: list[tuple[Any, Any]] | None = None,
        order: list[Any] | None = None,
    ) -> None:
        super().__init__(
            writer, topology, ValueCodec(), out, outcome, options, max_outage=max_outage, pairs=pairs, order=order
        )
        self._rows = rows

    def _values(
        self, reader: ReplyReader, keys: list[Any], done: int, failures: list[ReadFailure], most: int
    ) -> int:
        return self._rows.read(reader, keys, done, self._default, self._out, failures, most)

    def _read_asked(self, sent: NodeChunk, reader: ReplyReader) -> None:
        while sent.done < sent.replies:
            if sent.done % 2 == 0:
                # The reply to ASKING: after an error, the command gets one too.
                if not reader.skip(1, 0, []):
                    return
                sent.done += 1
                continue
            item, failures, before = sent.done // 2, list[ReadFailure](), len(reader)
            if not self._values(reader, sent.chunk.keys[item : item + 1], 0, failures, 1):
                return
            sent.done += 1
            self.outcome.count(1, before - len(reader))
            for key, data, error in failures:
                if isinstance(error, ErrorReply):
                    sent.non_ok_replies.append((item, error))
                else:
                    self.outcome.fail(key, data, error)
