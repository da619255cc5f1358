"""The methods of FastBatch for tables and DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from redis_fastbatch._arguments import checked_keys
from redis_fastbatch._base_client import BaseClient
from redis_fastbatch._engine.commands import PointInTime, Seconds
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._typing import Key, Table
from redis_fastbatch.codecs import AnyCodec
from redis_fastbatch.report import BatchReport, ProgressCallback
from redis_fastbatch.templates import Column, Row

if TYPE_CHECKING:
    import pyarrow as pa


class TableMethods(BaseClient):
    """The methods of FastBatch for tables and DataFrames."""

    @observed("PIPELINE")
    def batch_execute_table(
        self,
        table: Table,
        command: Sequence[str | bytes | int | float | Column | Row],
        *,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        repeatable: bool = False,
    ) -> BatchReport:
        """Send a command for each row of a table or DataFrame, without a Python object for any value.

        Args:
            table: anything with `__arrow_c_stream__()`, as for batch_set_table().
            command: a template of the command: its name and its arguments. An argument is col("name") for a
                column, row() for several columns as JSON or MessagePack, a text with columns in braces, such as
                "board:{region}", or the same for all rows. Names of columns in doubled braces are text. Values
                are written as batch_set_table(as_="hash") writes fields.
            chunk_size, progress, repeatable: as for batch_execute().
            on_error: "raise", "report", or a callable that gets (row number, the command as a list of bytes,
                exception) of each failed row. An argument that cannot be written is None there.

        Returns:
            The report of the rows whose command was carried out (`written`) and of those that failed. It names
            rows by their number, which begins at 0. A row fails alone when a column is null, unless its col()
            leaves the argument out, or a value cannot be written.

        Raises:
            EncodeError: before anything is sent: there is no such column, it is of a type that cannot be written,
                or the command is one that batch_execute() refuses.
            BatchError: rows failed, and on_error is "raise".
            TypeError, ValueError: `table` is not a table, or arguments are wrong.
            redis.exceptions.RedisError: as from batch_execute(). This, and what the table's own stream raises, has
                a `report` of what was done until then.
        """
        from redis_fastbatch._tables.execute import CommandTableOptions, plan_commands

        options = CommandTableOptions(chunk_size, progress, on_error, repeatable)
        plan = plan_commands(self, table, command, options)
        try:
            with self._lease() as borrowed:
                flight = plan.flight()
                with flight:
                    borrowed.run(flight)
            return plan.outcome(flight)
        except BaseException as error:
            plan.attach_report(error)
            raise

    @observed("MSET")
    def batch_set_table(
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
        """Write the rows of a table or DataFrame, each under a key of its own.

        Memory is bounded by the table's own batches, however many there are. The GIL is free while rows are
        encoded.

        Args:
            table: anything with `__arrow_c_stream__()`: pyarrow's Table and RecordBatchReader, polars' and
                pandas' DataFrame (where NaN becomes null, as in pyarrow), DuckDB's results. A reader is consumed.
            key: the column whose values are the keys, or a template of columns, such as
                "flight:{carrier}:{number}". These columns hold integers, strings, binaries, decimals, dates or
                times. Of rows with equal keys the last one wins. Text is written in the client's encoding, as
                batch_set() writes keys; a row fails if that cannot encode its key.
            prefix: goes before every key.
            columns: the columns that make up a row's value; all by default, also those of the key.
            ex, px, exat, pxat: as for batch_set(), but instead of a callable the name of a column of integers,
                which has each row's time. A row whose time is null or not positive fails alone.
            ex_jitter, keepttl, nx, xx, chunk_size, progress: as for batch_set().
            codec: "msgpack", "json" or "toolkit-msgpack"; the client's by default.
            as_: "value" stores a row as one value. "hash" stores it as a hash of its fields, as strings that
                other programs read: integers and floats as redis-py writes them, bools as 1 and 0, strings and
                binaries as they are, dates, times and durations in ISO 8601, decimals as str() writes them,
                vectors (fixed_size_list of floats) as the bytes of their floats, which vector search reads.
                Fields that are null are left out. Other fields of a hash that exists stay, as with HSET. EXPIRE
                sets an expiry a round trip after HSET. A row whose EXPIRE fails counts as failed, for that
                reason, though its hash is there. nx, xx and codec have no meaning for hashes.
            on_error: "raise", "report", or a callable that gets (row number, row as a dict, exception) of each
                failed row. Where a date or time cannot be written, the row has Arrow's number; where a text is
                not UTF-8, it has the bytes; another value that cannot be written is None. A row that is null as
                a whole is None.

        Returns:
            What was written, skipped and failed. It names rows by their number, which begins at 0. A row fails
            alone when a column of its key is null or empty, a text is not UTF-8, a map has a key twice, or a date
            is not one that Python has.

        Raises:
            EncodeError: before anything is sent: there is no such column, or it is of a type that cannot be
                written. A hash has no nested values.
            BatchError: rows failed, and on_error is "raise".
            TypeError, ValueError: `table` is not a table, or arguments are wrong.
            redis.exceptions.RedisError: as from batch_set(). This, and what the table's own stream raises, has a
                `report` of what was done until then.
        """
        from redis_fastbatch._tables.write import TableOptions, set_table, table_expiry

        expiry = table_expiry(ex, px, exat, pxat, ex_jitter=ex_jitter, keepttl=keepttl, nx=nx, xx=xx)
        options = TableOptions(key, expiry, prefix, columns, codec, as_, chunk_size, progress, on_error)
        return set_table(self, table, options)

    @observed("MGET")
    def batch_get_table(
        self,
        keys: Iterable[Key],
        *,
        schema: Any = None,
        key: str | None = None,
        as_: Literal["value", "hash"] = "value",
        columns: Iterable[str] | None = None,
    ) -> pa.Table:
        """Read values that are maps, or hashes, as the rows of a table.

        Without a schema a column has the type of its values: int64 (uint64 if a value needs it), float64 (ints
        among floats become floats), bool, string, binary, timestamp[us, UTC] (ns if a value needs it), list,
        struct, or null. A missing field is null. With a schema the table has exactly its columns. Text is then
        read as the dates, times, durations and decimals that batch_set_table() writes as text.

        Args:
            keys: an iterable of str, bytes or int. A missing key gives a row of nulls.
            schema: the wanted columns: a pyarrow.Schema, a dict of each name to its Arrow type or the type's
                name ("int64"), a list of such pairs or of pyarrow.Field, or anything with
                `__arrow_c_schema__()`, such as a polars.Schema.
            key: the name of a column for the keys. It comes first, or where the schema has it. Without a schema
                its type is int64 or uint64 if all keys are such ints, binary if a key is bytes, and string
                otherwise.
            as_: "value" reads values, "hash" hashes. Each field of a hash is text, and is read as the type of
                its column, in the form in which batch_set_table(as_="hash") writes that type. Without a schema
                all columns are strings.
            columns: the names of the fields of hashes that are read; those of the schema by default, and without
                one all fields. The table has them in this order.

        Returns:
            A table with one row for each key, in the order of the keys.

        Raises:
            DecodeError: a value is not a map, a field has another type than the other values of its column, or a
                value or key does not fit the schema, such as a null or a missing key where the column is not
                nullable. It names the key.
            TypeError: `schema` is not a schema, or has a type that values cannot be read as.
            ValueError: the values have a field with the name of the key column, the schema has a name twice, or
                `columns` are not those of the schema.
            redis.exceptions.RedisError: as from batch_get().
        """
        from redis_fastbatch._tables.read import get_table

        keys = checked_keys(keys, method="batch_get_table")
        return get_table(self, keys, schema=schema, key=key, as_=as_, columns=columns)
