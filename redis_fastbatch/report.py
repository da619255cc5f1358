"""What a batch did: counts, failures by key, rates; and telling it while it goes on."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO, TypeAlias

from redis_fastbatch.errors import EncodeError, error_text, format_key

logger = logging.getLogger("redis_fastbatch")

OnChunk: TypeAlias = "Callable[[ChunkStats], object]"
ProgressCallback: TypeAlias = Callable[[int, "int | None"], object]

MAX_FAILURES = 1000
"""Failed keys a report keeps with their exceptions; further ones are only counted."""

HTML_FAILURES = 10
"""Failed keys that a notebook shows."""


@dataclass(frozen=True)
class ChunkStats:
    """What a monitoring hook hears of each command or pipeline of commands once it has its replies.

    Attributes:
        items: items it settled: those it carried, or none where the server refused it whole and they are sent
            again one by one.
        bytes: its size on the wire, in bytes.
        seconds: from its first byte's leaving to its last reply's being read, in seconds.
        in_flight: bytes sent and not yet confirmed when it was settled.
    """

    items: int
    bytes: int
    seconds: float
    in_flight: int


@dataclass
class BatchReport:
    """The outcome of a batch that wrote.

    Attributes:
        written: items the server confirmed.
        skipped: items that `nx` or `xx` kept from being written.
        failed: items that were not written, or of which it is not known.
        failures: the first of the failed keys, each with its exception. A key that no dict takes, such as a
            list, is there as its repr().
        skipped_keys: the first of the skipped keys.
        confirmed_prefix: items, counted from the start of the input, of which every one is settled: written,
            skipped or reported as failed. A script that starts again may leave out that many.
        bytes_sent: bytes put on the wire, those that had to be sent again included.
        seconds: how long the batch took, in seconds.
    """

    written: int = 0
    skipped: int = 0
    failed: int = 0
    failures: dict[Any, Exception] = field(default_factory=dict)
    skipped_keys: list[Any] = field(default_factory=list)
    confirmed_prefix: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Items that the batch took from its input and settled."""
        return self.written + self.skipped + self.failed

    @property
    def items_per_second(self) -> float:
        """Items settled a second."""
        return self.total / self.seconds if self.seconds else 0.0

    def add_failure(self, key: Any, error: Exception) -> None:
        """Count a failed item, and keep it while there is room."""
        self._keep_failure(key, error)
        self.failed += 1

    def _keep_failure(self, key: Any, error: Exception) -> None:
        if len(self.failures) < MAX_FAILURES:
            try:
                self.failures[key] = error
            except Exception:
                # A list has no hash, and a class of the user's may raise what it likes.
                self.failures[format_key(key)] = error

    def add_skipped(self, keys: Sequence[Any]) -> None:
        """Count skipped keys, and keep them while there is room."""
        self.skipped_keys += keys[: MAX_FAILURES - len(self.skipped_keys)]
        self.skipped += len(keys)

    def merge(self, other: BatchReport) -> None:
        """Add another report's counts, failures and skipped keys. Times and prefixes do not add up."""
        for key, error in other.failures.items():
            self._keep_failure(key, error)
        self.skipped_keys += other.skipped_keys[: MAX_FAILURES - len(self.skipped_keys)]
        self.written += other.written
        self.skipped += other.skipped
        self.failed += other.failed
        self.bytes_sent += other.bytes_sent

    def summary(self) -> str:
        """The counts in one line."""
        parts = [f"{self.written:,} written"]
        if self.skipped:
            parts.append(f"{self.skipped:,} skipped")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        rate = f"{self.items_per_second:,.0f} items/s" if self.seconds else "no time"
        return f"{', '.join(parts)}; {self.bytes_sent:,} bytes in {self.seconds:.3f} s ({rate})"

    def first_failure(self) -> str:
        """The first failed key and its reason, in words; empty when nothing failed."""
        for key, error in self.failures.items():
            named = isinstance(error, EncodeError) and error.key is not None
            return str(error) if named else f"key {format_key(key)}: {error_text(error)}"
        return ""

    def _repr_html_(self) -> str:
        """The report as a notebook shows it: a table, and the first of the failures."""
        # Only notebooks want it.
        from html import escape

        cells = {
            "written": f"{self.written:,}",
            "skipped": f"{self.skipped:,}",
            "failed": f"{self.failed:,}",
            "bytes": f"{self.bytes_sent:,}",
            "seconds": f"{self.seconds:.3f}",
            "items/s": f"{self.items_per_second:,.0f}",
        }
        first = list(self.failures.items())[:HTML_FAILURES]
        failures = "".join(
            f"<tr><td><code>{escape(format_key(key))}</code></td><td>{escape(error_text(error))}</td></tr>"
            for key, error in first
        )
        if failures:
            failures = f"<table><tr><th>failed key</th><th>reason</th></tr>{failures}</table>"
        if self.failed > len(first):
            failures += f"<p>and {self.failed - len(first):,} more</p>"
        heads = "".join(f"<th>{name}</th>" for name in cells)
        values = "".join(f"<td>{cell}</td>" for cell in cells.values())
        return f"<table><tr>{heads}</tr><tr>{values}</tr></table>{failures}"


