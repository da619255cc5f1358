"""batch_execute and batch_execute_iter do what redis-py's pipeline does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.connection import Connection, UnixDomainSocketConnection

from checks import in_use
from exercise import pool_unchanged
from redis_fastbatch import BatchError, ChunkStats, EncodeError, FastBatch
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch.server import EmbeddedServer
from servers import TlsServer

MIXED: list[Any] = [
    ("SET", "a", 1),
    ("INCRBYFLOAT", b"a", 1.5),
    ["ZADD", "board", 5, "amina", 2.5, "b\u00e9"],
    ("SADD", "tags", "x", b"\xff", 3),
    ("HSET", "h", "name", "n", "age", 5),
    ("XADD", "events", "1-1", "user", "amina"),
    ("CONFIG GET", "maxmemory"),
    ("LPUSH", "list", *range(100)),
    ("GET", "a"),
    ("GET", "none"),
    ("HGETALL", "h"),
    ("ZRANGE", "board", 0, -1, "WITHSCORES"),
    ("LRANGE", "list", 0, -1),
    ("SMEMBERS", "none"),
    ("XRANGE", "events", "-", "+"),
    ("EVAL", "return {1, {2, 'x'}, false}", 0),
    ("EXPIRE", "a", 100),
    ("ECHO", "x" * 100_000),
]


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


def theirs(client: redis.Redis, commands: list[Any]) -> list[Any]:
    """What redis-py's connection returns for commands, one after the other, without response callbacks."""
    client.flushall()
    connection = client.connection_pool.get_connection()
    found: list[Any] = []
    try:
        for command in commands:
            connection.send_command(*command)
            try:
                found.append(connection.read_response())
            except redis.ResponseError as error:
                found.append(error)
    finally:
        client.connection_pool.release(connection)
    client.flushall()
    return found


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", [Connection, PlainConnection], ids=["socket", "public methods"])
def test_replies_are_those_of_redis_py(server: EmbeddedServer, protocol: int, decode: bool, kind: Any) -> None:
    # Text that is not UTF-8 is not decoded.
    commands = [command for command in MIXED if command[0] != "SADD"]
    options = {"protocol": protocol, "decode_responses": decode}
    with server.client(**options) as plain:
        expected = theirs(plain, commands)
        pool = redis.ConnectionPool(connection_class=kind, host=server.host, port=server.port, **options)
        with redis.Redis(connection_pool=pool) as client, pool_unchanged(client):
            fast = FastBatch(client)
            assert list(fast.batch_execute_iter(commands)) == expected
            plain.flushall()
            report = fast.batch_execute(iter(commands))
            assert (report.written, report.failed, report.confirmed_prefix) == (len(commands), 0, len(commands))
            assert plain.zcard("board") == 2


def test_over_a_unix_socket(server: EmbeddedServer) -> None:
    with server.client(unix_socket_path=server.unix_socket_path) as client, pool_unchanged(client):
        assert client.connection_pool.connection_class is UnixDomainSocketConnection
        client.flushall()
        FastBatch(client).batch_execute(MIXED)
        assert client.scard("tags") == 3


def test_over_tls(tls_server: TlsServer) -> None:
    with tls_server.client() as client, pool_unchanged(client):
        client.flushall()
        report = FastBatch(client).batch_execute(("INCRBY", "n", i) for i in range(20_000))
        assert report.written == 20_000
        assert client.get("n") == b"%d" % sum(range(20_000))
        assert list(FastBatch(client).batch_execute_iter([("GET", "n")] * 5000)) == [client.get("n")] * 5000


def test_many_commands_in_order(valkey_client: redis.Redis) -> None:
    seen: list[ChunkStats] = []
    done: list[Any] = []
    commands = (("RPUSH", "list", i) for i in range(50_000))
    report = FastBatch(valkey_client).batch_execute(
        commands, on_chunk=seen.append, progress=lambda *counts: done.append(counts), chunk_size=700
    )
    assert valkey_client.lrange("list", 0, -1) == [b"%d" % i for i in range(50_000)]
    assert report.written == report.total == 50_000
    assert sum(chunk.items for chunk in seen) == 50_000
    assert max(chunk.items for chunk in seen) == 700
    assert done[-1] == (50_000, None)
    assert report.bytes_sent == sum(chunk.bytes for chunk in seen)
    assert report.summary().startswith("50,000 written; ")


def test_large_arguments_and_large_replies(valkey_client: redis.Redis) -> None:
    """More than all buffers hold, both ways at the same time."""
    value = b"x" * 3_000_000
    commands = [("SET", "big", value), *[("GET", "big")] * 20, ("SET", "other", value), ("STRLEN", "other")]
    report = FastBatch(valkey_client).batch_execute(commands)
    assert report.written == len(commands)
    found = list(FastBatch(valkey_client).batch_execute_iter(commands))
    assert found == [b"OK", *[value] * 20, b"OK", len(value)]


