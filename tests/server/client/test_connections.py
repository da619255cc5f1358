"""Every way redis-py has of connecting: the same results, and a pool that is left as it was."""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
import pytest
import redis
import redis.asyncio
import redis.connection
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from checks import in_use, proxied
from redis_fastbatch import AsyncFastBatch, BatchError, DecodeError, FastBatch, FastBatchError
from redis_fastbatch._transports.redispy import GET_CONNECTION_ARGUMENTS
from redis_fastbatch._transports.sync import PublicChannel, SocketChannel, lease
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, SentinelGroup, TlsServer, missing, sentinel_deployment, wait_until

REDIS_PY = tuple(int(part) for part in redis.__version__.split(".")[:2])

ROWS: dict[Any, Any] = {f"row:{i}": {"id": i, "tags": [i, "t"], "é": None} for i in range(1500)}


def exercise(client: redis.Redis, *, prefix: str = "") -> None:
    """Everything FastBatch does, over one client."""
    rows = {f"{prefix}{key}": value for key, value in ROWS.items()}
    fast = FastBatch(client)
    out_before = in_use(client)
    for key in client.scan_iter(f"{prefix}row:*", count=1000):
        client.delete(key)
    for options in ({}, {"ex": 100}, {"atomic": True}, {"atomic": True, "px": 90_000}):
        assert fast.batch_set(rows, **options).written == len(rows)
        assert fast.batch_get(rows) == rows
    skipped = fast.batch_set({**rows, f"{prefix}new": 1}, nx=True)
    assert (skipped.written, skipped.skipped) == (1, len(rows))
    assert fast.batch_get([f"{prefix}new", f"{prefix}none"], default=0) == {f"{prefix}new": 1, f"{prefix}none": 0}
    assert dict(fast.batch_get_iter(rows, chunk_size=400)) == rows
    with pytest.raises(BatchError):
        fast.batch_set({f"{prefix}bad": object()})
    assert {text(key) for key in fast.scan(f"{prefix}row:*")} == set(rows)
    assert fast.batch_delete([*rows, f"{prefix}new"]) == len(rows) + 1
    assert in_use(client) == out_before


def text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def channel_of(client: redis.Redis) -> type:
    """How batches speak over the client's connections."""
    with lease(client) as borrowed:
        return type(borrowed.channel())


@contextmanager
def at_rest(client: redis.Redis) -> Iterator[None]:
    """No connection more than before, and the client still works."""
    client.ping()
    before = number_of_connections(client)
    yield
    assert number_of_connections(client) == before
    assert in_use(client) == 0
    assert client.ping()


def number_of_connections(client: redis.Redis) -> int:
    pool = client.connection_pool
    if isinstance(pool, redis.BlockingConnectionPool):
        return len(pool._connections)
    return len(pool._available_connections) + len(pool._in_use_connections)


def test_tcp(server: EmbeddedServer) -> None:
    with server.client() as client, at_rest(client):
        assert channel_of(client) is SocketChannel
        exercise(client)


def test_unix_socket(server: EmbeddedServer) -> None:
    with server.client(unix_socket_path=server.unix_socket_path) as client, at_rest(client):
        assert isinstance(client.connection_pool.make_connection(), redis.UnixDomainSocketConnection)
        assert channel_of(client) is SocketChannel
        exercise(client)
    with FastBatch.from_url(server.unix_url) as fast:
        exercise(fast.client)


def test_tls(tls_server: TlsServer) -> None:
    with tls_server.client() as client, at_rest(client):
        assert channel_of(client) is SocketChannel
        exercise(client)
        FastBatch(client, "raw").batch_set({"big": b"x" * 5_000_000})
        assert FastBatch(client, "raw").batch_get(["big"] * 3)["big"] == b"x" * 5_000_000
    with FastBatch.from_url(tls_server.url) as fast:
        exercise(fast.client)


def test_tls_that_does_not_trust_the_server(tls_server: TlsServer) -> None:
    with tls_server.client(ssl_ca_certs=None, retry=Retry(ConstantBackoff(0), 0)) as client:
        with pytest.raises(redis.ConnectionError, match="certificate"):
            FastBatch(client).batch_set({"a": 1})
        assert in_use(client) == 0


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode_responses", [False, True])
def test_protocols_and_decoding(server: EmbeddedServer, protocol: int, decode_responses: bool) -> None:
    with server.client(protocol=protocol, decode_responses=decode_responses) as client, at_rest(client):
        exercise(client)
        client.rpush("list", 1)
        assert FastBatch(client).batch_get(["list", "none"]) == {"list": None, "none": None}
        assert client.delete("list") == 1
        client.set("text", "é")
        assert FastBatch(client, "raw").batch_get(["text"]) == {"text": "é".encode()}


