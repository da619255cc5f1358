"""Messages about replies that redirect to another node of a cluster."""

from __future__ import annotations

from redis.exceptions import AskError, ClusterCrossSlotError, MovedError

CLUSTER_HINT = (
    "; this server is a node of a cluster: use a redis.RedisCluster client, or from_url(..., cluster=True)"
)


def error_text(error: BaseException) -> str:
    """Return what an error says, with the words that redis-py removes from a redirection."""
    if not isinstance(error, AskError):
        return str(error)
    # MovedError is a kind of AskError.
    word = "MOVED" if isinstance(error, MovedError) else "ASK"
    return f"{word} {error}"


def cluster_hint(error: BaseException) -> str:
    """Return advice for a client that uses a cluster's node as a single server; empty for other errors."""
    return CLUSTER_HINT if isinstance(error, (AskError, ClusterCrossSlotError)) else ""


def is_wrong_type(error: BaseException) -> bool:
    """Return whether the server refused a command because its key holds another type."""
    # redis-py removes the code of some errors from their text.
    return str(error).startswith("WRONGTYPE") or "wrong kind of value" in str(error)
