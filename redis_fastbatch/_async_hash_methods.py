"""The methods of AsyncFastBatch for hashes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis_fastbatch._arguments import (
    checked_chunk_size,
    checked_items,
    checked_keys,
    checked_on_error,
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
from redis_fastbatch._base_client import (
    ITER_ROUND,
    Found,
    Reporting,
    empty_result,
    goes_alone,
    parts_of,
    raise_failures,
)
from redis_fastbatch._core.resp.encoder import IN_MEMORY
from redis_fastbatch._engine.commands import Duration, Moment, set_options
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.hash_read import HashReadFlight
from redis_fastbatch._engine.hashes import HashFlight
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ROUND_BYTES
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._hash_client import Fields, FieldTypes, HashClient, HashReading, HashWriting
from redis_fastbatch._transports.asyncio import AsyncLease
from redis_fastbatch._transports.loop_budget import FirstSlices, LoopBudget
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._typing import AsyncHashItems, AsyncKeys, K
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback


class AsyncHashMethods(HashClient):
    """The methods of AsyncFastBatch for hashes."""

    _slices: FirstSlices

    @observed("HSET")
    async def batch_hset(
        self,
        items: AsyncHashItems[K],
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
    ) -> BatchReport:
        """Write mappings as hashes, as FastBatch.batch_hset() does.

        Args:
            items: as for FastBatch.batch_hset(), or an async iterable of (key, mapping of fields) pairs.
            ex, px, exat, pxat, ex_jitter, codec, chunk_size: as for FastBatch.batch_hset().
            progress, on_error, on_chunk: as for FastBatch.batch_hset(). A callable must be a plain function.

        Returns:
            The report of the hashes that were written and of those that failed.

        Raises:
            asyncio.CancelledError: as from batch_set().
            BatchError, ValueError, TypeError, redis.exceptions.RedisError: as from FastBatch.batch_hset().
        """
        items = checked_items(items, asynchronous=True, method="batch_hset")
        expiry = set_options(ex, px, exat, pxat, ex_jitter=ex_jitter)
        writing = HashWriting(expiry, codec, chunk_size, on_error, on_chunk)
        report = BatchReport()
        display = progress_of(items, progress)
        with Reporting(report, display):
            await self._hset(items, writing, report, display)
            if report.failed:
                raise_failures(report, on_error)
        return report

    async def _hset(self, items: Any, writing: HashWriting, report: BatchReport, display: Progress | None) -> None:
        source = async_source(items)

        async def begin(borrowed: Any) -> Any:
            if self._may_go_at_once(items, writing.options, display):
                return await self._hset_at_once(borrowed, items, writing, report)
            return self._hset_flight(source or items, writing, report, display)

        await write_with(self._lease(), begin, source)

    async def _hset_at_once(
        self, borrowed: AsyncLease, items: Any, writing: HashWriting, report: BatchReport
    ) -> HashFlight | None:
        """Write a batch that is one short chunk, and return None. Else return a flight that goes on."""
        writer = self._mapping_writer(items, writing)
        chunk: Any = writer.blank()
        await fill(writer, chunk, self._slices, borrowed)
        while goes_alone(writer, chunk):
            reader = await borrowed.exchange(chunk)
            following = chunk if reader is None else writing.following(reader, chunk, report)
            if following is None:
                return None
            if following is chunk:
                break
            chunk = following
        return self._hset_on(writer, chunk, writing, report, borrowed.begun)

    @observed("HGETALL")
    async def batch_hgetall(
        self,
        keys: AsyncKeys[K],
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        on_error: OnError = "raise",
    ) -> dict[K, Any]:
        """Read whole hashes, as FastBatch.batch_hgetall() does.

        Args:
            keys: as for FastBatch.batch_hgetall(), or an async iterable.
            types, codec, default, on_error: as for FastBatch.batch_hgetall().

        Returns:
            A dict of every key, in the order given, to the dict of its fields, or `default`.

        Raises:
            The exceptions of FastBatch.batch_hgetall().
        """
        reading = HashReading(self, None, types, codec)
        return await self._all_hashes(keys, reading, default, on_error)

    @observed("HMGET")
    async def batch_hmget(
        self,
        keys: AsyncKeys[K],
        fields: Fields,
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        on_error: OnError = "raise",
    ) -> dict[K, Any]:
        """Read some fields of hashes, as FastBatch.batch_hmget() does.

        Args:
            keys: as for FastBatch.batch_hmget(), or an async iterable.
            fields, types, codec, default, on_error: as for FastBatch.batch_hmget().

        Returns:
            A dict of every key, in the order given, to the dict of its fields, or `default`.

        Raises:
            The exceptions of FastBatch.batch_hmget().
        """
        reading = HashReading(self, fields, types, codec)
        return await self._all_hashes(keys, reading, default, on_error)

    @observed("HGETALL")
    def batch_hgetall_iter(
        self,
        keys: AsyncKeys[K],
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[K, Any]]:
        """Read any number of whole hashes in bounded memory, as FastBatch.batch_hgetall_iter() does.

        Args:
            keys: as for FastBatch.batch_hgetall_iter(), or an async iterable.
            types, codec, default, chunk_size, on_error: as for FastBatch.batch_hgetall_iter().

        Returns:
            An async iterator of (key, dict of its fields or `default`), in the order of the keys. It raises the
            exceptions of FastBatch.batch_hgetall_iter().
        """
        reading = HashReading(self, None, types, codec)
        return self._each_hash(keys, reading, default, chunk_size, on_error)

    @observed("HMGET")
    def batch_hmget_iter(
        self,
        keys: AsyncKeys[K],
        fields: Fields,
        *,
        types: FieldTypes | None = None,
        codec: AnyCodec | None = None,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncIterator[tuple[K, Any]]:
        """Read some fields of any number of hashes in bounded memory, as FastBatch.batch_hmget_iter() does.

        Args:
            keys: as for FastBatch.batch_hmget_iter(), or an async iterable.
            fields, types, codec, default, chunk_size, on_error: as for FastBatch.batch_hmget_iter().

        Returns:
            An async iterator of (key, dict of its fields or `default`), in the order of the keys. It raises the
            exceptions of FastBatch.batch_hmget_iter().
        """
        reading = HashReading(self, fields, types, codec)
        return self._each_hash(keys, reading, default, chunk_size, on_error)

    async def _all_hashes(
        self, keys: AsyncKeys[Any], reading: HashReading, default: Any, on_error: OnError
    ) -> dict[Any, Any]:
        keys = checked_keys(keys, asynchronous=True, method=reading.method)
        found = empty_result(keys)
        await self._read_hashes(keys, reading, found, ReadOptions(default, checked_on_error(on_error)))
        return found

    def _each_hash(
        self, keys: AsyncKeys[Any], reading: HashReading, default: Any, chunk_size: int | None, on_error: OnError
    ) -> AsyncIterator[tuple[Any, Any]]:
        keys = checked_keys(keys, asynchronous=True, method=f"{reading.method}_iter")
        size = checked_chunk_size(chunk_size, ITER_ROUND)
        options = ReadOptions(default, checked_on_error(on_error), min(size, COMMAND_ITEMS), ROUND_BYTES)
        return self._hash_rounds(keys, size, reading, options)

    async def _hash_rounds(
        self, keys: AsyncKeys[Any], size: int, reading: HashReading, options: ReadOptions
    ) -> AsyncIterator[tuple[Any, Any]]:
        async with contextlib.aclosing(rounds_of(keys, size)) as rounds:
            async for some in rounds:
                for part in parts_of(some):
                    found: list[tuple[Any, Any]] = []
                    await self._read_hashes(part, reading, found, options)
                    budget = LoopBudget()
                    for index, pair in enumerate(found):
                        if index % PAIRS == 0:
                            await budget.yield_if_spent()
                        yield pair

    async def _read_hashes(
        self, keys: AsyncKeys[Any], reading: HashReading, out: Found, options: ReadOptions
    ) -> None:
        few = self._slices.decoding if reading.has_codec else COMMAND_ITEMS
        one_reply = type(keys) in IN_MEMORY and type(out) is dict
        if one_reply and self._fit_one_reply(keys, few, self._hash_sizes):
            async with self._lease(self._max_value_size) as borrowed:
                flight = await self._read_hashes_at_once(borrowed, keys, reading, out, options)
                if flight is None:
                    return
                await borrowed.run(flight)
        else:
            source = async_source(keys)
            with LoopPause(self._pause_gc) as pause:
                async with self._lease(self._max_value_size) as borrowed:
                    flight = self._hash_read_flight(source or keys, reading, out, pause, options)
                    await carry_out(borrowed, flight, source)
        read_ended(flight.outcome, options.on_error, reading.method)

    async def _read_hashes_at_once(
        self, borrowed: AsyncLease, keys: Any, reading: HashReading, out: Any, options: ReadOptions
    ) -> HashReadFlight | None:
        """Read a batch of one chunk with short replies, and return None. Else return a flight that goes on."""
        writer = self._hash_keys(keys, reading, options)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if goes_alone(writer, chunk):
            reader = await borrowed.exchange(chunk)
            if reader is not None and self._takes_all_hashes(reader, chunk, reading, out, options):
                return None
        return self._hash_read_on(writer, chunk, reading, out, options, borrowed.begun)
