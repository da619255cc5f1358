"""What a server can do: whether it has MSETEX, and whether a batch may use it."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis_fastbatch._transports.asyncio import AsyncLease
    from redis_fastbatch._transports.sync import Lease

logger = logging.getLogger("redis_fastbatch")


class Capabilities:
    """Remembers which servers have MSETEX. A server is asked once for each connection pool."""

    def __init__(self) -> None:
        self._msetex: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()

    def msetex(self, pool: Any) -> bool | None:
        """Return what the pool's server answered; None if it has not been asked."""
        return self._msetex.get(pool)

    def remember_msetex(self, pool: Any, has_it: bool) -> None:
        """Remember what the server answered, or what turned out after a failover."""
        self._msetex[pool] = has_it


capabilities = Capabilities()


def has_msetex(lease: Lease) -> bool:
    """Return whether the server of a borrowed connection has MSETEX, and a batch may use it."""
    pool = lease.client.connection_pool
    known = capabilities.msetex(pool)
    if known is None:
        try:
            known = any(lease.ask("COMMAND", "INFO", "MSETEX"))
            known = known and not _is_cluster_node(lease.ask("INFO", "cluster"))
        except ResponseError as error:
            known = _refused(error)
        capabilities.remember_msetex(pool, known)
    return known


async def has_msetex_async(lease: AsyncLease) -> bool:
    """Return whether the server of a borrowed connection has MSETEX, and a batch may use it."""
    pool = lease.client.connection_pool
    known = capabilities.msetex(pool)
    if known is None:
        try:
            known = any(await lease.ask("COMMAND", "INFO", "MSETEX"))
            known = known and not _is_cluster_node(await lease.ask("INFO", "cluster"))
        except ResponseError as error:
            known = _refused(error)
        capabilities.remember_msetex(pool, known)
    return known


def _refused(error: ResponseError) -> bool:
    logger.debug("the server does not answer whether it has MSETEX, so SET is used: %s", error)
    return False


def _is_cluster_node(info: bytes) -> bool:
    """Return whether a server is a node of a cluster, by the section `cluster` of its INFO.

    A client that knows nothing of slots must not send MSETEX there. Valkey 9.1 accepts it even for keys in slots
    of other nodes, where it answers SET and MSET with MOVED.
    """
    return b"cluster_enabled:1" in info
