"""Functions of test_scaleout.py that worker processes import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from redis_fastbatch import BatchReport, FastBatch


def pairs(numbers: Iterable[int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Make items one at a time, in the worker."""
    return ((f"part:{n}", {"n": n}) for n in numbers)


def write(fast: FastBatch, numbers: Iterable[int]) -> BatchReport:
    """Write a partition."""
    return fast.batch_set(pairs(numbers), ex=1000)


def read(fast: FastBatch, numbers: Iterable[int]) -> int:
    """Read a partition. Return the sum of its values."""
    found = fast.batch_get_iter(f"part:{n}" for n in numbers)
    return sum(value["n"] for _, value in found)


def write_partition(numbers: Iterable[int], url: str, cluster: bool) -> list[int]:
    """Write a partition with a new client, as a function for Spark's foreachPartition() does."""
    with FastBatch.from_url(url, cluster=cluster) as fast:
        return [write(fast, numbers).written]
