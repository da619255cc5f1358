"""The methods of AsyncFastBatch for any commands."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeAlias

import redis.asyncio

from redis_fastbatch._arguments import (
    check_hook,
    checked_chunk_size,
    checked_commands,
    checked_on_error,
    progress_of,
)
from redis_fastbatch._async_batches import PAIRS, async_source, fill, rounds_of, write_with
from redis_fastbatch._base_client import (
    ITER_ROUND,
    NO_CLUSTER_PIPELINE,
    BaseClient,
    Reporting,
    checked_replies,
    counts_all,
    goes_alone,
    parts_of,
    raise_failures,
)
from redis_fastbatch._engine.execute import ExecuteFlight
from redis_fastbatch._engine.options import ExecuteOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import ValueSizes
from redis_fastbatch._transports.asyncio import AsyncLease
from redis_fastbatch._transports.loop_budget import FirstSlices, LoopBudget
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._transports.reply_protocol import Deadlines
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback

AsyncCommands: TypeAlias = "Iterable[tuple[Any, ...] | list[Any]] | AsyncIterable[tuple[Any, ...] | list[Any]]"


class AsyncCommandMethods(BaseClient):
    """The methods of AsyncFastBatch for any commands."""

    _deadlines: Deadlines
    _slices: FirstSlices

    @observed("PIPELINE")
    async def batch_execute(
        self,
        commands: AsyncCommands,
        *,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        on_chunk: OnChunk | None = None,
        repeatable: bool = False,
    ) -> BatchReport:
        """Send any commands, as FastBatch.batch_execute() does.

        Args:
            commands: as for FastBatch.batch_execute(), or an async iterable.
            chunk_size, repeatable: as for FastBatch.batch_execute().
            progress, on_error, on_chunk: as for FastBatch.batch_execute(). A callable must be a plain function.

        Returns:
            The report of what was carried out and what failed.

        Raises:
            asyncio.CancelledError: as from batch_set().
            BatchError, ValueError, TypeError, redis.exceptions.RedisError: as from FastBatch.batch_execute().
        """
        commands = checked_commands(commands, asynchronous=True)
        size, on_error = checked_chunk_size(chunk_size), checked_on_error(on_error)
        check_hook("on_chunk", on_chunk)
        options = ExecuteOptions(size, on_error, on_chunk, repeatable)
        report = BatchReport(item="command")
        display = progress_of(commands, progress)
        with Reporting(report, display):
            await self._execute(commands, options, report, display)
            if report.failed:
                raise_failures(report, on_error)
        return report

    async def _execute(
        self, commands: Any, options: ExecuteOptions, report: BatchReport, display: Progress | None
    ) -> None:
        source = async_source(commands)

        async def begin(borrowed: Any) -> Any:
            if self._may_go_at_once(commands, options, display):
                return await self._execute_at_once(borrowed, commands, options, report)
            return self._execute_flight(source or commands, options, report, display)

        await write_with(self._lease(), begin, source)

    async def _execute_at_once(
        self, borrowed: AsyncLease, commands: Any, options: ExecuteOptions, report: BatchReport
    ) -> ExecuteFlight | None:
        """Send a batch of one short chunk, and return None. Else return a flight that goes on."""
        writer = self._command_writer(commands, options)
        chunk = writer.blank()
        await fill(writer, chunk, self._slices, borrowed)
        if goes_alone(writer, chunk):
            reader = await borrowed.exchange(chunk)
            if reader is not None and reader.skip_all(chunk.replies) and counts_all(chunk, report):
                return None
        return self._execute_on(writer, chunk, options, report, borrowed.begun)

    @observed("PIPELINE")
    async def batch_execute_iter(
        self, commands: AsyncCommands, *, raise_on_error: bool = True
    ) -> AsyncIterator[Any]:
        """Send any commands and yield their replies, as FastBatch.batch_execute_iter() does.

        Args:
            commands: as for FastBatch.batch_execute(), or an async iterable.
            raise_on_error: as for FastBatch.batch_execute_iter().

        Yields:
            The replies in the order of the commands.

        Raises:
            The exceptions of FastBatch.batch_execute_iter().
        """
        commands = checked_commands(commands, asynchronous=True, method="batch_execute_iter")
        sizes, position = ValueSizes(), 0
        async with contextlib.aclosing(rounds_of(commands, ITER_ROUND)) as rounds:
            async for some in rounds:
                for part in parts_of(some):
                    replies: list[Any] = []
                    lost: Exception | None = None
                    try:
                        async with self._lease(self._max_value_size) as borrowed:
                            flight = self._reply_flight(part, replies, sizes, position)
                            await borrowed.run(flight)
                    except Exception as error:
                        lost = error
                    budget = LoopBudget()
                    for index, reply in enumerate(checked_replies(replies, raise_on_error)):
                        if index % PAIRS == 0:
                            await budget.yield_if_spent()
                        yield reply
                    if lost is not None:
                        raise lost
                    position += len(replies)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> redis.asyncio.client.Pipeline:
        """Return a pipeline of redis.asyncio whose commands are packed, sent and read by this package.

        It has all methods of redis.asyncio.client.Pipeline, and the same results and errors. It is an async
        context manager.

        Args:
            transaction, shard_hint: as for FastBatch.pipeline().

        Returns:
            A redis.asyncio.client.Pipeline that uses the client's connection pool and response callbacks.

        Raises:
            ValueError: the client is one of a cluster; see FastBatch.pipeline().
        """
        if self._is_cluster:
            raise ValueError(NO_CLUSTER_PIPELINE)
        from redis_fastbatch._transports.redispy.async_pipeline import AsyncFastPipeline

        client = self._client
        pipeline = AsyncFastPipeline(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        pipeline.deadlines = self._deadlines
        return pipeline
