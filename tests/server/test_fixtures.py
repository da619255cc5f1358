"""The fixtures of the tests: servers of every kind, as tests expect them."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from redis_fastbatch.server import (
    EmbeddedServer,
)
from servers import (
    AclUser,
    Cluster,
    ReplicaPair,
    SentinelGroup,
    TlsServer,
    configured,
    sentinel_deployment,
    slot_ranges,
    wait_until,
)


class TestFixtures:
    def test_client_of_each_server_starts_empty(self, client: redis.Redis, server: EmbeddedServer) -> None:
        assert client.dbsize() == 0
        assert client.connection_pool.connection_kwargs["port"] == server.port
        client.set("left", "behind")

    def test_only_valkey_has_msetex(
        self,
        valkey_client: redis.Redis,
        redis7_client: redis.Redis,
        redis82_client: redis.Redis,
    ) -> None:
        def has(client: redis.Redis) -> bool:
            return bool(client.command_list(pattern="msetex"))

        assert [has(valkey_client), has(redis7_client), has(redis82_client)] == [True, False, False]

    def test_configured_restores_the_parameters(self, client: redis.Redis) -> None:
        before = client.config_get("maxmemory")
        with configured(client, maxmemory="100mb"):
            assert client.config_get("maxmemory") != before
        assert client.config_get("maxmemory") == before

    def test_the_tls_server_accepts_its_own_authority_only(self, tls_server: TlsServer) -> None:
        assert tls_server.client().ping()
        assert redis.Redis.from_url(tls_server.url).ping()
        with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
            redis.Redis(host=tls_server.host, port=tls_server.port, ssl=True).ping()

    def test_the_acl_user_may_access_its_prefix_only(self, acl_server: AclUser) -> None:
        client = acl_server.client()
        assert client.set("allowed:k", "v")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("forbidden", "v")

    def test_the_replica_has_the_masters_keys(self, replica: ReplicaPair) -> None:
        replica.master.client().set("k", "v")
        replica.wait_for_sync()
        assert replica.replica.client().get("k") == b"v"
        with pytest.raises(redis.exceptions.ReadOnlyError):
            replica.replica.client().set("k", "w")

    def test_the_sentinel_knows_master_and_replica(self, sentinel: SentinelGroup) -> None:
        assert sentinel.master_address()[1] == sentinel.servers.master.port
        connected = sentinel.connect()
        assert connected.master_for(sentinel.name).set("k", "v")
        sentinel.servers.wait_for_sync()
        assert connected.slave_for(sentinel.name).get("k") == b"v"

    def test_the_sentinel_promotes_the_replica(self, embedded: Path) -> None:
        with sentinel_deployment(embedded) as group:
            group.servers.master.kill()
            expected = group.servers.replica.port
            wait_until(lambda: group.master_address()[1] == expected, "the Sentinel promotes the replica")
            assert group.connect().master_for(group.name).set("k", "v")

    def test_the_cluster_spreads_keys_over_its_masters(
        self, cluster: Cluster, cluster_client: redis.RedisCluster
    ) -> None:
        for number in range(100):
            assert cluster_client.set(f"k{number}", number)
        held = [master.client().dbsize() for master in cluster.masters]
        assert sum(held) == 100
        assert all(held)
        assert [replica.client().info("replication")["role"] for replica in cluster.replicas] == ["slave"] * 3

    def test_slot_ranges_cover_all_slots(self) -> None:
        assert slot_ranges(3) == [(0, 5460), (5461, 10921), (10922, 16383)]
        assert slot_ranges(1) == [(0, 16383)]
