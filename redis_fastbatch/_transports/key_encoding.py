"""How str keys become bytes: as redis-py itself writes them, so that its own commands find what a batch wrote."""

from __future__ import annotations

from typing import Any

from redis.connection import HiredisRespSerializer
from redis.utils import HIREDIS_AVAILABLE


def key_encoding(client: Any) -> tuple[str, str]:
    """The encoding, and how its errors are dealt with, of the str keys in a client's commands.

    Where hiredis packs the commands it is UTF-8, whatever the client's `encoding`.

    Args:
        client: a redis-py client, of one server or of a cluster, synchronous or asyncio.
    """
    if _packs_by_hiredis(client):
        return "utf-8", "strict"
    encoder = client.get_encoder()
    return encoder.encoding, encoder.encoding_errors


def _packs_by_hiredis(client: Any) -> bool:
    if hasattr(client, "__aenter__"):
        # redis.asyncio packs them in Python, also where hiredis reads the replies.
        return False
    pool = getattr(client, "connection_pool", None)
    packer = getattr(pool, "connection_kwargs", {}).get("command_packer")
    return HIREDIS_AVAILABLE if packer is None else isinstance(packer, HiredisRespSerializer)
