"""Every kind of connection of redis-py gives the same results and returns to its pool."""

from __future__ import annotations

import asyncio
import secrets
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import pytest
import redis
import redis.asyncio
import redis.connection
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from checks import in_use, proxied
from exercise import channel_of, exercise, number_of_connections, pool_unchanged
from redis_fastbatch import AsyncFastBatch, DecodeError, FastBatch, FastBatchError
from redis_fastbatch._transports.channels import PublicChannel, SocketChannel
from redis_fastbatch._transports.redispy import GET_CONNECTION_ARGUMENTS
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, TlsServer, wait_until

REDIS_PY = tuple(int(part) for part in redis.__version__.split(".")[:2])


def test_tcp_connections_can_be_used(server: EmbeddedServer) -> None:
    with server.client() as client, pool_unchanged(client):
        assert channel_of(client) is SocketChannel
        exercise(client)


def test_unix_socket_connections_can_be_used(server: EmbeddedServer) -> None:
    with server.client(unix_socket_path=server.unix_socket_path) as client, pool_unchanged(client):
        assert isinstance(client.connection_pool.make_connection(), redis.UnixDomainSocketConnection)
        assert channel_of(client) is SocketChannel
        exercise(client)
    with FastBatch.from_url(server.unix_url) as fast:
        exercise(fast.client)


def test_tls_connections_can_be_used(tls_server: TlsServer) -> None:
    with tls_server.client() as client, pool_unchanged(client):
        assert channel_of(client) is SocketChannel
        exercise(client)
        FastBatch(client, "raw").batch_set({"big": b"x" * 5_000_000})
        assert FastBatch(client, "raw").batch_get(["big"] * 3)["big"] == b"x" * 5_000_000
    with FastBatch.from_url(tls_server.url) as fast:
        exercise(fast.client)


