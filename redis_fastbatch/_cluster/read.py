"""Batches over a cluster that read values or count keys: what replies bring."""

from __future__ import annotations

from typing import Any

from redis.exceptions import InvalidResponse

from redis_fastbatch._cluster.flight import ClusterBatch, NodeFlight, Part
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.flight import NO_LIMIT
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES
from redis_fastbatch._engine.read import READ_WINDOW, ReadFlight


class ClusterRead(ClusterBatch, ReadFlight):
    """A batch of GETs over a cluster.

    Args:
        writer: encodes the keys, a command a key, and puts them into `out`.
        topology: the nodes.
        codec: decodes the values.
        out: gets the values.
        patience: seconds for which a key is tried again.
        pairs: where given, gets (key, value) of all keys in their order at the end.
        order: the keys in their order, for that.
        flight: what ReadFlight takes beyond.
    """

    # Where a reply was left out, those behind it were taken for others'.
    answers_stand = False

    def __init__(
        self,
        writer: RoutedWriter,
        topology: Topology,
        codec: ValueCodec,
        out: dict[Any, Any],
        *,
        patience: float,
        pairs: list[tuple[Any, Any]] | None = None,
        order: list[Any] | None = None,
        **flight: Any,
    ) -> None:
        ReadFlight.__init__(self, writer, codec, out, **flight)
        self._found = out
        self._pairs = pairs
        self._order = order
        self._routed = writer
        self._begin(topology, writer.command, patience)

    @property
    def _source(self) -> RoutedWriter:
        return self._routed

    @property
    def _over(self) -> bool:
        return super()._over or self.error is not None or self._bytes >= self._budget

    def completed(self) -> None:
        super().completed()
        if self._pairs is not None:
            self._pairs.extend((key, self._found[key]) for key in self._order or ())

    def feed(self, node: NodeFlight) -> None:
        self._routed.max_items = min(self._limit, self._sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        super().feed(node)

    def is_full(self, node: NodeFlight) -> bool:
        return len(node.flying) >= (READ_WINDOW if self._sizes.known else 1)

    def read(self, part: Part, reader: ReplyReader, pace: int | None) -> None:
        if part.asking:
            self._read_asked(part, reader)
            return
        keys = part.chunk.keys
        failures: list[tuple[Any, bytes | None, Exception]] = []
        before, had = len(reader), part.done
        most = NO_LIMIT if pace is None else pace
        part.done = reader.values(keys, had, self._codec, self._default, self._out, failures, most)
        self._count(part.done - had, before - len(reader))
        refused: dict[Any, Exception] = {}
        for key, data, error in failures:
            if isinstance(error, ErrorReply):
                refused[key] = error
            else:
                self._failure(key, data, error)
        if refused:
            part.others += [(item, refused[keys[item]]) for item in range(had, part.done) if keys[item] in refused]

    def _read_asked(self, part: Part, reader: ReplyReader) -> None:
        while part.done < part.replies:
            whole = reader.reply()
            if whole is None:
                return
            if part.done % 2:
                self.reply(part, part.done // 2, whole[0])
            part.done += 1

    def reply(self, part: Part, item: int, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not _is_wrong_type(reply):
                part.others.append((item, reply))
            return
        if reply is not None and not isinstance(reply, bytes):
            raise InvalidResponse(f"GET was answered with {reply!r:.80}")
        key = part.chunk.keys[item]
        self._found[key] = self._loads(key, reply)
        self._count(1, len(reply or b""))

    def _settle(self, part: Part, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        for item, reply in final:
            self._failure(part.chunk.keys[item], None, reply)

    def _unencoded(self) -> None:
        failures = self._routed.failures[:]
        self._routed.failures.clear()
        for key, _, error in failures:
            self._failure(key, None, error)
        if self._routed.source_error is not None and self.error is None:
            self.error = self._routed.source_error
        if self._stop is not None:
            raise self._stop

    def _fail_rest(self, part: Part, error: Exception) -> None:
        """Reading can always be repeated."""

    def abandon(self, error: BaseException) -> None:
        self._dissolve()


def _is_wrong_type(error: Exception) -> bool:
    return str(error).startswith("WRONGTYPE") or "wrong kind of value" in str(error)


class ClusterCount(ClusterRead):
    """A batch of commands that answer with a number for each key, such as UNLINK.

    Args:
        writer, topology, patience: as ClusterRead's.
    """

    answers_stand = True

    def __init__(self, writer: RoutedWriter, topology: Topology, *, patience: float) -> None:
        super().__init__(writer, topology, ValueCodec(), {}, patience=patience)
        self.total = 0
        # A number takes next to nothing, so that many keys go into a command.
        self._sizes.saw(1, 4)

    def read(self, part: Part, reader: ReplyReader, pace: int | None) -> None:
        had, answered = len(part.others), part.answered
        part.done += reader.statuses(part.replies - part.done, part.done, part.others, False)
        news = part.others[had:]
        del part.others[had:]
        if part.asking:
            news = [(index // 2, reply) for index, reply in news if index % 2]
        if len(news) < part.answered - answered:
            raise InvalidResponse("a number expected, found OK")
        for item, reply in news:
            self.reply(part, item, reply)

    def reply(self, part: Part, item: int, reply: Any) -> None:
        if isinstance(reply, Exception):
            part.others.append((item, reply))
        elif type(reply) is int and 0 <= reply <= 1:
            self.total += reply
            self.settled += 1
        else:
            raise InvalidResponse(f"0 or 1 expected, found {reply!r:.80}")

    def _settle(self, part: Part, answered: int, final: list[tuple[int, Any]], open_items: int) -> None:
        for _, error in final:
            if self.error is None:
                self.error = error
