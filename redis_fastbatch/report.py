"""The report of a batch, and the display of its progress."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol, TextIO, TypeAlias

from redis_fastbatch._messages import format_key
from redis_fastbatch._redirections import error_text

logger = logging.getLogger("redis_fastbatch")

OnChunk: TypeAlias = "Callable[[ChunkStats], object]"
ProgressCallback: TypeAlias = Callable[[int, "int | None"], object]

MAX_FAILURES = 1000
"""Failed keys that a report keeps with their exceptions. Further ones are only counted."""

HTML_FAILURES = 10
"""Failed keys that a notebook shows."""


@dataclass(frozen=True)
class ChunkStats:
    """The figures of a command, or a pipeline of commands, when all its replies have arrived.

    Attributes:
        items: how many items it settled; 0 if the server refused the whole command, whose items are then sent
            again one by one.
        bytes: its size on the wire, in bytes.
        seconds: the time from sending its first byte to reading its last reply, in seconds.
        in_flight: bytes that were sent and not yet confirmed at that moment.
    """

    items: int
    bytes: int
    seconds: float
    in_flight: int


@dataclass
class BatchReport:
    """The outcome of a batch of writes, or of a batch of commands, each of which is an item.

    Attributes:
        written: items that the server confirmed.
        skipped: items that were not written because of `nx` or `xx`.
        failed: items that were not written, or whose outcome is unknown.
        failures: the first failed keys, each with its exception. A key that cannot be in a dict, such as a list,
            is replaced by its repr(). The key of a command is its position in the batch, and that of a table's row
            its number, both from 0.
        skipped_keys: the first skipped keys.
        confirmed_prefix: how many items from the start of the input are all settled: written, skipped or reported
            as failed. A script that starts again can skip this many.
        bytes_sent: bytes that were sent, including repeated commands.
        seconds: the duration of the batch, in seconds.
        item: what the keys of `failures` stand for: "key", "command" or "row".
    """

    written: int = 0
    skipped: int = 0
    failed: int = 0
    failures: dict[Any, Exception] = field(default_factory=dict)
    skipped_keys: list[Any] = field(default_factory=list)
    confirmed_prefix: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    item: str = "key"

    @property
    def total(self) -> int:
        """The number of settled items: written, skipped and failed."""
        return self.written + self.skipped + self.failed

    @property
    def items_per_second(self) -> float:
        """Settled items per second."""
        return self.total / self.seconds if self.seconds else 0.0

    def add_failure(self, key: Any, error: Exception) -> None:
        """Count a failed item, and keep its key and exception while there is room."""
        self._keep_failure(key, error)
        self.failed += 1

    def _keep_failure(self, key: Any, error: Exception) -> None:
        if len(self.failures) < MAX_FAILURES:
            try:
                self.failures[key] = error
            except Exception:
                # A list cannot be hashed, and a user's class may raise any exception.
                self.failures[format_key(key)] = error

    def add_skipped(self, keys: Sequence[Any]) -> None:
        """Count skipped keys, and keep them while there is room."""
        self.skipped_keys += keys[: MAX_FAILURES - len(self.skipped_keys)]
        self.skipped += len(keys)

    def merge(self, other: BatchReport) -> None:
        """Add another report's counts, failures and skipped keys, but not its time and prefix."""
        for key, error in other.failures.items():
            self._keep_failure(key, error)
        self.skipped_keys += other.skipped_keys[: MAX_FAILURES - len(self.skipped_keys)]
        self.written += other.written
        self.skipped += other.skipped
        self.failed += other.failed
        self.bytes_sent += other.bytes_sent

    def summary(self) -> str:
        """Return the counts in one line."""
        parts = [f"{self.written:,} written"]
        if self.skipped:
            parts.append(f"{self.skipped:,} skipped")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        rate = f"{self.items_per_second:,.0f} items/s" if self.seconds else "no time"
        return f"{', '.join(parts)}; {self.bytes_sent:,} bytes in {self.seconds:.3f} s ({rate})"

    def first_failure(self) -> str:
        """Return the first failed key and its reason, in words; empty when nothing failed."""
        if not self.failures:
            return ""
        key, error = self._first
        text = error_text(error)
        if getattr(error, "key", None) is not None:
            # It is an EncodeError, which names the key itself.
            return str(error)
        if self.item != "key" and text.startswith(f"{self.item} "):
            return text
        return f"{self.item} {format_key(key)}: {text}"

    @property
    def _first(self) -> tuple[Any, Exception]:
        """The first failed key and its exception; of commands and rows, the one that comes first in the input."""
        if self.item == "key":
            return next(iter(self.failures.items()))
        return min(self.failures.items(), key=itemgetter(0))

    def _repr_html_(self) -> str:
        """Return the report as HTML for a notebook: a table, and the first failures."""
        # Only notebooks need it.
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
            failures = f"<table><tr><th>failed {self.item}</th><th>reason</th></tr>{failures}</table>"
        if self.failed > len(first):
            failures += f"<p>and {self.failed - len(first):,} more</p>"
        heads = "".join(f"<th>{name}</th>" for name in cells)
        values = "".join(f"<td>{cell}</td>" for cell in cells.values())
        return f"<table><tr>{heads}</tr><tr>{values}</tr></table>{failures}"


def attach(error: BaseException, report: BatchReport) -> None:
    """Set `report` on the exception that ends a batch early, if its class allows that."""
    with contextlib.suppress(AttributeError, TypeError):
        error.report = report  # type: ignore[attr-defined]


class Progress(Protocol):
    """A display of the number of settled items."""

    def update(self, done: int) -> None:
        """Record that `done` items are settled."""

    def close(self) -> None:
        """End the display."""


class CallbackProgress:
    """Calls a callable as `(done, total or None)` at each step."""

    def __init__(self, callback: ProgressCallback, total: int | None) -> None:
        self._callback = callback
        self._total = total

    def update(self, done: int) -> None:
        self._callback(done, self._total)

    def close(self) -> None:
        """Do nothing: there is no display to end."""


class DrawnProgress:
    """Draws the progress a few times a second, even if it changes more often."""

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
        """Draw the last state; later calls do nothing."""
        if not self._closed:
            self._closed = True
            try:
                self.draw(self._done)
                self.end()
            except (OSError, ValueError) as error:
                self._gone(error)

    def _gone(self, error: Exception) -> None:
        """Stop drawing, because the terminal is closed or lost. The batch goes on."""
        self._closed = True
        logger.debug("progress is no longer shown: %s", error)

    def draw(self, done: int) -> None:
        """Show `done` items."""
        raise NotImplementedError

    def end(self) -> None:
        """Restore the terminal."""
        raise NotImplementedError


class LineProgress(DrawnProgress):
    """One line on a terminal that is rewritten."""

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
    """A progress bar of the library rich."""

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
                # The speed is not known before the second update.
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
    """Return standard error if it is a terminal, else None. It may also be missing or closed."""
    stream = sys.stderr
    # pythonw.exe and a process started with `2>&-` have no standard error.
    if stream is None or getattr(stream, "closed", False):
        return None
    return stream if stream.isatty() else None


def make_progress(progress: bool | ProgressCallback | None, total: int | None) -> Progress | None:
    """Return the display for the argument `progress` of the public methods."""
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
