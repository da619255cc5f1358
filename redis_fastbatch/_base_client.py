"""What both clients share: they make flights from the arguments of their methods."""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from operator import length_hint
from types import TracebackType
from typing import Any, TypeAlias

from redis_fastbatch._arguments import counted
from redis_fastbatch._core.resp.command_chunks import CommandWriter
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import IN_MEMORY, BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyFormat, ReplyReader, new_dict
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine import commands
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._engine.count import CountFlight
from redis_fastbatch._engine.execute import ExecuteFlight, ReplyFlight
from redis_fastbatch._engine.flight import (
    COMMAND_BYTES,
    COMMAND_ITEMS,
    FIRST_COMMAND_BYTES,
    NO_LIMIT,
    ChunkState,
)
from redis_fastbatch._engine.options import ExecuteOptions, ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import CountOutcome, OnError, ReadOutcome, WriteOutcome
from redis_fastbatch._engine.pacing import SHORT_REPLY_BYTES, Slices, ValueSizes
from redis_fastbatch._engine.read import ReadFlight
from redis_fastbatch._engine.transaction import AtomicFlight
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._messages import format_key
from redis_fastbatch._redirections import cluster_hint, error_text
from redis_fastbatch._transports.capabilities import capabilities
from redis_fastbatch._transports.redispy import is_cluster, key_encoding, reply_decoding
from redis_fastbatch._transports.redispy.telemetry import observe
from redis_fastbatch._typing import AnyKey
from redis_fastbatch.codecs import AnyCodec, resolve
from redis_fastbatch.errors import BatchError
from redis_fastbatch.report import BatchReport, Progress, attach

Found: TypeAlias = "dict[AnyKey, Any] | list[tuple[AnyKey, Any]]"

LARGEST_PRESIZED = 10_000_000
"""The most keys that a result has room for from the start. A larger one grows while it is filled."""

ITER_ROUND = 4000
"""The most keys that batch_get_iter() reads at a time by default. It reads fewer if their values are large."""

NO_CLUSTER_PIPELINE = (
    "pipeline() needs a client of a single server, got one of a cluster: use batch_execute() or "
    "batch_execute_iter(), which send any commands to all nodes, or client.pipeline(), which is redis-py's"
)


