"""RedisToolkit: clients, and pools of connections."""

from __future__ import annotations

import pytest
import redis

from redis_fastbatch._transports.redispy.pipeline import FastPipeline
from redis_fastbatch.server import EmbeddedServer
from redis_fastbatch.toolkit import (
    RedisConnectionConfig,
    RedisOptions,
    RedisToolkit,
    pool_manager,
)


class TestConnections:
    def test_a_client_and_a_config_exclude_each_other(self, client: redis.Redis) -> None:
        with pytest.raises(ValueError, match="both"):
            RedisToolkit(redis=client, config=RedisConnectionConfig())

    def test_pools_are_shared_by_configuration(self, server: EmbeddedServer) -> None:
        config = RedisConnectionConfig(host=server.host, port=server.port)
        one, two = (
            RedisToolkit(config=config),
            RedisToolkit(config=RedisConnectionConfig(server.host, server.port)),
        )
        other = RedisToolkit(config=RedisConnectionConfig(server.host, server.port, db=1))
        assert one.client.connection_pool is two.client.connection_pool
        assert one.client.connection_pool is not other.client.connection_pool
        one.setter("a", "shared")
        one.cleanup()
        assert one.client is None
        assert two.getter("a") == "shared"
        stats = pool_manager.get_pool_stats()
        assert all(set(counts) >= {"created_connections", "in_use_connections"} for counts in stats.values())
        assert pool_manager.close_pool(config) is True
        assert pool_manager.close_pool(config) is False
        pool_manager.close_all_pools()
        assert pool_manager.get_pool_stats() == {}

    def test_a_toolkit_can_have_its_own_pool(self, server: EmbeddedServer) -> None:
        options = RedisOptions(use_connection_pool=False)
        config = RedisConnectionConfig(server.host, server.port)
        with RedisToolkit(config=config, options=options) as toolkit:
            assert toolkit.client.connection_pool is not pool_manager.get_pool(config)
            toolkit.setter("a", 1)
        assert toolkit.client is None
        pool_manager.close_all_pools()

    @pytest.mark.parametrize("shared", [False, True])
    def test_its_own_client_has_fast_pipelines(self, valkey: EmbeddedServer, shared: bool) -> None:
        options = RedisOptions(use_connection_pool=shared)
        with RedisToolkit(config=RedisConnectionConfig(valkey.host, valkey.port), options=options) as toolkit:
            assert isinstance(toolkit.client, redis.Redis)
            pipe = toolkit.client.pipeline(transaction=False)
            assert isinstance(pipe, FastPipeline)
            assert pipe.set("a", 1).get("a").execute() == [True, b"1"]
            assert toolkit.client.transaction(lambda pipe: pipe.incr("a")) == [2]
        pool_manager.close_all_pools()

    def test_a_client_of_the_users_keeps_its_pipelines(self, valkey_client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=valkey_client)
        assert type(toolkit.client.pipeline()) is redis.client.Pipeline

    def test_max_connections_limits_the_pool(self, server: EmbeddedServer) -> None:
        config = RedisConnectionConfig(server.host, server.port)
        pool = pool_manager.get_pool(config, 3)
        assert pool.max_connections == 3
        assert pool_manager.get_pool(config) is pool
        pool_manager.close_all_pools()

    def test_tls_gets_a_pool_of_tls_connections(self) -> None:
        pool = pool_manager.get_pool(RedisConnectionConfig(ssl=True, ssl_ca_certs="ca.pem"))
        assert pool.connection_class is redis.SSLConnection
        assert pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"
        pool_manager.close_all_pools()

    def test_cleanup_may_be_called_twice(self, client: redis.Redis) -> None:
        with RedisToolkit(redis=client) as toolkit:
            assert toolkit.health_check() is True
        toolkit.cleanup()
        assert toolkit.client is None