@pytest.mark.parametrize(
    ("encoding", "packs", "written"),
    [
        ("utf-8", "hiredis", "utf-8"),
        ("latin-1", "hiredis", "utf-8"),
        ("utf-16", "hiredis", "utf-8"),
        ("latin-1", "python", "latin-1"),
    ],
)
def test_keys_are_those_of_redis_pys_own_commands(
    server: EmbeddedServer, encoding: str, packs: str, written: str
) -> None:
    with server.client(encoding=encoding) as client:
        if packs == "python":
            packer = redis.connection.PythonRespSerializer(6000, client.get_encoder().encode)
            client.connection_pool.connection_kwargs["command_packer"] = packer
        client.flushall()
        fast = FastBatch(client, "raw")
        fast.batch_set({"é": b"1"})
        client.set("ü", b"2")
        assert {*client.keys()} == {"é".encode(written), "ü".encode(written)}
        assert client.get("é") == b"1"
        assert fast.batch_get(["é", "ü"]) == {"é": b"1", "ü": b"2"}
        assert fast.batch_delete(["é"]) == 1
        assert client.exists("é") == 0


def test_keys_of_asyncio_are_in_the_clients_encoding(server: EmbeddedServer) -> None:
    async def run() -> None:
        async with redis.asyncio.Redis.from_url(server.url, encoding="latin-1") as client:
            await client.flushall()
            await AsyncFastBatch(client, "raw").batch_set({"é": b"1"})
            assert await client.keys() == ["é".encode("latin-1")]
            assert await client.get("é") == b"1"

    asyncio.run(run())


def test_the_database_of_the_client(server: EmbeddedServer) -> None:
    with server.client(db=3) as third, server.client() as first:
        first.flushall()
        FastBatch(third).batch_set({"a": 3}, ex=10)
        FastBatch(first).batch_set({"a": 0})
        assert FastBatch(third).batch_get(["a"]) == {"a": 3}
        assert FastBatch(first).batch_get(["a"]) == {"a": 0}
    with FastBatch.from_url(f"redis://{server.host}:{server.port}/3") as fast:
        assert fast.batch_get(["a"]) == {"a": 3}


def test_an_acl_user(acl_server: AclUser) -> None:
    with acl_server.client() as client, at_rest(client):
        exercise(client, prefix=acl_server.prefix)
    url = (
        f"redis://{acl_server.username}:{acl_server.password}@{acl_server.server.host}:{acl_server.server.port}/0"
    )
    with FastBatch.from_url(url) as fast:
        exercise(fast.client, prefix=acl_server.prefix)


def test_a_wrong_password(acl_server: AclUser) -> None:
    retry = Retry(ConstantBackoff(0), 0)
    with acl_server.server.client(username=acl_server.username, password="wrong", retry=retry) as client:
        for call in (lambda fast: fast.batch_set({"a": 1}), lambda fast: fast.batch_get(["a"])):
            with pytest.raises(redis.AuthenticationError) as caught:
                call(FastBatch(client))
            assert "wrong" not in str(caught.value).replace("wrong username-password", "")
        assert in_use(client) == 0