class BaseClient:
    """The base of both clients: has a redis-py client and a codec, and makes flights.

    Args:
        client: a redis-py client of one server, synchronous or asyncio.
        codec, max_value_size, pause_gc: as FastBatch takes them.
    """

    _takes_asyncio = False

    def __init__(self, client: Any, codec: AnyCodec, *, max_value_size: int, pause_gc: bool) -> None:
        self._check_client(client)
        self._client = client
        self._max_value_size = min(counted("max_value_size", max_value_size, 0), NO_LIMIT)
        self._codec = resolve(codec, self._max_value_size)
        self._pause_gc = pause_gc
        self._sizes = ValueSizes()
        self._hash_sizes = ValueSizes()
        self._is_cluster = is_cluster(client)
        self._url: str | None = None
        self._settings: dict[str, Any] = {}
        observe(self)

    def _check_client(self, client: Any) -> None:
        """Refuse clients of another kind, which would fail later with errors that do not say why."""
        name = type(self).__name__
        if isinstance(client, type):
            raise TypeError(f"{name} takes a client, not its class: call {client.__qualname__}()")
        if isinstance(client, str):
            raise TypeError(f"{name} takes a client of redis-py; {name}.from_url() takes a URL")
        is_client = hasattr(client, "get_encoder") and hasattr(client, "execute_command")
        # valkey-py is a fork of redis-py: its clients look alike, but its pools and its exceptions differ.
        is_fork = any(base.__module__.startswith("valkey.") for base in type(client).__mro__)
        if not is_client or is_fork or hasattr(client, "__aenter__") is not self._takes_asyncio:
            wanted = "redis.asyncio.Redis" if self._takes_asyncio else "redis.Redis"
            kind = type(client)
            hint = f": {wanted} connects to Valkey too" if is_fork else ""
            raise TypeError(
                f"{name} takes a client such as {wanted}, not {kind.__module__}.{kind.__qualname__}{hint}"
            )
        if hasattr(client, "execute"):
            raise TypeError(f"{name} takes a client, not its pipeline: a batch would not wait for execute()")

    @abstractmethod
    def _lease(self, max_value_size: int = 0) -> Any:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights.

        Returns:
            A context manager, asynchronous in the asyncio client.
        """

    def _with_codec(self, codec: AnyCodec) -> Any:
        """Return a client that differs in its codec, and shares what is known of the values' sizes."""
        # Computed once for all of them.
        _ = self._key_encoding
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.__dict__.pop("_cluster", None)
        made._codec = resolve(codec, self._max_value_size)
        observe(made)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise TypeError(f"{type(self).__name__} can be pickled when it was made by from_url()")
        return _from_url, (type(self), self._url, self._settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._client!r}>"

    def _made_from(self, url: str, settings: dict[str, Any]) -> None:
        """Keep how from_url() was called, for pickling."""
        self._url = url
        self._settings = settings

    @functools.cached_property
    def _key_encoding(self) -> tuple[str, str]:
        return key_encoding(self._client)

    def _writer(self, items: Any, command: Command, max_items: int, max_bytes: int) -> BatchWriter:
        encoding, errors = self._key_encoding
        return BatchWriter(
            items,
            command,
            self._codec,
            max_items=max_items,
            max_bytes=max_bytes,
            encoding=encoding,
            errors=errors,
        )

    def _write_flight(
        self, items: Any, options: WriteOptions, report: BatchReport, progress: Progress | None, *, msetex: bool
    ) -> Any:
        """Return a flight that writes, to a single server or over a cluster; `msetex`: the server has MSETEX."""
        if self._is_cluster:
            outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
            return self._cluster.write_flight(items, options, outcome)
        return self._server_flight(self._set_writer(items, options, msetex=msetex), options, report, progress)

    def _may_go_at_once(self, items: Any, options: Any, display: Progress | None) -> bool:
        """Return whether a batch of writes need not be a flight if it is short: hooks and clusters need one."""
        hooked = display is not None or options.on_chunk is not None
        return not hooked and not self._is_cluster and type(items) in IN_MEMORY

    def _set_writer(self, items: Any, options: WriteOptions, *, msetex: bool) -> BatchWriter:
        command = options.set.command(msetex=msetex)
        return self._writer(items, command, options.chunk_size, FIRST_COMMAND_BYTES)

    def _server_flight(
        self, writer: BatchWriter, options: WriteOptions, report: BatchReport, progress: Progress | None = None
    ) -> WriteFlight:
        """Return a flight that writes to a single server."""
        outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
        kind = AtomicFlight if options.set.atomic else WriteFlight
        return kind(
            writer,
            options.set.single,
            outcome,
            repeatable=options.set.repeatable,
            on_msetex_lost=self._lose_msetex,
        )

    def _write_on(
        self, writer: BatchWriter, chunk: Chunk, options: WriteOptions, report: BatchReport, state: ChunkState
    ) -> WriteFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see WriteFlight.begin_with()."""
        flight = self._server_flight(writer, options, report)
        flight.begin_with(chunk, state)
        return flight

    def _lose_msetex(self) -> None:
        """Remember that the server does not have MSETEX, or no longer."""
        capabilities.remember_msetex(self._client.connection_pool, False)

    @functools.cached_property
    def _cluster(self) -> Any:
        from redis_fastbatch._cluster.factory import ClusterFlights

        return ClusterFlights(self._client, self._codec)

    def _read_flight(self, keys: Any, out: Found, pause: gc_pause.Pause, options: ReadOptions) -> Any:
        """Return a flight that reads, from a single server or over a cluster.

        Args:
            keys: the keys.
            out: gets the values.
            pause: the pause of the garbage collector.
            options: how they are read.
        """
        outcome = self._read_outcome(pause, options)
        if self._is_cluster:
            return self._cluster.read_flight(keys, out, outcome, options)
        return ReadFlight(self._mget_writer(keys, options), self._codec, out, outcome, options)

    def _mget_writer(self, keys: Any, options: ReadOptions) -> BatchWriter:
        return self._writer(keys, commands.MGET, options.limit, COMMAND_BYTES)

    def _read_on(
        self, writer: BatchWriter, chunk: Chunk, out: Found, options: ReadOptions, state: ChunkState
    ) -> ReadFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see ReadFlight.begin_with()."""
        flight = ReadFlight(writer, self._codec, out, self._read_outcome(None, options), options)
        flight.begin_with(chunk, state)
        return flight

    def _takes_all(self, reader: ReplyReader, chunk: Chunk, out: dict[AnyKey, Any], options: ReadOptions) -> bool:
        """Put the values of a chunk's keys into the result, if a reader holds just these; else return False."""
        size = reader.all_values(chunk.keys, self._codec, options.default, out)
        if size:
            self._sizes.saw(chunk.count, size)
        return bool(size)

    def _fit_one_reply(self, keys: Any, most: int = COMMAND_ITEMS, sizes: ValueSizes | None = None) -> bool:
        """Return whether the values of up to `most` keys are likely to fit into one short reply of one server."""
        count = len(keys)
        return count <= most and not self._is_cluster and (sizes or self._sizes).fit(count, SHORT_REPLY_BYTES)

    def _read_outcome(self, pause: gc_pause.Pause | None, options: ReadOptions) -> ReadOutcome:
        return ReadOutcome(
            self._codec,
            default=options.default,
            on_error=options.on_error,
            pause=pause,
            sizes=self._sizes,
            max_value_size=self._max_value_size,
        )

    def _count_flight(self, keys: Any) -> Any:
        """Return a flight that deletes keys and counts them."""
        if self._is_cluster:
            return self._cluster.count_flight(keys)
        return CountFlight(self._unlink_writer(keys), CountOutcome())

    def _unlink_writer(self, keys: Any) -> BatchWriter:
        return self._writer(keys, commands.UNLINK, COMMAND_ITEMS, COMMAND_BYTES)

    def _count_on(self, writer: BatchWriter, chunk: Chunk, state: ChunkState) -> CountFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see CountFlight.begin_with()."""
        flight = CountFlight(writer, CountOutcome())
        flight.begin_with(chunk, state)
        return flight

    @functools.cached_property
    def _command_encoder(self) -> CommandEncoder:
        return CommandEncoder(*self._key_encoding, RULES)

    def _execute_flight(
        self, some: Any, options: ExecuteOptions, report: BatchReport, progress: Progress | None
    ) -> Any:
        """Return a flight of commands whose replies are counted, to a single server or over a cluster."""
        outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
        if self._is_cluster:
            return self._cluster.execute_flight(some, self._command_encoder, options, outcome)
        return ExecuteFlight(self._command_writer(some, options), outcome, repeatable=options.repeatable)

    def _command_writer(self, some: Any, options: ExecuteOptions) -> CommandWriter:
        return CommandWriter(
            some, self._command_encoder, max_items=options.chunk_size, max_bytes=FIRST_COMMAND_BYTES
        )

    def _execute_on(
        self, writer: CommandWriter, chunk: Chunk, options: ExecuteOptions, report: BatchReport, state: ChunkState
    ) -> ExecuteFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see WriteFlight.begin_with()."""
        outcome = WriteOutcome(report, options.on_error, None, options.on_chunk)
        flight = ExecuteFlight(writer, outcome, repeatable=options.repeatable)
        flight.begin_with(chunk, state)
        return flight

    def _reply_flight(self, some: Any, out: list[Any], sizes: ValueSizes, position: int) -> Any:
        """Return a flight of commands whose replies are kept, to a single server or over a cluster.

        Args:
            some: the commands.
            out: gets the replies, in the order of the commands.
            sizes: what is known of the replies' sizes, which the flight learns.
            position: the position of the first command in the whole batch.
        """
        form = ReplyFormat(_unexplained, *reply_decoding(self._client))
        if self._is_cluster:
            return self._cluster.reply_flight(some, self._command_encoder, out, sizes, form, position)
        writer = CommandWriter(
            some, self._command_encoder, max_items=COMMAND_ITEMS, max_bytes=COMMAND_BYTES, position=position
        )
        return ReplyFlight(writer, out, sizes, form)


