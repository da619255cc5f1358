"""The servers that benchmarks run against, and what a client has to know about one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from redis_fastbatch.server import EmbeddedServer, ServerError, find_binary

# The command line's name of each server, and the name that find_binary takes.
BINARIES = {"valkey": "embedded", "redis7": "debian", "redis8": "falkordb"}


@dataclass(frozen=True)
class Endpoint:
    """A running server.

    Attributes:
        version: the program's name and version.
        msetex: whether it has MSETEX, so that its clients may use it.
        ca: the path of the authority's certificate, if the port takes TLS.
    """

    host: str
    port: int
    pid: int
    version: str
    msetex: bool
    ca: str | None = None

    def client(self, db: int = 0) -> redis.Redis:
        """Return a redis-py client, with hiredis, as redis-py makes it by default."""
        tls = {} if self.ca is None else {"ssl": True, "ssl_ca_certs": self.ca}
        return redis.Redis(host=self.host, port=self.port, db=db, **tls)  # type: ignore[arg-type]


@contextmanager
def running(name: str) -> Iterator[Endpoint]:
    """Start the server of that name and stop it at the end.

    Raises:
        ServerError: its binary is not installed.
    """
    binary = find_binary(BINARIES[name])
    if binary is None:
        raise ServerError(f"{name}: no binary of this server is installed")
    with EmbeddedServer(binary) as server:
        yield Endpoint(server.host, server.port, server.pid, server.version, has_msetex(server.client()))


@contextmanager
def apart(endpoint: Endpoint) -> Iterator[None]:
    """Give the server a processor of its own, as if it were another machine, where there is more than one.

    Otherwise the scheduler now and then puts client and server on the same processor, where they take turns: such
    a batch takes half as long again, with any client. In this process only the calling thread keeps off the
    server's processor. Threads that clients have started may run anywhere.
    """
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(processors) < 2:
        yield
        return
    servers_own = max(processors)
    os.sched_setaffinity(endpoint.pid, {servers_own})
    os.sched_setaffinity(0, processors - {servers_own})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def empty(endpoint: Endpoint) -> None:
    """Remove all keys."""
    with endpoint.client() as client:
        # Otherwise Valkey frees them in the background, and takes processor time from the next contender.
        client.execute_command("FLUSHALL", "SYNC")


def has_msetex(client: redis.Redis) -> bool:
    """Ask a server whether it knows MSETEX."""
    with client:
        try:
            # Not COMMAND INFO: redis-py cannot read its reply for an unknown command.
            client.execute_command("MSETEX")  # type: ignore[no-untyped-call]
        except redis.ResponseError as refusal:
            return "unknown command" not in str(refusal).lower()
    return True
