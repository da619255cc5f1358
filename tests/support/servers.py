"""Servers for the tests: single ones, replicas, a Sentinel and a cluster, all on loopback.

The fixtures in conftest.py use these context managers. A test that breaks its servers (a failover, a kill) starts
servers of its own with them, because other tests share those of the fixtures.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis
import redis.sentinel

from redis_fastbatch.server import FREE_PORT, EmbeddedServer, debian_redis_binary

SLOTS = 16384
SENTINEL_NAME = "fastbatch"


def missing(what: str) -> NoReturn:
    """Skip the test because something is missing. Fail it if CI requires everything."""
    if os.environ.get("CI_REQUIRE_ALL_SERVERS") == "1":
        pytest.fail(f"{what}, and CI_REQUIRE_ALL_SERVERS=1 requires it")
    pytest.skip(what)


def required(binary: Path | None, what: str) -> Path:
    """Return the binary. If it is missing, skip the test, or fail it in CI."""
    return missing(f"{what} is not installed") if binary is None else binary


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until a condition holds. Until then it may raise redis-py's errors.

    Args:
        condition: called repeatedly.
        what: the condition in words, for the error.
        seconds: the longest time to wait.

    Raises:
        TimeoutError: the condition did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except redis.RedisError:
        return False


@contextmanager
def configured(client: redis.Redis, **settings: str | int) -> Iterator[None]:
    """Set a server's parameters, and restore them at the end.

    Args:
        client: a client of the server.
        **settings: parameters of CONFIG SET, with underscores for hyphens.
    """
    wanted = {name.replace("_", "-"): value for name, value in settings.items()}
    before = {name: _text(client.config_get(name))[name] for name in wanted}
    try:
        for name, value in wanted.items():
            client.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


@contextmanager
def memory_left(client: redis.Redis, size: int) -> Iterator[None]:
    """Empty a server, and limit its memory to `size` more bytes. It refuses commands that need more."""
    # Without SYNC the server frees the memory of earlier tests later, in the background.
    client.execute_command("FLUSHALL", "SYNC")
    wait_until(lambda: client.info("memory")["lazyfree_pending_objects"] == 0, "all memory is freed")
    used = client.info("memory")["used_memory"]
    with configured(client, maxmemory=used + size, maxmemory_policy="noeviction"):
        yield


def _text(settings: dict[Any, Any]) -> dict[str, str]:
    decoded = ((_decoded(name), _decoded(value)) for name, value in settings.items())
    return dict(decoded)


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class AclUser:
    """A user of one server who may run every command, but only on keys with one prefix."""

    server: EmbeddedServer
    username: str
    password: str
    prefix: str

    def client(self, **kwargs: Any) -> redis.Redis:
        """Return a client that logs in as the user."""
        return self.server.client(username=self.username, password=self.password, **kwargs)


@contextmanager
def acl_user(server: EmbeddedServer, *rules: str, prefix: str = "allowed:") -> Iterator[AclUser]:
    """Make a user for keys with one prefix, and delete it at the end.

    Args:
        server: the server.
        *rules: further ACL rules, such as `-mset`.
        prefix: the keys that the user may access begin with it.
    """
    user = AclUser(server, f"user-{secrets.token_hex(4)}", secrets.token_hex(16), prefix)
    with server.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", user.username, "on", f">{user.password}", f"~{prefix}*", "&*", "+@all", *rules
        )
        try:
            yield user
        finally:
            admin.execute_command("ACL", "DELUSER", user.username)


@dataclass(frozen=True)
class TlsServer:
    """A server that listens with TLS on one port and without on another."""

    server: EmbeddedServer
    port: int
    ca_path: Path

    @property
    def host(self) -> str:
        """The address of the server."""
        return self.server.host

    @property
    def url(self) -> str:
        """The URL of the TLS port, with the path of the authority's certificate."""
        return f"rediss://{self.host}:{self.port}/0?ssl_ca_certs={self.ca_path}"

    def client(self, **kwargs: Any) -> redis.Redis:
        """Return a client over TLS that checks the certificate."""
        options = {"host": self.host, "port": self.port, "ssl": True, "ssl_ca_certs": str(self.ca_path)}
        return redis.Redis(**{**options, **kwargs})


