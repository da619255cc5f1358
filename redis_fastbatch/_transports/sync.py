"""Moves a flight's bytes over a connection of redis-py's pool.

This is the only file that touches redis-py's private parts. A connection whose ways are known is spoken to
through its socket, without blocking, so that replies are read whenever sending would wait: neither side's
buffer can fill up for good. Any other connection is used through its public methods, with the same results.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from redis import ConnectionPool
from redis.connection import AbstractConnection
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.sentinel import SentinelManagedConnection

from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._engine.flight import Flight
from redis_fastbatch.errors import FastBatchError

logger = logging.getLogger("redis_fastbatch")

DRAIN_SECONDS = 2.0
"""How long after Ctrl-C replies are waited for."""

_WANTS_READ = (BlockingIOError, ssl.SSLWantReadError)
_WANTS_WRITE = (BlockingIOError, ssl.SSLWantWriteError)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# Before redis-py 5.3 a pool asks for the name of the command; since then it warns when given one.
_takes_name = (
    inspect.signature(ConnectionPool.get_connection).parameters["command_name"].default is inspect.Parameter.empty
)
GET_CONNECTION_ARGUMENTS = ("MSET",) if _takes_name else ()


class Channel(Protocol):
    """A connection as a flight uses it."""

    def send(self, chunk: Chunk, flight: Flight) -> None:
        """Sends the whole chunk, taking replies aside when the server does not read on."""

    def receive(self, flight: Flight) -> None:
        """Waits for replies and lets the flight take them."""

    def receive_arrived(self, flight: Flight) -> None:
        """Lets the flight take what replies have arrived; does not wait."""

    def drain(self, flight: Flight) -> None:
        """After Ctrl-C: waits a little for the replies to what has been sent whole."""

    def finish(self) -> None:
        """No reply is outstanding. Push messages that came behind the last one are handed on.

        Raises:
            redis.exceptions.InvalidResponse: a reply came that was not asked for: those before it may have been
                taken for what they were not.
        """


class SocketChannel:
    """Speaks through the socket of a redis-py connection."""

    def __init__(self, connection: Any, max_value_size: int) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._reader = ReplyReader(max_value_size)
        # What was received is where it belongs: False within the lines that see to that.
        self._in_order = True

    def __enter__(self) -> SocketChannel:
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection._sock is self._socket:
            self._socket.settimeout(self._connection.socket_timeout)

    def send(self, chunk: Chunk, flight: Flight) -> None:
        flight.started(chunk)
        with memoryview(chunk) as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self._socket.send(view[sent:] if sent else view)
                except _WOULD_BLOCK as error:
                    self._wait_to_send(error)
                except OSError as error:
                    raise self._lost("writing to", error) from error
        flight.finished(chunk)

    def send_some(self, chunk: Chunk, sent: int) -> int:
        """Sends what the socket takes of a chunk whose first `sent` bytes have left; returns how much it took."""
        with memoryview(chunk) as view:
            try:
                return self._socket.send(view[sent:])
            except _WOULD_BLOCK:
                return 0
            except OSError as error:
                raise self._lost("writing to", error) from error

    def has_pending(self) -> bool:
        """Whether TLS has decrypted more than was taken: that no poll tells."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _wait_to_send(self, reason: OSError) -> None:
        readable, _ = self._wait(write=not isinstance(reason, ssl.SSLWantReadError))
        if readable:
            self._receive_some()

    def receive(self, flight: Flight) -> None:
        while not self._receive_some():
            self._wait(write=False)
        self._take(flight)

    def receive_arrived(self, flight: Flight) -> None:
        if self._receive_some():
            self._take(flight)

    def finish(self) -> None:
        while not self._reader.finished():
            if not self._receive_some():
                self._wait(write=False)
        if self._reader.pushes:
            self._hand_on_pushes()

    def drain(self, flight: Flight) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while flight.owed and self._in_order and time.monotonic() < deadline:
            if self._receive_some():
                self._take(flight)
            else:
                _wait_for(self._socket, False, max(0.0, deadline - time.monotonic()))

    def _take(self, flight: Flight) -> None:
        self._in_order = False
        flight.take(self._reader, self.explain)
        self._in_order = True
        if self._reader.pushes:
            self._hand_on_pushes()

    def _receive_some(self) -> bool:
        """Takes what has arrived; False when nothing has."""
        in_order, self._in_order = self._in_order, False
        try:
            with self._reader.free_space() as free:
                size = self._socket.recv_into(free)
        except _WOULD_BLOCK:
            self._in_order = in_order
            return False
        except OSError as error:
            raise self._lost("reading from", error) from error
        if size == 0:
            raise ConnectionError("Connection closed by server.")
        self._reader.received(size)
        self._in_order = in_order
        return True

    def _wait(self, *, write: bool) -> tuple[bool, bool]:
        """Waits until the socket can be read, or be written if asked; socket_timeout bounds it."""
        timeout = self._connection.socket_timeout
        readable, writable = _wait_for(self._socket, write, timeout)
        if not readable and not writable:
            raise TimeoutError(f"no answer from the server within socket_timeout, {timeout} seconds")
        return readable, writable

    def _lost(self, doing: str, error: OSError) -> ConnectionError:
        return ConnectionError(f"Error while {doing} socket: {error}")

    def explain(self, reply: ErrorReply) -> Exception:
        """An error reply as the exception that redis-py makes of it."""
        error: Exception = self._connection._parser.parse_error(str(reply))
        if isinstance(error, ReadOnlyError) and _is_sentinel_master(self._connection):
            # As redis-py does it: the connection is closed, and asks Sentinel for the new master.
            raise ConnectionError("The previous master is now a slave") from error
        return error

    def _hand_on_pushes(self) -> None:
        """RESP3 push messages go to the handlers that redis-py or the user registered."""
        handle = getattr(self._connection._parser, "handle_push_response", None)
        for push in self._reader.pushes:
            if handle is None or "push_request" in inspect.signature(handle).parameters:
                logger.debug("a push message was left alone: this redis-py has no handlers for it")
            else:
                handle(push)
        self._reader.pushes.clear()


