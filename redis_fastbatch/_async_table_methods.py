"""The methods of AsyncFastBatch for Arrow tables and DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from redis_fastbatch._arguments import checked_keys
from redis_fastbatch._async_batches import LoopPause, async_source, carry_out
from redis_fastbatch._base_client import BaseClient
from redis_fastbatch._engine.commands import PointInTime, Seconds
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.read import read_ended
from redis_fastbatch._transports.capabilities import has_msetex_async
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._typing import AsyncKeys, Key, Table
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, ProgressCallback
from redis_fastbatch.templates import Column, Row

if TYPE_CHECKING:
    import pyarrow as pa


class AsyncTableMethods(BaseClient):
    """The methods of AsyncFastBatch for Arrow tables and DataFrames."""

    @observed("PIPELINE")
    async def batch_execute_table(
        self,
        table: Table,
        command: Sequence[str | bytes | int | float | Column | Row],
        *,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        repeatable: bool = False,
    ) -> BatchReport:
        """Send a command for each row of a table, as FastBatch.batch_execute_table() does.

        Args:
            table: the table. If it is a reader, waiting for its rows blocks the event loop.
            command, chunk_size, progress, on_error, repeatable: as for FastBatch.batch_execute_table().

        Returns:
            The report of what was carried out and what failed.

        Raises:
            The exceptions of FastBatch.batch_execute_table().
        """
        from redis_fastbatch._tables.execute import CommandTableOptions, plan_commands

        options = CommandTableOptions(chunk_size, progress, on_error, repeatable)
        plan = plan_commands(self, table, command, options)
        try:
            async with self._lease() as borrowed:
                flight = plan.flight()
                with flight:
                    await borrowed.run(flight)
            return plan.outcome(flight)
        except BaseException as error:
            plan.attach_report(error)
            raise

    @observed("MSET")
    async def batch_set_table(
        self,
        table: Table,
        *,
        key: str,
        prefix: str | bytes = "",
        columns: Iterable[str] | None = None,
        ex: Seconds | str | None = None,
        px: Seconds | str | None = None,
        exat: PointInTime | str | None = None,
        pxat: PointInTime | str | None = None,
        ex_jitter: float = 0,
        keepttl: bool = False,
        nx: bool = False,
        xx: bool = False,
        codec: AnyCodec | None = None,
        as_: Literal["value", "hash"] = "value",
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
    ) -> BatchReport:
        """Write the rows of anything with `__arrow_c_stream__()`, as FastBatch.batch_set_table() does.

        Args:
            table: the table. If it is a reader, waiting for its rows blocks the event loop.
            key, prefix, columns, codec, as_, chunk_size, progress, on_error: as for FastBatch.batch_set_table().
            ex, px, exat, pxat, ex_jitter, keepttl, nx, xx: as for FastBatch.batch_set_table().

        Returns:
            The report of what was written, skipped and failed.

        Raises:
            The exceptions of FastBatch.batch_set_table().
        """
        from redis_fastbatch._tables.write import TableOptions, plan_table, table_expiry

        expiry = table_expiry(ex, px, exat, pxat, ex_jitter=ex_jitter, keepttl=keepttl, nx=nx, xx=xx)
        plan = plan_table(
            self,
            table,
            TableOptions(key, expiry, prefix, columns, codec, as_, chunk_size, progress, on_error),
        )
        try:
            async with self._lease() as borrowed:
                flight = plan.flight(msetex=plan.wants_msetex and await has_msetex_async(borrowed))
                with flight:
                    await borrowed.run(flight)
            return plan.outcome(flight)
        except BaseException as error:
            plan.attach_report(error)
            raise

    @observed("MGET")
    async def batch_get_table(
        self,
        keys: AsyncKeys[Key],
        *,
        schema: Any = None,
        key: str | None = None,
        as_: Literal["value", "hash"] = "value",
        columns: Iterable[str] | None = None,
    ) -> pa.Table:
        """Read maps or hashes as the rows of a pyarrow.Table, as FastBatch.batch_get_table() does.

        Args:
            keys: an iterable or an async iterable of str, bytes or int.
            schema, key, as_, columns: as for FastBatch.batch_get_table().

        Returns:
            A table with one row for each key, in the order of the keys.

        Raises:
            The exceptions of FastBatch.batch_get_table().
        """
        from redis_fastbatch._tables.read import table_reading

        keys = checked_keys(keys, asynchronous=True)
        reading = table_reading(self, schema, key, as_, columns)
        found: list[Any] = []
        source = async_source(keys)
        with LoopPause(self._pause_gc) as pause:
            async with self._lease(self._max_value_size) as borrowed:
                flight = reading.flight(source or keys, found, pause)
                await carry_out(borrowed, flight, source)
        read_ended(flight.outcome, "raise")
        return reading.table(found)
