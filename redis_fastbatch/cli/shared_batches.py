"""Distributes the record batches of a file to the threads that write them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from redis_fastbatch.errors import EncodeError

if TYPE_CHECKING:
    from redis_fastbatch.cli.failed_rows import FailedRows

ROWS_BEYOND_FAILURE = 500
"""The size of a batch in rows if the first failure stops the load."""


def stoppable(reader: Any, failures: FailedRows) -> Any:
    """Return a reader of the same rows, in small batches if a failure stops the load, so that it ends soon."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        for batch in reader:
            for start in range(0, batch.num_rows, ROWS_BEYOND_FAILURE):
                if failures.stopped:
                    return
                yield batch.slice(start, ROWS_BEYOND_FAILURE)

    return pa.RecordBatchReader.from_batches(reader.schema, batches()) if failures.may_stop else reader


class SharedBatches:
    """The record batches of a reader, shared by several threads."""

    def __init__(self, reader: Any) -> None:
        self.schema = reader.schema
        self._batches = iter(reader)
        self._lock = threading.Lock()
        self._rows = 0
        self._stopped = False

    def take(self) -> tuple[int, Any] | None:
        """Return the next batch and the number of its first row; None at the end."""
        with self._lock:
            batch = None if self._stopped else next(self._batches, None)
            if batch is None:
                return None
            first = self._rows
            self._rows += batch.num_rows
            return first, batch

    def stop(self) -> None:
        """Hand out no further batch."""
        self._stopped = True


class WorkerBatches:
    """The batches of one thread, as an Arrow reader."""

    def __init__(self, shared: SharedBatches) -> None:
        self._shared = shared
        self._own = [0]
        self._in_file: list[int] = []

    def reader(self) -> Any:
        """Return an Arrow reader of this thread's batches."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self._shared.schema, self._batches())

    def _batches(self) -> Iterator[Any]:
        while (taken := self._shared.take()) is not None:
            first, batch = taken
            self._in_file.append(first)
            self._own.append(self._own[-1] + batch.num_rows)
            yield batch

    def in_file(self, row: int, error: Exception) -> tuple[int, Exception]:
        """Return the number that a failed row of this thread has in the file, and its error with that number."""
        place = bisect_right(self._own, row) - 1
        number = self._in_file[place] + row - self._own[place]
        if isinstance(error, EncodeError):
            error = EncodeError(error.reason.replace(f"row {row}: ", f"row {number}: ", 1))
        return number, error
