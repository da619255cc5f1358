"""The collector rests while a result is built, is left as it was found, and gets its turn in between."""

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
    """The collector is on before and after each test, whatever the test does."""
    assert gc.isenabled()
    assert collector.holding() == 0
    yield
    assert collector.holding() == 0
    gc.enable()


def test_it_rests_within() -> None:
    with Pause():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_left_disabled_where_it_was() -> None:
    gc.disable()
    with Pause():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_it_is_put_back_after_an_error() -> None:
    with pytest.raises(LookupError), Pause():
        raise LookupError
    assert gc.isenabled()


def test_pauses_within_pauses() -> None:
    with Pause():
        with Pause():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer one goes on"
    assert gc.isenabled()


def test_a_pause_that_is_turned_off() -> None:
    with Pause(enabled=False) as pause:
        assert gc.isenabled()
        pause.made(10**9)
        pause.turn()
    assert gc.isenabled()


def test_threads_whose_pauses_overlap() -> None:
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def first() -> None:
        with Pause():
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with Pause():
            second_in.set()
            first_out.wait(10)
            seen.append(gc.isenabled())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False]
    assert gc.isenabled()


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_it_gets_its_turn_after_so_many_items() -> None:
    before = gc.get_threshold()
    gc.set_threshold(100, 5, 5)
    try:
        with Pause(every=1000) as pause:
            kept: list[Any] = [[] for _ in range(500)]
            had = collections()
            pause.made(999)
            assert collections() == had
            pause.made(1)
            assert collections() > had
            assert not gc.isenabled()
        assert len(kept) == 500
    finally:
        gc.set_threshold(*before)


@pytest.mark.full
def test_garbage_of_a_long_batch_does_not_pile_up(valkey_client: redis.Redis) -> None:
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
def test_a_batch_get_pauses_it_as_asked(client: redis.Redis, pause_gc: bool) -> None:
    seen: set[bool] = set()

    def hook(code: int, data: bytes) -> Any:
        seen.add(gc.isenabled())
        return data

    fast = FastBatch(client, MsgpackCodec(ext_hook=hook), pause_gc=pause_gc)
    fast.batch_set({"a": msgpack.ExtType(1, b"x")})
    assert fast.batch_get(["a"]) == {"a": b"x"}
    assert list(fast.batch_get_iter(["a"])) == [("a", b"x")]
    assert seen == {not pause_gc}
    assert gc.isenabled()


def test_it_is_put_back_when_a_batch_fails(client: redis.Redis) -> None:
    client.set("bad", b"\xc1")
    with pytest.raises(DecodeError):
        FastBatch(client).batch_get(["bad"])
    assert gc.isenabled()
    client.connection_pool.disconnect()
    with redis.Redis(port=1, retry=None) as nowhere, pytest.raises(redis.ConnectionError):
        FastBatch(nowhere).batch_get(["a"])
    assert gc.isenabled()


def test_it_is_on_between_the_rounds_of_an_iteration(valkey_client: redis.Redis) -> None:
    FastBatch(valkey_client).batch_set({f"k{i}": [i] for i in range(100)})
    for _ in FastBatch(valkey_client).batch_get_iter([f"k{i}" for i in range(100)], chunk_size=10):
        assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is of POSIX")
def test_a_process_forked_amid_a_pause_of_another_thread_has_its_collector() -> None:
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is of POSIX")
def test_a_process_forked_within_a_pause_leaves_it_in_order() -> None:
    with Pause():
        child = os.fork()
    if child == 0:
        os._exit(0 if gc.isenabled() and collector.holding() == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_pause_whose_end_is_never_reached_ends_with_itself() -> None:
    pause = Pause()
    pause.__enter__()
    pause.__enter__()
    assert collector.holding() == 1
    assert not gc.isenabled()
    del pause
    assert gc.isenabled()
