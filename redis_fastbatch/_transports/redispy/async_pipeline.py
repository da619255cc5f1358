"""A redis.asyncio pipeline that packs its commands, sends them and reads their replies by the core.

See pipeline.py, which does the same for redis.client.Pipeline.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from redis_fastbatch._core.resp.queue import CommandQueue
from redis_fastbatch._engine.flight import Event, Send
from redis_fastbatch._engine.pipeline import PipelineFlight, TransactionFlight
from redis_fastbatch._transports.async_channels import TransportChannel
from redis_fastbatch._transports.loop_budget import LoopBudget
from redis_fastbatch._transports.queueing import QuickCommands, keep_exact
from redis_fastbatch._transports.redispy import is_utf8
from redis_fastbatch._transports.redispy.async_pool import give_back, take_ready
from redis_fastbatch._transports.redispy.asyncio import check_loop, known_transport
from redis_fastbatch._transports.redispy.pipeline import (
    IGNORED,
    IGNORED_IN_TRANSACTION,
    STATEFUL,
    Replay,
    check,
    declares_imports,
    give_back_reader,
    pack,
    queue_of,
    take_reader,
)
from redis_fastbatch._transports.reply_protocol import Deadlines

REPLIES_AT_A_TIME = 1000
"""How many replies are read before other tasks of the event loop may run."""

_THEIR_PARSE_RESPONSE = Pipeline.parse_response


class AsyncFastPipeline(QuickCommands, Pipeline):  # type: ignore[misc]
    """A redis.asyncio.client.Pipeline whose commands are packed, sent and read by redis_fastbatch.

    Attributes:
        deadlines: ends waits that last too long; if it is None, each has a timer of its own.
    """

    deadlines: Deadlines | None = None

    _taken: Any = None
    """A connection that was taken from the pool without the pool's help, and goes back the same way."""

    _failure: BaseException | None = None
    """Why the first attempt has failed, until redis-py knows."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands, and return their results, as redis-py's method does."""
        if self.command_stack and self.connection is None and not self.scripts:
            ready = take_ready(self.connection_pool)
            if ready is not None:
                self.connection, transport = ready
                self._taken = self.connection
                try:
                    results = await self._execute_over(transport, raise_on_error)
                except BaseException as error:
                    # redis-py tries again, or raises the error.
                    self._failure = error
                else:
                    await self.reset()
                    return results
        return await super().execute(raise_on_error)

    async def _execute_over(self, transport: asyncio.Transport, raise_on_error: bool) -> list[Any]:
        connection, commands = self.connection, self.command_stack
        if self.is_transaction or self.explicit_transaction:
            return await self._transaction_over(connection, transport, commands, raise_on_error)
        return await self._pipeline_over(connection, transport, commands, raise_on_error)

    async def reset(self) -> None:  # type: ignore[override]
        """Forget the commands, and give the connection back to the pool."""
        taken = self._taken
        if taken is not None:
            self._taken = None
            if taken is self.connection and not self.watching and give_back(self.connection_pool, taken):
                self.connection = None
        await super().reset()  # type: ignore[no-untyped-call]

    async def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> list[Any]:
        self._raise_failure()
        return await self._pipeline_over(connection, None, commands, raise_on_error)

    async def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> list[Any]:
        self._raise_failure()
        return await self._transaction_over(connection, None, commands, raise_on_error)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _pipeline_over(
        self, connection: Any, transport: asyncio.Transport | None, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        their: Any = super()
        queue = await self._queue(connection, transport, commands)
        if queue is None or not STATEFUL.isdisjoint(queue.callbacks):
            return await their._execute_pipeline(connection, commands, raise_on_error)  # type: ignore[no-any-return]
        with memoryview(pack(connection, queue, commands, utf8=_packs_utf8(connection))) as view:
            flight = PipelineFlight(view, len(commands), check, queue.undecoded)
            errors = await exchange(connection, transport, flight, self.deadlines)
        replies = flight.replies
        for i in queue.call_back(replies, IGNORED, ResponseError, inspect.isawaitable):
            try:
                replies[i] = await replies[i]
            except ResponseError as error:
                replies[i] = error
                errors += 1
        if raise_on_error and (errors or queue.caught):
            their.raise_first_error(commands, replies)
        return replies

    async def _transaction_over(
        self, connection: Any, transport: asyncio.Transport | None, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        their: Any = super()
        queue = await self._queue(connection, transport, commands)
        if queue is None:
            return await their._execute_transaction(connection, commands, raise_on_error)  # type: ignore[no-any-return]
        utf8 = _packs_utf8(connection)
        with memoryview(pack(connection, queue, commands, utf8=utf8, transaction=True)) as view:
            flight = TransactionFlight(view, 1 + len(commands), check)
            errors = await exchange(connection, transport, flight, self.deadlines)
        response = flight.replies[0]
        if flight.refused or type(response) is not list or len(response) != len(commands):
            replay: Any = _AsyncReplay(flight, len(commands))
            return await their._execute_transaction(replay, commands, raise_on_error)  # type: ignore[no-any-return]
        self.watching = False
        if raise_on_error and errors:
            their.raise_first_error(commands, response)
        for i in queue.call_back(response, IGNORED_IN_TRANSACTION, (), inspect.isawaitable):
            response[i] = await response[i]
        return response

    async def _queue(
        self, connection: Any, transport: asyncio.Transport | None, commands: Any
    ) -> CommandQueue | None:
        """Return the commands as the core sends them; None if redis-py must send them."""
        if transport is None:
            if not _is_connected(connection) or not _is_known(connection):
                return None
            # redis-py does this before it sends. It may connect again.
            await connection.check_health()
            if not _is_connected(connection):
                return None
        return queue_of(self, commands, _THEIR_PARSE_RESPONSE) if _is_known(connection) else None


keep_exact(AsyncFastPipeline, Pipeline)


class _AsyncReplay:
    """A Replay for redis.asyncio."""

    himport_registry = None

    def __init__(self, flight: TransactionFlight, commands: int) -> None:
        self._replay = Replay(flight, commands)

    def pack_commands(self, commands: Any) -> list[bytes]:
        """Return nothing: the commands have been sent."""
        return []

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Do nothing: the commands have been sent."""

    async def read_response(self, *_: Any, **__: Any) -> Any:
        """Return the next reply, as Replay.read_response() does."""
        return self._replay.read_response()


def _is_connected(connection: Any) -> bool:
    """Return whether a connection is open, and its transport may be used directly."""
    connected = isinstance(connection, AbstractConnection) and connection.is_connected
    return connected and known_transport(connection) is not None


def _is_known(connection: Any) -> bool:
    """Return whether a connection packs and parses as redis-py does with hiredis."""
    if not hasattr(connection._parser, "_reader"):
        return False
    return type(connection).pack_commands is AbstractConnection.pack_commands and not declares_imports(connection)


def _packs_utf8(connection: Any) -> bool:
    own = type(connection).pack_command is AbstractConnection.pack_command
    return own and is_utf8(connection.encoder.encoding)


async def exchange(
    connection: Any, transport: asyncio.Transport | None, flight: PipelineFlight, deadlines: Deadlines | None
) -> int:
    """Send the commands of a flight, and read their replies.

    Args:
        connection: the connection, which is ready to be used.
        transport: its transport; None if it is to be found.
        flight: the commands.
        deadlines: as for TransportChannel.

    Returns:
        How many errors there are in the replies.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as redis-py raises them. The connection is
            closed, as after any other exception, such as asyncio.CancelledError.
    """
    if transport is None:
        check_loop(connection)
        transport = known_transport(connection)
        assert transport is not None
    reader = take_reader(connection.encoder)
    budget = LoopBudget()
    try:
        async with TransportChannel(connection, transport, reader=reader, deadlines=deadlines) as channel:
            while (event := flight.poll()) is not Event.DONE:
                if isinstance(event, Send):
                    await channel.send(event.chunk, flight)
                    if event.poll_after_send:
                        channel.receive(flight, REPLIES_AT_A_TIME)
                elif not channel.receive(flight, REPLIES_AT_A_TIME):
                    await channel.arrival()
                    budget.renew()
                await budget.yield_if_spent()
            await channel.finish()
        if connection.health_check_interval:
            now = asyncio.get_running_loop().time()
            connection.next_health_check = now + connection.health_check_interval
        errors = reader.errors
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    give_back_reader(reader)
    return errors
