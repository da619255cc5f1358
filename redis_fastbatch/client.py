"""FastBatch, the synchronous client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Any

import redis

from redis_fastbatch import gcpause, strategy
from redis_fastbatch._core.resp import BatchWriter, Command
from redis_fastbatch.codecs import AnyCodec, resolve
from redis_fastbatch.errors import BatchError
from redis_fastbatch.flight import COMMAND_BYTES, COMMAND_ITEMS, CountFlight, OnError, ReadFlight, WriteFlight
from redis_fastbatch.report import BatchReport, ProgressCallback, make_progress
from redis_fastbatch.strategy import PointInTime, Seconds, SetOptions
from redis_fastbatch.transport import Lease, lease

logger = logging.getLogger("redis_fastbatch")

Key = Any
Items = Mapping[Any, Any] | Iterable[tuple[Any, Any]]

# An atomic batch is one command, however large.
UNLIMITED = 2**62

ITER_ROUND = 4000
"""Keys that batch_get_iter() reads at a time by default."""


class FastBatch:
    """Reads and writes batches of values through a redis-py client.

    Thread-safe: each call borrows a connection of its own from the client's pool. Picklable when made by
    from_url().

    Args:
        client: a redis.Redis (or what behaves as one: Sentinel's master_for() gives one).
        codec: how values become bytes: "msgpack", "json", "raw", a codec of redis_fastbatch.codecs, or any
            object with dumps() and loads().
        max_value_size: refuse longer values on reading, in bytes, before memory is taken for them; 0 for no
            limit.
        pause_gc: keep the cyclic garbage collector away while a batch_get builds its result.
    """

    def __init__(
        self,
        client: redis.Redis,
        codec: AnyCodec = "msgpack",
        *,
        max_value_size: int = 0,
        pause_gc: bool = True,
    ) -> None:
        self._client = client
        self._codec = resolve(codec)
        self._max_value_size = max_value_size
        self._pause_gc = pause_gc
        self._url: str | None = None
        self._settings: dict[str, Any] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        codec: AnyCodec = "msgpack",
        *,
        max_value_size: int = 0,
        pause_gc: bool = True,
        **connection: Any,
    ) -> FastBatch:
        """Connects by URL, as redis.Redis.from_url() does.

        Args:
            url: redis://, rediss:// or unix://.
            codec, max_value_size, pause_gc: as the constructor's.
            connection: further arguments for redis.Redis.from_url().
        """
        settings = {"codec": codec, "max_value_size": max_value_size, "pause_gc": pause_gc}
        batch = cls(redis.Redis.from_url(url, **connection), **settings)
        batch._url = url
        batch._settings = {**settings, **connection}
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise TypeError("a FastBatch can be pickled when it was made by from_url()")
        return _from_url, (type(self), self._url, self._settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._client!r}>"

    def __enter__(self) -> FastBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client underneath."""
        self._client.close()

    @property
    def client(self) -> redis.Redis:
        """The redis-py client underneath."""
        return self._client

    def batch_set(
        self,
        items: Items,
        *,
        ex: Seconds | None = None,
        px: Seconds | None = None,
        exat: PointInTime | None = None,
        pxat: PointInTime | None = None,
        keepttl: bool = False,
        nx: bool = False,
        xx: bool = False,
        atomic: bool = False,
        chunk_size: int | None = None,
        progress: bool | ProgressCallback | None = None,
        on_error: OnError = "raise",
    ) -> BatchReport:
        """Writes items, sending while it encodes. Memory stays bounded however many there are.

        Args:
            items: a mapping, or an iterable of (key, value) pairs, generators too. Keys are str, bytes or int.
                Of equal keys the last one wins.
            ex, px: expiry of every key from now, in seconds or milliseconds (an int, or a timedelta).
            exat, pxat: expiry of every key as a Unix time in seconds or milliseconds (an int or a datetime).
            keepttl: keys that exist keep their time to live.
            nx, xx: write only keys that do not exist, or only those that do; the others are counted as
                skipped.
            atomic: all or nothing. The whole batch is encoded before it is sent.
            chunk_size: the most items a command carries.
            progress: True for a bar on a terminal, or a callable (items done, total or None).
            on_error: "raise" raises BatchError after what could be written was; "report" leaves failures to
                the report; a callable gets (key, value, exception) of each failed item.

        Returns:
            What was written, skipped and failed.

        Raises:
            BatchError: items failed, and on_error is "raise". Its `report` says which.
            ValueError, TypeError: arguments that exclude each other or are of a wrong type.
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: the connection was lost for good.
                These, and whatever `items` itself raises, carry a `report` of what was done until then.
        """
        options = SetOptions(ex, px, exat, pxat, keepttl, nx, xx, atomic)
        report = BatchReport()
        started = time.perf_counter()
        with lease(self._client) as borrowed:
            flight = self._write_flight(borrowed, items, options, chunk_size, progress, on_error, report)
            try:
                borrowed.run(flight)
                if flight.source_error is not None:
                    raise flight.source_error
            except BaseException as error:
                _finish(report, flight, started)
                error.report = report  # type: ignore[attr-defined]
                raise
        _finish(report, flight, started)
        if report.failed and on_error == "raise":
            raise BatchError(_failure_message(report), report)
        return report

    def _write_flight(
        self,
        borrowed: Lease,
        items: Items,
        options: SetOptions,
        chunk_size: int | None,
        progress: bool | ProgressCallback | None,
        on_error: OnError,
        report: BatchReport,
    ) -> WriteFlight:
        pool = self._client.connection_pool
        needs_msetex = bool(options.expiry()) and not options.conditional
        return WriteFlight(
            self._writer(
                items,
                options.command(msetex=needs_msetex and has_msetex(borrowed)),
                UNLIMITED if options.atomic else _checked_chunk_size(chunk_size),
                UNLIMITED if options.atomic else COMMAND_BYTES,
            ),
            options.single(),
            report,
            on_error=_checked_on_error(on_error),
            repeatable=options.repeatable,
            atomic=options.atomic,
            progress=make_progress(progress, len(items) if isinstance(items, Mapping) else None),
            on_msetex_lost=lambda: strategy.capabilities.remember_msetex(pool, False),
        )

    def batch_get(self, keys: Iterable[Key], *, default: Any = None, on_error: OnError = "raise") -> dict[Key, Any]:
        """Reads the values of keys.

        Args:
            keys: str, bytes or int.
            default: stands for a key that is missing, or holds another type than a string.
            on_error: what to do with a value that cannot be decoded: "raise"; "report" takes `default` for it
                and logs how many there were; a callable gets (key, bytes, exception), and the key `default`.

        Returns:
            A dict of every key, in the order given, to its value or `default`.

        Raises:
            DecodeError: a value cannot be decoded, and on_error is "raise"; it names the key and the byte.
            EncodeError: a key is of a wrong type.
            redis.exceptions.RedisError: the server refused to read, or the connection was lost for good.
        """
        found: dict[Key, Any] = {}
        self._read(keys, found, default, on_error, COMMAND_ITEMS)
        return found

    def batch_get_iter(
        self,
        keys: Iterable[Key],
        *,
        default: Any = None,
        chunk_size: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[tuple[Key, Any]]:
        """Reads the values of any number of keys in bounded memory; holds no connection between items.

        Args:
            keys, default, on_error: as for batch_get().
            chunk_size: keys read at a time.

        Yields:
            (key, value or `default`) in the order of the keys.

        Raises:
            As batch_get() does.
        """
        source = iter(keys)
        size = ITER_ROUND if chunk_size is None else _checked_chunk_size(chunk_size)
        while some := list(islice(source, size)):
            found: list[tuple[Key, Any]] = []
            self._read(some, found, default, on_error, min(size, COMMAND_ITEMS))
            yield from found

    def _read(
        self,
        keys: Iterable[Key],
        out: dict[Key, Any] | list[tuple[Key, Any]],
        default: Any,
        on_error: OnError,
        limit: int,
    ) -> None:
        writer = self._writer(keys, strategy.MGET, limit, COMMAND_BYTES)
        with gcpause.Pause(self._pause_gc) as pause:
            flight = ReadFlight(
                writer,
                self._codec,
                out,
                default=default,
                on_error=_checked_on_error(on_error),
                limit=limit,
                pause=pause,
            )
            with lease(self._client, self._max_value_size) as borrowed:
                borrowed.run(flight)
        if flight.error is not None:
            raise flight.error
        if flight.failed and on_error == "report":
            logger.warning("batch_get: %d values could not be decoded", flight.failed)

    def batch_delete(self, keys: Iterable[Key]) -> int:
        """Deletes keys by UNLINK: the server frees their memory in the background.

        Args:
            keys: str, bytes or int.

        Returns:
            How many of them existed.

        Raises:
            EncodeError: a key is of a wrong type.
            redis.exceptions.RedisError: the server refused, or the connection was lost for good.
        """
        flight = CountFlight(self._writer(keys, strategy.UNLINK, COMMAND_ITEMS, COMMAND_BYTES))
        with lease(self._client) as borrowed:
            borrowed.run(flight)
        if flight.error is not None:
            raise flight.error
        return flight.total

    def scan(self, match: str | bytes | None = None, count: int = 1000) -> Iterator[Key]:
        """Iterates over the server's keys, as redis.Redis.scan_iter() does.

        Args:
            match: a glob-style pattern, such as "user:*".
            count: about how many keys the server looks at a time.
        """
        return self._client.scan_iter(match=match, count=count)

    def _writer(self, items: Any, command: Command, max_items: int, max_bytes: int) -> BatchWriter:
        encoder = self._client.connection_pool.get_encoder()
        return BatchWriter(
            items,
            command,
            self._codec,
            max_items=max_items,
            max_bytes=max_bytes,
            encoding=encoder.encoding,
            errors=encoder.encoding_errors,
        )


def has_msetex(borrowed: Lease) -> bool:
    """Whether the server behind a connection has MSETEX; it is asked once for a pool."""
    pool = borrowed.client.connection_pool
    known = strategy.capabilities.msetex(pool)
    if known is None:
        try:
            known = any(borrowed.ask("COMMAND", "INFO", "MSETEX"))
        except redis.ResponseError as error:
            logger.debug("the server does not tell whether it has MSETEX: %s", error)
            known = False
        strategy.capabilities.remember_msetex(pool, known)
    return known


def _from_url(cls: type[FastBatch], url: str, settings: dict[str, Any]) -> FastBatch:
    return cls.from_url(url, **settings)


def _finish(report: BatchReport, flight: WriteFlight, started: float) -> None:
    report.seconds = time.perf_counter() - started
    flight.finish()


def _checked_chunk_size(chunk_size: int | None) -> int:
    if chunk_size is None:
        return COMMAND_ITEMS
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    return chunk_size


def _checked_on_error(on_error: OnError) -> OnError:
    if on_error in ("raise", "report") or callable(on_error):
        return on_error
    raise ValueError(f'on_error is "raise", "report" or a callable, not {on_error!r}')


def _failure_message(report: BatchReport) -> str:
    others = f" and {report.failed - 1:,} more" if report.failed > 1 else ""
    return f"{report.failed:,} of {report.total:,} items were not written: {report.first_failure()}{others}"