def test_a_password(embedded: Any) -> None:
    password = secrets.token_hex(16)
    with EmbeddedServer(embedded, requirepass=password) as server:
        with server.client(password=password) as client, at_rest(client):
            exercise(client)
        with (
            server.client(retry=Retry(ConstantBackoff(0), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            FastBatch(client).batch_set({"a": 1})


def test_a_blocking_pool_of_one(server: EmbeddedServer) -> None:
    pool = redis.BlockingConnectionPool(max_connections=1, timeout=2, host=server.host, port=server.port)
    client = redis.Redis(connection_pool=pool)
    with at_rest(client):
        exercise(client)
    assert number_of_connections(client) == 1
    pool.disconnect()


def test_a_pool_of_one(server: EmbeddedServer) -> None:
    with server.client(max_connections=1) as client, at_rest(client):
        exercise(client)


def test_a_pool_that_is_exhausted(valkey: EmbeddedServer) -> None:
    with valkey.client(max_connections=1) as client:
        held = client.pubsub()
        held.subscribe("c")
        with pytest.raises(redis.ConnectionError, match=r"(?i)too many connections"):
            FastBatch(client).batch_set({"a": 1})
        held.close()
        assert FastBatch(client).batch_set({"a": 1}).written == 1


def test_a_single_connection_client(server: EmbeddedServer) -> None:
    with server.client(single_connection_client=True) as client:
        name = client.client_id()
        exercise(client)
        assert client.client_id() == name, "another connection was taken"


@pytest.mark.parametrize("options", [{"nx": True}, {"atomic": True}, {"ex": 60}], ids=str)
def test_a_single_connection_that_the_server_closed_while_it_was_idle(
    valkey: EmbeddedServer, options: dict[str, Any]
) -> None:
    with valkey.client() as admin, valkey.client(single_connection_client=True) as client:
        admin.flushall()
        FastBatch(client).batch_set({"warm": 1}, ex=60)
        admin.client_kill_filter(_type="normal", skipme=True)
        sock = client.connection._sock
        wait_until(lambda: bool(select.select([sock], [], [], 0)[0]), "the end has come")
        assert FastBatch(client).batch_set({"a": 1, "b": 2}, **options).written == 2


def test_a_single_connection_is_not_for_two_at_a_time(valkey: EmbeddedServer) -> None:
    """What the source asked for had the replies to the batch's own commands."""
    keys = [f"key:{i}" for i in range(3000)]
    with valkey.client(single_connection_client=True) as client:
        client.flushall()
        fast = FastBatch(client)
        fast.batch_set(dict.fromkeys(keys, 1))
        for source in (fast.batch_get_iter(keys), ((key, 1) for key in fast.scan("key:*"))):
            with pytest.raises(FastBatchError, match="single connection"):
                fast.batch_set(source, chunk_size=100)
        with pytest.raises(FastBatchError, match="single connection"):
            fast.batch_set({"bad": {1}}, on_error=lambda key, *_: fast.batch_set({f"dead:{key}": 1}))
        assert dict(fast.batch_get_iter(fast.scan("key:*"))) == dict.fromkeys(map(str.encode, keys), 1)


def test_health_checks(server: EmbeddedServer) -> None:
    with server.client(health_check_interval=1) as client, at_rest(client):
        exercise(client)
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        connection.next_health_check = 1.0
        client.connection_pool.release(connection)
        pings = client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        connection.next_health_check = 1.0
        assert FastBatch(client).batch_set({"a": 1}).written == 1
        assert client.info("commandstats")["cmdstat_ping"]["calls"] > pings


def test_a_connection_that_died_in_the_pool(server: EmbeddedServer) -> None:
    with server.client() as client, server.client() as other:
        for call in (
            lambda fast: fast.batch_set({"a": 1}).written == 1,
            lambda fast: fast.batch_set({"a": 2}, nx=True).skipped == 1,
            lambda fast: fast.batch_set({"a": 1}, ex=5).written == 1,
            lambda fast: fast.batch_get(["a"]) == {"a": 1},
        ):
            other.client_kill_filter(_id=client.client_id())
            assert call(FastBatch(client))


@pytest.mark.parametrize("timeout", [0.5, 5, None])
def test_socket_timeouts_are_put_back(valkey: EmbeddedServer, timeout: float | None) -> None:
    with valkey.client(socket_timeout=timeout) as client:
        FastBatch(client).batch_set({f"k{i}": i for i in range(5000)})
        FastBatch(client).batch_get(["k1"])
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        assert connection._sock.gettimeout() == timeout
        client.connection_pool.release(connection)


def test_a_file_descriptor_beyond_what_select_takes(valkey: EmbeddedServer) -> None:
    with ExitStack() as held:
        while True:
            one = held.enter_context(socket.socket())
            if one.fileno() > 1100:
                break
        with valkey.client() as client:
            exercise(client)


def test_messages_pushed_amid_replies(server: EmbeddedServer) -> None:
    # A connection that is told of changed keys, as redis-py's own client-side caching has it.
    heard: list[Any] = []
    with server.client(protocol=3) as client, server.client() as other:
        client.flushall()
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        listens = set_handler(connection, heard.append)
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "row:")
        assert connection.read_response() == b"OK"
        client.connection_pool.release(connection)
        exercise(client)
        other.set("row:elsewhere", msgpack.packb(5))
        assert FastBatch(client).batch_get(["row:elsewhere"]) == {"row:elsewhere": 5}
        if listens:
            assert any(message[0] in (b"invalidate", "invalidate") for message in heard)
        assert client.ping()


def set_handler(connection: Any, handler: Callable[[Any], object]) -> bool:
    """Has redis-py hand on what became invalid; False where this redis-py has no such handlers."""
    setter = getattr(connection._parser, "set_invalidation_push_handler", None)
    if setter is not None:
        setter(handler)
    return setter is not None


def test_client_side_caching(server: EmbeddedServer) -> None:
    cache = pytest.importorskip("redis.cache", reason="redis-py has client-side caching since 5.1")
    if REDIS_PY < (5, 2):
        pytest.skip("redis-py 5.1's caching is a beta of another interface")
    if server.version.startswith("Valkey"):
        pytest.skip("redis-py refuses it on Valkey: it asks for Redis 7.4 by version")
    if server.version.startswith("Redis 7.0"):
        pytest.skip("redis-py asks for Redis 7.4")
    with server.client(protocol=3, cache_config=cache.CacheConfig()) as client:
        try:
            client.flushall()
        except AttributeError as error:
            pytest.skip(f"this redis-py cannot cache with hiredis: {error}")
        assert client.get("k") is None
        for _ in range(3):
            # Thousands of messages on what became invalid, before and amid replies.
            exercise(client)
            assert client.get("k") is None
        FastBatch(client, "raw").batch_set({"k": "1"})
        assert client.get("k") == b"1"
        assert client.get("k") == b"1"
        with server.client() as other:
            FastBatch(other, "raw").batch_set({"k": "2"})
        wait_until(lambda: client.get("k") == b"2", "the cache hears of the change", 5)


def test_maintenance_notifications(server: EmbeddedServer) -> None:
    notifications = pytest.importorskip("redis.maint_notifications", reason="redis-py has them since 6.5")
    for enabled in ("auto", False):
        config = notifications.MaintNotificationsConfig(enabled=enabled)
        with server.client(protocol=3, maint_notifications_config=config) as client:
            exercise(client)


class Counting(redis.Connection):
    """A connection that looks at what is sent, as instrumenting libraries have it."""

    sent = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        Counting.sent += 1
        super().send_packed_command(command, check_health)


def test_a_connection_class_of_ones_own_is_spoken_to_through_its_methods(server: EmbeddedServer) -> None:
    pool = redis.ConnectionPool(connection_class=Counting, host=server.host, port=server.port)
    client = redis.Redis(connection_pool=pool)
    client.flushall()
    assert channel_of(client) is PublicChannel
    with at_rest(client):
        exercise(client)
    before = Counting.sent
    FastBatch(client).batch_set({f"k{i}": i for i in range(100)}, chunk_size=10)
    assert Counting.sent == before + 10
    pool.disconnect()


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}, {"atomic": True, "ex": 9}], ids=str)
def test_both_ways_of_speaking_report_alike(server: EmbeddedServer, options: dict[str, Any]) -> None:
    reports = []
    for kind in (redis.Connection, Counting):
        pool = redis.ConnectionPool(connection_class=kind, host=server.host, port=server.port)
        client = redis.Redis(connection_pool=pool)
        client.flushall()
        client.set("k3", "there")
        items = {f"k{i}": i for i in range(2000)}
        if not options.get("atomic"):
            items["bad"] = {1}  # type: ignore[assignment]
        report = FastBatch(client).batch_set(items, on_error="report", **options)
        report.seconds = 0.0
        reports.append(
            (
                report.written,
                report.skipped,
                report.skipped_keys,
                report.failed,
                list(report.failures),
                report.bytes_sent,
                report.confirmed_prefix,
            )
        )
        pool.disconnect()
    assert reports[0] == reports[1]


