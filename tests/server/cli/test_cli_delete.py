"""`redis-fastbatch delete`, and scan() of some types of keys, which it uses."""

from __future__ import annotations

import pytest
import redis

from cli_shell import Shell
from redis_fastbatch import FastBatch
from redis_fastbatch.cli import main
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster


def test_only_keys_of_the_pattern_are_deleted(shell: Shell) -> None:
    shell.client.mset({f"user:{n}": n for n in range(30_000)} | {"userb": 1, "other": 2})
    assert shell("delete", "--match", "user:*") == (0, "30,000 keys deleted\n")
    assert sorted(shell.client.keys()) == [b"other", b"userb"]


def test_only_keys_of_the_type_are_deleted(shell: Shell) -> None:
    shell.client.set("a:1", 1)
    shell.client.hset("a:2", "field", 1)
    assert shell("delete", "--match", "a:*", "--type", "hash", "--quiet") == (0, "")
    assert shell.client.keys() == [b"a:1"]


def test_a_dry_run_deletes_nothing(shell: Shell) -> None:
    shell.client.mset({f"user:{n}": n for n in range(12)})
    code, text = shell("delete", "--match", "user:*", "--dry-run")
    assert code == 0
    assert "12 keys match" in text
    assert "... and 2 more; nothing was deleted" in text
    assert text.count("user:") == 10
    assert shell.client.dbsize() == 12


def test_no_keys_are_deleted_without_a_pattern(shell: Shell) -> None:
    shell.client.set("a", 1)
    with pytest.raises(SystemExit):
        shell("delete")
    assert shell.client.dbsize() == 1


def test_a_refused_delete_fails(valkey: EmbeddedServer, shell: Shell) -> None:
    shell.client.set("a", 1)
    shell.client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-unlink")
    try:
        url = f"redis://reader:secret@{valkey.host}:{valkey.port}"
        assert main(["delete", "--match", "*", "--url", url]) == 1
    finally:
        shell.client.execute_command("ACL", "DELUSER", "reader")
    assert shell.client.dbsize() == 1


def test_a_cluster_is_scanned_and_emptied(
    cluster: Cluster, cluster_client: redis.RedisCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = FastBatch(cluster_client)
    batch.batch_set({f"user:{n}": n for n in range(20_000)})
    cluster_client.hset("user:hash", "field", 1)
    assert set(batch.scan("user:*", type="string")) == {b"user:%d" % n for n in range(20_000)}
    assert list(batch.scan("user:*", type="hash")) == [b"user:hash"]
    for _ in zip(range(10), batch.scan("user:*"), strict=False):
        """Leave the iterator before its end."""
    assert main(["delete", "--match", "user:*", "--type", "string", "--url", cluster.url, "--cluster"]) == 0
    assert capsys.readouterr().err == "20,000 keys deleted\n"
    assert list(batch.scan()) == [b"user:hash"]
