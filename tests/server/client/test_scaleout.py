"""Batches from worker processes and Dask, on one server and on a cluster."""

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
def fast(request: pytest.FixtureRequest, valkey: EmbeddedServer) -> Any:
    """Return a FastBatch made from the URL of an empty server or cluster."""
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
def test_processes_may_use_a_pickled_client(fast: FastBatch, method: str) -> None:
    with fast, multiprocessing.get_context(method).Pool(2) as pool:
        # Now the parent has a connection, which forked children must not share.
        fast.batch_set({"before": 1})
        reports = pool.starmap(write, [(fast, part) for part in partitions()])
        assert [report.written for report in reports] == [N // PARTS] * PARTS
        assert sum(pool.starmap(read, [(fast, part) for part in partitions()])) == sum(range(N))
        assert fast.batch_get(["before"]) == {"before": 1}


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_dask_workers_may_use_a_pickled_client(fast: FastBatch, scheduler: str) -> None:
    bag = pytest.importorskip("dask.bag")

    def partition(numbers: Any) -> list[int]:
        return [write(fast, numbers).written]

    with fast:
        numbers = bag.from_sequence(range(N), npartitions=PARTS)
        written = numbers.map_partitions(partition).compute(scheduler=scheduler, num_workers=2)
        assert sum(written) == N
        found = numbers.map_partitions(lambda part: [read(fast, part)]).compute(scheduler=scheduler, num_workers=2)
        assert sum(found) == sum(range(N))


def test_each_partition_may_have_a_client_of_its_own(fast: FastBatch) -> None:
    """The Spark recipe does this in each executor."""
    bag = pytest.importorskip("dask.bag")
    url, settings = fast._url, fast._settings
    with fast:
        numbers = bag.from_sequence(range(N), npartitions=PARTS)
        written = numbers.map_partitions(write_partition, url, settings["cluster"]).compute(
            scheduler="processes", num_workers=2
        )
        assert sum(written) == N
        assert read(fast, range(N)) == sum(range(N))
