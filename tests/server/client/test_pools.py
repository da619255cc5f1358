"""A batch takes its connection from redis-py's pool and gives it back, as redis-py's own commands do."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.connection import BlockingConnectionPool, ConnectionPool

from redis_fastbatch import FastBatch
from redis_fastbatch._transports.redispy import sync
from redis_fastbatch.server import EmbeddedServer


@pytest.fixture
def pool(valkey: EmbeddedServer) -> Iterator[ConnectionPool]:
    """A pool with one connection, which is open and free."""
    pool = ConnectionPool(host=valkey.host, port=valkey.port, max_connections=1)
    redis.Redis(connection_pool=pool).flushall()
    yield pool
    pool.disconnect()


def in_use_within_a_batch(fast: FastBatch) -> int:
    """Return how many connections are in use while a batch is under way."""
    pool, seen = fast.client.connection_pool, []

    def items() -> Iterator[tuple[str, int]]:
        yield "a", 1
        seen.append(len(pool._in_use_connections))

    fast.batch_set(items())
    return seen[0]


def test_a_batch_uses_the_free_connection_and_gives_it_back(pool: ConnectionPool) -> None:
    fast, before = FastBatch(redis.Redis(connection_pool=pool)), list(pool._available_connections)
    assert in_use_within_a_batch(fast) == 1
    fast.batch_set({"a": 1})
    assert fast.batch_get(["a"]) == {"a": 1}
    assert pool._available_connections == before
    assert not pool._in_use_connections
    assert pool._created_connections == 1


def test_no_more_connections_than_allowed_are_made(pool: ConnectionPool) -> None:
    fast, connection = FastBatch(redis.Redis(connection_pool=pool)), pool.get_connection()
    with pytest.raises(redis.ConnectionError, match="Too many connections"):
        fast.batch_set({"a": 1})
    pool.release(connection)
    assert fast.batch_set({"a": 1}).written == 1


def test_a_connection_that_the_server_closed_is_not_used(pool: ConnectionPool, valkey: EmbeddedServer) -> None:
    fast = FastBatch(redis.Redis(connection_pool=pool, retry=None))
    for call in (lambda: fast.batch_set({"a": 1}).written, lambda: len(fast.batch_get(["a"]))):
        number = fast.client.client_id()
        with valkey.client() as other:
            assert other.client_kill_filter(_id=str(number)) == 1
        assert call() == 1
        assert fast.client.client_id() != number


def test_a_reply_that_nobody_read_is_not_taken_for_ours(pool: ConnectionPool) -> None:
    fast = FastBatch(redis.Redis(connection_pool=pool))
    fast.batch_set({"a": 1})
    connection = pool.get_connection()
    connection.send_command("ECHO", "another reply")
    assert select.select([connection._sock], [], [], 10)[0]
    pool.release(connection)
    assert fast.batch_get(["a"]) == {"a": 1}


@pytest.mark.parametrize("method", ["get_connection", "release"])
def test_a_pool_with_methods_of_its_own_is_asked(valkey: EmbeddedServer, method: str) -> None:
    calls: list[str] = []

    class CountingPool(ConnectionPool):
        pass

    def counted(self: Any, *arguments: Any) -> Any:
        calls.append(method)
        return getattr(ConnectionPool, method)(self, *arguments)

    setattr(CountingPool, method, counted)
    fast = FastBatch(redis.Redis(connection_pool=CountingPool(host=valkey.host, port=valkey.port)))
    fast.batch_set({"a": 1})
    calls.clear()
    fast.batch_get(["a"])
    assert calls == [method]
    fast.client.connection_pool.disconnect()


def test_a_blocking_pool_makes_batches_wait(valkey: EmbeddedServer) -> None:
    pool = BlockingConnectionPool(host=valkey.host, port=valkey.port, max_connections=1, timeout=0.1)
    fast = FastBatch(redis.Redis(connection_pool=pool))
    connection = pool.get_connection()
    with pytest.raises(redis.ConnectionError):
        fast.batch_set({"a": 1})
    pool.release(connection)
    assert fast.batch_set({"a": 1}).written == 1
    pool.disconnect()


def test_listeners_hear_of_a_released_connection(pool: ConnectionPool) -> None:
    event = pytest.importorskip("redis.event", reason="events not installed: they need redis-py 5.3")
    received: list[Any] = []

    class Listener(event.EventListenerInterface):  # type: ignore[misc, name-defined]
        def listen(self, event: Any) -> None:
            received.append(event.connection)

    fast = FastBatch(redis.Redis(connection_pool=pool))
    pool._event_dispatcher.register_listeners({event.AfterConnectionReleasedEvent: [Listener()]})
    fast.batch_set({"a": 1})
    assert received == pool._available_connections


def test_a_new_token_is_sent_after_the_batch(pool: ConnectionPool) -> None:
    token = pytest.importorskip("redis.auth.token", reason="tokens not installed: they need redis-py 5.3")
    client = redis.Redis(connection_pool=pool)
    client.acl_setuser("amina", enabled=True, passwords=["+secret"], keys="*", categories=["+@all"])
    try:

        def items() -> Iterator[tuple[str, int]]:
            yield "a", 1
            pool.re_auth_callback(token.SimpleToken("secret", -1, 0, {"oid": "amina"}))

        FastBatch(client).batch_set(items())
        assert client.acl_whoami() in ("amina", b"amina")
    finally:
        client.acl_deluser("amina")


def test_a_connection_that_is_to_be_replaced_is_closed_after_the_batch(pool: ConnectionPool) -> None:
    client = redis.Redis(connection_pool=pool)
    number = client.client_id()
    (connection,) = pool._available_connections
    if not hasattr(connection, "mark_for_reconnect"):
        pytest.skip("this redis-py has no order to connect again")

    def items() -> Iterator[tuple[str, int]]:
        yield "a", 1
        connection.mark_for_reconnect()

    FastBatch(client).batch_set(items())
    assert client.client_id() != number


class Interrupted(ConnectionPool):
    """A pool in whose methods an interrupt leaves the lock taken, as it may in Python 3.14."""

    interrupt = ""

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        return self._leave_taken("take") or super().get_connection(*arguments, **options)

    def release(self, connection: Any) -> None:
        super().release(connection)
        self._leave_taken("give back")

    def _leave_taken(self, moment: str) -> None:
        if self.interrupt == moment:
            self.interrupt = ""
            self._lock.acquire()
            if events := self._events_lock():
                events.acquire()
            raise KeyboardInterrupt

    def _events_lock(self) -> Any:
        return getattr(getattr(self, "_event_dispatcher", None), "_lock", None)


@pytest.mark.parametrize("moment", ["take", "give back"])
def test_an_interrupt_cannot_leave_the_lock_of_a_pool_taken(valkey: EmbeddedServer, moment: str) -> None:
    pool = Interrupted(host=valkey.host, port=valkey.port)
    if not hasattr(pool._lock, "_is_owned"):
        pytest.skip("this redis-py's lock does not know its owner")
    fast = FastBatch(redis.Redis(connection_pool=pool))
    pool.interrupt = moment
    with pytest.raises(KeyboardInterrupt):
        fast.batch_set({"a": 1})
    assert not pool._lock._is_owned()
    events = pool._events_lock()
    assert not hasattr(events, "_is_owned") or not events._is_owned()
    assert fast.batch_set({"a": 1}, workers=2).written == 1
    pool.disconnect()


def test_an_interrupt_cannot_leave_the_lock_of_a_single_connection_taken(
    valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis(host=valkey.host, port=valkey.port, single_connection_client=True) as client:
        lock = sync.single_connection_lock(client)

        def interrupted(connection: Any) -> None:
            lock.__enter__()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(sync, "close_if_stale", interrupted)
            with pytest.raises(KeyboardInterrupt):
                FastBatch(client).batch_set({"a": 1})
        assert not lock._is_owned()  # type: ignore[attr-defined]
        assert FastBatch(client).batch_set({"a": 1}).written == 1
