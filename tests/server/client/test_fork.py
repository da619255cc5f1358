"""Processes that fork while connections are open, or during a batch."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import redis

from redis_fastbatch import ChunkStats, FastBatch, FastBatchError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork needs POSIX")
ROWS = {f"k{i}": {"number": i} for i in range(3000)}


def in_child(run: Callable[[], bool]) -> bool:
    """Return whether a function returns True in a forked process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if run() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_parent_and_child_have_connections_of_their_own(client: redis.Redis) -> None:
    fast = FastBatch(client)
    fast.batch_set(ROWS, ex=1000)

    def child() -> bool:
        ids = {client.client_id() for _ in range(3)}
        return parent_id not in ids and fast.batch_set({"child": 1}).written == 1 and fast.batch_get(ROWS) == ROWS

    parent_id = client.client_id()
    for _ in range(3):
        assert in_child(child)
        assert client.client_id() == parent_id
        assert fast.batch_get([*ROWS, "child"]) == {**ROWS, "child": 1}


def test_a_source_may_fork_during_a_write(client: redis.Redis) -> None:
    fast = FastBatch(client)

    def source() -> Iterator[tuple[str, Any]]:
        for number, item in enumerate(ROWS.items()):
            if number % 700 == 650:
                assert in_child(lambda: fast.batch_set({"child": [1]}).written == 1)
            yield item

    assert fast.batch_set(source(), chunk_size=50).written == len(ROWS)
    assert fast.batch_get([*ROWS, "child"]) == {**ROWS, "child": [1]}


def test_a_source_may_fork_during_a_read(client: redis.Redis) -> None:
    fast = FastBatch(client)
    fast.batch_set(ROWS)

    def keys() -> Iterator[str]:
        for number, key in enumerate(ROWS):
            if number % 900 == 800:
                assert in_child(lambda: fast.batch_get(ROWS) == ROWS)
            yield key

    assert fast.batch_get(keys()) == ROWS
    for number, (key, value) in enumerate(fast.batch_get_iter(ROWS, chunk_size=100)):
        assert value == ROWS[key]
        if number % 1000 == 500:
            assert in_child(lambda: fast.batch_get(ROWS) == ROWS)


def forking(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items. In between, fork a child that continues as its parent does and must exit with status 7."""
    for number, item in enumerate(items):
        if number == 1500:
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        yield item


@contextlib.contextmanager
def refused_in_a_child() -> Iterator[None]:
    """Exit a child with status 7 if the batch refused to continue in it, otherwise with 1."""
    parent = os.getpid()
    try:
        yield
    except FastBatchError as error:
        os._exit(7 if os.getpid() != parent and "forked" in str(error) else 1)
    finally:
        if os.getpid() != parent:
            os._exit(1)


@pytest.mark.parametrize("servers", ["valkey_client", "cluster_client"])
def test_a_child_cannot_continue_the_batch_of_its_parent(request: pytest.FixtureRequest, servers: str) -> None:
    """Parent and child must not read replies from the same connection."""
    fast = FastBatch(request.getfixturevalue(servers))
    with refused_in_a_child():
        report = fast.batch_set(forking(ROWS.items()), chunk_size=50)
    assert report.written == len(ROWS)
    with refused_in_a_child():
        found = fast.batch_get(forking(ROWS))
    assert found == ROWS
    with refused_in_a_child():
        deleted = fast.batch_delete(forking(ROWS))
    assert deleted == len(ROWS)


@pytest.mark.parametrize("servers", ["valkey_client", "cluster_client"])
def test_a_child_forked_by_a_hook_cannot_continue_the_batch(request: pytest.FixtureRequest, servers: str) -> None:
    fast = FastBatch(request.getfixturevalue(servers))
    parent = os.getpid()
    made: list[int] = []
    # More than the window holds, so that items are left whenever the hook is called.
    rows = {f"k{i}": i for i in range(20_000)}

    def fork(_: ChunkStats) -> None:
        if os.getpid() == parent and len(made) < 2:
            child = os.fork()
            if child:
                made.append(child)

    with refused_in_a_child():
        report = fast.batch_set(rows, chunk_size=50, on_chunk=fork)
    assert report.written == len(rows)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in made] == [7, 7]
    assert fast.batch_get(rows) == rows


def test_a_child_forked_by_a_codec_cannot_continue_a_batch_of_one_command(valkey_client: redis.Redis) -> None:
    class Codec:
        loads = staticmethod(bytes)

        @staticmethod
        def dumps(value: Any) -> bytes:
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            return bytes(value)

    fast = FastBatch(valkey_client, Codec())
    valkey_client.ping()
    with refused_in_a_child():
        report = fast.batch_set({"k": b"value"})
    assert report.written == 1
    assert valkey_client.get("k") == b"value"
