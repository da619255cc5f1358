"""The servers that are measured against, and what a client has to know of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from redis_fastbatch.server import EmbeddedServer, ServerError, find_binary

# By the name the command line takes: the name that find_binary takes.
BINARIES = {"valkey": "embedded", "redis7": "debian", "redis8": "falkordb"}


@dataclass(frozen=True)
class Endpoint:
    """A running server.

    Attributes:
        version: the program's name and version.
        msetex: whether it has MSETEX, so that its clients may use it.
    """

    host: str
    port: int
    version: str
    msetex: bool

    def client(self, db: int = 0) -> redis.Redis:
        """Returns a redis-py client, with hiredis, as redis-py makes it by default."""
        return redis.Redis(host=self.host, port=self.port, db=db)


@contextmanager
def running(name: str) -> Iterator[Endpoint]:
    """Starts the server of that name and stops it at the end.

    Raises:
        ServerError: its binary is not installed.
    """
    binary = find_binary(BINARIES[name])
    if binary is None:
        raise ServerError(f"{name}: no binary of this server is installed")
    with EmbeddedServer(binary) as server:
        yield Endpoint(server.host, server.port, server.version, has_msetex(server.client()))


def has_msetex(client: redis.Redis) -> bool:
    """Asks a server whether it knows MSETEX."""
    with client:
        try:
            # Not COMMAND INFO: redis-py cannot read what that answers for a command that is not there.
            client.execute_command("MSETEX")
        except redis.ResponseError as refusal:
            return "unknown command" not in str(refusal).lower()
    return True