class PublicChannel:
    """Speaks through the public methods of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> PublicChannel:
        return self

    def __exit__(self, *_: object) -> None:
        """The connection was never changed."""

    def send(self, chunk: Chunk, flight: Flight) -> None:
        flight.started(chunk)
        self._connection.send_packed_command([bytes(memoryview(chunk))])
        flight.finished(chunk)

    def receive(self, flight: Flight) -> None:
        try:
            reply = self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            reply = error
        flight.take_reply(reply)

    def receive_arrived(self, flight: Flight) -> None:
        while flight.in_flight and self._connection.can_read(timeout=0):
            self.receive(flight)

    def drain(self, flight: Flight) -> None:
        """Whether redis-py was interrupted within a reply is not known: nothing more is read."""

    def finish(self) -> None:
        """redis-py has taken no more than it was asked for."""


def _wait_for(sock: socket.socket, write: bool, timeout: float | None) -> tuple[bool, bool]:
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True, False
    if not hasattr(select, "poll"):
        readable, writable, _ = select.select([sock], [sock] if write else [], [], timeout)
        return bool(readable), bool(writable)
    poller = select.poll()
    poller.register(sock, select.POLLIN | (select.POLLOUT if write else 0))
    for _, event in poller.poll(None if timeout is None else timeout * 1000):
        # An error or hang-up shows when the socket is read.
        return bool(event & ~select.POLLOUT), bool(event & select.POLLOUT)
    return False, False


class Watch:
    """Waits for several channels at the same time."""

    def __init__(self) -> None:
        self._poller = select.poll() if hasattr(select, "poll") else None
        self._channels: dict[int, SocketChannel] = {}
        self._writing: set[int] = set()
        self._tls = False

    def add(self, channel: SocketChannel) -> None:
        """From here on wait() says when it can be read."""
        number = channel._socket.fileno()
        self._channels[number] = channel
        self._tls |= isinstance(channel._socket, ssl.SSLSocket)
        if self._poller is not None:
            self._poller.register(number, select.POLLIN)

    def remove(self, channel: SocketChannel) -> None:
        """Its connection is closed or given back."""
        number = next((number for number, one in self._channels.items() if one is channel), None)
        if number is None:
            # Ctrl-C came before it was added.
            return
        del self._channels[number]
        self._writing.discard(number)
        if self._poller is not None:
            self._poller.unregister(number)

    def writing(self, channel: SocketChannel, wanted: bool) -> None:
        """Whether wait() is to end when it can be written."""
        number = channel._socket.fileno()
        if wanted == (number in self._writing):
            return
        if wanted:
            self._writing.add(number)
        else:
            self._writing.discard(number)
        if self._poller is not None:
            self._poller.modify(number, select.POLLIN | (select.POLLOUT if wanted else 0))

    def wait(self, timeout: float | None) -> list[SocketChannel]:
        """Waits until something happens, for `timeout` seconds at most; None for no limit.

        Returns:
            The channels that can be read.
        """
        if self._tls:
            pending = [one for one in self._channels.values() if one.has_pending()]
            if pending:
                return pending
        if self._poller is None:
            readable, _, _ = select.select(list(self._channels), list(self._writing), [], timeout)
            return [self._channels[number] for number in readable]
        events = self._poller.poll(None if timeout is None else timeout * 1000)
        # An error or hang-up shows when the socket is read.
        return [self._channels[number] for number, event in events if event & ~select.POLLOUT]


def _is_sentinel_master(connection: Any) -> bool:
    return isinstance(connection, SentinelManagedConnection) and bool(connection.connection_pool.is_master)


def _without_cache(connection: Any) -> Any:
    """The connection under redis-py's client-side cache, which nothing of a batch goes through: the proxy before
    it would take our replies for those of the command it saw last. It still hears of what became invalid."""
    inner = getattr(connection, "_conn", None)
    if not isinstance(inner, AbstractConnection):
        return connection
    # What became invalid meanwhile. Left in the parser, each message would cost a level of recursion.
    while inner.can_read(timeout=0):
        inner.read_response(push_request=True)
    return inner


def _is_known(connection: Any) -> bool:
    """Whether this is a connection whose socket may be used: redis-py's own reading and writing, nothing
    received that redis-py's parser holds back."""
    kind = type(connection)
    if not isinstance(connection, AbstractConnection) or not isinstance(connection._sock, socket.socket):
        return False
    if kind.send_packed_command is not AbstractConnection.send_packed_command:
        return False
    if kind.read_response not in (
        AbstractConnection.read_response,
        SentinelManagedConnection.read_response,
    ):
        return False
    parser = connection._parser
    if hasattr(parser, "_reader"):
        return not parser._reader.has_data()
    return hasattr(parser, "_buffer") and not parser._buffer.unread_bytes()