def test_both_ways_of_speaking_read_alike(server: EmbeddedServer) -> None:
    found = []
    for kind in (redis.Connection, Counting):
        pool = redis.ConnectionPool(connection_class=kind, host=server.host, port=server.port)
        client = redis.Redis(connection_pool=pool)
        client.flushall()
        fast = FastBatch(client, max_value_size=1000)
        fast.batch_set({f"k{i}": i for i in range(2000)})
        client.lpush("list", "element")
        client.set("no msgpack", b"\xc1")
        keys = [*(f"k{i}" for i in range(0, 4000, 2)), "list", "no msgpack"]
        failures: list[tuple[Any, Any, str]] = []

        def on_error(key: Any, value: Any, error: Exception, noted: list[Any] = failures) -> None:
            noted.append((key, value, str(error)))

        values = fast.batch_get(keys, default="default", on_error=on_error)
        pairs = list(fast.batch_get_iter(keys, on_error="report"))
        deleted = fast.batch_delete(keys)
        client.set("long", "x" * 1001)
        with pytest.raises(DecodeError, match="max_value_size is 1000") as caught:
            fast.batch_get(["k1", "long"])
        found.append((list(values.items()), pairs, failures, deleted, caught.value.key))
        pool.disconnect()
    assert found[0] == found[1]
    assert found[0][3:] == (1002, "long")
    assert [key for key, _, _ in found[0][2]] == ["no msgpack"]


