"""Connection pools, shared by all toolkits of the same configuration."""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import Any

from redis import ConnectionPool, Redis, SSLConnection

from redis_fastbatch._transports.redispy import connection_counts
from redis_fastbatch.toolkit._client import ToolkitRedis
from redis_fastbatch.toolkit.options import RedisConnectionConfig

logger = logging.getLogger("redis_fastbatch")


class ConnectionPoolManager:
    """The shared pools of the process. Every call of the class returns the same manager."""

    _instance: ConnectionPoolManager | None = None
    _creation = threading.Lock()
    _pools: dict[str, ConnectionPool]
    _lock: threading.Lock

    def __new__(cls) -> ConnectionPoolManager:
        with cls._creation:
            if cls._instance is None:
                made = super().__new__(cls)
                made._pools = {}
                made._lock = threading.Lock()
                cls._instance = made
        return cls._instance

    def get_pool(self, config: RedisConnectionConfig, max_connections: int | None = None) -> ConnectionPool:
        """Return the pool of a configuration; the first call makes it.

        Args:
            config: toolkits whose configurations are equal share a pool.
            max_connections: limit of a new pool; an existing pool does not change.
        """
        key = _key(config)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = _make_pool(config, max_connections)
                logger.info("new connection pool for %s:%s, database %s", config.host, config.port, config.db)
            return pool

    def create_client(self, config: RedisConnectionConfig, max_connections: int | None = None) -> Redis:
        """Return a client that uses get_pool()."""
        return ToolkitRedis(connection_pool=self.get_pool(config, max_connections))

    def close_pool(self, config: RedisConnectionConfig) -> bool:
        """Disconnect and forget the pool of a configuration; return False if there is none or that fails."""
        with self._lock:
            pool = self._pools.get(_key(config))
            if pool is None or not _disconnect(pool):
                return False
            del self._pools[_key(config)]
            return True

    def close_all_pools(self) -> None:
        """Disconnect and forget all pools."""
        with self._lock:
            for pool in self._pools.values():
                _disconnect(pool)
            self._pools.clear()

    def get_pool_stats(self) -> dict[str, dict[str, int]]:
        """Return the numbers of connections (made, free, in use, and their limit if set) by short pool name."""
        with self._lock:
            return {f"{key[:8]}...": _stats(pool) for key, pool in self._pools.items()}


def _key(config: RedisConnectionConfig) -> str:
    # Hashed, because the settings contain the password and statistics show the start of the key.
    settings = sorted((name, repr(value)) for name, value in config.to_redis_kwargs().items())
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _make_pool(config: RedisConnectionConfig, max_connections: int | None) -> ConnectionPool:
    kwargs = config.to_redis_kwargs()
    # A pool takes a connection class for TLS, where a client takes an argument.
    if kwargs.pop("ssl", False):
        kwargs["connection_class"] = SSLConnection
    if max_connections is not None:
        kwargs["max_connections"] = max_connections
    return ConnectionPool(**kwargs)


def _disconnect(pool: ConnectionPool) -> bool:
    try:
        pool.disconnect()
    except Exception as error:
        logger.error("a connection pool did not close: %s", error)
        return False
    return True


def _stats(pool: Any) -> dict[str, int]:
    created, free, in_use = connection_counts(pool)
    stats = {
        "created_connections": created,
        "available_connections": free,
        "in_use_connections": in_use,
    }
    if getattr(pool, "max_connections", None):
        stats["max_connections"] = pool.max_connections
    return stats


pool_manager = ConnectionPoolManager()