def test_an_untrusted_certificate_is_refused(tls_server: TlsServer) -> None:
    with tls_server.client(ssl_ca_certs=None, retry=Retry(ConstantBackoff(0), 0)) as client:
        with pytest.raises(redis.ConnectionError, match="certificate"):
            FastBatch(client).batch_set({"a": 1})
        assert in_use(client) == 0


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode_responses", [False, True])
def test_resp2_and_resp3_work_with_and_without_decoding(
    server: EmbeddedServer, protocol: int, decode_responses: bool
) -> None:
    with server.client(protocol=protocol, decode_responses=decode_responses) as client, pool_unchanged(client):
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
def test_keys_are_encoded_as_redis_py_encodes_them(
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


def test_batches_use_the_clients_database(server: EmbeddedServer) -> None:
    with server.client(db=3) as third, server.client() as first:
        first.flushall()
        FastBatch(third).batch_set({"a": 3}, ex=10)
        FastBatch(first).batch_set({"a": 0})
        assert FastBatch(third).batch_get(["a"]) == {"a": 3}
        assert FastBatch(first).batch_get(["a"]) == {"a": 0}
    with FastBatch.from_url(f"redis://{server.host}:{server.port}/3") as fast:
        assert fast.batch_get(["a"]) == {"a": 3}


def test_batches_log_in_as_the_clients_user(acl_server: AclUser) -> None:
    with acl_server.client() as client, pool_unchanged(client):
        exercise(client, prefix=acl_server.prefix)
    url = (
        f"redis://{acl_server.username}:{acl_server.password}@{acl_server.server.host}:{acl_server.server.port}/0"
    )
    with FastBatch.from_url(url) as fast:
        exercise(fast.client, prefix=acl_server.prefix)


def test_a_wrong_password_is_an_authentication_error(acl_server: AclUser) -> None:
    retry = Retry(ConstantBackoff(0), 0)
    with acl_server.server.client(username=acl_server.username, password="wrong", retry=retry) as client:
        for call in (lambda fast: fast.batch_set({"a": 1}), lambda fast: fast.batch_get(["a"])):
            with pytest.raises(redis.AuthenticationError) as caught:
                call(FastBatch(client))
            assert "wrong" not in str(caught.value).replace("wrong username-password", "")
        assert in_use(client) == 0


def test_batches_use_the_clients_password(embedded: Any) -> None:
    password = secrets.token_hex(16)
    with EmbeddedServer(embedded, requirepass=password) as server:
        with server.client(password=password) as client, pool_unchanged(client):
            exercise(client)
        with (
            server.client(retry=Retry(ConstantBackoff(0), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            FastBatch(client).batch_set({"a": 1})


def test_a_blocking_pool_of_one_connection_is_enough(server: EmbeddedServer) -> None:
    pool = redis.BlockingConnectionPool(max_connections=1, timeout=2, host=server.host, port=server.port)
    client = redis.Redis(connection_pool=pool)
    with pool_unchanged(client):
        exercise(client)
    assert number_of_connections(client) == 1
    pool.disconnect()


def test_a_pool_of_one_connection_is_enough(server: EmbeddedServer) -> None:
    with server.client(max_connections=1) as client, pool_unchanged(client):
        exercise(client)


def test_an_exhausted_pool_is_a_connection_error(valkey: EmbeddedServer) -> None:
    with valkey.client(max_connections=1) as client:
        held = client.pubsub()
        held.subscribe("c")
        with pytest.raises(redis.ConnectionError, match=r"(?i)too many connections"):
            FastBatch(client).batch_set({"a": 1})
        held.close()
        assert FastBatch(client).batch_set({"a": 1}).written == 1


def test_a_single_connection_client_keeps_its_connection(server: EmbeddedServer) -> None:
    with server.client(single_connection_client=True) as client:
        connection = client.client_id()
        exercise(client)
        assert client.client_id() == connection, "the client has connected again"


@pytest.mark.parametrize("options", [{"nx": True}, {"atomic": True}, {"ex": 60}], ids=str)
def test_a_closed_single_connection_connects_again(valkey: EmbeddedServer, options: dict[str, Any]) -> None:
    with valkey.client() as admin, valkey.client(single_connection_client=True) as client:
        admin.flushall()
        FastBatch(client).batch_set({"warm": 1}, ex=60)
        admin.client_kill_filter(_type="normal", skipme=True)
        sock = client.connection._sock
        wait_until(lambda: bool(select.select([sock], [], [], 0)[0]), "the server closes the connection")
        assert FastBatch(client).batch_set({"a": 1, "b": 2}, **options).written == 2


def test_a_source_or_hook_cannot_use_the_single_connection(valkey: EmbeddedServer) -> None:
    """A source or hook that used the connection would read the replies to the batch's commands."""
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


def test_health_checks_are_carried_out(server: EmbeddedServer) -> None:
    with server.client(health_check_interval=1) as client, pool_unchanged(client):
        exercise(client)
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        connection.next_health_check = 1.0
        client.connection_pool.release(connection)
        pings = client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
        connection.next_health_check = 1.0
        assert FastBatch(client).batch_set({"a": 1}).written == 1
        assert client.info("commandstats")["cmdstat_ping"]["calls"] > pings


def test_a_connection_closed_in_the_pool_connects_again(server: EmbeddedServer) -> None:
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
def test_socket_timeouts_are_restored(valkey: EmbeddedServer, timeout: float | None) -> None:
    with valkey.client(socket_timeout=timeout) as client:
        FastBatch(client).batch_set({f"k{i}": i for i in range(5000)})
        FastBatch(client).batch_get(["k1"])
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        assert connection._sock.gettimeout() == timeout
        client.connection_pool.release(connection)


def test_a_file_descriptor_may_be_too_large_for_select(valkey: EmbeddedServer) -> None:
    with ExitStack() as held:
        while True:
            one = held.enter_context(socket.socket())
            if one.fileno() > 1100:
                break
        with valkey.client() as client:
            exercise(client)


def test_push_messages_may_arrive_between_replies(server: EmbeddedServer) -> None:
    # The server sends invalidation messages, as for redis-py's client-side caching.
    messages: list[Any] = []
    with server.client(protocol=3) as client, server.client() as other:
        client.flushall()
        connection = client.connection_pool.get_connection(*GET_CONNECTION_ARGUMENTS)
        has_handler = set_handler(connection, messages.append)
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "row:")
        assert connection.read_response() == b"OK"
        client.connection_pool.release(connection)
        exercise(client)
        other.set("row:elsewhere", msgpack.packb(5))
        assert FastBatch(client).batch_get(["row:elsewhere"]) == {"row:elsewhere": 5}
        if has_handler:
            assert any(message[0] in (b"invalidate", "invalidate") for message in messages)
        assert client.ping()


def set_handler(connection: Any, handler: Callable[[Any], object]) -> bool:
    """Set redis-py's handler of invalidation messages. Return False if this redis-py has no such handlers."""
    setter = getattr(connection._parser, "set_invalidation_push_handler", None)
    if setter is not None:
        setter(handler)
    return setter is not None


def test_client_side_caching_stays_correct(server: EmbeddedServer) -> None:
    cache = pytest.importorskip("redis.cache", reason="redis-py has client-side caching since 5.1")
    if REDIS_PY < (5, 2):
        pytest.skip("the caching of redis-py 5.1 has another interface")
    if server.version.startswith("Valkey"):
        pytest.skip("redis-py requires Redis 7.4 for caching, so it refuses Valkey")
    if server.version.startswith("Redis 7.0"):
        pytest.skip("redis-py requires Redis 7.4 for caching")
    with server.client(protocol=3, cache_config=cache.CacheConfig()) as client:
        try:
            client.flushall()
        except AttributeError as error:
            pytest.skip(f"this redis-py cannot cache with hiredis: {error}")
        assert client.get("k") is None
        for _ in range(3):
            # Thousands of invalidation messages arrive before and between replies.
            exercise(client)
            assert client.get("k") is None
        FastBatch(client, "raw").batch_set({"k": "1"})
        assert client.get("k") == b"1"
        assert client.get("k") == b"1"
        with server.client() as other:
            FastBatch(other, "raw").batch_set({"k": "2"})
        wait_until(lambda: client.get("k") == b"2", "the cache is invalidated", 5)


def test_maintenance_notifications_may_be_on(server: EmbeddedServer) -> None:
    notifications = pytest.importorskip("redis.maint_notifications", reason="redis-py has them since 6.5")
    for enabled in ("auto", False):
        config = notifications.MaintNotificationsConfig(enabled=enabled)
        with server.client(protocol=3, maint_notifications_config=config) as client:
            exercise(client)


class Counting(redis.Connection):
    """A connection that counts commands, as instrumentation libraries do."""

    sent = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        Counting.sent += 1
        super().send_packed_command(command, check_health)


def test_a_custom_connection_class_is_used_by_its_public_methods(server: EmbeddedServer) -> None:
    pool = redis.ConnectionPool(connection_class=Counting, host=server.host, port=server.port)
    client = redis.Redis(connection_pool=pool)
    client.flushall()
    assert channel_of(client) is PublicChannel
    with pool_unchanged(client):
        exercise(client)
    before = Counting.sent
    FastBatch(client).batch_set({f"k{i}": i for i in range(100)}, chunk_size=10)
    assert Counting.sent == before + 10
    pool.disconnect()


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}, {"atomic": True, "ex": 9}], ids=str)
def test_both_channels_give_the_same_report(server: EmbeddedServer, options: dict[str, Any]) -> None:
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


