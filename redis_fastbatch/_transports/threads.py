"""Carries out one batch with several threads. Each thread has a connection.

The threads take slices of the items from one source, under a lock. Encoding holds the GIL; sending and receiving
do not. A thread that fails gives back the items that it has not begun, so that the others carry them out.
"""

from __future__ import annotations

import _thread
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from redis.exceptions import RedisError

from redis_fastbatch._arguments import counted
from redis_fastbatch._engine.pacing import Slices
from redis_fastbatch._transports.redispy import is_cluster
from redis_fastbatch._transports.sync import Lease
from redis_fastbatch.report import BatchReport, Progress

logger = logging.getLogger("redis_fastbatch")

MakeFlight: TypeAlias = Callable[[Lease, Any, BatchReport, "Progress | None"], Any]
Borrow: TypeAlias = Callable[[], AbstractContextManager[Any]]
ReadShare: TypeAlias = Callable[[Iterable[Any]], None]

SLICE = 500
"""The number of items that a thread takes at a time."""

# Waiting in short steps lets a KeyboardInterrupt through on every platform.
WAIT_SECONDS = 0.1


class Source:
    """Items that several threads share, in slices. Knows the position of each slice."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = Slices(items)
        self._lock = threading.Lock()
        self._returned: deque[tuple[int, list[Any]]] = deque()
        self._taken = 0
        self._stopped = False
        self._ended = False

    @property
    def error(self) -> BaseException | None:
        """What the iterable of items has raised, which ended it; None if nothing."""
        return self._items.error

    def take(self) -> tuple[int, list[Any]] | None:
        """Return the position of the next slice and its items; None if there are no more."""
        with self._lock:
            if self._stopped:
                return None
            if self._returned:
                return self._returned.popleft()
            items = self._items.take(SLICE)
            position = self._taken
            self._taken += len(items)
            self._ended = not items
            return (position, items) if items else None

    def give_back(self, position: int, items: list[Any]) -> None:
        """Give back items that a thread took and did not begin."""
        with self._lock:
            self._returned.append((position, items))

    def stop(self) -> None:
        """Give out no further slices."""
        self._stopped = True

    @property
    def unbegun(self) -> int:
        """The position of the first item that no thread has begun."""
        # A copy without the lock: after a second Ctrl-C threads still run, and one may hold it while items block.
        return min((position for position, _ in self._returned.copy()), default=self._taken)

    @property
    def stopped(self) -> bool:
        """Whether no further slices are given out."""
        return self._stopped

    @property
    def left_over(self) -> bool:
        """Whether there are, or may be, items that no thread took or that were given back."""
        return bool(self._returned) or not self._ended


class Share:
    """One thread's part of a source: an iterable of items that knows the positions of those not yet settled.

    Attributes:
        settled: returns how many of this share's items, from its first, are settled. Their positions are dropped.
    """

    def __init__(self, source: Source) -> None:
        self.settled: Callable[[], int] = lambda: 0
        self._source = source
        self._slices: deque[tuple[int, int]] = deque()
        self._forgotten = 0
        self._rest: list[Any] = []
        self._next = 0

    def __iter__(self) -> Iterator[Any]:
        while (taken := self._source.take()) is not None:
            self._forget()
            position, self._rest = taken
            self._slices.append((position, len(self._rest)))
            self._next = 0
            for item in self._rest:
                self._next += 1
                yield item

    def _forget(self) -> None:
        settled = self.settled()
        while self._slices and self._forgotten + self._slices[0][1] <= settled:
            self._forgotten += self._slices.popleft()[1]

    def give_back(self) -> None:
        """Give back the items that the encoder has not taken."""
        rest = self._rest[self._next :]
        if rest:
            position, _ = self._slices[-1]
            self._slices[-1] = (position, self._next)
            self._source.give_back(position + self._next, rest)

    def position(self, local: int) -> int | None:
        """Return the position in the source of this share's item number `local`; None after its last."""
        local -= self._forgotten
        for start, size in self._slices.copy():
            if local < size:
                return start + local
            local -= size
        return None


class SharedProgress:
    """Adds up the progress of several threads."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[Progress, int] = {}

    def part(self) -> Progress | None:
        """Return the Progress for one more thread; None if the caller gave no progress function."""
        return None if self._progress is None else _Part(self)

    def update(self, part: Progress, done: int) -> None:
        """Take the number of items that one thread has done."""
        with self._lock:
            self._done[part] = done
            if self._progress is not None:
                self._progress.update(sum(self._done.values()))


class _Part:
    def __init__(self, whole: SharedProgress) -> None:
        self._whole = whole

    def update(self, done: int) -> None:
        self._whole.update(self, done)

    def close(self) -> None:
        """Do nothing: the whole is closed when all threads have ended."""


class _Writer:
    """One thread that writes."""

    def __init__(self, borrow: Borrow, source: Source, make_flight: MakeFlight, whole: SharedProgress) -> None:
        self.report = BatchReport()
        self.error: BaseException | None = None
        self.fatal: BaseException | None = None
        self._ended = False
        self._borrow = borrow
        self._source = source
        self._share = Share(source)
        self._make_flight = make_flight
        self._progress = whole.part()

    def run(self) -> None:
        """Do the work of the thread."""
        flight: Any = None
        try:
            with self._borrow() as borrowed:
                flight = self._make_flight(borrowed, self._share, self.report, self._progress)
                self._share.settled = flight.confirmed_prefix
                with flight:
                    borrowed.run(flight)
            if flight.source_error is not None:
                # Not from the source, which keeps its own errors: a codec has raised what is not an Exception.
                raise flight.source_error
        except BaseException as error:
            self.error = error
            if not isinstance(error, RedisError) or (flight is not None and flight.outcome.hook_raised):
                # For example from a hook of the caller's. It ends the batch, as it does without threads.
                self.fatal = error
                self._source.stop()
            # Otherwise only this connection has failed, and the other threads go on.
            self._share.give_back()
        self._ended = True

    @property
    def open_position(self) -> int | None:
        """The position in the input of this thread's first item that is not settled; None if all are."""
        if not self._ended:
            # A second Ctrl-C has ended the wait for the threads.
            return self._share.position(self._share.settled())
        return None if self.error is None else self._share.position(self.report.confirmed_prefix)