def _unexplained(reply: ErrorReply) -> Exception:
    """Return an error reply as it is. A flight replaces this function by that of its connection."""
    return reply


class Reporting:
    """A context in which a batch is carried out. It completes the report, also if an error ends the batch.

    Args:
        report: gets the duration. An error that leaves the context gets the report.
        display: shows the progress, and ends with the context.
    """

    __slots__ = ("_display", "_report", "_started")

    def __init__(self, report: BatchReport, display: Progress | None) -> None:
        self._report = report
        self._display = display

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report.seconds = time.perf_counter() - self._started
        try:
            if self._display is not None:
                self._display.close()
        except BaseException as failure:
            attach(failure, self._report)
            raise
        if error is not None:
            attach(error, self._report)


def checked_replies(replies: list[Any], raise_on_error: bool) -> Iterator[Any]:
    """Yield replies. Raise the first one that is an exception, unless exceptions are yielded too."""
    for reply in replies:
        if raise_on_error and isinstance(reply, Exception):
            raise reply
        yield reply


def goes_alone(writer: BatchWriter, chunk: Chunk) -> bool:
    """Return whether a chunk is the whole batch, and short: it may be sent before a flight is made."""
    whole = writer.exhausted and chunk.count and not writer.failures and writer.source_error is None
    return bool(whole) and len(chunk) <= COMMAND_BYTES