@contextmanager
def tls_deployment(directory: Path, names: Sequence[str] = ("127.0.0.1", "localhost")) -> Iterator[TlsServer]:
    """Start Debian's redis-server with TLS. The other binaries have no TLS.

    Args:
        directory: the directory for the certificates.
        names: the hosts in the server's certificate.
    """
    # Imported here, because trustme needs cryptography, which has no wheel for some platforms.
    trustme = pytest.importorskip("trustme")
    binary = required(debian_redis_binary(), "Debian's redis-server")
    authority = trustme.CA()
    ca_path, chain, key = directory / "ca.pem", directory / "server.pem", directory / "server.key"
    certificate = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(str(ca_path))
    certificate.private_key_pem.write_to_path(str(key))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(chain), append=True)
    with EmbeddedServer(
        binary,
        tls_port=FREE_PORT,
        tls_cert_file=str(chain),
        tls_key_file=str(key),
        tls_ca_cert_file=str(ca_path),
        tls_auth_clients=False,
    ) as server:
        yield TlsServer(server, server.port_of("tls_port"), ca_path)


@dataclass(frozen=True)
class ReplicaPair:
    """A master and its replica."""

    master: EmbeddedServer
    replica: EmbeddedServer

    def wait_for_sync(self, seconds: float = 30.0) -> None:
        """Wait until the replica has all writes of the master."""
        with self.master.client() as master, self.replica.client() as replica:
            wait_until(lambda: _is_in_sync(master, replica), "the replica has all writes", seconds)


def _is_in_sync(master: redis.Redis, replica: redis.Redis) -> bool:
    theirs = replica.info("replication")
    if theirs.get("master_link_status") != "up" or theirs.get("master_sync_in_progress"):
        return False
    return bool(theirs["slave_repl_offset"] >= master.info("replication")["master_repl_offset"])


@contextmanager
def replica_deployment(binary: Path | None = None, **options: Any) -> Iterator[ReplicaPair]:
    """Start a master and a replica of it, in sync.

    Args:
        binary: the binary of both; the embedded one by default.
        **options: options of both for EmbeddedServer.
    """
    with (
        EmbeddedServer(binary, repl_diskless_sync_delay=0, **options) as master,
        EmbeddedServer(binary, replicaof=(master.host, master.port), **options) as replica,
    ):
        pair = ReplicaPair(master, replica)
        pair.wait_for_sync()
        yield pair


@dataclass(frozen=True)
class SentinelGroup:
    """A master and a replica, watched by one Sentinel, which can start a failover.

    Attributes:
        servers: the master as it was at the start, and its replica.
        sentinel: the Sentinel's process.
        name: the Sentinel's name for the master.
    """

    servers: ReplicaPair
    sentinel: EmbeddedServer
    name: str = SENTINEL_NAME

    def connect(self, **kwargs: Any) -> redis.sentinel.Sentinel:
        """Return a redis-py Sentinel. `.master_for(group.name)` gives a client of the current master.

        Args:
            **kwargs: options of the connections to master and replicas.
        """
        return redis.sentinel.Sentinel([(self.sentinel.host, self.sentinel.port)], **kwargs)

    def master_address(self) -> tuple[str, int]:
        """Return the host and port of the master that the Sentinel knows."""
        host, port = self.connect(socket_timeout=2.0).discover_master(self.name)
        return str(host), int(port)

    def failover(self, seconds: float = 30.0) -> None:
        """Make the replica the master, and wait until the Sentinel reports it."""
        before = self.master_address()
        with self.sentinel.client() as client:
            client.execute_command("SENTINEL", "FAILOVER", self.name)
        wait_until(lambda: self.master_address() != before, "the failover", seconds)


@contextmanager
def sentinel_deployment(binary: Path | None = None) -> Iterator[SentinelGroup]:
    """Start a master, its replica and a Sentinel that knows both.

    Args:
        binary: the binary of all three; the embedded one by default.
    """
    with replica_deployment(binary) as pair:
        watched = [
            f"sentinel monitor {SENTINEL_NAME} {pair.master.host} {pair.master.port} 1",
            f"sentinel down-after-milliseconds {SENTINEL_NAME} 1000",
            f"sentinel failover-timeout {SENTINEL_NAME} 5000",
        ]
        with EmbeddedServer(pair.master.binary, arguments=["--sentinel"], directives=watched) as sentinel:
            group = SentinelGroup(pair, sentinel)
            wait_until(lambda: _knows_both(group), "the Sentinel finds the replica")
            yield group


def _knows_both(group: SentinelGroup) -> bool:
    sentinel = group.connect(socket_timeout=2.0)
    replicas = sentinel.discover_slaves(group.name)
    return bool(sentinel.discover_master(group.name)) and len(replicas) == 1


