"""Batches from many workers: processes and Dask, on one server and on a cluster."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from redis_fastbatch import FastBatch
from redis_fastbatch.server import EmbeddedServer
from scaleout_work import read, write, write_partition
from servers import Cluster

N = 20_000
PARTS = 4


@pytest.fixture(params=["server", "cluster"])
def shipped(request: pytest.FixtureRequest, valkey: EmbeddedServer) -> Any:
    """A FastBatch made of a URL, of an emptied server or cluster."""
    if request.param == "server":
        with valkey.client() as client:
            client.flushall()
        return FastBatch.from_url(valkey.url)
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.flush()
    return FastBatch.from_url(cluster.url, cluster=True)


def partitions() -> list[range]:
    return [range(start, start + N // PARTS) for start in range(0, N, N // PARTS)]


@pytest.mark.full
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_with_a_pickled_client(shipped: FastBatch, method: str) -> None:
    with shipped, multiprocessing.get_context(method).Pool(2) as pool:
        # The parent has connections already, which forked children must not share.
        shipped.batch_set({"before": 1})
        reports = pool.starmap(write, [(shipped, part) for part in partitions()])
        assert [report.written for report in reports] == [N // PARTS] * PARTS
        assert sum(pool.starmap(read, [(shipped, part) for part in partitions()])) == sum(range(N))
        assert shipped.batch_get(["before"]) == {"before": 1}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_dask(shipped: FastBatch, scheduler: str) -> None:
    bag = pytest.importorskip("dask.bag")

    def partition(numbers: Any) -> list[int]:
        return [write(shipped, numbers).written]

    with shipped:
        numbers = bag.from_sequence(range(N), npartitions=PARTS)
        written = numbers.map_partitions(partition).compute(scheduler=scheduler, num_workers=2)
        assert sum(written) == N
        found = numbers.map_partitions(lambda part: [read(shipped, part)]).compute(
            scheduler=scheduler, num_workers=2
        )
        assert sum(found) == sum(range(N))


def test_a_client_for_each_partition(shipped: FastBatch) -> None:
    """What the Spark recipe does in each executor."""
    bag = pytest.importorskip("dask.bag")
    url, settings = shipped._url, shipped._settings
    with shipped:
        numbers = bag.from_sequence(range(N), npartitions=PARTS)
        written = numbers.map_partitions(write_partition, url, settings["cluster"]).compute(
            scheduler="processes", num_workers=2
        )
        assert sum(written) == N
        assert read(shipped, range(N)) == sum(range(N))