def test_both_channels_read_the_same_values(server: EmbeddedServer) -> None:
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

        def on_error(key: Any, value: Any, error: Exception, found: list[Any] = failures) -> None:
            found.append((key, value, str(error)))

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


def test_a_subclass_without_changes_uses_the_fast_channel(valkey: EmbeddedServer) -> None:
    class Named(redis.Connection):
        pass

    pool = redis.ConnectionPool(connection_class=Named, host=valkey.host, port=valkey.port)
    client = redis.Redis(connection_pool=pool)
    assert channel_of(client) is SocketChannel
    exercise(client)
    pool.disconnect()


# -- state after errors --------------------------------------------------------------------------


def test_an_interrupted_write_returns_a_clean_connection(valkey: EmbeddedServer) -> None:
    with proxied(valkey) as (_, client):

        def source() -> Iterator[tuple[str, str]]:
            yield from ((f"k{i}", "x" * 1000) for i in range(5000))
            raise KeyboardInterrupt

        for _attempt in range(5):
            with pytest.raises(KeyboardInterrupt):
                FastBatch(client).batch_set(source())
            assert in_use(client) == 0
            assert client.echo("mine") == b"mine"


def test_an_interrupted_read_returns_a_clean_connection(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        FastBatch(client, "raw").batch_set({f"k{i}": b"x" * 1000 for i in range(5000)})

        def on_error(key: Any, data: Any, error: Exception) -> None:
            raise KeyboardInterrupt

        for _attempt in range(5):
            with pytest.raises(KeyboardInterrupt):
                FastBatch(client, "json").batch_get([f"k{i}" for i in range(5000)], on_error=on_error)
            assert in_use(client) == 0
            assert client.echo("mine") == b"mine"


def test_an_unknown_host_is_a_connection_error() -> None:
    with redis.Redis(host="no-such-host.invalid", retry=Retry(ConstantBackoff(0), 0)) as client:
        with pytest.raises(redis.ConnectionError):
            FastBatch(client).batch_set({"a": 1})
        assert in_use(client) == 0


def test_a_closed_port_is_a_connection_error() -> None:
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