class _ProgressMade(Exception):
    """A connection was lost after replies had come over it: retrying begins to count anew."""


class _Final(BaseException):
    """Nothing is tried again after the error that this carries, whatever errors the caller's Retry is for."""


class Attempts:
    """What retrying a flight means, whoever moves its bytes. The waiting is redis-py's Retry's.

    Args:
        flight: what is carried out, perhaps over several connections one after the other.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._settled = flight.settled
        self._seed: BaseException | None = None

    def begin(self) -> None:
        """An attempt begins. Raises the error that ended the one before, for a Retry that has begun anew."""
        if self._seed is not None:
            error, self._seed = self._seed, None
            raise error
        self._settled = self._flight.settled

    def failed(self, error: Exception) -> BaseException:
        """What to tell the Retry of an attempt that raised `error`: that itself, or what verdict() knows."""
        lost = isinstance(error, (ConnectionError, TimeoutError)) and not self._flight.hook_raised
        if not lost or not self._flight.interrupted():
            return _Final(error)
        if self._flight.settled > self._settled:
            return _ProgressMade(error)
        return error

    def verdict(self, error: BaseException) -> BaseException | None:
        """What to give up with after the Retry raised `error`; None to let it begin anew."""
        if isinstance(error, _ProgressMade):
            self._seed = error.args[0]
            return None
        if isinstance(error, BusyLoadingError) and self._flight.patient:
            self._flight.patient = False
            return None
        if isinstance(error, _Final):
            return error.args[0]  # type: ignore[no-any-return]
        return error


def check_not_forked(pid: int) -> None:
    """Refuses to go on with a batch in a child that came of its source or hooks: its sockets are the parent's too.

    Args:
        pid: of the process that began the batch.
    """
    if os.getpid() != pid:
        raise FastBatchError("the process was forked amid the batch, which its parent goes on with")


class Lease:
    """A connection borrowed from a client's pool, with the retry policy that it carries.

    Args:
        client: a redis.Redis.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.
    """

    def __init__(self, client: Any, connection: Any, max_value_size: int = 0) -> None:
        self.client = client
        self.connection = connection
        self._max_value_size = max_value_size
        self._pid = os.getpid()

    def run(self, flight: Flight) -> None:
        """Carries out a flight, over a new connection where the retry policy allows one.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: after the last retry, or at once
                where what was under way may not be repeated.
        """
        attempts = Attempts(flight)

        def attempt() -> None:
            attempts.begin()
            try:
                self._pump(flight)
            except Exception as error:
                raise attempts.failed(error) from error.__cause__

        while True:
            try:
                self.connection.retry.call_with_retry(attempt, lambda error: self.connection.disconnect())
                return
            except BaseException as error:
                final = attempts.verdict(error)
                if final is None:
                    continue
                self.connection.disconnect()
                flight.abandon(final)
                if final is error:
                    raise
            # Out here what it was raised from stays what it was.
            raise final

    def _pump(self, flight: Flight) -> None:
        with self.channel() as channel:
            try:
                self._carry(flight, channel)
                channel.finish()
            except Exception:
                raise
            except BaseException:
                # Ctrl-C and the like. What the server has it will carry out: the report should say so.
                try:
                    channel.drain(flight)
                except (RedisError, OSError) as error:
                    logger.debug("no further replies after an interruption: %s", error)
                raise

    def _carry(self, flight: Flight, channel: Channel) -> None:
        while not flight.done:
            chunk = flight.next_chunk()
            check_not_forked(self._pid)
            if chunk is not None:
                channel.send(chunk, flight)
                if flight.late:
                    channel.receive_arrived(flight)
            elif flight.in_flight:
                channel.receive(flight)

    def channel(self) -> Any:
        """The connection, connected, as a flight uses it; a context manager."""
        self.connection.connect()
        self.connection.check_health()
        connection = _without_cache(self.connection)
        if _is_known(connection):
            return SocketChannel(connection, self._max_value_size)
        return PublicChannel(connection)

    def ask(self, *command: str) -> Any:
        """One command and its reply, as the connection's own methods send and read them.

        Raises:
            redis.exceptions.ResponseError: the server refused it.
        """
        ask = functools.partial(self._ask, command)
        return self.connection.retry.call_with_retry(ask, lambda error: self.connection.disconnect())

    def _ask(self, command: tuple[str, ...]) -> Any:
        try:
            self.connection.send_command(*command)
            return self.connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except BaseException:
            # Such as Ctrl-C between the two: the reply would be taken for that to the next command.
            self.connection.disconnect()
            raise


def is_cluster(client: Any) -> bool:
    """Whether this is a client of a cluster, synchronous or asyncio."""
    return hasattr(client, "nodes_manager")


def _taken_from(pool: Any) -> Any:
    try:
        return pool.get_connection(*GET_CONNECTION_ARGUMENTS)
    except Exception:
        raise
    except BaseException:
        # Ctrl-C while redis-py was connecting: it puts the connection back, whose replies may still be to come.
        pool.disconnect(inuse_connections=False)
        raise


_lent: dict[int, Any] = {}
"""Who has the only connection of a client, while a batch needs it for itself."""


def check_free(connection: Any, taker: Any) -> None:
    """Refuses the only connection of a client to whoever has it already: a batch's source, or a hook.

    Raises:
        FastBatchError: what is sent amid a batch would have the replies to the batch's commands.
    """
    if _lent.get(id(connection)) == taker:
        raise FastBatchError(
            "the client has a single connection, which a batch is using: its source and its hooks need another"
        )


@contextlib.contextmanager
def lent(connection: Any, taker: Any) -> Iterator[None]:
    """Within it, the only connection of a client is somebody's."""
    _lent[id(connection)] = taker
    try:
        yield
    finally:
        _lent.pop(id(connection), None)