def attach(error: BaseException, report: BatchReport) -> None:
    """Gives what ends a batch early the report of what was done until then, where its class lets it be set."""
    with contextlib.suppress(AttributeError, TypeError):
        error.report = report  # type: ignore[attr-defined]


class Progress(Protocol):
    """Hears how many items are done."""

    def update(self, done: int) -> None:
        """`done` items are settled."""

    def close(self) -> None:
        """There will be no more."""


class CallbackProgress:
    """Hands every step on to a callable `(done, total_or_None)`."""

    def __init__(self, callback: ProgressCallback, total: int | None) -> None:
        self._callback = callback
        self._total = total

    def update(self, done: int) -> None:
        self._callback(done, self._total)

    def close(self) -> None:
        """Nothing is left open."""


class DrawnProgress:
    """Draws progress a few times a second, however often it hears of some."""

    INTERVAL = 0.2

    def __init__(self) -> None:
        self._done = 0
        self._closed = False
        self._drawn = time.monotonic()

    def update(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if now - self._drawn >= self.INTERVAL and not self._closed:
            self._drawn = now
            try:
                self.draw(done)
            except (OSError, ValueError) as error:
                self._gone(error)

    def close(self) -> None:
        """Draws the last state, once."""
        if not self._closed:
            self._closed = True
            try:
                self.draw(self._done)
                self.end()
            except (OSError, ValueError) as error:
                self._gone(error)

    def _gone(self, error: Exception) -> None:
        """The terminal is closed or lost. The batch goes on."""
        self._closed = True
        logger.debug("progress is no longer shown: %s", error)

    def draw(self, done: int) -> None:
        """Shows `done` items."""
        raise NotImplementedError

    def end(self) -> None:
        """Leaves the terminal as it was found."""
        raise NotImplementedError


class LineProgress(DrawnProgress):
    """One line on a terminal, rewritten."""

    def __init__(self, total: int | None, stream: TextIO) -> None:
        super().__init__()
        self._total = total
        self._stream = stream
        self._started = time.monotonic()

    def draw(self, done: int) -> None:
        rate = done / max(time.monotonic() - self._started, 1e-9)
        of = f" of {self._total:,}" if self._total is not None else ""
        self._stream.write(f"\r{done:,}{of} items, {rate:,.0f} items/s ")
        self._stream.flush()

    def end(self) -> None:
        self._stream.write("\n")
        self._stream.flush()


class RichProgress(DrawnProgress):
    """rich's bar, where rich is installed."""

    def __init__(self, total: int | None, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Task) -> Text:
                # Not known before the second update.
                speed = task.finished_speed or task.speed or 0.0
                return Text(f"{speed:,.0f} items/s")

        super().__init__()
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=Console(file=stream),
        )
        self._task = self._bar.add_task("items", total=total)
        self._bar.start()

    def draw(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def end(self) -> None:
        self._bar.stop()


def terminal() -> TextIO | None:
    """Return standard error where it is a terminal; None where it is not, or is missing or closed."""
    stream = sys.stderr
    # pythonw.exe has none, nor has a process that was started with `2>&-`.
    if stream is None or getattr(stream, "closed", False):
        return None
    return stream if stream.isatty() else None


def make_progress(progress: bool | ProgressCallback | None, total: int | None) -> Progress | None:
    """Turns the argument `progress` of the public methods into what hears of the progress."""
    if not progress:
        return None
    if callable(progress):
        return CallbackProgress(progress, total)
    stream = terminal()
    if stream is None:
        return None
    try:
        return RichProgress(total, stream)
    except ImportError:
        return LineProgress(total, stream)
