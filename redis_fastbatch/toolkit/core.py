"""RedisToolkit: redis-toolkit's class on top of FastBatch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

import redis
from redis import Redis

from redis_fastbatch._arguments import checked_keys
from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.toolkit.codec import ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch._engine.commands import set_options
from redis_fastbatch._messages import format_key
from redis_fastbatch._transports.single import UNSENT, SingleCommands
from redis_fastbatch.client import FastBatch
from redis_fastbatch.codecs import AnyCodec, resolve
from redis_fastbatch.errors import EncodeError
from redis_fastbatch.toolkit import _log
from redis_fastbatch.toolkit._batches import SnapshotBatch
from redis_fastbatch.toolkit._client import ToolkitRedis
from redis_fastbatch.toolkit._failures import batch_failure, not_serialized, original
from redis_fastbatch.toolkit._limits import check_key, check_keys, check_size, limited
from redis_fastbatch.toolkit._listening import Callback, ListeningToolkit
from redis_fastbatch.toolkit.exceptions import (
    RedisToolkitError,
    SerializationError,
    wrap_redis_exceptions,
)
from redis_fastbatch.toolkit.options import DEFAULT_OPTIONS, RedisConnectionConfig, RedisOptions
from redis_fastbatch.toolkit.pool_manager import pool_manager
from redis_fastbatch.toolkit.utils.retry import CONNECTION_ERRORS, call_with_retry
from redis_fastbatch.toolkit.utils.serializers import deserialize_value

__all__ = ["RedisToolkit"]

logger = _log.logger

T = TypeVar("T")
Seconds = int | timedelta

DELETED_AT_ONCE = 1000


class RedisToolkit(ListeningToolkit):
    """Reads and writes Python values, one or many; publishes and listens.

    Args:
        redis: the client to use. cleanup() closes it.
        config: the server to connect to when no client is given; localhost by default.
        channels: channels to listen to.
        message_handler: called as `message_handler(channel, value)` for each message. The subscriber starts at
            once when both are given.
        options: settings; DEFAULT_OPTIONS by default.
        codec: the format to write: "toolkit" (redis-toolkit's bytes), "toolkit-msgpack" (shorter and faster, and
            reads both), or any other codec of FastBatch.
        preserve_int: read the ints 0 and 1 as ints; redis-toolkit reads them as bools.

    Attributes:
        options: the settings. They may be changed at any time, except those of logging and subscribing, which
            are read once.

    Raises:
        ValueError: both a client and a configuration are given.
    """

    def __init__(
        self,
        redis: Redis | None = None,
        config: RedisConnectionConfig | None = None,
        channels: list[str] | None = None,
        message_handler: Callback | None = None,
        options: RedisOptions | None = None,
        *,
        codec: AnyCodec = "toolkit",
        preserve_int: bool = False,
    ) -> None:
        if redis is not None and config is not None:
            raise ValueError("give a redis client or a config, not both")
        self.options = options or DEFAULT_OPTIONS
        self._codec = _make_codec(codec, preserve_int)
        self._log_level = _log.level_number(self.options.log_level)
        if self.options.log_path:
            _log.log_to_file(self.options.log_path, self._log_level)
        self._using_shared_pool = redis is None and self.options.use_connection_pool
        self._redis_client: Any = redis if redis is not None else self._connect(config)
        self._commands = SingleCommands(self._redis_client)
        self._batches: dict[type[FastBatch], FastBatch] = {}
        self._prepare_to_listen(channels or [], message_handler)

    def _connect(self, config: RedisConnectionConfig | None) -> Redis:
        config = config or RedisConnectionConfig()
        if self.options.use_connection_pool:
            return pool_manager.create_client(config, self.options.max_connections)
        kwargs = config.to_redis_kwargs()
        # False is the default, and redis-py 6 and later warn about the argument.
        if not kwargs["retry_on_timeout"]:
            del kwargs["retry_on_timeout"]
        return ToolkitRedis(**kwargs)

    @property
    def client(self) -> Redis:
        """The redis-py client underneath; None after cleanup()."""
        return self._redis_client  # type: ignore[no-any-return]

    def __enter__(self) -> RedisToolkit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    @wrap_redis_exceptions
    def health_check(self) -> bool:
        """Return whether the server answers."""
        try:
            self._redis_client.ping()
        except Exception as error:
            self._log_event(logging.WARNING, "health check: %s: %s", type(error).__name__, error)
            return False
        return True

    def setter(
        self,
        name: str,
        value: Any,
        options: RedisOptions | None = None,
        *,
        ex: Seconds | None = None,
        expire: Seconds | None = None,
    ) -> None:
        """Write a value.

        Args:
            name: the key.
            value: a value of a type that the codec writes.
            options: settings for this call.
            ex, expire: the time to live in seconds; two names of one argument.

        Raises:
            ValueError: the expiry is not positive, or is given twice.
            ValidationError: the key or the value is too long.
            SerializationError: the codec cannot write the value.
            RedisToolkitError: redis-py failed; its exception is the `__cause__`.
        """
        opts = options or self.options
        expiry = _expiry(ex, expire)
        check_key(name, opts)
        try:
            data = self._codec.dumps(value)
        except Exception as error:
            raise not_serialized(error, name, value) from error
        check_size(name, data, opts)
        if self._tells_of(opts):
            logger.info("set %s: %s", name, _log.shortened(value, opts.max_log_size))
        try:
            self._retrying("set", lambda: self._set(name, data, expiry))
        except redis.RedisError as error:
            raise RedisToolkitError(f"key {format_key(name)} could not be written: {error}") from error

    def getter(self, name: str, options: RedisOptions | None = None, *, default: Any = None) -> Any:
        """Read a value.

        Args:
            name: the key.
            options: settings for this call.
            default: returned when the key does not exist.

        Raises:
            SerializationError: reading failed, for any reason; see its `original_exception`.
        """
        opts = options or self.options
        try:
            raw = self._retrying("get", lambda: self._raw(name))
            if raw is None:
                return default
            value = self._loads(raw)
        except Exception as error:
            raise SerializationError(
                f"key {format_key(name)} could not be read: {error}", None, original(error)
            ) from error
        if self._tells_of(opts):
            logger.info("get %s: %s", name, _log.shortened(value, opts.max_log_size))
        return value

    def deleter(self, name: str) -> bool:
        """Delete a key; return whether it existed."""
        deleted = self._retrying("delete", lambda: self._redis_client.delete(name))
        if self._tells_of(self.options):
            logger.info("delete %s", name)
        return bool(deleted)

    def batch_set(
        self,
        mapping: Mapping[str, Any],
        options: RedisOptions | None = None,
        *,
        ex: Seconds | None = None,
        expire: Seconds | None = None,
        atomic: bool = True,
    ) -> None:
        """Write many values.

        Args:
            mapping: values by key.
            options: settings for this call.
            ex, expire: the time to live of every key in seconds; two names of one argument.
            atomic: write all values or none. False sends a large batch while it is encoded; when such a batch
                fails, some values may have been written.

        Raises:
            ValueError: the expiry is not positive, or is given twice.
            ValidationError: a key, a value or the whole batch is too large.
            SerializationError: the codec cannot write the value.
            RedisToolkitError: redis-py failed; its exception is the `__cause__`.
        """
        opts = options or self.options
        expiry = _expiry(ex, expire)
        check_keys(mapping, opts)
        if isinstance(mapping, Mapping) and not mapping:
            return
        try:
            report = self._retrying(
                "batch_set",
                lambda: self._batch(FastBatch, limited(self._codec, opts)).batch_set(
                    mapping, ex=expiry, atomic=atomic, on_error="report"
                ),
            )
        except redis.RedisError as error:
            raise RedisToolkitError(f"{len(mapping)} keys could not be written: {error}") from error
        if report.failed:
            raise batch_failure(report, mapping)
        if self._tells_of(opts):
            logger.info("batch_set: %d keys", report.written)

    def _batch(self, kind: type[FastBatch], codec: ValueCodec) -> FastBatch:
        if self._redis_client is None:
            # The same exception as from the methods that call the client directly.
            raise AttributeError("there is no client after cleanup()")
        made = self._batches.get(kind)
        if made is None:
            made = self._batches[kind] = kind(self._redis_client, self._codec)
        return made if codec is self._codec else made._with_codec(codec)

    def batch_get(
        self,
        names: Iterable[str],
        options: RedisOptions | None = None,
        *,
        default: Any = None,
        atomic: bool = True,
    ) -> dict[str, Any]:
        """Read many values.

        Args:
            names: the keys.
            options: settings for this call.
            default: the value of a key that does not exist.
            atomic: read all values at the same moment, with one command. False decodes a large batch while the
                server still looks up the rest, and does not block its other clients.

        Returns:
            A dict of every name to its value or `default`.

        Raises:
            SerializationError: reading failed, for any reason; see its `original_exception`.
        """
        opts = options or self.options
        keys = names if isinstance(names, (list, tuple, str, bytes)) else list(names)
        kind = SnapshotBatch if atomic else FastBatch
        try:
            found = self._retrying(
                "batch_get", lambda: self._batch(kind, self._codec).batch_get(keys, default=default)
            )
        except Exception as error:
            reason = f"{len(keys)} keys could not be read: {error}"
            raise SerializationError(reason, None, original(error)) from error
        if self._tells_of(opts):
            logger.info("batch_get: %d keys", len(keys))
        return found

    def batch_delete(self, names: Iterable[str]) -> dict[str, bool]:
        """Delete many keys.

        Args:
            names: the keys.

        Returns:
            A dict of every name to whether the key existed.

        Raises:
            TypeError: `names` is one string, not an iterable of names.
            RedisToolkitError: redis-py failed; its exception is the `__cause__`.
        """
        deleted: dict[str, bool] = {}
        rest = iter(checked_keys(names, method="batch_delete"))
        try:
            while some := list(islice(rest, DELETED_AT_ONCE)):
                counts = self._retrying("batch_delete", lambda some=some: self._unlink(some))  # type: ignore[misc]
                for name, count in zip(some, counts, strict=True):
                    deleted[name] = bool(count) or deleted.get(name, False)
        except redis.RedisError as error:
            raise RedisToolkitError(f"keys could not be deleted: {error}") from error
        if self._tells_of(self.options):
            logger.info("batch_delete: %d keys", len(deleted))
        return deleted

    def _unlink(self, names: list[str]) -> list[int]:
        with self._redis_client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.unlink(name)
            return pipe.execute()  # type: ignore[no-any-return]

    def publisher(self, channel: str, data: Any, options: RedisOptions | None = None) -> None:
        """Publish a value.

        Raises:
            SerializationError: publishing failed, for any reason; see its `original_exception`.
        """
        opts = options or self.options
        try:
            message = self._codec.dumps(data)
            if self._tells_of(opts):
                logger.info("publish to %s: %s", channel, _log.shortened(data, opts.max_log_size))
            self._retrying("publish", lambda: self._redis_client.publish(channel, message))
        except Exception as error:
            cause = error.__cause__ if isinstance(error, EncodeError) else None
            raise SerializationError(
                f"nothing was published to {channel!r}: {error}", data, cause or error
            ) from error

    def cleanup(self) -> None:
        """Stop the subscriber; disconnect and close the client unless its pool is shared."""
        self.stop_subscriber()
        if self._subscription_manager is not None:
            self._subscription_manager.stop()
        client, self._redis_client = self._redis_client, None
        self._commands = SingleCommands(None)
        self._batches.clear()
        if client is None or self._using_shared_pool:
            return
        try:
            if hasattr(client, "connection_pool"):
                client.connection_pool.disconnect()
            client.close()
        except Exception as error:
            self._log_event(logging.WARNING, "the client did not close: %s", error)

    def _set(self, name: str, data: bytes, expiry: Seconds | None) -> None:
        seconds = int(expiry.total_seconds()) if isinstance(expiry, timedelta) else expiry
        words = ("SET", name, data) if seconds is None else ("SET", name, data, "EX", seconds)
        if self._commands.ask(*words) is UNSENT:
            self._redis_client.set(name, data, ex=expiry)

    def _raw(self, name: str) -> Any:
        """Return the bytes of a key, even if the client decodes replies: stored values may not be text."""
        reply = self._commands.ask("GET", name)
        if reply is not UNSENT:
            return reply
        client = self._redis_client
        if getattr(client.get_encoder(), "decode_responses", False):
            return client.execute_command("GET", name, NEVER_DECODE=True)
        return client.get(name)

    def _loads(self, raw: Any) -> Any:
        if isinstance(raw, str):
            # The client decodes replies, so that text arrives as str.
            raw = raw.encode()
        return self._codec.loads(raw) if isinstance(raw, bytes) else deserialize_value(raw)

    def _retrying(self, name: str, function: Callable[[], T]) -> T:
        options = self.options
        return call_with_retry(
            function,
            name,
            attempts=options.retry_attempts,
            pause=lambda attempt: float(options.retry_delay * options.retry_backoff ** (attempt - 1)),
            exceptions=CONNECTION_ERRORS,
        )


def _make_codec(codec: AnyCodec, preserve_int: bool) -> ValueCodec:
    if codec == "toolkit":
        return ToolkitCodec(preserve_int=preserve_int)
    if codec == "toolkit-msgpack":
        return ToolkitMsgpackCodec(preserve_int=preserve_int)
    if preserve_int:
        raise ValueError('preserve_int is for the codecs "toolkit" and "toolkit-msgpack"')
    return resolve(codec)


def _expiry(ex: Seconds | None, expire: Seconds | None) -> Seconds | None:
    if ex is not None and expire is not None:
        raise ValueError("ex and expire are two names of one setting: give one")
    expiry = expire if ex is None else ex
    # Raises an exception if that is no expiry.
    set_options(expiry, None, None, None, keepttl=False, nx=False, xx=False)
    return expiry