@dataclass(frozen=True)
class Cluster:
    """Masters that share the slots evenly, in order, and a replica of each.

    Attributes:
        masters: the first has the lowest slots.
        replicas: the i-th replicates the i-th master.
    """

    masters: tuple[EmbeddedServer, ...]
    replicas: tuple[EmbeddedServer, ...]

    @property
    def nodes(self) -> tuple[EmbeddedServer, ...]:
        """Masters, then replicas."""
        return self.masters + self.replicas

    @property
    def url(self) -> str:
        """The URL of the first node."""
        return self.masters[0].url

    def client(self, **kwargs: Any) -> redis.RedisCluster:
        """Return a new redis-py cluster client.

        Args:
            **kwargs: arguments of redis.RedisCluster.
        """
        first = self.masters[0]
        return redis.RedisCluster(host=first.host, port=first.port, **kwargs)

    def node_id(self, node: EmbeddedServer) -> str:
        """Return a node's id in CLUSTER NODES."""
        with node.client() as client:
            return _decoded(client.execute_command("CLUSTER", "MYID"))

    def flush(self) -> None:
        """Empty all masters."""
        for master in self.masters:
            with master.client() as client:
                client.flushall()

    def wait_until_ok(self, seconds: float = 60.0) -> None:
        """Wait until every running node knows all nodes, finds the cluster healthy, and is in sync."""
        for node in self.nodes:
            if node.running:
                wait_until(partial(self._is_ok, node), f"{node} finds the cluster healthy", seconds)

    def _is_ok(self, node: EmbeddedServer) -> bool:
        with node.client() as client:
            info = _cluster_info(client)
            healthy = info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)
            state = client.info("replication")
            return healthy and (state["role"] == "master" or state["master_link_status"] == "up")


def _cluster_info(client: redis.Redis) -> dict[str, str]:
    # Only newer versions of redis-py parse this reply.
    reply = client.execute_command("CLUSTER", "INFO")
    if isinstance(reply, dict):
        return _text(reply)
    return dict(line.split(":", 1) for line in _decoded(reply).split())


@contextmanager
def cluster_deployment(masters: int = 3, binary: Path | None = None, **options: Any) -> Iterator[Cluster]:
    """Start a cluster with a replica for every master, and wait until it is healthy.

    Args:
        masters: the number of masters; there are twice as many nodes.
        binary: the binary of all nodes; the embedded one by default.
        **options: options of all nodes for EmbeddedServer.
    """
    with ExitStack() as running:
        nodes = [running.enter_context(_cluster_node(binary, options)) for _ in range(2 * masters)]
        cluster = Cluster(tuple(nodes[:masters]), tuple(nodes[masters:]))
        _join(cluster)
        cluster.wait_until_ok()
        yield cluster


def _cluster_node(binary: Path | None, options: dict[str, Any]) -> EmbeddedServer:
    return EmbeddedServer(
        binary,
        cluster_enabled=True,
        # The usual port + 10000 would be above 65535 for most free ports.
        cluster_port=FREE_PORT,
        cluster_node_timeout=5000,
        repl_diskless_sync_delay=0,
        **options,
    )


def _join(cluster: Cluster) -> None:
    for epoch, node in enumerate(cluster.nodes, start=1):
        # With distinct epochs the nodes have no conflicts to resolve.
        _cluster(node, "SET-CONFIG-EPOCH", epoch)
    for master, (first, last) in zip(cluster.masters, slot_ranges(len(cluster.masters)), strict=True):
        _cluster(master, "ADDSLOTSRANGE", first, last)
    for node in cluster.nodes[1:]:
        _cluster(cluster.masters[0], "MEET", node.host, node.port, node.port_of("cluster_port"))
    for master, replica in zip(cluster.masters, cluster.replicas, strict=True):
        _replicate(replica, cluster.node_id(master))


def slot_ranges(masters: int) -> Sequence[tuple[int, int]]:
    """Return the first and last slot of each master."""
    starts = [SLOTS * index // masters for index in range(masters + 1)]
    return [(first, after - 1) for first, after in pairwise(starts)]


def _replicate(replica: EmbeddedServer, master_id: str) -> None:
    def accepted() -> bool:
        _cluster(replica, "REPLICATE", master_id)
        return True

    # The replica refuses the command until it knows its master by gossip.
    wait_until(accepted, f"{replica} knows its master")


def _cluster(node: EmbeddedServer, *arguments: str | int) -> None:
    with node.client() as client:
        client.execute_command("CLUSTER", *arguments)
