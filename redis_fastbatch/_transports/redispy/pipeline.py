"""A redis-py pipeline that packs its commands, sends them and reads their replies by the core.

Everything else is redis-py's own: queueing, WATCH and MULTI, retries, scripts, which errors are raised. Where a
pipeline or its connection is not of the kind that this module knows, redis-py does everything.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import hiredis
import redis.connection
from redis.client import EMPTY_RESPONSE, NEVER_DECODE, Pipeline
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

from redis_fastbatch._core.resp.objects import ObjectReader
from redis_fastbatch._core.resp.queue import CommandQueue, PackedCommands
from redis_fastbatch._engine.flight import Event, Send
from redis_fastbatch._engine.pipeline import PipelineFlight, TransactionFlight
from redis_fastbatch._transports.channels import SocketChannel
from redis_fastbatch._transports.queueing import QuickCommands, keep_exact
from redis_fastbatch._transports.redispy import is_utf8
from redis_fastbatch._transports.redispy.sync import known_socket
from redis_fastbatch._transports.redispy.sync_pool import give_back, take_ready

_THEIR_PARSE_RESPONSE = Pipeline.parse_response

STATEFUL = frozenset({"WATCH", "UNWATCH", "DISCARD", "EXEC"})
"""Commands whose replies change the state of a pipeline. redis-py reads them."""

IGNORED = frozenset({"keys", NEVER_DECODE, EMPTY_RESPONSE})
"""Options of commands that response callbacks do not get."""

IGNORED_IN_TRANSACTION = frozenset({"keys"})

READERS_KEPT = 8

_readers: list[ObjectReader] = []


class FastPipeline(QuickCommands, Pipeline):
    """A redis.client.Pipeline whose commands are packed, sent and read by redis_fastbatch."""

    _taken: Any = None
    """A connection that was taken from the pool without the pool's help, and goes back the same way."""

    _failure: BaseException | None = None
    """Why the first attempt has failed, until redis-py knows."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands, and return their results, as redis-py's method does."""
        if self.command_stack and self.connection is None and not self.scripts:
            ready = take_ready(self.connection_pool)
            if ready is not None:
                self.connection, sock = ready
                self._taken = self.connection
                try:
                    results = self._execute_over(sock, raise_on_error)
                except BaseException as error:
                    # redis-py tries again, or raises the error.
                    self._failure = error
                else:
                    self.reset()
                    return results
        return super().execute(raise_on_error)

    def _execute_over(self, sock: socket.socket, raise_on_error: bool) -> list[Any]:
        connection, commands = self.connection, self.command_stack
        between_multi_and_exec: Any = self.transaction
        if between_multi_and_exec or self.explicit_transaction:
            return self._transaction_over(connection, sock, commands, raise_on_error)
        return self._pipeline_over(connection, sock, commands, raise_on_error)

    def reset(self) -> None:  # type: ignore[override]
        """Forget the commands, and give the connection back to the pool."""
        taken = self._taken
        if taken is not None:
            self._taken = None
            if taken is self.connection and not self.watching:
                self.connection = None
                give_back(self.connection_pool, taken, handed_out=False)
        super().reset()

    def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> list[Any]:
        self._raise_failure()
        return self._pipeline_over(connection, None, commands, raise_on_error)

    def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> list[Any]:
        self._raise_failure()
        return self._transaction_over(connection, None, commands, raise_on_error)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _pipeline_over(
        self, connection: Any, sock: socket.socket | None, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        their: Any = super()
        queue = self._queue(connection, sock, commands)
        if queue is None or not STATEFUL.isdisjoint(queue.callbacks):
            return their._execute_pipeline(connection, commands, raise_on_error)  # type: ignore[no-any-return]
        with memoryview(pack(connection, queue, commands, utf8=_packs_utf8(connection))) as view:
            flight = PipelineFlight(view, len(commands), check, queue.undecoded)
            errors = exchange(connection, sock, flight)
        queue.call_back(flight.replies, IGNORED, ResponseError)
        if raise_on_error and (errors or queue.caught):
            their.raise_first_error(commands, flight.replies)
        return flight.replies

    def _transaction_over(
        self, connection: Any, sock: socket.socket | None, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        their: Any = super()
        queue = self._queue(connection, sock, commands)
        if queue is None:
            return their._execute_transaction(connection, commands, raise_on_error)  # type: ignore[no-any-return]
        utf8 = _packs_utf8(connection)
        with memoryview(pack(connection, queue, commands, utf8=utf8, transaction=True)) as view:
            flight = TransactionFlight(view, 1 + len(commands), check)
            errors = exchange(connection, sock, flight)
        response = flight.replies[0]
        if flight.refused or type(response) is not list or len(response) != len(commands):
            replay: Any = Replay(flight, len(commands))
            return their._execute_transaction(replay, commands, raise_on_error)  # type: ignore[no-any-return]
        self.watching = False
        if raise_on_error and errors:
            their.raise_first_error(commands, response)
        queue.call_back(response, IGNORED_IN_TRANSACTION, ())
        return response

    def _queue(self, connection: Any, sock: socket.socket | None, commands: Any) -> CommandQueue | None:
        """Return the commands as the core sends them; None if redis-py must send them."""
        if sock is None and known_socket(connection) is None:
            return None
        return queue_of(self, commands, _THEIR_PARSE_RESPONSE) if _is_known(connection) else None


keep_exact(FastPipeline, Pipeline)


class Replay:
    """Stands for a connection over which a transaction was sent, and gives redis-py the replies that came.

    redis-py handles a transaction that was refused or aborted, as each of its versions does.
    """

    himport_registry = None

    def __init__(self, flight: TransactionFlight, commands: int) -> None:
        self._replies: list[Any] = [b"QUEUED"] * (1 + commands)
        for index, error in flight.refused:
            self._replies[index] = error
        self._replies.append(flight.replies[0])
        self._replies.reverse()

    def pack_commands(self, commands: Any) -> list[bytes]:
        """Return nothing: the commands have been sent."""
        return []

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Do nothing: the commands have been sent."""

    def read_response(self, *_: Any, **__: Any) -> Any:
        """Return the next reply.

        Raises:
            redis.exceptions.ResponseError: it is one.
        """
        reply = self._replies.pop()
        if isinstance(reply, ResponseError):
            raise reply
        return reply


def queue_of(pipeline: Any, commands: Any, parse_response: Any) -> CommandQueue | None:
    """Return a pipeline's commands as the core sends them; None if redis-py must send them.

    Args:
        pipeline: its response callbacks are used.
        commands: the commands.
        parse_response: redis-py's method. A pipeline that has another one reads its replies by that.
    """
    if type(commands) is not list or not commands:
        return None
    if getattr(pipeline.parse_response, "__func__", None) is not parse_response:
        return None
    callbacks = pipeline.response_callbacks
    queue = CommandQueue(commands, callbacks.get, NEVER_DECODE, EMPTY_RESPONSE)
    return queue if queue.regular else None


def pack(
    connection: Any, queue: CommandQueue, commands: list[Any], *, utf8: bool, transaction: bool = False
) -> Any:
    """Return the bytes of commands, as a connection packs them.

    Args:
        connection: packs what the core does not.
        queue: the commands.
        commands: the same commands, as redis-py queues them.
        utf8: the connection packs as redis-py does, and text as UTF-8.
        transaction: put MULTI before and EXEC after them.
    """
    if utf8:
        buffer = PackedCommands(connection.pack_command)
        if transaction:
            buffer.pack(("MULTI",))
        queue.pack(buffer)
        if transaction:
            buffer.pack(("EXEC",))
        return buffer
    arguments = [command[0] for command in commands]
    if transaction:
        arguments = [("MULTI",), *arguments, ("EXEC",)]
    return b"".join(connection.pack_commands(arguments))


def declares_imports(connection: Any) -> bool:
    """Return whether hash imports (HIMPORT) have been declared: then redis-py sends further commands."""
    registry = getattr(connection, "himport_registry", None)
    return registry is not None and registry.revision != 0


def _is_known(connection: Any) -> bool:
    """Return whether a connection packs and parses as redis-py does with hiredis."""
    if not hasattr(connection._parser, "_reader"):
        return False
    return type(connection).pack_commands is AbstractConnection.pack_commands and not declares_imports(connection)


def _packs_utf8(connection: Any) -> bool:
    if type(connection).pack_command is not AbstractConnection.pack_command:
        return False
    packer = connection._command_packer
    if type(packer) is redis.connection.HiredisRespSerializer:
        return True
    return type(packer) is redis.connection.PythonRespSerializer and is_utf8(connection.encoder.encoding)


def exchange(connection: Any, sock: socket.socket | None, flight: PipelineFlight) -> int:
    """Send the commands of a flight, and read their replies.

    Args:
        connection: the connection.
        sock: its socket, if it is ready to be used; None if redis-py is to make the connection ready.
        flight: the commands.

    Returns:
        How many errors there are in the replies.

    Raises:
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as redis-py raises them. The connection is
            closed, as after any other exception, such as KeyboardInterrupt.
    """
    reader = take_reader(connection.encoder)
    try:
        if sock is None or connection.health_check_interval:
            # redis-py checks the connection's health, and connects again if need be.
            first = flight.poll()
            assert isinstance(first, Send)
            connection.send_packed_command([first.chunk])
            flight.finished(first.chunk)
            sock = connection._sock
        with SocketChannel(connection, sock, reader=reader) as channel:
            while (event := flight.poll()) is not Event.DONE:
                if isinstance(event, Send):
                    channel.send(event.chunk, flight)
                    if event.poll_after_send:
                        channel.receive_arrived(flight)
                else:
                    channel.receive(flight)
            channel.finish()
        if connection.health_check_interval:
            connection.next_health_check = _now() + connection.health_check_interval
        errors = reader.errors
    except BaseException:
        connection.disconnect()
        raise
    give_back_reader(reader)
    return errors


def check(reply: Any) -> None:
    """Raise an error reply after which redis-py gives up a connection, such as that of a server that is loading.

    Args:
        reply: a reply that is an exception, or contains some.
    """
    first = reply[0] if isinstance(reply, list) and reply else reply
    if isinstance(first, ConnectionError):
        raise first


def take_reader(encoder: Any) -> ObjectReader:
    """Return a reader that decodes as a connection's encoder does. Most times it is one that was given back."""
    try:
        reader = _readers.pop()
    except IndexError:
        reader = ObjectReader(make_parser=hiredis.Reader, protocol_error=InvalidResponse)
    reader.restart(encoder.encoding if encoder.decode_responses else None, encoder.encoding_errors)
    return reader


def give_back_reader(reader: ObjectReader) -> None:
    """Keep a reader for the next pipeline."""
    if len(_readers) < READERS_KEPT:
        reader.clear()
        _readers.append(reader)


def _now() -> float:
    """Return the time by the clock with which this version of redis-py plans health checks."""
    clock = redis.connection.time  # type: ignore[attr-defined]
    return float(clock() if callable(clock) else time.monotonic())
