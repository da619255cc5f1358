"""The methods of FastBatch for hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from redis_fastbatch._arguments import (
    checked_chunk_size,
    checked_items,
    checked_keys,
    checked_on_error,
    progress_of,
)
from redis_fastbatch._base_client import (
    ITER_ROUND,
    Found,
    Reporting,
    empty_result,
    goes_alone,
    raise_failures,
    read_rounds,
)
from redis_fastbatch._batches import write_with
from redis_fastbatch._core.resp.encoder import IN_MEMORY
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.commands import Duration, Moment, set_options
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.hash_read import HashReadFlight
from redis_fastbatch._engine.hashes import HashFlight
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ROUND_BYTES, Slices
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._hash_client import Fields, FieldTypes, HashClient, HashReading, HashWriting
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._transports.sync import Lease
from redis_fastbatch._transports.threads import affordable, check_workers, one_at_a_time, read, write
from redis_fastbatch._typing import AnyKey, HashItems, K
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback


class HashMethods(HashClient):
    """The methods of FastBatch for hashes."""

    @observed("HSET")
    def batch_hset(
        self,
        items: HashItems[K],
        *,
        ex: Duration | None = None,
        px: Duration | None = None,
        exat: Moment | None = None,
        pxat: Moment | None = None,
        ex_jitter: float = 0,
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
            exat, pxat: expiry of every hash as a Unix time in seconds or milliseconds (int or datetime). Each of
                these four may also be a callable, as for batch_set().
            ex_jitter: as for batch_set().
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
        expiry = set_options(ex, px, exat, pxat, ex_jitter=ex_jitter)
        writing = HashWriting(expiry, codec, chunk_size, on_error, on_chunk)
        if workers != 1:
            check_workers(workers)
            workers = affordable(self._client, workers)
        report = BatchReport()
        display = progress_of(items, progress)
        with Reporting(report, display):
            if workers == 1:
                self._hset(items, writing, report, display)
            else:
                self._hset_in_threads(items, writing, report, display, workers)
            if report.failed:
                raise_failures(report, on_error)
        return report

    def _hset(self, items: Any, writing: HashWriting, report: BatchReport, display: Progress | None) -> None:
        def begin(borrowed: Any) -> Any:
            if self._may_go_at_once(items, writing.options, display):
                return self._hset_at_once(borrowed, items, writing, report)
            return self._hset_flight(items, writing, report, display)

        write_with(self._lease(), begin)

    def _hset_at_once(
        self, borrowed: Lease, items: Any, writing: HashWriting, report: BatchReport
    ) -> HashFlight | None:
        """Write a batch that is one short chunk, and return None. Else return a flight that goes on."""
        writer = self._mapping_writer(items, writing)
        chunk: Any = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        while goes_alone(writer, chunk):
            reader = borrowed.exchange(chunk)
            following = chunk if reader is None else writing.following(reader, chunk, report)
            if following is None:
                return None
            if following is chunk:
                break
            chunk = following
        return self._hset_on(writer, chunk, writing, report, borrowed.begun)

    def _hset_in_threads(
        self, items: Any, writing: HashWriting, report: BatchReport, display: Progress | None, workers: int
    ) -> None:
        options = writing.options
        options.on_error, options.on_chunk = one_at_a_time(options.on_error), one_at_a_time(options.on_chunk)

        def make_flight(borrowed: Any, some: Any, part: BatchReport, progress: Progress | None) -> Any:
            return self._hset_flight(some, writing, part, progress)

        write(self._lease, items, workers, make_flight, report, display)

    @observed("HGETALL")
    def batch_hgetall(
        self,
        keys: Iterable[K],
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        on_error: OnError = "raise",
        workers: int = 1,
    ) -> dict[K, Any]:
        """Read whole hashes, as redis-py's hgetall() does for one.

        Args:
            keys: an iterable of str, bytes or int, as for batch_get().
            types: the types of the values. None leaves names and values as the client's hgetall() gives them:
                bytes, or str with `decode_responses`. A type (str, bytes, int, float or bool) is that of all
                values, and names are str then. A mapping from names to types is for these fields; the values of
                others are as without types. A bool is "1" or "0" in the hash.
            codec: decodes the values of fields that have no type, as batch_hset(codec=) has encoded them.
            default: the value of a key that is missing.
            on_error: what to do with a key of another type, or with a value that does not have the type that was
                asked for. "raise" raises the error; "report" uses `default` and logs how many keys failed; a
                callable is called with (key, bytes of the value or None, exception), and the key gets `default`.
            workers: threads that read in parallel, as for batch_get().

        Returns:
            A dict of every key, in the order given, to the dict of its fields, or `default`.

        Raises:
            DecodeError: a value does not have its type, and on_error is "raise"; it names the key and the field.
            redis.exceptions.ResponseError: a key holds another type, and on_error is "raise"; it names the key.
            EncodeError: a key has a wrong type.
            TypeError, ValueError: arguments have a wrong type.
            redis.exceptions.RedisError: the server refused to read, or the connection was lost and could not be
                replaced.
        """
        reading = HashReading(self, None, types, codec)
        keys = checked_keys(keys, method="batch_hgetall")
        return self._all_hashes(keys, reading, ReadOptions(default, checked_on_error(on_error)), workers)

    @observed("HMGET")
    def batch_hmget(
        self,
        keys: Iterable[K],
        fields: Fields,
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        on_error: OnError = "raise",
        workers: int = 1,
    ) -> dict[K, Any]:
        """Read some fields of hashes, as redis-py's hmget() does for one.

        Args:
            keys, types, codec, on_error, workers: as for batch_hgetall().
            fields: the names of the fields. They are the keys of each row, as they are given here.
            default: the value of a key that has none of the fields. HMGET does not tell it from a missing key.

        Returns:
            A dict of every key, in the order given, to the dict of its fields, in the order of `fields`, or
            `default`. A field that a hash does not have is None.

        Raises:
            The exceptions of batch_hgetall().
        """
        reading = HashReading(self, fields, types, codec)
        keys = checked_keys(keys, method="batch_hmget")
        return self._all_hashes(keys, reading, ReadOptions(default, checked_on_error(on_error)), workers)

    @observed("HGETALL")
    def batch_hgetall_iter(
        self,
        keys: Iterable[K],
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[K, Any]]:
        """Read any number of whole hashes in bounded memory, without holding a connection between them.

        Args:
            keys, types, codec, default, on_error: as for batch_hgetall().
            chunk_size: the most keys read at a time; fewer are read if their hashes are large or `keys` is slow.

        Yields:
            (key, dict of its fields or `default`) in the order of the keys.

        Raises:
            The exceptions of batch_hgetall(). Pairs that were read together with the failed one are not yielded.
            An exception of `keys` is raised after the pairs of all keys before it.
        """
        reading = HashReading(self, None, types, codec)
        keys = checked_keys(keys, method="batch_hgetall_iter")
        return self._each_hash(keys, reading, default, chunk_size, checked_on_error(on_error))

    @observed("HMGET")
    def batch_hmget_iter(
        self,
        keys: Iterable[K],
        fields: Fields,
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[K, Any]]:
        """Read some fields of any number of hashes in bounded memory.

        Args:
            keys, fields, types, codec, default, on_error: as for batch_hmget().
            chunk_size: as for batch_hgetall_iter().

        Yields:
            (key, dict of its fields or `default`) in the order of the keys.

        Raises:
            The exceptions of batch_hgetall_iter().
        """
        reading = HashReading(self, fields, types, codec)
        keys = checked_keys(keys, method="batch_hmget_iter")
        return self._each_hash(keys, reading, default, chunk_size, checked_on_error(on_error))

    def _all_hashes(
        self, keys: Any, reading: HashReading, options: ReadOptions, workers: int
    ) -> dict[AnyKey, Any]:
        if workers != 1:
            check_workers(workers)
            workers = affordable(self._client, workers)
        if workers != 1:
            keys = list(keys)
            try:
                found = dict.fromkeys(keys, options.default)
            except TypeError:
                # One of them cannot be a key: a single reader names it.
                workers = 1
        if workers == 1:
            found = empty_result(keys)
            self._read_hashes(keys, reading, found, options)
            return found
        options.on_error = one_at_a_time(options.on_error)
        read(list(found), workers, lambda some: self._read_hashes(some, reading.again(), found, options))
        return found

    def _each_hash(
        self, keys: Any, reading: HashReading, default: Any, chunk_size: int | None, on_error: OnError
    ) -> Iterator[tuple[AnyKey, Any]]:
        size = checked_chunk_size(chunk_size, ITER_ROUND)
        options = ReadOptions(default, on_error, min(size, COMMAND_ITEMS), ROUND_BYTES)
        return read_rounds(
            Slices(keys), size, lambda some, found: self._read_hashes(some, reading, found, options)
        )

    def _read_hashes(self, keys: Any, reading: HashReading, out: Found, options: ReadOptions) -> None:
        with self._lease(self._max_value_size) as borrowed:
            one_reply = type(keys) in IN_MEMORY and type(out) is dict
            if one_reply and self._fit_one_reply(keys, sizes=self._hash_sizes):
                flight = self._read_hashes_at_once(borrowed, keys, reading, out, options)
                if flight is None:
                    return
                borrowed.run(flight)
            else:
                with gc_pause.Pause(self._pause_gc) as pause:
                    flight = self._hash_read_flight(keys, reading, out, pause, options)
                    borrowed.run(flight)
        read_ended(flight.outcome, options.on_error, reading.method)

    def _read_hashes_at_once(
        self, borrowed: Lease, keys: Any, reading: HashReading, out: Any, options: ReadOptions
    ) -> HashReadFlight | None:
        """Read a batch of one chunk with short replies, and return None. Else return a flight that goes on."""
        writer = self._hash_keys(keys, reading, options)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if goes_alone(writer, chunk):
            reader = borrowed.exchange(chunk)
            if reader is not None and self._takes_all_hashes(reader, chunk, reading, out, options):
                return None
        return self._hash_read_on(writer, chunk, reading, out, options, borrowed.begun)
