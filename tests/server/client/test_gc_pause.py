"""Pause stops the garbage collector while a result is built, runs it now and then, and restores its state."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import redis

from redis_fastbatch import DecodeError, FastBatch, MsgpackCodec
from redis_fastbatch._core.runtime import collector, gc_pause
from redis_fastbatch._core.runtime.gc_pause import Pause


@pytest.fixture(autouse=True)
def collector_is_on() -> Iterator[None]:
    """Check that the collector is on before a test, and turn it on afterwards."""
    assert gc.isenabled()
    assert collector.holding() == 0
    yield
    assert collector.holding() == 0
    gc.enable()


def test_the_collector_is_off_during_a_pause() -> None:
    with Pause():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_disabled_collector_stays_disabled() -> None:
    gc.disable()
    with Pause():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_the_collector_is_on_again_after_an_error() -> None:
    with pytest.raises(LookupError), Pause():
        raise LookupError
    assert gc.isenabled()


def test_pauses_may_be_nested() -> None:
    with Pause():
        with Pause():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer pause continues"
    assert gc.isenabled()


def test_a_disabled_pause_does_nothing() -> None:
    with Pause(enabled=False) as pause:
        assert gc.isenabled()
        pause.made(10**9)
        pause.turn()
    assert gc.isenabled()


def test_pauses_of_threads_may_overlap() -> None:
    first_inside, second_inside, first_done = threading.Event(), threading.Event(), threading.Event()
    enabled: list[bool] = []

    def first() -> None:
        with Pause():
            first_inside.set()
            second_inside.wait(10)
        first_done.set()

    def second() -> None:
        first_inside.wait(10)
        with Pause():
            second_inside.set()
            first_done.wait(10)
            enabled.append(gc.isenabled())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert enabled == [False]
    assert gc.isenabled()


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_the_collector_runs_after_every_1000_items() -> None:
    before = gc.get_threshold()
    gc.set_threshold(100, 5, 5)
    try:
        with Pause(every=1000) as pause:
            kept: list[Any] = [[] for _ in range(500)]
            count = collections()
            pause.made(999)
            assert collections() == count
            pause.made(1)
            assert collections() > count
            assert not gc.isenabled()
        assert len(kept) == 500
    finally:
        gc.set_threshold(*before)


@pytest.mark.full
def test_cyclic_garbage_of_a_long_batch_is_bounded(valkey_client: redis.Redis) -> None:
    class Cyclic:
        alive = 0

        def __init__(self) -> None:
            Cyclic.alive += 1
            self.self = self

        def __del__(self) -> None:
            Cyclic.alive -= 1

    most = 0

    def hook(code: int, data: bytes) -> Any:
        nonlocal most
        Cyclic()
        most = max(most, Cyclic.alive)
        return None

    fast = FastBatch(valkey_client, MsgpackCodec(ext_hook=hook))
    fast.batch_set((f"k{i}", msgpack.ExtType(1, b"x")) for i in range(2000))
    keys = [f"k{i % 2000}" for i in range(3 * gc_pause.EVERY)]
    for _ in fast.batch_get_iter(keys):
        pass
    gc.collect()
    assert Cyclic.alive == 0
    assert most < 2 * gc_pause.EVERY


@pytest.mark.parametrize("pause_gc", [True, False])
def test_pause_gc_decides_whether_reading_pauses_the_collector(client: redis.Redis, pause_gc: bool) -> None:
    enabled: set[bool] = set()

    def hook(code: int, data: bytes) -> Any:
        enabled.add(gc.isenabled())
        return data

    fast = FastBatch(client, MsgpackCodec(ext_hook=hook), pause_gc=pause_gc)
    fast.batch_set({"a": msgpack.ExtType(1, b"x")})
    assert fast.batch_get(["a"]) == {"a": b"x"}
    assert list(fast.batch_get_iter(["a"])) == [("a", b"x")]
    assert enabled == {not pause_gc}
    assert gc.isenabled()


def test_the_collector_is_on_again_after_a_failed_batch(client: redis.Redis) -> None:
    client.set("bad", b"\xc1")
    with pytest.raises(DecodeError):
        FastBatch(client).batch_get(["bad"])
    assert gc.isenabled()
    client.connection_pool.disconnect()
    with redis.Redis(port=1, retry=None) as nowhere, pytest.raises(redis.ConnectionError):
        FastBatch(nowhere).batch_get(["a"])
    assert gc.isenabled()


def test_the_collector_is_on_between_rounds_of_iteration(valkey_client: redis.Redis) -> None:
    FastBatch(valkey_client).batch_set({f"k{i}": [i] for i in range(100)})
    for _ in FastBatch(valkey_client).batch_get_iter([f"k{i}" for i in range(100)], chunk_size=10):
        assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork needs POSIX")
def test_a_child_has_its_collector_if_another_thread_was_pausing() -> None:
    inside, leave = threading.Event(), threading.Event()

    def pausing() -> None:
        with Pause():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=pausing)
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        found = gc.isenabled()
        with Pause():
            found = found and not gc.isenabled()
        os._exit(0 if found and gc.isenabled() else 1)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork needs POSIX")
def test_a_child_forked_within_a_pause_ends_the_pause() -> None:
    with Pause():
        child = os.fork()
    if child == 0:
        os._exit(0 if gc.isenabled() and collector.holding() == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_pause_that_is_never_left_ends_when_it_is_freed() -> None:
    pause = Pause()
    pause.__enter__()
    pause.__enter__()
    assert collector.holding() == 1
    assert not gc.isenabled()
    del pause
    assert gc.isenabled()
