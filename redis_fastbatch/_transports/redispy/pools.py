"""What a pool of redis-py does for a connection, besides moving it between two collections."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

# Earlier versions of redis-py have no events.
try:
    from redis.event import EventDispatcher
except ImportError:
    EventDispatcher = None  # type: ignore[assignment, misc]


@functools.lru_cache(maxsize=64)
def has_own_methods(kind: Any, own: Any, methods: tuple[str, ...]) -> bool:
    """Return whether a class of pools takes and gives back connections as redis-py's own class does.

    Args:
        kind: the class.
        own: redis-py's ConnectionPool, synchronous or asyncio.
        methods: the methods with which it does so. The result is False if this version of redis-py lacks one.
    """
    return issubclass(kind, own) and all(
        getattr(kind, name, None) is getattr(own, name, NotImplemented) for name in methods
    )


def records_metrics(recorder: ModuleType | None) -> bool:
    """Return whether redis-py counts the connections for OpenTelemetry.

    Args:
        recorder: the module that does so; None in versions of redis-py without it.
    """
    if recorder is None:
        return False
    providers: Any = getattr(recorder, "get_observability_instance", None)
    return providers is None or providers().get_provider_manager() is not None


def is_observed(pool: Any, event: Any, own_listener: Any) -> bool:
    """Return whether the pool has to report an event to anyone but redis-py's own listener."""
    dispatcher = getattr(pool, "_event_dispatcher", None)
    if dispatcher is None:
        return False
    if EventDispatcher is None or type(dispatcher) is not EventDispatcher:
        return True
    for listener in dispatcher._event_listeners_mapping.get(event, ()):
        if type(listener) is not own_listener:
            return True
    return False


def is_settled(connection: Any) -> bool:
    """Return whether a connection has neither a new token to send nor an order to connect again."""
    waits = getattr(connection, "_re_auth_token", None) is not None
    return not waits and not getattr(connection, "_should_reconnect", False)
