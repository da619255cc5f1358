"""Sends the command of one key to the node of a cluster that has its slot, the short way of such a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from redis_fastbatch._cluster.topology import topology_of
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import slot_of_key
from redis_fastbatch._transports.sync import Lease


def exchange_with_node(
    cluster: Any,
    chunk: Chunk,
    key_encoding: tuple[str, str],
    take: Callable[[ReplyReader], bool],
    *,
    reading: bool,
    max_value_size: int = 0,
) -> bool:
    """Send a command to the node of its key, and receive the reply.

    Args:
        cluster: a redis.RedisCluster.
        chunk: the command, sealed. To carry it out twice must do no harm.
        key_encoding: the encoding of str keys, and how its errors are handled.
        take: reads the reply if it is whole, and is what the command is usually answered with; else returns False.
        reading: use a replica, if the client reads from them.
        max_value_size: longer values are refused on reading, in bytes; 0 for no limit.

    Returns:
        Whether `take` has read the reply. If not, a ClusterLease has to carry out the batch: it follows
        redirections, waits for nodes that are down, and raises the errors.
    """
    topology = topology_of(cluster, reading=reading)
    if topology.is_stale:
        return False
    node = topology.nodes[topology.router.owner(slot_of_key(chunk.keys[0], *key_encoding))]
    try:
        with Lease(cluster.get_redis_connection(node), max_value_size) as borrowed:
            reader = borrowed.exchange(chunk)
            if reader is not None and take(reader):
                return True
            borrowed.give_up()
    except (RedisError, OSError):
        # It is raised again in the general way, unless that succeeds.
        return False
    return False
