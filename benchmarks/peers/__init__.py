"""The contenders: ours, and the other clients that can move a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType

from benchmarks import serializers
from benchmarks.peers.base import Peer
from benchmarks.servers import Endpoint

Factory = Callable[[ModuleType, Endpoint], list[Peer]]


def _ours(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [
        *(module.Ours(endpoint, codec) for codec in ("msgpack", "toolkit", "toolkit-msgpack")),
        *(module.DropIn(endpoint, codec) for codec in ("toolkit", "toolkit-msgpack")),
    ]


def _ours_in_json(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [module.Ours(endpoint, "json")]


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


def _redispy_with_json(module: ModuleType, endpoint: Endpoint) -> list[Peer]:
    return [
        module.Pipeline(endpoint, serializers.ORJSON, transaction=False, wire="json"),
        *(module.OneCommand(endpoint, serializer, wire="json") for serializer in serializers.JSON),
        module.Chunked(endpoint, serializers.ORJSON, wire="json"),
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
JSON_FAMILIES: dict[str, Factory] = {"fastbatch": _ours_in_json, "redispy": _redispy_with_json}


@contextmanager
def connected(endpoint: Endpoint, codec: str = "msgpack") -> Iterator[list[Peer]]:
    """Connect all the peers that can be imported, ours first, and close them at the end.

    With the codec `json` these are the ones that store JSON.
    """
    with ExitStack() as stack:
        peers: list[Peer] = []
        for family, make in (JSON_FAMILIES if codec == "json" else FAMILIES).items():
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
