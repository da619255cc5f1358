"""The contenders: ours, and the other clients that can move a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType

from benchmarks import serializers
from benchmarks.peers.base import DATABASES, Peer
from benchmarks.servers import Endpoint

Factory = Callable[[ModuleType, Endpoint], list[Peer]]


def _ours(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [
        *(module.Ours(endpoint, codec) for codec in DATABASES),
        *(module.DropIn(endpoint, codec) for codec in DATABASES if codec != "msgpack"),
    ]


def _toolkit(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [module.Toolkit(endpoint)]


def _redispy(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [
        module.Pipeline(endpoint, serializers.MSGPACK, transaction=False),
        module.Pipeline(endpoint, serializers.MSGPACK, transaction=True),
        *(module.OneCommand(endpoint, serializer) for serializer in serializers.ALL),
        *(module.Chunked(endpoint, serializer) for serializer in serializers.ALL),
        module.CollectorOff(endpoint, serializers.MSGSPEC),
    ]


def _asynchronous(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [
        module.OneCommand(endpoint, serializers.MSGSPEC),
        module.Pipeline(endpoint, serializers.MSGSPEC),
    ]


# One module for each library, so that a missing library leaves out only its own contenders.
FAMILIES: dict[str, Factory] = {
    "fastbatch": _ours,
    "toolkit": _toolkit,
    "redispy": _redispy,
    "coredis": _asynchronous,
    "glide": _asynchronous,
}


@contextmanager
def connected(endpoint: Endpoint) -> Iterator[list[Peer]]:
    """Connect all the peers that can be imported, ours first, and close them at the end."""
    with ExitStack() as stack:
        peers: list[Peer] = []
        for family, make in FAMILIES.items():
            module = _imported(family)
            for peer in make(module, endpoint) if module else []:
                stack.callback(peer.close)
                peers.append(peer)
        yield peers


def _imported(family: str) -> ModuleType | None:
    try:
        return import_module(f"benchmarks.peers.{family}")
    except ImportError as error:
        warnings.warn(f"{family} is left out: {error}", stacklevel=2)
        return None
