"""The methods of FastBatch for any commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import redis

from redis_fastbatch._arguments import (
    check_hook,
    checked_chunk_size,
    checked_commands,
    checked_on_error,
    progress_of,
)
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
from redis_fastbatch._batches import write_with
from redis_fastbatch._engine.execute import ExecuteFlight
from redis_fastbatch._engine.flight import NO_LIMIT
from redis_fastbatch._engine.options import ExecuteOptions
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._engine.pacing import Slices, ValueSizes
from redis_fastbatch._transports.redispy.telemetry import observed
from redis_fastbatch._transports.sync import Lease
from redis_fastbatch.report import BatchReport, OnChunk, Progress, ProgressCallback

AnyCommand = tuple[Any, ...] | list[Any]


class CommandMethods(BaseClient):
    """The methods of FastBatch for any commands."""

    @observed("PIPELINE")
    def batch_execute(
        self,
        commands: Iterable[AnyCommand],
        *,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
        on_chunk: OnChunk | None = None,
        repeatable: bool = False,
    ) -> BatchReport:
        """Send any commands, and send while encoding. Memory stays bounded for any number of commands.

        Replies are only counted. batch_execute_iter() returns them.

        Args:
            commands: an iterable of commands, such as a generator. Each is a tuple or list of its name and
                arguments, such as ("ZADD", "board", 5, "amina"). Arguments are str, bytes, int or float, and are
                sent as redis-py sends them.
            chunk_size: the most commands that are sent at a time; by default 1,000, or fewer if they are large.
            progress: True for a progress bar on a terminal, or a callable (commands done, total or None).
            on_error: "raise" raises BatchError after all other commands were carried out; "report" leaves failures
                to the report; a callable is called with (position, command, exception) for each failed command.
                The first command has position 0.
            on_chunk: called with the ChunkStats of each chunk of commands when all its replies have arrived.
            repeatable: commands whose outcome is unknown, because the connection was lost, may be sent again. Set
                it only if carrying out a command twice does no harm, as with SET, HSET, SADD or ZADD.

        Returns:
            The report of the commands that were carried out (`written`) and of those that failed. Its `failures`
            have the positions of commands as keys.

        Raises:
            BatchError: commands failed, and on_error is "raise". Its `report` names them.
            TypeError, ValueError: arguments have a wrong type. A command that cannot be encoded fails alone.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: the connection was lost. Its `report`
                says which commands have an unknown outcome. These, and exceptions that `commands` raises, have a
                `report` of what was done until then.

        These commands fail because they would change the connection or its replies: those of transactions, of
        publishing and subscribing, SELECT, AUTH, HELLO, RESET, QUIT, MONITOR and CLIENT REPLY. Over a cluster, a
        command fails if it has no key, or keys of several slots.
        """
        commands = checked_commands(commands)
        size, on_error = checked_chunk_size(chunk_size), checked_on_error(on_error)
        check_hook("on_chunk", on_chunk)
        options = ExecuteOptions(size, on_error, on_chunk, repeatable)
        report = BatchReport(item="command")
        display = progress_of(commands, progress)

        with Reporting(report, display):
            self._execute(commands, options, report, display)
            if report.failed:
                raise_failures(report, on_error)
        return report

    def _execute(
        self, commands: Any, options: ExecuteOptions, report: BatchReport, display: Progress | None
    ) -> None:
        def begin(borrowed: Any) -> Any:
            if self._may_go_at_once(commands, options, display):
                return self._execute_at_once(borrowed, commands, options, report)
            return self._execute_flight(commands, options, report, display)

        write_with(self._lease(), begin)

    def _execute_at_once(
        self, borrowed: Lease, commands: Any, options: ExecuteOptions, report: BatchReport
    ) -> ExecuteFlight | None:
        """Send a batch that is one short chunk, and return None. Else return a flight that goes on."""
        writer = self._command_writer(commands, options)
        chunk = writer.blank()
        writer.fill_some(chunk, NO_LIMIT)
        if goes_alone(writer, chunk):
            reader = borrowed.exchange(chunk)
            if reader is not None and reader.skip_all(chunk.replies) and counts_all(chunk, report):
                return None
        return self._execute_on(writer, chunk, options, report, borrowed.begun)

    @observed("PIPELINE")
    def batch_execute_iter(self, commands: Iterable[AnyCommand], *, raise_on_error: bool = True) -> Iterator[Any]:
        """Send any commands and yield their replies, in bounded memory.

        Between replies no connection is held. Commands are sent before the replies to those before them are taken
        from the iterator: up to 4,000 of them.

        Args:
            commands: as for batch_execute().
            raise_on_error: raise the first error in the place of its reply. Otherwise errors are yielded, as
                exceptions.

        Yields:
            The replies in the order of the commands, as the server sends them: bytes, int, float, bool, None,
            lists and dicts, without redis-py's response callbacks. Strings are decoded if the client has
            `decode_responses`.

        Raises:
            redis.exceptions.ResponseError: a command was refused; the message says its position and its
                arguments. Commands after it may have been carried out.
            EncodeError: a command cannot be encoded, or is one that batch_execute() refuses.
            DecodeError: a reply is longer than `max_value_size`, or cannot be decoded.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: the connection was lost. The replies
                that had come were yielded before. No command is sent again.
        """
        source = Slices(checked_commands(commands, method="batch_execute_iter"))
        sizes, position = ValueSizes(), 0
        for some in source.rounds(ITER_ROUND):
            for part in parts_of(some):
                replies: list[Any] = []
                flight = self._reply_flight(part, replies, sizes, position)
                try:
                    with self._lease(self._max_value_size) as borrowed:
                        borrowed.run(flight)
                except Exception:
                    yield from checked_replies(replies, raise_on_error)
                    raise
                yield from checked_replies(replies, raise_on_error)
                position += len(replies)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> redis.client.Pipeline:
        """Return a pipeline of redis-py whose commands are packed, sent and read by this package.

        It has all methods of redis.client.Pipeline, and the same results and errors. It is a context manager.

        Args:
            transaction: send the commands between MULTI and EXEC, so that no other client's come between them.
            shard_hint: as for redis.Redis.pipeline().

        Returns:
            A redis.client.Pipeline that uses the client's connection pool and response callbacks.

        Raises:
            ValueError: the client is one of a cluster. batch_execute() and batch_execute_iter() work over a
                cluster, and so does the client's own pipeline().
        """
        if self._is_cluster:
            raise ValueError(NO_CLUSTER_PIPELINE)
        from redis_fastbatch._transports.redispy.pipeline import FastPipeline

        return FastPipeline(self._client.connection_pool, self._client.response_callbacks, transaction, shard_hint)
