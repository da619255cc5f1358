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
    rounds_of,
    write_out,
)
from redis_fastbatch._base_client import ITER_ROUND, Found, Reporting, empty_result, parts_of, raise_failures
from redis_fastbatch._engine.commands import Duration, Moment, SetOptions
from redis_fastbatch._engine.flight import COMMAND_ITEMS
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ROUND_BYTES
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._hash_client import Fields, FieldTypes, HashClient, HashReading, HashWriting
from redis_fastbatch._transports.loop_budget import LoopBudget
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._typing import AsyncHashItems, AsyncKeys, K
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, ProgressCallback


class AsyncHashMethods(HashClient):
    """The methods of AsyncFastBatch for hashes."""

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
        expiry = SetOptions(ex, px, exat, pxat, ex_jitter=ex_jitter)
        writing = HashWriting(expiry, codec, chunk_size, on_error, on_chunk)
        report = BatchReport()
        display = progress_of(items, progress)
        with Reporting(report, display):
            source = async_source(items)
            async with self._lease() as borrowed:
                flight = self._hset_flight(source or items, writing, report, display)
                await write_out(borrowed, flight, source)
            if flight.source_error is not None:
                raise flight.source_error
            raise_failures(report, on_error)
        return report

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
        source = async_source(keys)
        with LoopPause(self._pause_gc) as pause:
            async with self._lease(self._max_value_size) as borrowed:
                flight = self._hash_read_flight(source or keys, reading, out, pause, options)
                await carry_out(borrowed, flight, source)
        read_ended(flight.outcome, options.on_error, reading.method)
