"""The nodes of redis-py's RedisCluster, synchronous and asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import AskError

from redis_fastbatch._transports.redispy.asyncio import check_loop
from redis_fastbatch._transports.redispy.sync import unlock


class Nodes:
    """A RedisCluster's own view of its nodes and their slots.

    Args:
        cluster: a client that is initialized.
    """

    def __init__(self, cluster: Any) -> None:
        # Not the client, which refers to whatever holds this.
        self._manager = cluster.nodes_manager

    @property
    def slots(self) -> dict[int, list[Any]]:
        """The nodes of each slot, its master first. A new dict after each refresh."""
        slots: dict[int, list[Any]] = self._manager.slots_cache
        return slots

    def address(self, redirection: AskError, answered: Any) -> tuple[str, int]:
        """Return the host and port that a redirection names, mapped as the client maps addresses.

        Args:
            redirection: MOVED or ASK.
            answered: the node that replied with it. A redirection without a host means the same host.
        """
        host, port = redirection.host or answered.host, int(redirection.port)
        mapped: tuple[str, int] = self._manager.remap_host_port(host, port)
        return mapped

    def at(self, host: str, port: int, like: Any) -> Any:
        """Return the node at an address; a new one, with the settings of `like`, if the client knows none."""
        return self._manager.get_node(host=host, port=port) or _new_node(like, host, port)


def refresh(cluster: Any) -> Any:
    """Let a client ask the cluster for its slots. A coroutine where the client is one of asyncio."""
    return cluster.nodes_manager.initialize()


def retries(cluster: Any) -> int:
    """Return how often a client tries again a command that it could not send to any node."""
    count: int | None = getattr(getattr(cluster, "retry", None), "_retries", None)
    return getattr(cluster, "cluster_error_retry_attempts", 1) if count is None else count


def read_strategy(cluster: Any) -> str | None:
    """Return how a client spreads reads over the nodes of a shard.

    Returns:
        The value of a LoadBalancingStrategy; None if it reads from masters.
    """
    strategy = getattr(cluster, "load_balancing_strategy", None)
    if strategy is not None:
        return str(strategy.value)
    return "round_robin" if cluster.read_from_replicas else None


@contextlib.asynccontextmanager
async def borrow_from_node(node: Any) -> AsyncIterator[Any]:
    """Borrow a connection of an asyncio cluster's node, which is its own pool."""
    connection = node.acquire_connection()
    try:
        check_loop(connection)
        # redis-py asks for that where it has seen slots change.
        if getattr(connection, "should_reconnect", bool)():
            await connection.disconnect()
        yield connection
    finally:
        # redis-py 5 has no release().
        release = getattr(node, "release", None) or node._free.append
        release(connection)


def _new_node(like: Any, host: str, port: int) -> Any:
    settings = getattr(like, "connection_kwargs", None)
    if settings is None:
        return type(like)(host, port, "primary")
    # The nodes of asyncio's client are their own pools.
    others = {name: value for name, value in settings.items() if name not in ("host", "port")}
    return type(like)(
        host,
        port,
        "primary",
        max_connections=like.max_connections,
        connection_class=like.connection_class,
        **others,
    )


def unlock_cluster(client: Any) -> None:
    """Release the locks of a RedisCluster that this thread has. Call it after an interrupt, see unlock()."""
    for owner in (client, getattr(client, "nodes_manager", None)):
        for name in ("_lock", "_initialization_lock"):
            unlock(getattr(owner, name, None))
