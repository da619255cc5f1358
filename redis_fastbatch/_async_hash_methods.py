"""The methods of AsyncFastBatch for hashes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from redis_fastbatch._arguments import checked_items, progress_of
from redis_fastbatch._async_batches import async_source, write_out
from redis_fastbatch._base_client import Reporting, raise_failures
from redis_fastbatch._engine.commands import PointInTime, Seconds
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._hash_methods import HashClient, HashItems, HashWriting
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, OnChunk, ProgressCallback

AsyncHashItems: TypeAlias = "HashItems | AsyncIterable[tuple[Any, Mapping[Any, Any]]]"


class AsyncHashMethods(HashClient):
    """The methods of AsyncFastBatch for hashes."""

    @abstractmethod
    def _lease(self, max_value_size: int = 0) -> AbstractAsyncContextManager[Any]:
        """Borrow a connection, or the connections of a cluster's nodes, to carry out flights."""

    async def batch_hset(
        self,
        items: AsyncHashItems,
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
    ) -> BatchReport:
        """Write mappings as hashes, as FastBatch.batch_hset() does.

        Args:
            items: as for FastBatch.batch_hset(), or an async iterable of (key, mapping of fields) pairs.
            ex, px, exat, pxat, codec, chunk_size: as for FastBatch.batch_hset().
            progress, on_error, on_chunk: as for FastBatch.batch_hset(). A callable must be a plain function.

        Returns:
            The report of the hashes that were written and of those that failed.

        Raises:
            asyncio.CancelledError: as from batch_set().
            BatchError, ValueError, TypeError, redis.exceptions.RedisError: as from FastBatch.batch_hset().
        """
        items = checked_items(items, asynchronous=True, method="batch_hset")
        writing = HashWriting(ex, px, exat, pxat, codec, chunk_size, on_error, on_chunk)
        report = BatchReport()
        heard = progress_of(items, progress)
        with Reporting(report, heard):
            source = async_source(items)
            async with self._lease() as borrowed:
                flight = self._hset_flight(source or items, writing, report, heard)
                await write_out(borrowed, flight, source)
            if flight.source_error is not None:
                raise flight.source_error
            raise_failures(report, on_error)
        return report
