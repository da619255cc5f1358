"""The short way of batches of one key over a cluster: one command, and no flight."""

from __future__ import annotations

from typing import Any

from redis_fastbatch._base_client import BaseClient, confirms_all, goes_alone
from redis_fastbatch._cluster.one_key import exchange_with_node
from redis_fastbatch._core.resp.encoder import IN_MEMORY, BatchWriter, Chunk
from redis_fastbatch._engine.flight import COMMAND_ITEMS, FIRST_COMMAND_BYTES, NO_LIMIT
from redis_fastbatch._engine.options import ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import outcome_unknown
from redis_fastbatch._engine.pacing import SHORT_REPLY_BYTES
from redis_fastbatch.report import BatchReport


def write_one(batch: BaseClient, items: Any, options: WriteOptions, report: BatchReport) -> bool:
    """Write a batch of one item.

    Args:
        batch: the client, of a cluster.
        items: what is written.
        options: how it is written.
        report: counts the item.

    Returns:
        False if the batch is another one, or has to be written in the general way.
    """
    if not _is_one(items) or not options.set.repeatable or options.on_chunk is not None:
        return False
    chunk = _encoded(batch._writer(items, options.set.single, COMMAND_ITEMS, FIRST_COMMAND_BYTES))
    if chunk is None:
        return False

    def confirms(reader: Any) -> bool:
        return confirms_all(reader, chunk, report)

    try:
        return exchange_with_node(batch._client, chunk, batch._key_encoding, confirms, reading=False)
    except BaseException as error:
        report.add_failure(chunk.keys[0], outcome_unknown(error))
        raise


def read_one(batch: BaseClient, keys: Any, out: Any, options: ReadOptions) -> bool:
    """Read the value of one key into `out`.

    Returns:
        False if there are other keys, or it has to be read in the general way.
    """
    if not _is_one(keys) or type(out) is not dict or not batch._sizes.fit(1, SHORT_REPLY_BYTES):
        return False
    chunk = _encoded(batch._mget_writer(keys, options))
    if chunk is None:
        return False

    def takes(reader: Any) -> bool:
        return batch._takes_all(reader, chunk, out, options)

    return exchange_with_node(
        batch._client, chunk, batch._key_encoding, takes, reading=True, max_value_size=batch._max_value_size
    )


def _is_one(items: Any) -> bool:
    return type(items) in IN_MEMORY and len(items) == 1


def _encoded(writer: BatchWriter) -> Chunk | None:
    """Return the command of one key; None if it cannot be encoded, or is long."""
    chunk = writer.blank()
    writer.fill_some(chunk, NO_LIMIT)
    return chunk if goes_alone(writer, chunk) else None
