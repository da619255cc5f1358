"""Finds out whether a server reads what another one's DUMP writes."""

from __future__ import annotations

import secrets
from typing import Any

import redis

from redis_fastbatch.cli.common import CliError
from redis_fastbatch.client import FastBatch

FOOTER = 10
"""The last bytes of a dump: two for the version of its format, RDB, and eight for a checksum."""

_POLYNOMIAL = 0x95AC9329AC4BC9B5
_UNKNOWN_TYPE = b"\xff\x00"


def check_versions(source: FastBatch, target: FastBatch, keys: list[bytes]) -> None:
    """Refuse servers of which one cannot read the other's dumps. Writes nothing.

    Args:
        source: the server that writes dumps.
        target: the server that has to read them.
        keys: some keys of the source. The first that exists shows the version.

    Raises:
        CliError: the target does not read the version of the source.
    """
    replies = source.batch_execute_iter((("DUMP", key) for key in keys), raise_on_error=False)
    dump = next((reply for reply in replies if isinstance(reply, bytes)), None)
    if dump is None:
        return
    version = int.from_bytes(dump[-FOOTER : 2 - FOOTER], "little")
    if not _reads(target, version):
        raise CliError(
            f"{server_name(source)} writes dumps of RDB version {version}, and {server_name(target)} does not "
            "read them: nothing was copied. Copy to a server of the same or a newer version, or use dump and "
            "load for strings and hashes"
        )


def _reads(target: FastBatch, version: int) -> bool:
    """Ask a server to restore a value that has this version and no valid type: it refuses one or the other."""
    content = _UNKNOWN_TYPE + version.to_bytes(2, "little")
    value = content + _checksum(content).to_bytes(8, "little")
    probe = ("RESTORE", f"redis-fastbatch:probe:{secrets.token_hex(8)}", 0, value)
    reply = next(target.batch_execute_iter([probe], raise_on_error=False))
    # Another error, for example because the user may not write this key, says nothing about the version.
    return not (isinstance(reply, redis.ResponseError) and "version or checksum" in str(reply))


def _checksum(content: bytes) -> int:
    """Return the CRC-64 of Redis."""
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


def server_name(batch: FastBatch) -> str:
    """Return a server's name and version, such as "Valkey 9.1.2"."""
    client: Any = batch.client
    node = client.get_redis_connection(client.get_primaries()[0]) if hasattr(client, "get_primaries") else client
    info = node.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info['redis_version']}"
