"""The command line on a node of a cluster without --cluster says to use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from redis_fastbatch.cli import main
from servers import Cluster

HINT = "this is a node of a cluster: give --cluster\n"


@pytest.mark.parametrize("options", [[], ["--as", "hash"], ["--workers", "3"], ["--on-error", "stop"]])
@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_load_ends_early_with_advice(
    cluster: Cluster,
    cluster_client: redis.RedisCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
    options: list[str],
) -> None:
    """The load ends early, and the message says more than redis-py's slot and address."""
    pytest.importorskip("pyarrow")
    path = tmp_path / f"a.{form}"
    header = "id\n" if form == "csv" else ""
    path.write_text(header + "".join(f"{i}\n" if header else f'{{"id": {i}}}\n' for i in range(300_000)))
    assert main(["load", str(path), "--key", "id", "--url", cluster.url, *options]) == 1
    messages = capsys.readouterr().err
    assert messages.endswith(HINT)
    assert "MOVED " in messages.splitlines()[-1]
    # Only rows in flight are written, fewer than the node's 100,000.
    assert sum(node.client().dbsize() for node in cluster.masters) < 60_000


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_load_writes_hashes_to_all_nodes(
    cluster: Cluster, cluster_client: redis.RedisCluster, tmp_path: Path, form: str
) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / f"a.{form}"
    header = "id,name\n" if form == "csv" else ""
    line = "{0},n{0}\n" if header else '{{"id": {0}, "name": "n{0}"}}\n'
    path.write_text(header + "".join(line.format(i) for i in range(3000)))
    options = ["--key", "id", "--as", "hash", "--ex", "100", "--cluster", "--url", cluster.url]
    assert main(["load", str(path), *options]) == 0
    assert cluster_client.hgetall("2999") == {b"id": b"2999", b"name": b"n2999"}
    assert 0 < cluster_client.ttl("7") <= 100
    assert all(node.client().dbsize() > 500 for node in cluster.masters)


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_dump_is_refused_with_advice(
    cluster: Cluster,
    cluster_client: redis.RedisCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    pytest.importorskip("pyarrow")
    for number in range(100):
        cluster_client.set(f"k{number}", b"\x81\xa1x\x01")
    assert main(["dump", str(tmp_path / f"a.{form}"), "--url", cluster.url]) == 1
    messages = capsys.readouterr().err
    assert messages == f"redis-fastbatch: Keys in request don't hash to the same slot: {HINT}"


def test_bench_is_refused(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rows", "100", "--rounds", "1", "--url", cluster.url]) == 1
    reason = "this is a node of a cluster: bench measures single servers"
    assert capsys.readouterr().err == f"redis-fastbatch: {reason}\n"
