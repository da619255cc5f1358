"""The books of a batch that writes: what became of its items, each counted once, wherever Ctrl-C comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from redis_fastbatch.report import BatchReport

Failure: TypeAlias = tuple[Any, Any, Exception]
"""A key, its value, and why it was not written."""


class Tally:
    """Items whose outcome goes into the report.

    Attributes:
        booked: so many of them, from the first, are in the report, or go again elsewhere.
    """

    __slots__ = ("booked",)

    def __init__(self) -> None:
        self.booked = 0


class Books:
    """Keeps the report, and what the caller's callable has not heard of yet.

    Args:
        report: gets the outcome.
        listener: is to hear of each failed item: of its key, its value and the exception.
    """

    def __init__(self, report: BatchReport, listener: Callable[[Any, Any, Exception], object] | None) -> None:
        self._report = report
        self._listener = listener
        self._unencoded = Tally()
        self._undelivered: dict[tuple[Tally, int], deque[Failure]] = {}

    def enter(
        self,
        tally: Tally,
        upto: int,
        *,
        written: int = 0,
        skipped: Sequence[Any] = (),
        failed: Sequence[Failure] = (),
    ) -> None:
        """Puts the outcome of a tally's items, from those that are booked up to the `upto`th, into the report.

        In one go: wherever Ctrl-C comes, all of it is counted, or nothing is, and may be entered once more.
        """
        report = self._report
        for key, _, error in failed:
            report.name_failure(key, error)
        if failed and self._listener is not None:
            self._undelivered[tally, upto] = deque(failed)
        keys = report.with_skipped(skipped) if skipped else report.skipped_keys
        counts = report.written + written, report.skipped + len(skipped), report.failed + len(failed)
        # No call in what follows: the handlers of signals run at calls, and where loops begin again.
        (report.written, report.skipped, report.failed), report.skipped_keys, tally.booked = counts, keys, upto

    def enter_unencoded(self, failures: list[Failure]) -> int:
        """Takes over from a writer's list what could not be encoded, and tells how many items that was."""
        count = len(failures)
        if count:
            self.enter(self._unencoded, count, failed=failures[self._unencoded.booked :])
            failures.clear()
            self._unencoded = Tally()
        return count

    def enter_unread(self, items: Iterable[Any], error: Exception) -> None:
        """Items that no writer has seen, which may be no pairs, failed."""
        failed = [(*_pair_of(item), error) for item in items]
        self.enter(Tally(), len(failed), failed=failed)

    def deliver(self, call: Callable[..., None]) -> None:
        """Lets the listener hear, by `call`, of the failed items that are booked. It may raise."""
        while self._undelivered and self._listener is not None:
            tally, upto = entry = next(iter(self._undelivered))
            failed = self._undelivered[entry]
            while failed and tally.booked >= upto:
                listener, self._listener = self._listener, None
                call(listener, *failed.popleft())
                # Not reached when it raised: it ended the batch, and is not asked again.
                self._listener = listener
            del self._undelivered[entry]


def _pair_of(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    return item, None
