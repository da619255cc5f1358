"""AsyncFastBatch, FastBatch for asyncio.

Encoding and decoding are split into slices of about a millisecond. Between them the event loop runs other tasks.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, overload

import redis
import redis.asyncio

from redis_fastbatch._arguments import (
    check_hook,
    checked_chunk_size,
    checked_items,
    checked_keys,
    checked_on_error,
    checked_url,
    progress_of,
)
from redis_fastbatch._async_batches import (
    PAIRS,
    LoopPause,
    async_source,
    carry_out,
    fill,
    rounds_of,
    write_with,
)
from redis_fastbatch._async_command_methods import AsyncCommandMethods
from redis_fastbatch._async_hash_methods import AsyncHashMethods
from redis_fastbatch._async_table_methods import AsyncTableMethods
from redis_fastbatch._base_client import (
    ITER_ROUND,
    Found,
    Reporting,
    confirms_all,
    empty_result,
    goes_alone,
    parts_of,
    raise_failures,
    writes_alone,
)
from redis_fastbatch._core.codec import PythonCodec
from redis_fastbatch._core.compressed import Compressing
from redis_fastbatch._core.resp.encoder import IN_MEMORY
from redis_fastbatch._engine.commands import Duration, Moment, set_options
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.options import ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ROUND_BYTES
from redis_fastbatch._engine.read import ReadFlight, read_ended
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._transports.async_source import acting_task
from redis_fastbatch._transports.asyncio import AsyncLease
from redis_fastbatch._transports.borrowing import check_free
from redis_fastbatch._transports.capabilities import has_msetex_async
from redis_fastbatch._transports.loop_budget import FirstSlices, LoopBudget
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._transports.reply_protocol import Deadlines
from redis_fastbatch._typing import AnyKey, AsyncItems, AsyncKeys, K, Key, PassAListOfKeys
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback


class AsyncFastBatch(AsyncHashMethods, AsyncCommandMethods, AsyncTableMethods):
    """Reads and writes batches of values through a redis.asyncio client.

    Calls may run concurrently: each borrows its own connection from the client's pool. It can be pickled when it
    was made by from_url().

    Args:
        client: a redis.asyncio.Redis or redis.asyncio.RedisCluster.
        codec, max_value_size, pause_gc: as for FastBatch.
    """

    _takes_asyncio = True

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        codec: AnyCodec = "msgpack",
        *,
        max_value_size: int = 0,
        pause_gc: bool = True,
    ) -> None:
        super().__init__(client, codec, max_value_size=max_value_size, pause_gc=pause_gc)
        self._slices = FirstSlices()
        self._deadlines = Deadlines()
        is_typed = getattr(self._codec, "type", None) is not None
        self._codec_is_slow = is_typed or isinstance(self._codec, (PythonCodec, Compressing))

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
    ) -> AsyncFastBatch:
        """Connect by URL, as redis.asyncio.Redis.from_url() does.

        Args:
            url: redis://, rediss:// or unix://; any node of a cluster.
            codec, max_value_size, pause_gc: as for the constructor.
            cluster: connect with a redis.asyncio.RedisCluster.
            connection: further arguments of from_url() of redis.asyncio.Redis or redis.asyncio.RedisCluster.
        """
        settings: dict[str, Any] = {"codec": codec, "max_value_size": max_value_size, "pause_gc": pause_gc}
        kind: Any = redis.asyncio.RedisCluster if cluster else redis.asyncio.Redis
        batch = cls(kind.from_url(checked_url(url), **connection), **settings)
        batch._made_from(url, {**settings, "cluster": cluster, **connection})
        return batch

    async def __aenter__(self) -> AsyncFastBatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the redis.asyncio client."""
        # redis-py 5.0.1 renamed close() to aclose().
        close = getattr(self._client, "aclose", None) or self._client.close
        await close()

    close = aclose

    def _lease(self, max_value_size: int = 0) -> AbstractAsyncContextManager[Any]:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights."""
        if self._is_cluster:
            from redis_fastbatch._cluster.asyncio import cluster_lease

            return cluster_lease(self._client, max_value_size)
        return AsyncLease(self._client, max_value_size, None, self._slices, self._deadlines)

    @property
    def client(self) -> redis.asyncio.Redis:
        """The redis.asyncio client; a redis.asyncio.RedisCluster if one was given."""
        return self._client  # type: ignore[no-any-return]

    @observed("MSET")
    async def batch_set(
        self,
        items: AsyncItems[K],
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
    ) -> BatchReport:
        """Write items, as FastBatch.batch_set() does.

        Args:
            items: as for FastBatch.batch_set(), or an async iterable of (key, value) pairs.
            ex, px, exat, pxat, ex_jitter, keepttl, nx, xx, atomic, chunk_size: as for FastBatch.batch_set().
            progress, on_error, on_chunk: as for FastBatch.batch_set(). A callable must be a plain function, not a
                coroutine function.

        Returns:
            The report of what was written, skipped and failed.

        Raises:
            asyncio.CancelledError: the task was cancelled. Like all errors that end a batch early, it has a
                `report` of what was confirmed until then. On Python 3.10 a caller that awaits the cancelled task
                finds this error in the `__context__` of the one that it receives.
            BatchError, ValueError, TypeError, redis.exceptions.RedisError: as from FastBatch.batch_set().
        """
        items = checked_items(items, asynchronous=True)
        options = WriteOptions(set_options(ex, px, exat, pxat, keepttl, nx, xx, atomic, ex_jitter))
        if chunk_size is not None:
            options.chunk_size = checked_chunk_size(chunk_size)
        if on_error != "raise":
            options.on_error = checked_on_error(on_error)
        if on_chunk is not None:
            check_hook("on_chunk", on_chunk)
            options.on_chunk = on_chunk
        report = BatchReport()
        display = None if progress is None else progress_of(items, progress)
        with Reporting(report, display):
            if atomic and self._is_cluster and isinstance(items, AsyncIterable):
                # The slots of all keys are compared before anything is sent.
                items = [pair async for pair in items]
            await self._write(items, options, report, display)
            if report.failed:
                raise_failures(report, on_error)
        return report

    async def _write(
        self, items: Any, options: WriteOptions, report: BatchReport, display: Progress | None
    ) -> None:
        source = async_source(items)

        async def begin(borrowed: Any) -> Any:
            msetex = options.set.msetex_helps and not self._is_cluster and await has_msetex_async(borrowed)
            if self._may_go_at_once(items, options, display):
                return await self._write_at_once(borrowed, items, options, report, msetex)
            return self._write_flight(source or items, options, report, display, msetex=msetex)

        await write_with(self._lease(), begin, source)

    async def _write_at_once(
        self, borrowed: AsyncLease, items: Any, options: WriteOptions, report: BatchReport, msetex: bool
    ) -> WriteFlight | None:
        """Write a batch of one short command, and return None. Else return a flight that goes on."""
        writer = self._set_writer(items, options, msetex=msetex)
        chunk = writer.blank()
        await fill(writer, chunk, self._slices, borrowed)
        if writes_alone(writer, chunk, options):
            reader = await borrowed.exchange(chunk)
            if reader is not None and confirms_all(reader, chunk, report):
                return None
        return self._write_on(writer, chunk, options, report, borrowed.begun)

    @overload
    async def batch_get(  # type: ignore[overload-overlap]
        self, keys: str | bytes, *, default: Any = None, on_error: OnError = "raise"
    ) -> PassAListOfKeys: ...

    @overload
    async def batch_get(
        self, keys: AsyncKeys[K], *, default: Any = None, on_error: OnError = "raise"
    ) -> dict[K, Any]: ...

    @observed("MGET")
    async def batch_get(self, keys: AsyncKeys[Any], *, default: Any = None, on_error: OnError = "raise") -> Any:
        """Read the values of keys, as FastBatch.batch_get() does.

        Args:
            keys: as for FastBatch.batch_get(), or an async iterable.
            default, on_error: as for FastBatch.batch_get().

        Returns:
            A dict of every key, in the order given, to its value or `default`.

        Raises:
            The exceptions of FastBatch.batch_get().
        """
        keys = checked_keys(keys, asynchronous=True)
        if on_error != "raise":
            checked_on_error(on_error)
        found = empty_result(keys)
        await self._read(keys, found, ReadOptions(default, on_error))
        return found

    @observed("MGET")
    async def batch_get_iter(
        self,
        keys: AsyncKeys[K],
        *,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[K, Any]]:
        """Read the values of any number of keys in bounded memory, without holding a connection between items.

        Args:
            keys, default, on_error: as for batch_get().
            chunk_size: the most keys read at a time; fewer are read if their values are large.

        Yields:
            (key, value or `default`) in the order of the keys.

        Raises:
            The exceptions of batch_get().
        """
        keys = checked_keys(keys, asynchronous=True)
        size = checked_chunk_size(chunk_size, ITER_ROUND)
        options = ReadOptions(default, checked_on_error(on_error), min(size, COMMAND_ITEMS), ROUND_BYTES)
        async with contextlib.aclosing(rounds_of(keys, size)) as rounds:
            async for some in rounds:
                for part in parts_of(some):
                    found: list[tuple[Any, Any]] = []
                    await self._read(part, found, options)
                    budget = LoopBudget()
                    for index, pair in enumerate(found):
                        if index % PAIRS == 0:
                            await budget.yield_if_spent()
                        yield pair

    async def _read(self, keys: AsyncKeys[Any], out: Found, options: ReadOptions) -> None:
        few = self._slices.decoding if self._codec_is_slow else COMMAND_ITEMS
        if isinstance(out, dict) and type(keys) in IN_MEMORY and self._fit_one_reply(keys, few):
            async with self._lease(self._max_value_size) as borrowed:
                flight = await self._read_at_once(borrowed, keys, out, options)
                if flight is None:
                    return
                await borrowed.run(flight)
        else:
            source = async_source(keys)
            with LoopPause(self._pause_gc) as pause:
                async with self._lease(self._max_value_size) as borrowed:
                    flight = self._read_flight(source or keys, out, pause, options)
                    await carry_out(borrowed, flight, source)
        read_ended(flight.outcome, options.on_error)

    async def _read_at_once(
        self, borrowed: AsyncLease, keys: Any, out: dict[AnyKey, Any], options: ReadOptions
    ) -> ReadFlight | None:
        """Read a batch of one command with a short reply, and return None. Else return a flight that goes on."""
        writer = self._mget_writer(keys, options)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if goes_alone(writer, chunk):
            reader = await borrowed.exchange(chunk)
            if reader is not None and self._takes_all(reader, chunk, out, options):
                return None
        return self._read_on(writer, chunk, out, options, borrowed.begun)

    @observed("UNLINK")
    async def batch_delete(self, keys: AsyncKeys[Key]) -> int:
        """Delete keys with UNLINK, as FastBatch.batch_delete() does.

        Args:
            keys: an iterable or an async iterable of str, bytes or int.

        Returns:
            How many of them existed.

        Raises:
            The exceptions of FastBatch.batch_delete().
        """
        keys = checked_keys(keys, asynchronous=True)
        source = async_source(keys)
        async with self._lease() as borrowed:
            if self._is_cluster or type(keys) not in IN_MEMORY:
                flight = self._count_flight(source or keys)
            else:
                writer = self._unlink_writer(keys)
                chunk = writer.blank()
                await fill(writer, chunk, self._slices, borrowed)
                if goes_alone(writer, chunk):
                    reader = await borrowed.exchange(chunk)
                    number: int = -1 if reader is None else reader.only_number(chunk.count)
                    if number >= 0:
                        return number
                flight = self._count_on(writer, chunk, borrowed.begun)
            await carry_out(borrowed, flight, source)
        flight.outcome.raise_error()
        total: int = flight.outcome.total
        return total

    def scan(
        self, match: str | bytes | None = None, count: int = 1000, type: str | None = None
    ) -> AsyncIterator[Any]:
        """Iterate over the server's keys, as FastBatch.scan() does.

        Args:
            match, count, type: as for FastBatch.scan().
        """
        if self._is_cluster:
            from redis_fastbatch._cluster.scan import scan_async

            return scan_async(self._client, match=match, count=count, _type=type)
        keys: AsyncIterator[Any] = self._client.scan_iter(match=match, count=count, _type=type)
        return self._scanned(keys) if getattr(self._client, "single_connection_client", False) else keys

    async def _scanned(self, keys: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield keys that are read over a client's only connection."""
        check_free(self._client.connection, acting_task())
        async for key in keys:
            yield key
            check_free(self._client.connection, acting_task())
