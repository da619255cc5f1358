"""What became of the items of a batch. Each item is counted once, and the caller's hooks are called here."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from redis.exceptions import RedisError

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.encoder import BatchWriter
from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._engine.pacing import ValueSizes
from redis_fastbatch._redirections import cluster_hint, error_text
from redis_fastbatch.errors import DecodeError
from redis_fastbatch.report import BatchReport, ChunkStats, OnChunk, Progress

logger = logging.getLogger("redis_fastbatch")

OnError: TypeAlias = "Literal['raise', 'report'] | Callable[[Any, Any, Exception], object]"

Failure: TypeAlias = tuple[Any, Any, Exception]
"""A key, its value, and why it was not written."""

LOG_INTERVAL = 10.0
"""Seconds between two log lines of a long batch."""


class HookCaller:
    """Calls the caller's hooks.

    Attributes:
        hook_raised: a hook has raised. Its exception ends the batch and is never taken for a lost connection: a
            dead-letter queue in Redis can raise ConnectionError too.
    """

    __slots__ = ("hook_raised",)

    def __init__(self) -> None:
        self.hook_raised = False

    def call(self, hook: Callable[..., object], *arguments: Any) -> None:
        """Call a hook. It may raise."""
        try:
            hook(*arguments)
        except Exception:
            self.hook_raised = True
            raise


class WriteOutcome(HookCaller):
    """The outcome recorder of a batch that writes: counts items in the report and calls the hooks.

    Args:
        report: receives the counts and the failures.
        on_error: if it is callable, it is called with each failed item's key, value and exception.
        progress: receives the number of settled items after each chunk.
        on_chunk: is called with the ChunkStats of each settled chunk.

    Attributes:
        has_hooks: whether chunk_settled() calls a hook.
    """

    __slots__ = (
        "_listener",
        "_log_due",
        "_logged",
        "_on_chunk",
        "_prefix_known",
        "_progress",
        "_undelivered",
        "has_hooks",
        "report",
    )

    def __init__(
        self,
        report: BatchReport,
        on_error: OnError = "raise",
        progress: Progress | None = None,
        on_chunk: OnChunk | None = None,
    ) -> None:
        self.hook_raised = False
        self.report = report
        self._listener = on_error if callable(on_error) else None
        self._progress = progress
        self._on_chunk = on_chunk
        self._undelivered: deque[Failure] = deque()
        self.has_hooks = progress is not None or on_chunk is not None
        self._prefix_known = False
        self._log_due = time.monotonic() + LOG_INTERVAL
        self._logged = 0

    def record(self, written: int = 0, skipped: Sequence[Any] = (), failed: Sequence[Failure] = ()) -> None:
        """Count items in the report.

        Args:
            written: how many were written.
            skipped: the keys that `nx` or `xx` left out.
            failed: the items that were not written. Call deliver() to pass them to `on_error`.
        """
        report = self.report
        report.written += written
        if skipped:
            report.add_skipped(skipped)
        if failed:
            for key, _, error in failed:
                report.add_failure(key, error)
            if self._listener is not None:
                self._undelivered.extend(failed)

    def record_unencoded(self, failures: list[Failure]) -> int:
        """Move a writer's list of items that could not be encoded to the report. Return their number."""
        if not failures:
            return 0
        failed = failures[:]
        failures.clear()
        self.record(failed=failed)
        return len(failed)

    def record_unread(self, items: Iterable[Any], error: Exception) -> None:
        """Record items as failed that no writer has seen. They may not be pairs."""
        self.record(failed=[(*_pair_of(item), error) for item in items])

    def deliver(self) -> None:
        """Call `on_error` for the failures that it has not received. It may raise."""
        while self._undelivered and self._listener is not None:
            # If it raises, the batch ends and it is not called again.
            listener, self._listener = self._listener, None
            self.call(listener, *self._undelivered.popleft())
            self._listener = listener

    def chunk_settled(self, items: int, size: int, started: float, unconfirmed: int) -> None:
        """Call the hooks that follow a batch's progress, and log the progress of a long batch.

        Args:
            items: how many items the chunk settled; only the hooks need it.
            size: the chunk's bytes.
            started: when its first byte left, on the monotonic clock.
            unconfirmed: bytes that were sent and have no reply yet.
        """
        now = time.monotonic()
        if self.has_hooks and not self.hook_raised:
            if self._progress is not None:
                self.call(self._progress.update, self.report.total)
            if self._on_chunk is not None:
                self.call(self._on_chunk, ChunkStats(items, size, now - started, unconfirmed))
        if now >= self._log_due:
            self._log(now)

    def _log(self, now: float) -> None:
        elapsed = now - self._log_due + LOG_INTERVAL
        self._log_due = now + LOG_INTERVAL
        rate = (self.report.total - self._logged) / elapsed
        self._logged = self.report.total
        failed = self.report.failed
        logger.info("batch_set: %d items settled, %d failed, %.0f items/s", self._logged, failed, rate)

    def fix_prefix(self, prefix: int) -> None:
        """Put the confirmed prefix into the report. Only the first call counts."""
        if not self._prefix_known:
            self.report.confirmed_prefix = prefix
            self._prefix_known = True

    def close(self, prefix: int) -> None:
        """Complete the report with the confirmed prefix, and end the display of progress."""
        self.fix_prefix(prefix)
        if self._progress is not None:
            self._progress.close()


