"""atomic=True writes all items of a batch or none."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from checks import commands, in_use, proxied
from faults.streams import Direction, Fault, Then
from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import acl_user, configured

OPTIONS: list[dict[str, Any]] = [{}, {"ex": 100}, {"nx": True}, {"xx": True, "px": 90_000}, {"keepttl": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_all_items_are_written(client: redis.Redis, options: dict[str, Any]) -> None:
    items = {f"k{i}": "x" * 50 + str(i) for i in range(20_000)}
    if "xx" in options:
        client.mset(dict.fromkeys(items, "old"))
    report = FastBatch(client).batch_set(items, atomic=True, **options)
    assert (report.written, report.failed, report.confirmed_prefix) == (20_000, 0, 20_000)
    assert FastBatch(client).batch_get(items) == items


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_several_commands_are_one_transaction(valkey: EmbeddedServer, options: dict[str, Any]) -> None:
    with proxied(valkey, record=True) as (proxy, client):
        FastBatch(client).batch_set(
            {f"k{i}": "x" * 100 for i in range(5000)}, atomic=True, chunk_size=10, **options
        )
        sent = [words[0] for words in commands(proxy.recorded(Direction.TO_SERVER))]
    names = [name for name in sent if name in (b"MSET", b"MSETEX", b"SET", b"MULTI", b"EXEC")]
    command, times = b"SET", 5000
    if not options or "ex" in options or "keepttl" in options:
        command, times = b"MSETEX" if options else b"MSET", 500
    assert names == [b"MULTI", *[command] * times, b"EXEC"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_batch_of_one_command_needs_no_transaction(valkey: EmbeddedServer, options: dict[str, Any]) -> None:
    with proxied(valkey, record=True) as (proxy, client):
        FastBatch(client).batch_set({"a": 1, "b": 2}, atomic=True, **options)
        sent = [words[0] for words in commands(proxy.recorded(Direction.TO_SERVER))]
    names = [name for name in sent if name in (b"MSET", b"MSETEX", b"SET", b"MULTI", b"EXEC")]
    if "nx" in options or "xx" in options:
        assert names == [b"MULTI", b"SET", b"SET", b"EXEC"]
    else:
        assert names == [b"MSETEX" if options else b"MSET"]


@pytest.mark.parametrize("command", ["multi", "exec", "mset"])
def test_without_permission_for_a_command_nothing_is_written(valkey: EmbeddedServer, command: str) -> None:
    items = {f"allowed:{i}": "x" * 100 for i in range(2000)}
    with acl_user(valkey, f"-{command}") as user, user.client() as client:
        client.delete(*items)
        with pytest.raises(BatchError) as raised:
            FastBatch(client).batch_set(items, atomic=True)
        assert raised.value.report.failed == 2000
        assert client.exists(*items) == 0


def test_conditions_apply_to_each_key(client: redis.Redis) -> None:
    client.set("a", "old")
    report = FastBatch(client).batch_set({"a": 1, "b": 2, "c": 3}, atomic=True, nx=True)
    assert (report.written, report.skipped, report.skipped_keys) == (2, 1, ["a"])
    assert client.get("a") == b"old"
    report = FastBatch(client).batch_set({"a": 1, "d": 2}, atomic=True, xx=True, ex=50)
    assert (report.written, report.skipped, report.skipped_keys) == (1, 1, ["d"])
    assert client.exists("d") == 0


def test_readers_never_see_a_part_of_a_batch(client: redis.Redis) -> None:
    kwargs = client.connection_pool.connection_kwargs
    keys = [f"k{i}" for i in range(2000)]
    FastBatch(client).batch_set(dict.fromkeys(keys, 0))
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        with redis.Redis(host=kwargs["host"], port=kwargs["port"]) as other:
            while not done.is_set():
                seen.add(len(set(other.mget(keys))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for value in range(1, 40):
            FastBatch(client).batch_set(
                dict.fromkeys(keys, value), atomic=True, **({"ex": 100} if value % 2 else {})
            )
    finally:
        done.set()
        watcher.join()
    assert seen == {1}


def test_nothing_is_written_if_the_server_is_out_of_memory(client: redis.Redis) -> None:
    with configured(client, maxmemory=1, maxmemory_policy="noeviction"):
        for options in ({}, {"ex": 50}, {"nx": True}):
            with pytest.raises(BatchError) as caught:
                FastBatch(client).batch_set({f"k{i}": i for i in range(500)}, atomic=True, **options)
            report = caught.value.report
            assert (report.written, report.failed, len(report.failures)) == (0, 500, 500)
            assert "memory" in str(caught.value)
            assert in_use(client) == 0
    assert client.dbsize() == 0
    assert FastBatch(client).batch_set({"a": 1}, atomic=True, nx=True).written == 1


def test_one_forbidden_key_fails_the_batch(server: EmbeddedServer) -> None:
    with server.client() as admin, acl_user(server) as user, user.client() as client:
        admin.flushall()
        items: dict[str, int] = {f"{user.prefix}{i}": i for i in range(50)}
        items["forbidden"] = 1
        for options in ({}, {"ex": 50}, {"nx": True}):
            with pytest.raises(BatchError) as caught:
                FastBatch(client).batch_set(items, atomic=True, **options)
            report = caught.value.report
            assert (report.written, report.failed) == (0, 51)
            assert set(report.failures) == set(items)
            assert admin.dbsize() == 0
            assert "permission" in str(report.failures["forbidden"]).lower()


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}], ids=str)
def test_a_connection_lost_before_exec_sends_the_batch_again(
    valkey: EmbeddedServer, options: dict[str, Any]
) -> None:
    # More than all buffers between client and server hold.
    items = {f"k{i}": "x" * 20_000 for i in range(2000)}
    with proxied(valkey, retry=Retry(ConstantBackoff(0.01), 3)) as (proxy, client), valkey.client() as direct:
        FastBatch(client).batch_set({"warm": 1}, ex=1)
        client.delete("warm")
        proxy.inject_now(Fault(Direction.TO_SERVER, after_bytes=1_000_000, then=Then.CUT))
        # An incomplete transaction was not executed, so it is sent again.
        report = FastBatch(client).batch_set(items, atomic=True, **options)
        assert (report.written, report.failed) == (2000, 0)
        assert direct.dbsize() == 2000


@pytest.mark.parametrize(("options", "queued"), [({}, 0), ({"ex": 60}, 0), ({"nx": True}, 3)], ids=str)
def test_a_connection_lost_after_exec_leaves_the_outcome_unknown(
    valkey: EmbeddedServer, options: dict[str, Any], queued: int
) -> None:
    with proxied(valkey) as (proxy, client), valkey.client() as direct:
        FastBatch(client).batch_set({"warm": 1}, ex=1)
        proxy.inject_now(Fault(Direction.TO_CLIENT, after_replies=queued, drop_bytes=1, then=Then.CUT))
        with pytest.raises(redis.ConnectionError) as caught:
            FastBatch(client).batch_set({"a": 1, "b": 2}, atomic=True, **options)
        report = caught.value.report  # type: ignore[attr-defined]
        assert (report.written, report.failed) == (0, 2)
        assert all("outcome unknown" in str(error) for error in report.failures.values())
        assert direct.exists("a", "b") in (0, 2)
        assert in_use(client) == 0
        assert client.ping()


@pytest.mark.parametrize("options", [{"nx": True, "ex": 60}, {"xx": True}], ids=str)
@pytest.mark.parametrize("count", [2, 5000])
def test_nothing_is_written_if_transactions_are_forbidden(
    server: EmbeddedServer, options: dict[str, Any], count: int
) -> None:
    with server.client() as admin, acl_user(server, "-multi") as user, user.client() as client:
        admin.flushall()
        items = {f"{user.prefix}{i}": i for i in range(count)}
        before = dict.fromkeys(items, b"old") if "xx" in options else {}
        if before:
            admin.mset(before)
        with pytest.raises(BatchError, match="permission") as caught:
            FastBatch(client).batch_set(items, atomic=True, **options)
        report = caught.value.report
        assert (report.written, report.failed) == (0, count)
        assert all(isinstance(error, redis.ResponseError) for error in report.failures.values())
        assert admin.dbsize() == len(before)
        assert set(admin.mget(list(items))) == ({b"old"} if before else {None})
        assert FastBatch(client).batch_set(items).written == count


def test_nothing_is_written_if_msetex_and_transactions_are_forbidden(valkey: EmbeddedServer) -> None:
    with valkey.client() as admin, acl_user(valkey, "-multi", "-msetex") as user, user.client() as client:
        admin.flushall()
        items = {f"{user.prefix}{i}": i for i in range(10)}
        with pytest.raises(BatchError, match="permission") as caught:
            FastBatch(client).batch_set(items, atomic=True, ex=60)
        assert (caught.value.report.written, caught.value.report.failed) == (0, 10)
        assert not admin.dbsize()


def test_workers_and_atomic_exclude_each_other(valkey_client: redis.Redis) -> None:
    with pytest.raises(ValueError, match="atomic"):
        FastBatch(valkey_client).batch_set({"a": 1}, atomic=True, workers=2)
