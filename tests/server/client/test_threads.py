"""Several threads use one FastBatch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from checks import in_use
from hostile import change_dict, changing_thread
from redis_fastbatch import BatchError, FastBatch, MsgpackCodec
from redis_fastbatch.server import EmbeddedServer

THREADS = 64


def together(work: Callable[[int], None], count: int = THREADS) -> list[BaseException]:
    """Run a function in threads that begin at the same time. Return the errors that they raised."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        start.wait(30)
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def rows(number: int, turn: int) -> dict[str, Any]:
    return {f"t{number}:{i}": {"thread": number, "turn": turn, "i": i, "tags": [number, i]} for i in range(150)}


@pytest.mark.parametrize("options", [{}, {"ex": 100}, {"atomic": True, "px": 90_000}], ids=str)
def test_64_threads_share_4_connections(server: EmbeddedServer, options: dict[str, Any]) -> None:
    pool = redis.BlockingConnectionPool(max_connections=4, timeout=60, host=server.host, port=server.port)
    client = redis.Redis(connection_pool=pool)
    client.flushall()
    fast = FastBatch(client)

    def work(number: int) -> None:
        for turn in range(3):
            mine = rows(number, turn)
            report = fast.batch_set(mine, **options)
            assert (report.written, report.failed) == (150, 0)
            assert fast.batch_get(mine) == mine

    assert together(work) == []
    assert client.dbsize() == THREADS * 150
    assert fast.batch_get([f"t{number}:149" for number in range(THREADS)]) == {
        f"t{number}:149": rows(number, 2)[f"t{number}:149"] for number in range(THREADS)
    }
    assert len(pool._connections) <= 4
    assert in_use(client) == 0
    pool.disconnect()


def test_each_thread_takes_a_connection_of_its_own(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        fast = FastBatch(client)
        assert together(lambda number: fast.batch_set(rows(number, 0)) and None, 16) == []
        assert in_use(client) == 0
        assert len(client.connection_pool._available_connections) <= 16


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_single_connection_client_is_shared_in_turns(valkey: EmbeddedServer, has_lock: bool) -> None:
    with valkey.client(single_connection_client=True) as client:
        if not has_lock:
            # redis-py before 5.3 has no lock.
            client.single_connection_lock = None
        fast = FastBatch(client)

        def work(number: int) -> None:
            for turn in range(5):
                mine = rows(number, turn)
                fast.batch_set(mine)
                assert fast.batch_get(mine) == mine

        assert together(work, 8) == []
        assert fast.batch_set(rows(1, 0), workers=4).written == len(rows(1, 0))
        assert fast.batch_get(rows(1, 0), workers=4) == rows(1, 0)


def test_failures_are_reported_in_their_own_thread(server: EmbeddedServer) -> None:
    with server.client() as client:
        client.flushall()
        fast = FastBatch(client)

        def work(number: int) -> None:
            mine = rows(number, 0)
            mine[f"t{number}:bad"] = {number}
            with pytest.raises(BatchError) as caught:
                fast.batch_set(mine)
            assert list(caught.value.report.failures) == [f"t{number}:bad"]
            assert caught.value.report.written == 150

        assert together(work, 32) == []
        assert client.dbsize() == 32 * 150


def test_threads_may_read_write_and_delete_the_same_keys(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        client.flushall()
        fast = FastBatch(client)
        keys = [f"k{i}" for i in range(300)]

        def work(number: int) -> None:
            for _turn in range(10):
                if number % 3 == 0:
                    fast.batch_set(dict.fromkeys(keys, number), ex=50)
                elif number % 3 == 1:
                    assert all(value is None or value % 3 == 0 for value in fast.batch_get(keys).values())
                else:
                    assert 0 <= fast.batch_delete(keys) <= 300

        assert together(work, 12) == []


def test_another_thread_may_change_the_items(valkey: EmbeddedServer) -> None:
    items: dict[str, Any] = {f"k{i}": i for i in range(50)}
    with valkey.client() as client, changing_thread(change_dict(items)) as stop:
        fast = FastBatch(client, MsgpackCodec(lambda _: "own"))
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):
                fast.batch_set(items, chunk_size=5)
        assert fast.batch_set({"k": 1}).written == 1
        assert fast.batch_get(["k"]) == {"k": 1}