def test_a_subclass_that_changes_nothing_is_known(valkey: EmbeddedServer) -> None:
    class Named(redis.Connection):
        pass

    pool = redis.ConnectionPool(connection_class=Named, host=valkey.host, port=valkey.port)
    client = redis.Redis(connection_pool=pool)
    assert channel_of(client) is SocketChannel
    exercise(client)
    pool.disconnect()


# -- Sentinel ------------------------------------------------------------------------------------


def test_a_client_of_sentinels_master(sentinel: SentinelGroup) -> None:
    client = sentinel.connect().master_for(sentinel.name)
    with at_rest(client):
        assert channel_of(client) is SocketChannel
        exercise(client)
    client.close()


def test_a_client_of_sentinels_replica(sentinel: SentinelGroup) -> None:
    manager = sentinel.connect()
    master, replica = manager.master_for(sentinel.name), manager.slave_for(sentinel.name)
    FastBatch(master).batch_set(ROWS)
    master.wait(1, 5000)
    assert FastBatch(replica).batch_get(ROWS) == ROWS
    with pytest.raises(BatchError, match=r"(?i)read only replica") as caught:
        FastBatch(replica).batch_set({"a": 1, "b": 2})
    assert caught.value.report.failed == 2
    FastBatch(master).batch_delete(ROWS)


@pytest.mark.full
def test_a_failover_between_and_amid_batches(embedded: Any) -> None:
    with sentinel_deployment(embedded) as group:
        client = group.connect(
            socket_timeout=5.0, retry=Retry(ConstantBackoff(0.2), 100), retry_on_timeout=True
        ).master_for(group.name, socket_timeout=5.0, retry=Retry(ConstantBackoff(0.2), 100))
        fast = FastBatch(client)
        assert fast.batch_set(ROWS).written == len(ROWS)
        group.servers.wait_for_sync()
        before = group.master_address()
        failover(group)
        assert fast.batch_set({"between": 1}).written == 1
        assert fast.batch_get(["between", "row:7"]) == {"between": 1, "row:7": ROWS["row:7"]}
        assert group.master_address() != before

        def source() -> Iterator[tuple[str, int]]:
            for i in range(20_000):
                if i == 9000:
                    failover(group)
                yield f"amid:{i}", i

        report = fast.batch_set(source())
        assert (report.written, report.failed) == (20_000, 0)
        found = fast.batch_get([f"amid:{i}" for i in range(9100, 20_000)])
        assert list(found.values()) == list(range(9100, 20_000))
        client.close()


def failover(group: SentinelGroup) -> None:
    """Wait until the Sentinel has a replica to promote, and make it the master."""
    before = group.master_address()
    with group.sentinel.client() as client:
        wait_until(
            lambda: client.execute_command("SENTINEL", "FAILOVER", group.name) in (b"OK", True),
            "the Sentinel finds a replica to promote",
        )
    wait_until(lambda: group.master_address() != before, "the failover")


# -- what is left behind -------------------------------------------------------------------------


def test_a_connection_that_failed_is_not_given_back_dirty(valkey: EmbeddedServer) -> None:
    with proxied(valkey) as (_, client):

        def source() -> Iterator[tuple[str, str]]:
            yield from ((f"k{i}", "x" * 1000) for i in range(5000))
            raise KeyboardInterrupt

        for _attempt in range(5):
            with pytest.raises(KeyboardInterrupt):
                FastBatch(client).batch_set(source())
            assert in_use(client) == 0
            assert client.echo("mine") == b"mine"


