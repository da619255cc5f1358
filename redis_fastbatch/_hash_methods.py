"""The methods of FastBatch for hashes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_items, checked_on_error, progress_of
from redis_fastbatch._base_client import BaseClient, Reporting, raise_failures
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.hashes import MappingWriter
from redis_fastbatch._engine.commands import PointInTime, Seconds, SetOptions
from redis_fastbatch._engine.flight import FIRST_COMMAND_BYTES
from redis_fastbatch._engine.hashes import HashFlight, expire_command
from redis_fastbatch._engine.options import WriteOptions
from redis_fastbatch._engine.outcome import OnError, WriteOutcome
from redis_fastbatch._transports.threads import affordable, check_workers, one_at_a_time, write
from redis_fastbatch.codecs import AnyCodec, ValueCodec, resolve
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback

HashItems: TypeAlias = "Mapping[Any, Mapping[Any, Any]] | Iterable[tuple[Any, Mapping[Any, Any]]]"


class HashWriting:
    """How a batch of hashes is written: the arguments of batch_hset(), checked.

    Args:
        ex, px, exat, pxat, codec, chunk_size, on_error, on_chunk: the arguments of batch_hset().

    Attributes:
        options: how the hashes are written.
        expire: the command that lets a hash expire, or None.
        codec: makes bytes of the values of fields; None writes them as redis-py does.
    """

    def __init__(
        self,
        ex: Seconds | None,
        px: Seconds | None,
        exat: PointInTime | None,
        pxat: PointInTime | None,
        codec: AnyCodec | None,
        chunk_size: int | None,
        on_error: OnError,
        on_chunk: OnChunk | None,
    ) -> None:
        check_hook("on_chunk", on_chunk)
        self.options = WriteOptions(
            SetOptions(ex, px, exat, pxat), checked_chunk_size(chunk_size), checked_on_error(on_error), on_chunk
        )
        self.expire: Command | None = expire_command(self.options.set)
        self.codec: ValueCodec | None = None if codec is None else resolve(codec)


class HashClient(BaseClient):
    """Makes flights of the arguments of the methods for hashes, for both clients."""

    def _hset_flight(
        self, items: Any, writing: HashWriting, report: BatchReport, progress: Progress | None
    ) -> Any:
        """Return a flight that writes hashes, to a single server or over a cluster."""
        options = writing.options
        outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
        if self._is_cluster:
            return self._cluster.hash_flight(items, writing.codec, writing.expire, options, outcome)
        encoding, errors = self._key_encoding
        writer = MappingWriter(
            items,
            writing.codec,
            max_items=options.chunk_size,
            max_bytes=FIRST_COMMAND_BYTES,
            encoding=encoding,
            errors=errors,
        )
        return HashFlight(writer, writing.expire, outcome)


class HashMethods(HashClient):
    """The methods of FastBatch for hashes."""

    @abstractmethod
    def _lease(self, max_value_size: int = 0) -> AbstractContextManager[Any]:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights."""

    def batch_hset(
        self,
        items: HashItems,
        *,
        ex: Seconds | None = None,
        px: Seconds | None = None,
        exat: PointInTime | None = None,
        pxat: PointInTime | None = None,
        codec: AnyCodec | None = None,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        on_chunk: OnChunk | None = None,
        workers: int = 1,
    ) -> BatchReport:
        """Write mappings as hashes, and send while encoding. Memory stays bounded for any number of hashes.

        Args:
            items: a mapping from keys to mappings of fields, or an iterable of (key, mapping of fields) pairs. As
                with HSET, fields that a hash has besides stay. Names of fields are str, bytes, int or float.
            ex, px: expiry of every hash from now, in seconds or milliseconds (int or timedelta).
            exat, pxat: expiry of every hash as a Unix time in seconds or milliseconds (int or datetime).
            codec: how the values of fields become bytes, such as "json" or "msgpack". By default they are str,
                bytes, int or float, and are sent as redis-py sends them.
            chunk_size, progress, on_chunk, workers: as for batch_set().
            on_error: "raise" raises BatchError after all other hashes were written; "report" leaves failures to
                the report; a callable is called with (key, mapping, exception) for each failed hash.

        Returns:
            The report of the hashes that were written and of those that failed. A hash fails alone if it has no
            fields or a value that cannot be sent. An expiry is set by EXPIRE, after the reply to HSET. A hash
            whose EXPIRE fails counts as failed, for that reason, though it was written.

        Raises:
            BatchError: hashes failed, and on_error is "raise". Its `report` names them.
            ValueError, TypeError: arguments exclude each other or have a wrong type.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as from batch_set().
        """
        items = checked_items(items, method="batch_hset")
        writing = HashWriting(ex, px, exat, pxat, codec, chunk_size, on_error, on_chunk)
        if workers != 1:
            check_workers(workers)
            workers = affordable(self._client, workers)
        report = BatchReport()
        heard = progress_of(items, progress)
        with Reporting(report, heard):
            if workers == 1:
                with self._lease() as borrowed:
                    flight = self._hset_flight(items, writing, report, heard)
                    with flight:
                        borrowed.run(flight)
                if flight.source_error is not None:
                    raise flight.source_error
            else:
                self._hset_in_threads(items, writing, report, heard, workers)
            raise_failures(report, on_error)
        return report

    def _hset_in_threads(
        self, items: HashItems, writing: HashWriting, report: BatchReport, heard: Progress | None, workers: int
    ) -> None:
        options = writing.options
        options.on_error, options.on_chunk = one_at_a_time(options.on_error), one_at_a_time(options.on_chunk)

        def make_flight(borrowed: Any, some: Any, part: BatchReport, progress: Progress | None) -> Any:
            return self._hset_flight(some, writing, part, progress)

        pairs = items.items() if isinstance(items, Mapping) else items
        write(self._lease, pairs, workers, make_flight, report, heard)
