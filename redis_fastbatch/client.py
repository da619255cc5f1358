"""FastBatch, the synchronous client."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, overload

import redis

from redis_fastbatch._arguments import (
    check_hook,
    checked_chunk_size,
    checked_items,
    checked_keys,
    checked_on_error,
    checked_url,
    progress_of,
)
from redis_fastbatch._base_client import (
    ITER_ROUND,
    Found,
    Reporting,
    confirms_all,
    empty_result,
    goes_alone,
    raise_failures,
    read_rounds,
    writes_alone,
)
from redis_fastbatch._batches import write_with
from redis_fastbatch._command_methods import CommandMethods
from redis_fastbatch._core.resp.encoder import IN_MEMORY
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.commands import Duration, Moment, set_options
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.options import ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ROUND_BYTES, Slices
from redis_fastbatch._engine.read import ReadFlight, read_ended
from redis_fastbatch._hash_methods import HashMethods
from redis_fastbatch._table_methods import TableMethods
from redis_fastbatch._transports.borrowing import check_free
from redis_fastbatch._transports.capabilities import has_msetex
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._transports.sync import Lease
from redis_fastbatch._transports.threads import affordable, check_workers, one_at_a_time, read, write
from redis_fastbatch._typing import AnyKey, Items, K, Key, PassAListOfKeys
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback

logger = logging.getLogger("redis_fastbatch")


class FastBatch(HashMethods, CommandMethods, TableMethods):
    """Reads and writes batches of values through a redis-py client.

    It is thread-safe: each call borrows its own connection from the client's pool. It can be pickled when it was
    made by from_url().

    Args:
        client: a redis.Redis, such as Sentinel's master_for() returns, or a redis.RedisCluster.
        codec: how values become bytes: "msgpack", "json", "raw", "toolkit", "toolkit-msgpack", a codec of
            redis_fastbatch.codecs, or any object with dumps() and loads().
        max_value_size: the longest value to read, in bytes; 0 for no limit. A longer value is refused before
            memory is allocated for it.
        pause_gc: hold back the cyclic garbage collector while batch_get() builds its result.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        codec: AnyCodec = "msgpack",
        *,
        max_value_size: int = 0,
        pause_gc: bool = True,
    ) -> None:
        super().__init__(client, codec, max_value_size=max_value_size, pause_gc=pause_gc)

    @classmethod
    def from_url(
        cls,
        url: str,
        codec: AnyCodec = "msgpack",
        *,
        max_value_size: int = 0,
        pause_gc: bool = True,
        cluster: bool = False,
        **connection: Any,
    ) -> FastBatch:
        """Connect by URL, as redis.Redis.from_url() does.

        Args:
            url: redis://, rediss:// or unix://; any node of a cluster.
            codec, max_value_size, pause_gc: as for the constructor.
            cluster: connect with a redis.RedisCluster.
            connection: further arguments of redis.Redis.from_url() or redis.RedisCluster.from_url().
        """
        settings: dict[str, Any] = {"codec": codec, "max_value_size": max_value_size, "pause_gc": pause_gc}
        kind: Any = redis.RedisCluster if cluster else redis.Redis
        batch = cls(kind.from_url(checked_url(url), **connection), **settings)
        batch._made_from(url, {**settings, "cluster": cluster, **connection})
        return batch

    def __enter__(self) -> FastBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the redis-py client."""
        self._client.close()

    def _lease(self, max_value_size: int = 0) -> AbstractContextManager[Any]:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights."""
        if self._is_cluster:
            from redis_fastbatch._cluster.sync import ClusterLease

            return ClusterLease(self._client, max_value_size)
        return Lease(self._client, max_value_size)

    @property
    def client(self) -> redis.Redis:
        """The redis-py client; a redis.RedisCluster if one was given."""
        return self._client  # type: ignore[no-any-return]

    @observed("MSET")
    def batch_set(
        self,
        items: Items[K],
        *,
        ex: Duration | None = None,
        px: Duration | None = None,
        exat: Moment | None = None,
        pxat: Moment | None = None,
        ex_jitter: float = 0,
        keepttl: bool = False,
        nx: bool = False,
        xx: bool = False,
        atomic: bool = False,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        on_chunk: OnChunk | None = None,
        workers: int = 1,
    ) -> BatchReport:
        """Write items, and send while encoding. Memory stays bounded for any number of items.

        Args:
            items: a mapping, or an iterable of (key, value) pairs, such as a generator. A pair is a tuple or a
                list of two. Keys are str, bytes or int. If a key comes twice, the last value wins.
            ex, px: expiry of every key from now, in seconds or milliseconds (int or timedelta).
            exat, pxat: expiry of every key as a Unix time in seconds or milliseconds (int or datetime). Each of
                these four may also be a callable, which gets a key and returns its time. If it raises or returns
                anything else, that item fails alone. Such items go as pipelined SETs, not as MSETEX.
            ex_jitter: spreads expiries, so that keys written together do not all expire together. Each key's `ex`
                or `px` is changed at random by up to this part of it, such as 0.1, and is sent in milliseconds.
            keepttl: existing keys keep their time to live.
            nx, xx: write only keys that do not exist, or only keys that exist; others count as skipped.
            atomic: write all items or none. A batch of more than one command is sent between MULTI and EXEC.
            chunk_size: the most items in a command.
            progress: True for a progress bar on a terminal, or a callable (items done, total or None).
            on_error: "raise" raises BatchError after all other items were written; "report" leaves failures to
                the report; a callable is called with (key, value, exception) for each failed item.
            on_chunk: called with the ChunkStats of each command or pipeline when all its replies have arrived.
            workers: threads that encode and send in parallel, each with its own connection; at most the number of
                connections that the client's pool allows. Items are then written in any order: if a key comes
                twice, either value may win. Only one thread at a time calls a hook.

        Returns:
            The report of what was written, skipped and failed.

        Raises:
            BatchError: items failed, and on_error is "raise". Its `report` names them.
            ValueError, TypeError: arguments exclude each other or have a wrong type.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: the connection was lost and could not
                be replaced. These, and exceptions that `items` raises, have a `report` of what was done until
                then.
        """
        items = checked_items(items)
        options = WriteOptions(set_options(ex, px, exat, pxat, keepttl, nx, xx, atomic, ex_jitter))
        if chunk_size is not None:
            options.chunk_size = checked_chunk_size(chunk_size)
        if on_error != "raise":
            options.on_error = checked_on_error(on_error)
        if on_chunk is not None:
            check_hook("on_chunk", on_chunk)
            options.on_chunk = on_chunk
        if workers != 1:
            check_workers(workers, atomic)
            workers = affordable(self._client, workers)
        report = BatchReport()
        display = None if progress is None else progress_of(items, progress)
        with Reporting(report, display):
            if workers == 1:
                self._write(items, options, report, display)
            else:
                self._write_in_threads(items, options, report, display, workers)
            if report.failed:
                raise_failures(report, on_error)
        return report

    def _write(self, items: Any, options: WriteOptions, report: BatchReport, display: Progress | None) -> None:
        if self._is_cluster and display is None:
            from redis_fastbatch._one_key import write_one

            if write_one(self, items, options, report):
                return

        def begin(borrowed: Any) -> Any:
            msetex = self._uses_msetex(borrowed, options)
            if self._may_go_at_once(items, options, display):
                return self._write_at_once(borrowed, items, options, report, msetex)
            return self._write_flight(items, options, report, display, msetex=msetex)

        write_with(self._lease(), begin)

    def _uses_msetex(self, borrowed: Any, options: WriteOptions) -> bool:
        return options.set.msetex_helps and not self._is_cluster and has_msetex(borrowed)

    def _write_at_once(
        self, borrowed: Lease, items: Any, options: WriteOptions, report: BatchReport, msetex: bool
    ) -> Any:
        """Write a batch that is one short command, and return None. Else return a flight that goes on."""
        writer = self._set_writer(items, options, msetex=msetex)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if writes_alone(writer, chunk, options):
            reader = borrowed.exchange(chunk)
            if reader is not None and confirms_all(reader, chunk, report):
                return None
        return self._write_on(writer, chunk, options, report, borrowed.begun)

    def _write_in_threads(
        self, items: Any, options: WriteOptions, report: BatchReport, display: Progress | None, workers: int
    ) -> None:
        options.on_error, options.on_chunk = one_at_a_time(options.on_error), one_at_a_time(options.on_chunk)

        def make_flight(borrowed: Lease, some: Any, part: BatchReport, progress: Progress | None) -> Any:
            msetex = self._uses_msetex(borrowed, options)
            return self._write_flight(some, options, part, progress, msetex=msetex)

        write(self._lease, items, workers, make_flight, report, display)

    @overload
    def batch_get(  # type: ignore[overload-overlap]
        self, keys: str | bytes, *, default: Any = None, on_error: OnError = "raise", workers: int = 1
    ) -> PassAListOfKeys: ...

    @overload
    def batch_get(
        self, keys: Iterable[K], *, default: Any = None, on_error: OnError = "raise", workers: int = 1
    ) -> dict[K, Any]: ...

    @observed("MGET")
    def batch_get(
        self, keys: Iterable[Any], *, default: Any = None, on_error: OnError = "raise", workers: int = 1
    ) -> Any:
        """Read the values of keys.

        Args:
            keys: an iterable of str, bytes or int. A column of keys (a pyarrow array, a pandas Series, a numpy
                array) is read as the list of its values. Keys that compare equal in Python, such as 1 and True,
                are one key of the dict.
            default: the value of a key that is missing or holds a type other than a string.
            on_error: what to do with a value that cannot be decoded. "raise" raises DecodeError; "report" uses
                `default` and logs how many values failed; a callable is called with (key, bytes, exception), and
                the key gets `default`. A key of a wrong type has no bytes and no entry. After a lost connection
                the callable may be called for a key again. A value longer than `max_value_size` always raises
                DecodeError.
            workers: threads that read in parallel, each with its own connection; at most the number of connections
                that the client's pool allows. Decoding holds the GIL, so more than one gains little.

        Returns:
            A dict of every key, in the order given, to its value or `default`.

        Raises:
            DecodeError: a value cannot be decoded, and on_error is "raise"; it names the key and the byte offset.
            EncodeError: a key has a wrong type.
            redis.exceptions.RedisError: the server refused to read, or the connection was lost and could not be
                replaced.
        """
        keys = checked_keys(keys)
        if on_error != "raise":
            checked_on_error(on_error)
        if workers != 1:
            check_workers(workers)
            workers = affordable(self._client, workers)
        if workers == 1:
            found = empty_result(keys)
            self._read(keys, found, ReadOptions(default, on_error))
            return found
        options = ReadOptions(default, one_at_a_time(on_error))
        some = list(keys)
        try:
            found = dict.fromkeys(some, default)
        except TypeError:
            # One of them cannot be a key: a single reader names it.
            return self.batch_get(some, default=default, on_error=on_error)
        read(list(found), workers, lambda some: self._read(some, found, options))
        return found

    @observed("MGET")
    def batch_get_iter(
        self,
        keys: Iterable[K],
        *,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[K, Any]]:
        """Read the values of any number of keys in bounded memory, without holding a connection between items.

        Args:
            keys, default, on_error: as for batch_get().
            chunk_size: the most keys read at a time; fewer are read if their values are large or `keys` is slow.

        Yields:
            (key, value or `default`) in the order of the keys.

        Raises:
            The exceptions of batch_get(). Pairs that were read together with the failed one are not yielded. An
            exception of `keys` is raised after the pairs of all keys before it.
        """
        source = Slices(checked_keys(keys, method="batch_get_iter"))
        size = checked_chunk_size(chunk_size, ITER_ROUND)
        options = ReadOptions(default, checked_on_error(on_error), min(size, COMMAND_ITEMS), ROUND_BYTES)
        yield from read_rounds(source, size, lambda some, found: self._read(some, found, options))

    def _read(self, keys: Iterable[AnyKey], out: Found, options: ReadOptions) -> None:
        if self._is_cluster:
            from redis_fastbatch._one_key import read_one

            if read_one(self, keys, out, options):
                return
        with self._lease(self._max_value_size) as borrowed:
            if type(keys) in IN_MEMORY and type(out) is dict and self._fit_one_reply(keys):
                flight = self._read_at_once(borrowed, keys, out, options)
                if flight is None:
                    return
                borrowed.run(flight)
            else:
                with gc_pause.Pause(self._pause_gc) as pause:
                    flight = self._read_flight(keys, out, pause, options)
                    borrowed.run(flight)
        read_ended(flight.outcome, options.on_error)

    def _read_at_once(
        self, borrowed: Lease, keys: Any, out: dict[AnyKey, Any], options: ReadOptions
    ) -> ReadFlight | None:
        """Read a batch of one command with a short reply, and return None. Else return a flight that goes on."""
        writer = self._mget_writer(keys, options)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if goes_alone(writer, chunk):
            reader = borrowed.exchange(chunk)
            if reader is not None and self._takes_all(reader, chunk, out, options):
                return None
        return self._read_on(writer, chunk, out, options, borrowed.begun)

    @observed("UNLINK")
    def batch_delete(self, keys: Iterable[Key]) -> int:
        """Delete keys with UNLINK: the server frees their memory in the background.

        Args:
            keys: as for batch_get().

        Returns:
            How many of them existed. After a lost connection the number may be too small: it leaves out the keys
            of a command that the server carried out before its reply was lost.

        Raises:
            EncodeError: a key has a wrong type.
            redis.exceptions.RedisError: the server refused, or the connection was lost and could not be replaced.
        """
        keys = checked_keys(keys, method="batch_delete")
        with self._lease() as borrowed:
            if self._is_cluster or type(keys) not in IN_MEMORY:
                flight = self._count_flight(keys)
            else:
                writer = self._unlink_writer(keys)
                chunk = writer.blank()
                writer.fill_some(chunk, NO_LIMIT)
                if goes_alone(writer, chunk):
                    reader = borrowed.exchange(chunk)
                    number: int = -1 if reader is None else reader.only_number(chunk.count)
                    if number >= 0:
                        return number
                flight = self._count_on(writer, chunk, borrowed.begun)
            borrowed.run(flight)
        flight.outcome.raise_error()
        total: int = flight.outcome.total
        return total

    def scan(self, match: str | bytes | None = None, count: int = 1000, type: str | None = None) -> Iterator[Any]:
        """Iterate over the server's keys, as redis.Redis.scan_iter() does; over all nodes of a cluster at a time.

        Args:
            match: a glob-style pattern, such as "user:*".
            count: about how many keys the server, or each node, examines at a time.
            type: only keys of this type, such as "string", "hash" or "stream". Needs Redis 6.
        """
        if self._is_cluster:
            from redis_fastbatch._cluster.scan import scan

            return scan(self._client, match=match, count=count, _type=type)
        keys: Iterator[Any] = self._client.scan_iter(match=match, count=count, _type=type)
        return keys if getattr(self._client, "connection", None) is None else self._scanned(keys)

    def _scanned(self, keys: Iterator[Any]) -> Iterator[Any]:
        """Yield keys that are read over a client's only connection."""
        check_free(self._client.connection, threading.get_ident())
        for key in keys:
            yield key
            check_free(self._client.connection, threading.get_ident())