class RecordedBatch:
    """A batch with a report: a context manager, after which the report is complete.

    Attributes:
        outcome: records what became of the items.
    """

    outcome: WriteOutcome

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if error is not None:
                # The transport has done it, unless Ctrl-C came before.
                self.abort(error)
        finally:
            self.outcome.close(self.confirmed_prefix())

    @property
    @abstractmethod
    def source_error(self) -> BaseException | None:
        """What ended the iterable of items early: its own exception, or Ctrl-C while an item was taken."""

    @abstractmethod
    def abort(self, error: BaseException) -> None:
        """End the batch. What was sent and not confirmed has an unknown outcome."""

    @abstractmethod
    def confirmed_prefix(self) -> int:
        """Return how many items, counted from the first, are all settled."""

    def ended_before(self, items: Iterable[Any], error: BaseException) -> None:
        """Record items as not sent: they were taken from the source, and the batch ended before their turn."""
        self.outcome.record_unread(items, not_sent(error))
        self.outcome.deliver()


class ErrorKeeper(HookCaller):
    """Keeps the first error of a batch, which ends it.

    Attributes:
        error: what ends the batch; None so far.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None

    def end_with(self, error: BaseException) -> None:
        """End the batch. Its first error is the one that is raised."""
        if self.error is None:
            self.error = error

    def raise_error(self) -> None:
        """Raise what has ended the batch, if anything has."""
        error = self.error
        if error is None:
            return
        hint = cluster_hint(error)
        # Python 3.10 has no notes.
        if hint and hasattr(error, "add_note"):
            error.add_note(f"{error_text(error)}{hint}")
        raise error


class CountOutcome(ErrorKeeper):
    """The outcome recorder of a batch that counts keys.

    Attributes:
        total: the sum of the server's numbers.
    """

    __slots__ = ("total",)

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def record_unencoded(self, writer: BatchWriter) -> None:
        """End the batch if a key could not be encoded, or if the iterable of keys has raised."""
        for _, _, error in writer.failures:
            self.end_with(error)
        writer.failures.clear()
        if writer.source_error is not None:
            self.end_with(writer.source_error)


class ReadOutcome(ErrorKeeper):
    """The outcome recorder of a batch that reads: counts values and handles those that cannot be decoded.

    Args:
        codec: decodes values that no ReplyReader decodes, such as those of a slot that is moving.
        default: stands for a value that is missing or cannot be decoded.
        on_error: "raise" keeps the first failure in `error`, "report" only counts failures, and a callable is
            called with each failure's key, bytes and exception.
        pause: the pause of the garbage collector, which counts the values that were made.
        sizes: learns the size of the values.
        max_value_size: the most bytes of such a value; 0 for no limit.

    Attributes:
        failed: how many values could not be decoded.
        size: bytes of values that were read.
    """

    __slots__ = (
        "_codec",
        "_default",
        "_max_value_size",
        "_on_error",
        "_pause",
        "failed",
        "size",
        "sizes",
    )

    def __init__(
        self,
        codec: ValueCodec,
        *,
        default: Any = None,
        on_error: OnError = "raise",
        pause: gc_pause.Pause | None = None,
        sizes: ValueSizes | None = None,
        max_value_size: int = 0,
    ) -> None:
        super().__init__()
        self.failed = 0
        self.size = 0
        self.sizes = sizes or ValueSizes()
        self._codec = codec
        self._default = default
        self._on_error = on_error
        self._pause = pause
        self._max_value_size = max_value_size

    def count(self, values: int, size: int) -> None:
        """Count values that were read, and their bytes."""
        self.sizes.saw(values, size)
        self.size += size
        if self._pause is not None:
            self._pause.made(values)

    def fail(self, key: Any, data: bytes | None, error: Exception) -> None:
        """Handle a value that cannot be had, as `on_error` asks."""
        self.failed += 1
        if callable(self._on_error):
            self.call(self._on_error, key, data, error)
        elif self._on_error != "report" or not self._concerns_key(error):
            self.end_with(error)

    def _concerns_key(self, error: Exception) -> bool:
        """Return whether an error is about a single value, so that the others can still be read."""
        return isinstance(error, DecodeError)

    def loads(self, key: Any, data: bytes | None) -> Any:
        """Decode a value that no ReplyReader has decoded."""
        if data is None:
            return self._default
        if 0 < self._max_value_size < len(data):
            raise DecodeError(f"a value of {len(data)} bytes: max_value_size is {self._max_value_size}", key=key)
        try:
            return self._codec.loads(data)
        except DecodeError as error:
            error.key = key
            self.fail(key, data, error)
            return self._default


def outcome_unknown(error: BaseException) -> RedisError:
    """Return the error of an item that was sent and not confirmed."""
    return RedisError(f"outcome unknown: {type(error).__name__} before the server confirmed it: {error}")


def not_sent(error: BaseException) -> RedisError:
    """Return the error of an item that was not sent."""
    return RedisError(f"not sent: {type(error).__name__}: {error}")


def _pair_of(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    return item, None
