"""What worker processes do in test_scaleout.py: here, where they can import it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from redis_fastbatch import BatchReport, FastBatch


def pairs(numbers: Iterable[int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Items made in the worker, one at a time."""
    return ((f"part:{n}", {"n": n}) for n in numbers)


def write(fast: FastBatch, numbers: Iterable[int]) -> BatchReport:
    """Writes a partition."""
    return fast.batch_set(pairs(numbers), ex=1000)


def read(fast: FastBatch, numbers: Iterable[int]) -> int:
    """Reads a partition, and returns the sum of what it holds."""
    found = fast.batch_get_iter(f"part:{n}" for n in numbers)
    return sum(value["n"] for _, value in found)


def write_partition(numbers: Iterable[int], url: str, cluster: bool) -> list[int]:
    """Writes a partition with a client of its own, as Spark's foreachPartition() has it."""
    with FastBatch.from_url(url, cluster=cluster) as fast:
        return [write(fast, numbers).written]
