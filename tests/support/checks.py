"""What several test files look at: the state of a pool, and what went over the wire."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import hiredis
import redis

from faults.proxy import FaultProxy
from redis_fastbatch.server import EmbeddedServer


def in_use(client: redis.Redis) -> int:
    """Return how many connections are out of the client's pool."""
    pool = client.connection_pool
    if isinstance(pool, redis.BlockingConnectionPool):
        return len(pool._connections) - len([one for one in pool.pool.queue if one is not None])
    return len(pool._in_use_connections)


def commands(recorded: bytes) -> list[list[bytes]]:
    """Return the commands in what a client sent."""
    reader = hiredis.Reader()
    reader.feed(recorded)
    found = []
    while (command := reader.gets()) is not False:
        assert isinstance(command, list)
        found.append(command)
    assert not reader.has_data(), "what was sent ends amid a command"
    return found


@contextlib.contextmanager
def proxied(
    server: EmbeddedServer, *, record: bool = False, **options: Any
) -> Iterator[tuple[FaultProxy, redis.Redis]]:
    """Empty a server, put a proxy in front of it, and connect a client through the proxy.

    Args:
        server: where to.
        record: keep what passes.
        **options: of the client.
    """
    with server.client() as direct:
        direct.flushall()
    with (
        FaultProxy(server.port, record=record) as proxy,
        redis.Redis(**{"host": proxy.host, "port": proxy.port, **options}) as client,
    ):
        yield proxy, client