def test_failures_are_named_by_their_positions(valkey_client: redis.Redis) -> None:
    received: list[Any] = []
    commands = [("SET", "a", "text"), ("INCR", "a"), ("GET", object()), ("NOSUCH", "x" * 1000), ("SET", "b", 1)]
    fast = FastBatch(valkey_client)
    with pytest.raises(BatchError) as caught:
        fast.batch_execute(commands)
    assert str(caught.value) == (
        "3 of 5 commands failed; the first: command 1 (INCR a): value is not an integer or out of range"
    )
    report = fast.batch_execute(commands, on_error=lambda *failure: received.append(failure))
    assert valkey_client.get("b") == b"1"
    assert (report.written, report.failed, sorted(report.failures)) == (2, 3, [1, 2, 3])
    assert sorted(received, key=lambda failure: failure[0]) == [
        (position, commands[position], report.failures[position]) for position in (1, 2, 3)
    ]
    assert isinstance(report.failures[2], EncodeError)
    assert isinstance(report.failures[1], redis.ResponseError)
    assert len(str(report.failures[3])) < 400
    assert report.first_failure().startswith("command 1 (INCR a): ")
    assert "failed command" in report._repr_html_()
    assert in_use(valkey_client) == 0


@pytest.mark.parametrize("name", sorted(name for name, rule in RULES.items() if rule.refusal))
def test_commands_that_change_the_connection_are_refused(valkey_client: redis.Redis, name: bytes) -> None:
    for given in (name.decode(), name.lower(), bytearray(name)):
        report = FastBatch(valkey_client).batch_execute([(given, "0"), ("INCR", "n")], on_error="report")
        assert (report.written, list(report.failures)) == (1, [0])
        assert name.decode() in str(report.failures[0])


@pytest.mark.parametrize(
    "command", [("CLIENT", "reply", "OFF"), ("client tracking", "ON"), (b"SCRIPT", b"DEBUG", "YES")]
)
def test_subcommands_that_change_the_connection_are_refused(valkey_client: redis.Redis, command: Any) -> None:
    report = FastBatch(valkey_client).batch_execute([command, ("CLIENT", "ID")], on_error="report")
    assert (report.written, list(report.failures)) == (1, [0])


def test_a_blocking_command_is_waited_for(valkey_client: redis.Redis) -> None:
    found = FastBatch(valkey_client).batch_execute_iter([("BLPOP", "none", 0.05), ("PING",)])
    assert list(found) == [None, b"PONG"]


def test_what_commands_raise_ends_the_batch_after_those_before(valkey_client: redis.Redis) -> None:
    def commands() -> Iterator[Any]:
        for _ in range(10):
            yield "INCR", "n"
        raise LookupError("no more")

    with pytest.raises(LookupError) as caught:
        FastBatch(valkey_client).batch_execute(commands())
    assert caught.value.report.written == 10  # type: ignore[attr-defined]
    found: list[Any] = []
    with pytest.raises(LookupError):
        found.extend(FastBatch(valkey_client).batch_execute_iter(commands()))
    assert valkey_client.get("n") == b"20"


def test_the_first_error_is_raised_in_its_place(valkey_client: redis.Redis) -> None:
    commands = [("SET", "a", "x"), ("INCR", "a"), ("SET", "a", "y"), ("GET", None)]
    fast = FastBatch(valkey_client)
    replies = fast.batch_execute_iter(commands)
    assert next(replies) == b"OK"
    with pytest.raises(redis.ResponseError, match=r"^command 1 \(INCR a\): value is not an integer"):
        next(replies)
    assert valkey_client.get("a") == b"y"
    found = list(fast.batch_execute_iter(commands, raise_on_error=False))
    assert [type(reply).__name__ for reply in found] == ["bytes", "ResponseError", "bytes", "EncodeError"]


def test_no_connection_is_held_between_replies(valkey: EmbeddedServer) -> None:
    with valkey.client(max_connections=1) as client:
        client.set("n", 0)
        for reply in FastBatch(client).batch_execute_iter(("INCR", "n") for _ in range(9000)):
            assert reply > 0
            if reply % 1000 == 0:
                assert client.get("n") >= b"%d" % reply  # type: ignore[operator]
        assert client.get("n") == b"9000"


def test_an_iterator_that_is_left_early_takes_no_more_commands(valkey_client: redis.Redis) -> None:
    taken = 0

    def commands() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield "INCR", "n"

    for reply in FastBatch(valkey_client).batch_execute_iter(commands()):
        if reply == 10:
            break
    assert taken <= 4000


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ("GET a", "got one str"),
        (("SET", "a", 1), r"got one command \('SET', 'a', 1\): pass \[command\]"),
        ({"SET": 1}, "got one dict"),
        (5, "got int 5"),
        (None, "got None"),
    ],
    ids=repr,
)
def test_what_is_not_a_batch_of_commands(valkey_client: redis.Redis, commands: Any, reason: str) -> None:
    for method in ("batch_execute", "batch_execute_iter"):
        with pytest.raises(TypeError, match=reason):
            list(getattr(FastBatch(valkey_client), method)(commands))


def test_no_commands(valkey_client: redis.Redis) -> None:
    assert FastBatch(valkey_client).batch_execute([]).total == 0
    assert list(FastBatch(valkey_client).batch_execute_iter(())) == []


def test_keys_are_written_in_the_encoding_of_the_client(valkey: EmbeddedServer) -> None:
    with valkey.client(encoding="latin-1") as client:
        client.flushall()
        FastBatch(client).batch_execute([("SET", "\u00e9", "\u00e9")])
        assert client.get("\u00e9") == client.get(client.keys()[0])
