"""What both clients share for hashes: they make flights from the arguments of their methods."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from redis_fastbatch._arguments import check_hook, checked_chunk_size, checked_on_error
from redis_fastbatch._base_client import BaseClient, Found
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.hashes import ExpireChunk, MappingWriter, all_counts
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import COMMAND_BYTES, FIRST_COMMAND_BYTES, ChunkState
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

Named: TypeAlias = "tuple[list[tuple[Any, bytes]], Command]"

MOST_KNOWN = 64
"""Lists of fields that a client remembers."""

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

    def following(self, reader: ReplyReader, chunk: Any, report: BatchReport) -> Chunk | None:
        """Return what follows a chunk that was sent before a flight was made.

        Args:
            reader: the first received bytes.
            chunk: HSETs, or EXPIREs after them.
            report: is completed with the last replies.

        Returns:
            The EXPIREs after HSETs that have their usual replies; None if the batch is done. The chunk itself if
            the replies are others, or have not all arrived. Then none of them is read.
        """
        if not all_counts(reader, chunk.replies, chunk.most_fields):
            return chunk  # type: ignore[no-any-return]
        report.bytes_sent += len(chunk)
        if self.expire is not None and not isinstance(chunk, ExpireChunk):
            return ExpireChunk(self.expire, chunk, list(range(chunk.count)))
        report.written = report.confirmed_prefix = chunk.count
        return None


class HashReading:
    """How hashes are read: the arguments of batch_hgetall() and batch_hmget(), checked.

    Args:
        client: the client.
        fields: the fields of HMGET; None for HGETALL.
        types, codec: the arguments of the methods.

    Attributes:
        command: HGETALL, or HMGET with its fields.
        rows: reads the replies.
        has_codec: whether a codec decodes values, which may be slow.
        method: the method of the client, for messages.
    """

    def __init__(
        self, client: HashClient, fields: Fields | None, types: FieldTypes | None, codec: AnyCodec | None
    ) -> None:
        encoding, errors = client._key_encoding
        decoding, decoding_errors = reply_decoding(client._client)
        wanted, self.command = (None, HGETALL) if fields is None else client._named(fields)
        self.method = "batch_hgetall" if fields is None else "batch_hmget"
        # The fields as a list: the caller's may be an iterator.
        self._given = client, None if wanted is None else [name for name, _ in wanted], types, codec
        values = None if codec is None else resolve(codec, client._max_value_size)
        self.has_codec = codec is not None
        self.rows = HashRows(
            types,
            values,
            wanted,
            decodes=decoding is not None,
            encoding=encoding if decoding is None else decoding,
            errors=errors if decoding is None else decoding_errors,
            max_value_size=client._max_value_size,
        )

    def again(self) -> HashReading:
        """Return the same for another thread: what reads replies has a state of its own."""
        client, fields, types, codec = self._given
        return HashReading(client, fields, types, codec)


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

    @functools.cached_property
    def _named_before(self) -> dict[tuple[str, ...], Named]:
        return {}

    def _named(self, fields: Fields) -> Named:
        """Return each field with its name on the wire, and HMGET with them. They are kept for the next call."""
        known = self._named_before
        names = tuple(fields) if isinstance(fields, (list, tuple)) else ()
        # Other types have equal values that are not the same name, such as 1 and 1.0.
        usual = set(map(type, names)) == {str}
        found = known.get(names) if usual else None
        if found is None:
            wanted = named_fields(fields, self._command_encoder)
            tail = tuple(wire for _, wire in wanted)
            found = wanted, Command(b"HMGET", many=False, with_values=False, tail=tail)
            if usual and len(known) < MOST_KNOWN:
                known[names] = found
        return found

    def _hset_flight(
        self, items: Any, writing: HashWriting, report: BatchReport, progress: Progress | None
    ) -> Any:
        """Return a flight that writes hashes, to a single server or over a cluster."""
        options = writing.options
        outcome = WriteOutcome(report, options.on_error, progress, options.on_chunk)
        if self._is_cluster:
            return self._cluster.hash_flight(items, writing.codec, writing.expire, options, outcome)
        return HashFlight(self._mapping_writer(items, writing), writing.expire, outcome)

    def _mapping_writer(self, items: Any, writing: HashWriting) -> MappingWriter:
        encoding, errors = self._key_encoding
        return MappingWriter(
            items,
            hset_command(writing.options.set),
            writing.codec,
            max_items=writing.options.chunk_size,
            max_bytes=FIRST_COMMAND_BYTES,
            encoding=encoding,
            errors=errors,
        )

    def _hset_on(
        self, writer: MappingWriter, chunk: Chunk, writing: HashWriting, report: BatchReport, state: ChunkState
    ) -> HashFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see WriteFlight.begin_with()."""
        options = writing.options
        outcome = WriteOutcome(report, options.on_error, None, options.on_chunk)
        flight = HashFlight(writer, writing.expire, outcome)
        flight.begin_with(chunk, state)
        return flight

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
        outcome = self._hash_outcome(pause, options)
        if self._is_cluster:
            return self._cluster.hash_read_flight(keys, reading.command, reading.rows, out, outcome, options)
        return HashReadFlight(self._hash_keys(keys, reading, options), reading.rows, out, outcome, options)

    def _hash_keys(self, keys: Any, reading: HashReading, options: ReadOptions) -> BatchWriter:
        return self._writer(keys, reading.command, options.limit, COMMAND_BYTES)

    def _hash_read_on(
        self,
        writer: BatchWriter,
        chunk: Chunk,
        reading: HashReading,
        out: Found,
        options: ReadOptions,
        state: ChunkState,
    ) -> HashReadFlight:
        """Return a flight that goes on with a batch whose first chunk is encoded; see ReadFlight.begin_with()."""
        flight = HashReadFlight(writer, reading.rows, out, self._hash_outcome(None, options), options)
        flight.begin_with(chunk, state)
        return flight

    def _takes_all_hashes(
        self, reader: ReplyReader, chunk: Chunk, reading: HashReading, out: dict[Any, Any], options: ReadOptions
    ) -> bool:
        """Put the hashes of a chunk's keys into the result, if a reader holds just these; else return False."""
        size = reading.rows.read_all(reader, chunk.keys, options.default, out)
        if size:
            self._hash_sizes.saw(chunk.count, size)
        return bool(size)

    def _hash_outcome(self, pause: gc_pause.Pause | None, options: ReadOptions) -> HashReadOutcome:
        return HashReadOutcome(
            self._codec,
            default=options.default,
            on_error=options.on_error,
            pause=pause,
            sizes=self._hash_sizes,
            max_value_size=self._max_value_size,
        )