def test_a_read_that_is_interrupted(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set({f"k{i}": b"x" * 1000 for i in range(5000)})

        def on_error(key: Any, data: Any, error: Exception) -> None:
            raise KeyboardInterrupt

        for _attempt in range(5):
            with pytest.raises(KeyboardInterrupt):
                FastBatch(client, "json").batch_get([f"k{i}" for i in range(5000)], on_error=on_error)
            assert in_use(client) == 0
            assert client.echo("mine") == b"mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is of POSIX")
def test_after_a_fork(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        fast = FastBatch(client)
        fast.batch_set({"parent": 1})
        child = os.fork()
        if child == 0:
            written = fast.batch_set({"child": 2}).written
            os._exit(0 if written == 1 and fast.batch_get(["parent"]) == {"parent": 1} else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert fast.batch_get(["parent", "child"]) == {"parent": 1, "child": 2}


def test_a_name_that_is_not_resolved() -> None:
    with redis.Redis(host="no-such-host.invalid", retry=Retry(ConstantBackoff(0), 0)) as client:
        with pytest.raises(redis.ConnectionError):
            FastBatch(client).batch_set({"a": 1})
        assert in_use(client) == 0


@pytest.mark.parametrize("kind", [FastBatch, AsyncFastBatch])
def test_what_is_no_client(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.from_url\(\) takes a URL"):
        kind("redis://localhost")
    clients = {FastBatch: redis.Redis, AsyncFastBatch: redis.asyncio.Redis}
    theirs = clients.pop(kind)
    (other,) = clients.values()
    with pytest.raises(
        TypeError, match=rf"{kind.__name__} takes a client such as redis\..*, not {other.__module__}"
    ):
        kind(other())
    for thing in (None, theirs().connection_pool, redis.sentinel.Sentinel([])):
        with pytest.raises(TypeError, match="takes a client such as redis"):
            kind(thing)
    fork = pytest.importorskip("valkey")
    with pytest.raises(TypeError, match=r"takes a client such as redis.*, not valkey\."):
        kind((fork.Valkey if kind is FastBatch else fork.asyncio.Valkey)())
    with pytest.raises(TypeError, match="takes a client, not its pipeline"):
        kind(theirs().pipeline())
    kind(theirs())


@pytest.mark.parametrize("name", ["chunk_size", "workers"])
def test_numbers_that_count_nothing(name: str) -> None:
    fast = FastBatch(redis.Redis())
    calls: dict[str, list[Any]] = {
        "chunk_size": [fast.batch_set, lambda keys, **more: list(fast.batch_get_iter(keys, **more))],
        "workers": [fast.batch_set, fast.batch_get],
    }
    for call in calls[name]:
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
            call({"a": 1}, **{name: 0})
        with pytest.raises(TypeError, match=f"^{name} must be an int, got str "):
            call({"a": 1}, **{name: "1"})


def test_a_largest_value_below_nothing() -> None:
    """It meant no limit."""
    for kind, client in ((FastBatch, redis.Redis()), (AsyncFastBatch, redis.asyncio.Redis())):
        with pytest.raises(ValueError, match="max_value_size must be at least 0, got -1"):
            kind(client, max_value_size=-1)
        with pytest.raises(TypeError, match="max_value_size must be an int, got str"):
            kind(client, max_value_size="1")


def test_a_chunk_size_beyond_all_batches(valkey_client: redis.Redis) -> None:
    assert FastBatch(valkey_client).batch_set({"a": 1, "b": 2}, chunk_size=2**70).written == 2


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with redis.Redis(port=port, retry=Retry(ConstantBackoff(0), 1)) as client:
        for call in (
            lambda fast: fast.batch_set({"a": 1}),
            lambda fast: fast.batch_set({"a": 1}, ex=5),
            lambda fast: fast.batch_get(["a"]),
            lambda fast: fast.batch_delete(["a"]),
        ):
            with pytest.raises(redis.ConnectionError):
                call(FastBatch(client))
        assert in_use(client) == 0


def test_all_servers_were_there(server: EmbeddedServer) -> None:
    if not server.running:
        missing("a server has ended while the tests of connections ran")
