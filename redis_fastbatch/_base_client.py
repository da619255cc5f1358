"""What the synchronous and the asyncio client share: turning the arguments of their methods into flights."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sized
from operator import length_hint
from typing import Any, TypeAlias

from redis_fastbatch._arguments import Key, checked_on_error, counted
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.resp.replies import new_dict
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine import commands
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import (
    COMMAND_BYTES,
    COMMAND_ITEMS,
    FIRST_COMMAND_BYTES,
    NO_LIMIT,
)
from redis_fastbatch._engine.outcome import OnError, ReadOutcome, WriteOutcome
from redis_fastbatch._engine.pacing import ROUND_BYTES, ValueSizes
from redis_fastbatch._engine.read import CountFlight, ReadFlight
from redis_fastbatch._engine.transaction import AtomicFlight
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._redirections import cluster_hint, error_text
from redis_fastbatch._transports.capabilities import capabilities
from redis_fastbatch._transports.redispy import is_cluster, key_encoding
from redis_fastbatch.codecs import AnyCodec, resolve
from redis_fastbatch.errors import BatchError, format_key
from redis_fastbatch.report import BatchReport, OnChunk, Progress

Found: TypeAlias = "dict[Key, Any] | list[tuple[Key, Any]]"

LARGEST_PRESIZED = 10_000_000
"""Keys that a result has room for from its beginning; it grows beyond as it is filled."""

ITER_ROUND = 4000
"""Keys that batch_get_iter() reads at a time by default; fewer where their values are large."""


class Plans:
    """A client, a codec, and the flights that are made with them.

    Args:
        client: a redis-py client of one server, synchronous or asyncio.
        codec, max_value_size, pause_gc: as FastBatch takes them.
    """

    _takes_asyncio = False

    def __init__(self, client: Any, codec: AnyCodec, *, max_value_size: int, pause_gc: bool) -> None:
        self._check_client(client)
        self._client = client
        self._codec = resolve(codec)
        self._max_value_size = min(counted("max_value_size", max_value_size, 0), NO_LIMIT)
        self._pause_gc = pause_gc
        self._url: str | None = None
        self._settings: dict[str, Any] = {}

    def _check_client(self, client: Any) -> None:
        """Refuses what is easily taken for the right client, and would fail in words that do not say so."""
        name = type(self).__name__
        if isinstance(client, type):
            raise TypeError(f"{name} takes a client, not its class: call {client.__qualname__}()")
        if isinstance(client, str):
            raise TypeError(f"{name} takes a client of redis-py; {name}.from_url() takes a URL")
        is_client = hasattr(client, "get_encoder") and hasattr(client, "execute_command")
        # valkey-py, which came of redis-py: it looks alike, its pools are not.
        is_fork = any(base.__module__.startswith("valkey.") for base in type(client).__mro__)
        if not is_client or is_fork or hasattr(client, "__aenter__") is not self._takes_asyncio:
            wanted = "redis.asyncio.Redis" if self._takes_asyncio else "redis.Redis"
            kind = type(client)
            raise TypeError(f"{name} takes a client such as {wanted}, not {kind.__module__}.{kind.__qualname__}")
        if hasattr(client, "execute"):
            raise TypeError(f"{name} takes a client, not its pipeline: a batch would not wait for execute()")

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise TypeError(f"{type(self).__name__} can be pickled when it was made by from_url()")
        return _from_url, (type(self), self._url, self._settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._client!r}>"

    def _made_from(self, url: str, settings: dict[str, Any]) -> None:
        """Remembers how from_url() was called, for pickling."""
        self._url = url
        self._settings = settings

    def _writer(self, items: Any, command: Command, max_items: int, max_bytes: int) -> BatchWriter:
        encoding, errors = key_encoding(self._client)
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
        self,
        items: Any,
        options: SetOptions,
        report: BatchReport,
        *,
        msetex: bool,
        chunk_size: int,
        progress: Progress | None,
        on_error: OnError,
        on_chunk: OnChunk | None = None,
    ) -> Any:
        """Return a flight that writes: of one server, or over a cluster."""
        outcome = WriteOutcome(report, on_error, progress, on_chunk)
        if is_cluster(self._client):
            size = NO_LIMIT if options.atomic else chunk_size
            return self._cluster.write_flight(items, options, size, outcome)
        pool = self._client.connection_pool
        kind = AtomicFlight if options.atomic else WriteFlight
        return kind(
            self._writer(items, options.command(msetex=msetex), chunk_size, FIRST_COMMAND_BYTES),
            options.single(),
            outcome,
            repeatable=options.repeatable,
            on_msetex_lost=lambda: capabilities.remember_msetex(pool, False),
        )

    @functools.cached_property
    def _cluster(self) -> Any:
        from redis_fastbatch._cluster.factory import ClusterPlans

        return ClusterPlans(self._client, self._codec)

    def _read_flight(
        self,
        keys: Any,
        out: Found,
        pause: gc_pause.Pause,
        default: Any,
        on_error: OnError,
        limit: int = COMMAND_ITEMS,
        sizes: ValueSizes | None = None,
    ) -> Any:
        """`sizes`, learned from one round to the next, are given where memory is to be bounded by rounds."""
        outcome = ReadOutcome(
            self._codec,
            default=default,
            on_error=checked_on_error(on_error),
            pause=pause,
            sizes=sizes,
            max_value_size=self._max_value_size,
        )
        budget = NO_LIMIT if sizes is None else ROUND_BYTES
        if is_cluster(self._client):
            return self._cluster.read_flight(keys, out, outcome, default=default, limit=limit, budget=budget)
        writer = self._writer(keys, commands.MGET, limit, COMMAND_BYTES)
        return ReadFlight(writer, self._codec, out, outcome, default=default, limit=limit, budget=budget)

    def _count_flight(self, keys: Any) -> Any:
        """A CountFlight, or what is one over a cluster."""
        if is_cluster(self._client):
            return self._cluster.count_flight(keys)
        return CountFlight(self._writer(keys, commands.UNLINK, COMMAND_ITEMS, COMMAND_BYTES))


def parts_of(some: list[Key]) -> Iterator[Iterator[Key]]:
    """One and the same iterator over `some`, again and again until it has come to its end."""
    keys = iter(some)
    while length_hint(keys):
        yield keys


def empty_result(keys: Any) -> dict[Key, Any]:
    """A dict for the values of these keys."""
    return new_dict(min(len(keys), LARGEST_PRESIZED)) if isinstance(keys, Sized) else {}


def raise_failures(report: BatchReport, on_error: OnError) -> None:
    """Raises BatchError for failed items where that is asked for."""
    if report.failed and on_error == "raise":
        raise BatchError(_failure_message(report), report)


def _failure_message(report: BatchReport) -> str:
    counts = f"{report.failed:,} of {report.total:,} items were not written"
    key, error = next(iter(report.failures.items()))
    hint = cluster_hint(error)
    if report.failed == 1:
        return f"{counts}: {report.first_failure()}{hint}"
    if len({id(error) for error in report.failures.values()}) == 1:
        # The server refused a whole command. Its error is not about one key.
        return f"{counts}, such as key {format_key(key)}: {error_text(error)}{hint}"
    return f"{counts}; the first: {report.first_failure()}{hint}"


def _from_url(kind: Any, url: str, settings: dict[str, Any]) -> Any:
    return kind.from_url(url, **settings)