def writes_alone(writer: BatchWriter, chunk: Chunk, options: WriteOptions) -> bool:
    """Return whether a chunk of writes may be sent before a flight is made."""
    return goes_alone(writer, chunk) and (chunk.command.many or not options.set.atomic)


def confirms_all(reader: ReplyReader, chunk: Chunk, report: BatchReport) -> bool:
    """Count the items of a chunk as written, if a reader holds just the usual replies; else return False."""
    if not reader.is_all(chunk.command.usual_reply * chunk.replies):
        return False
    return counts_all(chunk, report)


def counts_all(chunk: Chunk, report: BatchReport) -> bool:
    """Count all items of a chunk as written, and return True."""
    report.written = report.confirmed_prefix = chunk.count
    report.bytes_sent = len(chunk)
    return True


def parts_of(some: list[AnyKey]) -> Iterator[Iterator[AnyKey]]:
    """Yield the same iterator over `some`, again and again, until it is used up."""
    keys = iter(some)
    while length_hint(keys):
        yield keys


def read_rounds(
    source: Slices, size: int, read: Callable[[Iterator[AnyKey], list[tuple[AnyKey, Any]]], None]
) -> Iterator[tuple[AnyKey, Any]]:
    """Yield (key, what was read) of any number of keys.

    Args:
        source: the keys.
        size: the most keys that are read at a time.
        read: reads the first of some keys, and appends the pairs to a list.
    """
    for some in source.rounds(size):
        for part in parts_of(some):
            found: list[tuple[AnyKey, Any]] = []
            read(part, found)
            yield from found


def empty_result(keys: Any) -> dict[AnyKey, Any]:
    """Return a dict with room for the values of these keys."""
    if not hasattr(keys, "__len__"):
        return {}
    count = min(len(keys), LARGEST_PRESIZED)
    return new_dict(count, next(iter(keys), None) if count > COMMAND_ITEMS else None)


def raise_failures(report: BatchReport, on_error: OnError) -> None:
    """Raise BatchError if items failed and `on_error` is "raise"."""
    if report.failed and on_error == "raise":
        raise BatchError(_failure_message(report), report)


def _failure_message(report: BatchReport) -> str:
    counts = f"{report.failed:,} of {report.total:,} items were not written"
    if report.item == "command":
        counts = f"{report.failed:,} of {report.total:,} commands failed"
    key, error = report._first
    hint = cluster_hint(error)
    if report.failed == 1:
        return f"{counts}: {report.first_failure()}{hint}"
    if len({id(error) for error in report.failures.values()}) == 1:
        # The server refused a whole command, or the connection was lost. The error is not about one key.
        return f"{counts}, such as {report.item} {format_key(key)}: {error_text(error)}{hint}"
    return f"{counts}; the first: {report.first_failure()}{hint}"


def _from_url(kind: Any, url: str, settings: dict[str, Any]) -> Any:
    return kind.from_url(url, **settings)