def one_at_a_time(hook: Any) -> Any:
    """Return a hook that only one thread calls at a time. Return what is not callable unchanged."""
    if not callable(hook):
        return hook
    lock = threading.Lock()

    def locked(*arguments: Any) -> Any:
        with lock:
            return hook(*arguments)

    return locked


def check_workers(workers: int, atomic: bool = False) -> None:
    """Refuse a number of workers that is not valid."""
    counted("workers", workers)
    if atomic and workers > 1:
        raise ValueError("an atomic batch is one command: it cannot have several workers")


def affordable(client: Any, workers: int) -> int:
    """Return how many workers there are connections for: in a client's pool, or in each pool of a cluster."""
    if workers == 1 or getattr(client, "connection", None) is not None:
        return 1
    clients = map(client.get_redis_connection, client.get_primaries()) if is_cluster(client) else [client]
    # A pool of a class of the caller's may not have max_connections.
    most = (getattr(each.connection_pool, "max_connections", None) for each in clients)
    return max(1, min([workers, *(number for number in most if isinstance(number, int))]))


def write(
    borrow: Borrow,
    items: Iterable[Any],
    threads: int,
    make_flight: MakeFlight,
    report: BatchReport,
    progress: Progress | None,
) -> None:
    """Write items with several threads, and add up their reports.

    Args:
        borrow: each thread borrows its connection with it.
        items: a mapping, or pairs. Threads do not keep their order.
        threads: the number of threads.
        make_flight: called as (lease, items, report, progress) in each thread.
        report: gets the sum.
        progress: gets the sum.

    Raises:
        KeyboardInterrupt: the calling thread was interrupted. What the threads had begun is settled.
        Exception: what `items` or a hook of the caller's has raised; or, if no thread was left to go on, the error
            of the last one.
    """
    source = Source(items.items() if isinstance(items, Mapping) else items)
    sum_of_all = SharedProgress(progress)
    writers: list[_Writer] = []
    try:
        running = [_Writer(borrow, source, make_flight, sum_of_all) for _ in range(threads)]
        while running:
            writers += running
            run_threads([writer.run for writer in running], source.stop)
            # A thread that failed may have given items back when the others had already ended.
            alive = any(writer.error is None for writer in running)
            more = alive and source.left_over and not source.stopped
            running = [_Writer(borrow, source, make_flight, sum_of_all)] if more else []
    finally:
        _add_up(writers, source, report)
    if source.error is not None:
        raise source.error
    for writer in writers:
        if writer.fatal is not None:
            raise writer.fatal
    failed = [writer.error for writer in writers if writer.error is not None]
    if failed and source.left_over:
        raise failed[-1]
    for error in failed:
        logger.warning("a thread of batch_set ended early, the others did its work: %s", error)


def _add_up(writers: list[_Writer], source: Source, report: BatchReport) -> None:
    """Make a report the sum of the reports of the threads."""
    for writer in writers:
        report.merge(writer.report)
    opened = [position for writer in writers if (position := writer.open_position) is not None]
    report.confirmed_prefix = min([*opened, source.unbegun])


class _Thread:
    """A thread whose end can be waited for, however often Ctrl-C interrupts that.

    Not a threading.Thread: Ctrl-C within start(), join() or Event.wait() may leave one of their locks taken for
    good. The functions of `_thread` that are called here are interrupted before or after, never within.
    """

    def __init__(self, job: Callable[[], None]) -> None:
        self._job = job
        self._begun = False
        self._over = False
        self._ended = _thread.allocate_lock()
        self._ended.acquire()

    def start(self) -> None:
        _thread.start_new_thread(self._run, ())
        self._begun = True

    def _run(self) -> None:
        # Here too: Ctrl-C may come between the two lines of start().
        self._begun = True
        try:
            self._job()
        finally:
            self._over = True
            self._ended.release()

    def wait(self) -> None:
        """Wait until the thread has ended. Do not wait if it has not begun: it will find nothing to do."""
        while self._begun and not self._over:
            self._ended.acquire(timeout=WAIT_SECONDS)


def run_threads(jobs: list[Callable[[], None]], stop: Callable[[], None]) -> None:
    """Run each job in a thread, and wait until all have ended. `stop` is to end them after Ctrl-C."""
    threads = [_Thread(job) for job in jobs]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.wait()
    except BaseException:
        stop()
        for thread in threads:
            thread.wait()
        raise


def read(keys: Iterable[Any], threads: int, read_share: ReadShare) -> None:
    """Read keys with several threads.

    Args:
        keys: what to read.
        threads: the number of threads.
        read_share: called in each thread with some of the keys, which it reads.

    Raises:
        Exception: the first that a thread has raised, after all have ended.
    """
    source = Source(keys)
    errors: list[BaseException] = []

    def job() -> None:
        try:
            read_share(Share(source))
        except BaseException as error:
            source.stop()
            errors.append(error)

    run_threads([job] * threads, source.stop)
    if errors or source.error is not None:
        raise errors[0] if errors else source.error  # type: ignore[misc]
