"""Copies keys with DUMP and RESTORE, a segment at a time."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator
from typing import Any

import redis

from redis_fastbatch._messages import format_key
from redis_fastbatch.cli.common import plain
from redis_fastbatch.cli.failed_rows import FailedRows
from redis_fastbatch.cli.segments import KeySegments, Segment
from redis_fastbatch.client import FastBatch
from redis_fastbatch.report import Progress

SHOWN_FAILURES = 10
NO_EXPIRY = -1
GONE = -2


class Counts:
    """What became of the keys."""

    def __init__(self, progress: Progress | None) -> None:
        self.copied = 0
        self.existing = 0
        self.gone = 0
        self.failed = 0
        self.first_reasons: list[str] = []
        self._bytes = 0
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, segment: Segment, written: int, sent: int, gone: int, existing: int) -> None:
        """Count the keys of a segment."""
        with self._lock:
            self.copied += written
            self._bytes += sent
            self.gone += gone
            self.existing += existing
            self.failed += len(segment.failed)
            for key, error in segment.failed[: SHOWN_FAILURES - len(self.first_reasons)]:
                self.first_reasons.append(f"key {format_key(key)}: {_advice(error)}")
            if self._progress is not None:
                self._progress.update(self.copied + self.existing + self.gone + self.failed)

    def summary(self, seconds: float) -> str:
        """Return the counts in one line."""
        parts = [f"{self.copied:,} copied"]
        parts += [f"{self.existing:,} existed already"] if self.existing else []
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.gone:,} gone meanwhile"] if self.gone else []
        rate = self.copied / seconds if seconds else 0
        return f"{', '.join(parts)}; {self._bytes:,} bytes in {seconds:.3f} s ({rate:,.0f} keys/s)"


def _advice(error: Exception) -> str:
    return "it exists: give --replace to replace it" if is_busy(error) else plain(error)


def is_busy(error: Exception) -> bool:
    """Return whether a key was not restored because it exists."""
    return isinstance(error, redis.ResponseError) and "BUSYKEY" in str(error)


class Copy:
    """One run of the command. Several threads may work() at the same time.

    Args:
        source, target: the servers.
        segments: the keys.
        counts: gets the figures.
        failures: gets the keys that failed when their segment is settled.
        options: those of the command line.
        resumed: this run continues an earlier one: keys that exist are not failures, because the earlier run may
            have copied them.

    Attributes:
        on_settled: called with the state of the nodes after each segment.
    """

    on_settled: Callable[[dict[str, int]], None]

    def __init__(
        self,
        source: FastBatch,
        target: FastBatch,
        segments: KeySegments,
        counts: Counts,
        failures: FailedRows,
        options: argparse.Namespace,
        *,
        resumed: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._segments = segments
        self._counts = counts
        self._failures = failures
        self._replace = options.replace
        self._resumed = resumed
        self._ttl_command = None
        self._options_of_restore: tuple[str, ...] = ("REPLACE",) if options.replace else ()
        if options.ttl == "keep":
            self._ttl_command = ttl_command(source)
            if self._ttl_command == "PEXPIRETIME":
                self._options_of_restore += ("ABSTTL",)
        segments.on_settled = self._settled

    def work(self) -> None:
        """Copy segments until there are none left."""
        while not self._failures.stopped and (segment := self._segments.take()) is not None:
            self._copy(segment)
            self._segments.settle(segment)

    def _settled(self, segment: Segment, state: dict[str, int]) -> None:
        for key, error in segment.failed:
            self._failures(key, None, error)
        self.on_settled(state)

    def _copy(self, segment: Segment) -> None:
        existing = 0

        def failed(_: int, command: Any, error: Exception) -> None:
            nonlocal existing
            if self._resumed and is_busy(error):
                existing += 1
            else:
                segment.failed.append((command[1], error))

        gone: list[bytes] = []
        commands = self._restores(segment, gone)
        # Without REPLACE a repeated command would fail because of the first.
        report = self._target.batch_execute(commands, on_error=failed, repeatable=self._replace)
        self._counts.add(segment, report.written, report.bytes_sent, len(gone), existing)

    def _restores(self, segment: Segment, gone: list[bytes]) -> Iterator[tuple[Any, ...]]:
        """Yield the commands that write the keys of a segment."""
        replies = self._source.batch_execute_iter(self._reads(segment.keys), raise_on_error=False)
        for key in segment.keys:
            dump = next(replies)
            ttl = NO_EXPIRY if self._ttl_command is None else next(replies)
            error = next((reply for reply in (dump, ttl) if isinstance(reply, Exception)), None)
            if error is not None:
                segment.failed.append((key, error))
            elif dump is None or ttl == GONE:
                gone.append(key)
            else:
                # PTTL is 0 in the last millisecond, and RESTORE takes 0 for no expiry.
                expiry = 0 if ttl == NO_EXPIRY else max(ttl, 1)
                yield ("RESTORE", key, expiry, dump, *self._options_of_restore)

    def _reads(self, keys: list[bytes]) -> Iterator[tuple[Any, ...]]:
        for key in keys:
            yield "DUMP", key
            if self._ttl_command is not None:
                yield self._ttl_command, key


def ttl_command(batch: FastBatch) -> str:
    """Return the command for the expiry of a key: PEXPIRETIME, which Redis has from 7.0 on, or PTTL."""
    reply = next(batch.batch_execute_iter([("PEXPIRETIME", "redis-fastbatch:none")], raise_on_error=False))
    return "PTTL" if isinstance(reply, redis.ResponseError) and "unknown command" in str(reply) else "PEXPIRETIME"