_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


def _renew(connection: Any) -> None:
    """Closes an only connection that was idle when the server's end came, or a reply that nobody asked for, which
    would be taken for the answer to what is asked next. Of its pools redis-py sees to that."""
    sock = getattr(connection, "_sock", None)
    if not isinstance(sock, socket.socket) or not any(_wait_for(sock, False, 0.0)):
        return
    try:
        # TLS cannot be looked into.
        first = b"" if isinstance(sock, ssl.SSLSocket) else sock.recv(1, socket.MSG_PEEK)
    except OSError:
        first = b""
    # A push message is for redis-py to read.
    if first != b">":
        connection.disconnect()


@contextlib.contextmanager
def lease(client: Any, max_value_size: int = 0) -> Iterator[Lease]:
    """Borrows a connection of the client's pool, or the one connection of a single-connection client.

    For a RedisCluster it gives a ClusterLease, which borrows of each node what it needs.
    """
    if is_cluster(client):
        from redis_fastbatch._cluster.sync import ClusterLease

        yield ClusterLease(client, max_value_size)  # type: ignore[misc]
        return
    if client.connection is not None:
        # redis-py has a lock of its own from 5.3 on.
        lock = getattr(client, "single_connection_lock", None) or _locks.setdefault(client, threading.RLock())
        taker = threading.get_ident()
        check_free(client.connection, taker)
        with lock, lent(client.connection, taker):
            _renew(client.connection)
            yield Lease(client, client.connection, max_value_size)
        return
    pool = client.connection_pool
    connection = _taken_from(pool)
    try:
        yield Lease(client, connection, max_value_size)
    finally:
        pool.release(connection)
