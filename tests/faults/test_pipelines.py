"""Pipelines whose connection is lost at every place. They end as redis-py's do, and leave no reply to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from faults.bench import Bench, Blocking, bench
from faults.matrix import DIRECTIONS, KINDS, RETRIES, ending, places
from faults.proxy import Direction, Fault
from redis_fastbatch.server import EmbeddedServer

TRANSACTIONS = pytest.mark.parametrize("transaction", [False, True], ids=["plain", "MULTI"])
COUNT = 5
WANTED = [f"reply {i}".encode() for i in range(COUNT)]

Make = Callable[..., Any]


@pytest.fixture
def ready(valkey: EmbeddedServer, kind: str, retries: int) -> Iterator[Bench]:
    with bench(valkey, kind=kind, retries=retries) as made:
        yield made


def executed(ready: Bench, make: Make, transaction: bool, watch: bool) -> Any:
    """Return the results of a pipeline, or the class of the error that it raises."""
    batch = ready.batch

    async def run_async() -> Any:
        async with make(transaction) as pipe:
            if watch:
                await pipe.watch("watched")
                pipe.multi()
            for each in WANTED:
                pipe.echo(each)
            return await pipe.execute()

    def run() -> Any:
        with make(transaction) as pipe:
            if watch:
                pipe.watch("watched")
                pipe.multi()
            for each in WANTED:
                pipe.echo(each)
            return pipe.execute()

    try:
        return batch._loop.run_until_complete(run_async()) if isinstance(batch, Blocking) else run()
    except redis.RedisError as error:
        return type(error)


def makers(ready: Bench) -> tuple[Make, Make]:
    """Return our pipeline() and redis-py's."""
    batch: Any = ready.batch._batch if isinstance(ready.batch, Blocking) else ready.batch
    return batch.pipeline, batch.client.pipeline


@KINDS
@RETRIES
@DIRECTIONS
@TRANSACTIONS
@pytest.mark.parametrize("watch", [False, True], ids=["", "watching"])
def test_cut_at_every_place(
    ready: Bench, kind: str, retries: int, direction: Direction, transaction: bool, watch: bool
) -> None:
    ours, theirs = makers(ready)
    traffic = ready.traffic(lambda: executed(ready, ours, transaction, watch))
    for place in places(traffic, direction, kind, retries):
        found = []
        for make in (ours, theirs):
            ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
            found.append(executed(ready, make, transaction, watch))
            ready.check_connection()
        assert found[0] == found[1], place
        if retries and not watch:
            assert found[0] == WANTED
        else:
            assert found[0] == WANTED or issubclass(found[0], (redis.ConnectionError, redis.WatchError))


@KINDS
@TRANSACTIONS
@pytest.mark.parametrize("retries", [0])
def test_a_reply_too_many(ready: Bench, kind: str, transaction: bool) -> None:
    """Where it is noticed, an error is raised, and the connection is closed.

    Without MULTI it is noticed if the last reply has arrived by then.
    """
    ours, _ = makers(ready)
    for place in range(COUNT):
        ready.inject(Fault(after_replies=place, insert=b"+stray\r\n"))
        found = executed(ready, ours, transaction, False)
        assert found != WANTED
        if isinstance(found, type):
            ready.check_connection()
        else:
            assert not transaction
