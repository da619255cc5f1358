"""What both clients share for hashes: they make flights from the arguments of their methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_on_error
from redis_fastbatch._base_client import BaseClient, Found
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.hashes import MappingWriter
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import COMMAND_BYTES, FIRST_COMMAND_BYTES
from redis_fastbatch._engine.hash_read import HashReadFlight, HashReadOutcome
from redis_fastbatch._engine.hashes import HashFlight, expire_command, hset_command
from redis_fastbatch._engine.options import ReadOptions, WriteOptions
from redis_fastbatch._engine.outcome import OnError, WriteOutcome
from redis_fastbatch._transports.redispy import reply_decoding
from redis_fastbatch.codecs import AnyCodec, ValueCodec, resolve
from redis_fastbatch.report import BatchReport, OnChunk, Progress

FieldType: TypeAlias = "type[str] | type[bytes] | type[int] | type[float] | type[bool]"
FieldTypes: TypeAlias = "FieldType | Mapping[str, FieldType] | Mapping[bytes, FieldType]"
Fields: TypeAlias = "Iterable[str] | Iterable[bytes] | Iterable[Any]"

HGETALL = Command(b"HGETALL", many=False, with_values=False)


class HashWriting:
    """How a batch of hashes is written: the arguments of batch_hset(), checked.

    Args:
        expiry: the arguments ex, px, exat, pxat and ex_jitter of batch_hset().
        codec, chunk_size, on_error, on_chunk: the other arguments of batch_hset().

    Attributes:
        options: how the hashes are written.
        expire: the command that lets a hash expire, or None.
        codec: makes bytes of the values of fields; None writes them as redis-py does.
    """

    def __init__(
        self,
        expiry: SetOptions,
        codec: AnyCodec | None,
        chunk_size: int | None,
        on_error: OnError,
        on_chunk: OnChunk | None,
    ) -> None:
        check_hook("on_chunk", on_chunk)
        self.options = WriteOptions(expiry, checked_chunk_size(chunk_size), checked_on_error(on_error), on_chunk)
        self.expire: Command | None = expire_command(self.options.set)
        self.codec: ValueCodec | None = None if codec is None else resolve(codec)


class HashReading:
    """How hashes are read: the arguments of batch_hgetall() and batch_hmget(), checked.

    Args:
        client: the client.
        fields: the fields of HMGET; None for HGETALL.
        types, codec: the arguments of the methods.

    Attributes:
        command: HGETALL, or HMGET with its fields.
        rows: reads the replies.
        method: the method of the client, for messages.
    """

    def __init__(
        self, client: HashClient, fields: Fields | None, types: FieldTypes | None, codec: AnyCodec | None
    ) -> None:
        encoding, errors = client._key_encoding
        decoding, decoding_errors = reply_decoding(client._client)
        wanted = None if fields is None else named_fields(fields, CommandEncoder(encoding, errors))
        self.command = HGETALL
        self.method = "batch_hgetall" if fields is None else "batch_hmget"
        if wanted is not None:
            tail = tuple(wire for _, wire in wanted)
            self.command = Command(b"HMGET", many=False, with_values=False, tail=tail)
        self.rows = HashRows(
            types,
            None if codec is None else resolve(codec, client._max_value_size),
            wanted,
            decodes=decoding is not None,
            encoding=encoding if decoding is None else decoding,
            errors=errors if decoding is None else decoding_errors,
            max_value_size=client._max_value_size,
        )


def named_fields(fields: Fields, encoder: CommandEncoder) -> list[tuple[Any, bytes]]:
    """Return each field with its name on the wire."""
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Iterable):
        raise TypeError(f"fields must be a list of names, got {type(fields).__name__} {fields!r:.80}")
    named = [(name, encoder.argument(name, i)) for i, name in enumerate(fields)]
    if not named:
        raise ValueError("fields must have at least one name, found none")
    return named


class HashClient(BaseClient):
    """Makes flights of the arguments of the methods for hashes, for both clients."""

    def _hset_flight(
        self, items: Any, writing: HashWriting, report: BatchReport, progress: Progress | None
    ) -> Any:
        """Return a flight that writes hashes, to a single server or over a cluster."""
        options = writing.options
        outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
        if self._is_cluster:
            return self._cluster.hash_flight(items, writing.codec, writing.expire, options, outcome)
        encoding, errors = self._key_encoding
        writer = MappingWriter(
            items,
            hset_command(options.set),
            writing.codec,
            max_items=options.chunk_size,
            max_bytes=FIRST_COMMAND_BYTES,
            encoding=encoding,
            errors=errors,
        )
        return HashFlight(writer, writing.expire, outcome)

    def _hash_read_flight(
        self, keys: Any, reading: HashReading, out: Found, pause: gc_pause.Pause, options: ReadOptions
    ) -> Any:
        """Return a flight that reads hashes, from a single server or over a cluster.

        Args:
            keys: the keys.
            reading: what is read of the hashes.
            out: gets the hashes.
            pause: the pause of the garbage collector.
            options: how they are read.
        """
        outcome = HashReadOutcome(
            self._codec,
            default=options.default,
            on_error=options.on_error,
            pause=pause,
            sizes=self._hash_sizes,
            max_value_size=self._max_value_size,
        )
        if self._is_cluster:
            return self._cluster.hash_read_flight(keys, reading.command, reading.rows, out, outcome, options)
        writer = self._writer(keys, reading.command, options.limit, COMMAND_BYTES)
        return HashReadFlight(writer, reading.rows, out, outcome, options)
