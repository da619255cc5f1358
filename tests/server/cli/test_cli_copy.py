"""`redis-fastbatch copy`: keys of every type between servers and clusters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import all_types
from redis_fastbatch.cli import main
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster, acl_user, wait_until

COUNT = 100


@pytest.fixture
def other(valkey: EmbeddedServer) -> Iterator[redis.Redis]:
    """Connect to the second database of the embedded Valkey."""
    with valkey.client(db=1) as client:
        yield client


@pytest.fixture
def urls(valkey: EmbeddedServer, valkey_client: redis.Redis) -> list[str]:
    """Return the options that copy from the embedded Valkey's first database to its second one."""
    return ["--from", f"redis://{valkey.host}:{valkey.port}/0", "--to", f"redis://{valkey.host}:{valkey.port}/1"]


def test_keys_of_every_type_are_copied_with_their_expiry(
    urls: list[str], valkey_client: redis.Redis, other: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    all_types.fill(valkey_client, COUNT)
    assert main(["copy", *urls, "--verify", "all"]) == 0
    text = capsys.readouterr().err
    total = all_types.total(COUNT)
    assert f"{total:,} copied; " in text
    assert f"verified: {total:,} keys compared, 0 differ" in text
    assert all_types.content(other) == all_types.content(valkey_client)
    times = [
        [client.execute_command("PEXPIRETIME", f"hash:{n}") for n in range(COUNT)]
        for client in (valkey_client, other)
    ]
    assert times[0] == times[1]
    assert max(times[0]) > 0 > min(times[0])


def test_some_keys_are_copied_without_expiry(
    urls: list[str], valkey_client: redis.Redis, other: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    all_types.fill(valkey_client, 30)
    options = ["--match", "*:1*", "--type", "hash", "--ttl", "drop", "--workers", "2", "--verify"]
    assert main(["copy", *urls, *options]) == 0
    assert "11 copied" in capsys.readouterr().err
    assert {key.decode() for key in other.scan_iter()} == {f"hash:{n}" for n in (1, *range(10, 20))}
    assert {other.ttl(key) for key in other.scan_iter()} == {-1}


def test_keys_that_exist_are_named_or_replaced(
    urls: list[str],
    valkey_client: redis.Redis,
    other: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    valkey_client.mset({"a": 1, "b": 2, "c": 3})
    other.set("b", "old")
    failed = tmp_path / "failed.ndjson"
    assert main(["copy", *urls, "--on-error", str(failed)]) == 1
    text = capsys.readouterr().err
    assert "key b'b': it exists: give --replace to replace it" in text
    assert "2 copied, 1 failed" in text
    assert other.mget("a", "b", "c") == [b"1", b"old", b"3"]
    rows = [json.loads(line) for line in failed.read_text().splitlines()]
    assert [row["key"] for row in rows] == ["b"]
    assert "BUSYKEY" in rows[0]["error"]
    assert main(["copy", *urls, "--replace", "--verify", "all"]) == 0
    assert other.mget("a", "b", "c") == [b"1", b"2", b"3"]


def test_verify_names_what_differs(
    urls: list[str], valkey_client: redis.Redis, other: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("value", "type", "expiry"):
        valkey_client.set(name, 1)
        other.set(name, 1)
    valkey_client.set("missing", 1)
    other.set("value", 2)
    other.delete("type")
    other.rpush("type", 1)
    other.expire("expiry", 100)
    assert main(["copy", *urls, "--match", "none:*", "--verify"]) == 1
    assert "nothing to verify" in capsys.readouterr().err
    valkey_client.set("new", 1)
    assert main(["copy", *urls, "--match", "[mntve]*", "--on-error", "report", "--verify", "all"]) == 1
    text = capsys.readouterr().err
    assert "key b'value': values differ" in text
    assert "key b'type': expected a string, found a list" in text
    assert "key b'expiry': expiry differs" in text
    assert "5 keys compared, 3 differ" in text


def test_a_copy_that_was_killed_goes_on(
    urls: list[str], valkey_client: redis.Redis, other: redis.Redis, tmp_path: Path, capsys: Any
) -> None:
    count = 60_000
    valkey_client.mset({f"key:{n}": "x" * 200 for n in range(count)})
    valkey_client.set("busy", 1)
    other.set("busy", 2)
    state, failed = tmp_path / "copy.state", tmp_path / "failed.ndjson"
    options = ["copy", *urls, "--resume", str(state), "--on-error", str(failed), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "redis_fastbatch", *options])
    wait_until(lambda: other.dbsize() > 12_000, "the copy has begun")
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = other.dbsize()
    assert before < count
    assert state.exists()
    assert main(["copy", *urls, "--resume", str(state), "--match", "other:*"]) == 1
    assert "belongs to a run with match None, and this one has 'other:*'" in capsys.readouterr().err
    calls = other.info("commandstats")["cmdstat_restore"]["calls"]
    options.remove("--quiet")
    main([*options, "--verify", "all"])
    text = capsys.readouterr().err
    assert other.dbsize() == count + 1
    assert f"{count + 1:,} keys compared, 1 differ" in text
    # The second run has not copied everything again.
    assert other.info("commandstats")["cmdstat_restore"]["calls"] - calls < count - 5000
    assert len(failed.read_text().splitlines()) <= 1
    assert not state.exists()


def test_a_server_is_copied_to_a_cluster_and_back(
    valkey: EmbeddedServer,
    valkey_client: redis.Redis,
    cluster: Cluster,
    cluster_client: redis.RedisCluster,
    capsys: Any,
) -> None:
    all_types.fill(valkey_client, COUNT)
    before = all_types.content(valkey_client)
    server = f"redis://{valkey.host}:{valkey.port}"
    # Any node of a cluster stands for all of it.
    assert main(["copy", "--from", server, "--to", cluster.masters[1].url, "--verify", "all"]) == 0
    assert len(list(cluster_client.scan_iter(count=1000))) == len(before)
    valkey_client.flushall()
    assert main(["copy", "--from", cluster.url, "--to", server, "--verify", "all", "--workers", "2"]) == 0
    assert all_types.content(valkey_client) == before
    assert capsys.readouterr().err.count("0 differ") == 2


def test_a_source_whose_dumps_the_target_cannot_read_is_refused(
    urls: list[str], valkey: EmbeddedServer, valkey_client: redis.Redis, redis7_client: redis.Redis, capsys: Any
) -> None:
    valkey_client.set("a", 1)
    port = redis7_client.connection_pool.connection_kwargs["port"]
    assert main(["copy", *urls[:2], "--to", f"redis://127.0.0.1:{port}"]) == 1
    text = capsys.readouterr().err
    assert "Valkey 9." in text
    assert "Redis 7.0" in text
    assert "nothing was copied" in text
    assert redis7_client.dbsize() == 0


@pytest.mark.parametrize("source", ["redis7", "redis82"])
def test_servers_of_other_versions_are_copied(
    source: str, valkey: EmbeddedServer, valkey_client: redis.Redis, request: pytest.FixtureRequest, capsys: Any
) -> None:
    old = request.getfixturevalue(source)
    with old.client() as client:
        client.flushall()
        all_types.fill(client, COUNT)
        options = ["--from", old.url, "--to", valkey.url, "--verify", "all"]
        if source == "redis82":
            # Redis and Valkey have formats of their own from Redis 7.4 on.
            assert main(["copy", *options]) == 1
            assert valkey_client.dbsize() == 0
            return
        assert main(["copy", *options]) == 0
        assert all_types.content(valkey_client) == all_types.content(client)


def test_a_key_that_is_refused_fails_alone(
    urls: list[str], valkey: EmbeddedServer, valkey_client: redis.Redis, other: redis.Redis, capsys: Any
) -> None:
    valkey_client.mset({f"allowed:{n}": n for n in range(100)} | {"refused": 1})
    with acl_user(valkey) as user:
        url = f"redis://{user.username}:{user.password}@{valkey.host}:{valkey.port}/1"
        assert main(["copy", *urls[:2], "--to", url]) == 1
    text = capsys.readouterr().err
    assert "key b'refused': " in text
    assert "100 copied, 1 failed" in text
    assert other.dbsize() == 100
