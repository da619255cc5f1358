"""The command line with --cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from redis_fastbatch.cli import main
from servers import Cluster


def test_loaded_rows_are_dumped(
    cluster: Cluster, cluster_client: redis.RedisCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    source, copy = tmp_path / "rows.csv", tmp_path / "copy.ndjson"
    source.write_text("id,name\n" + "".join(f"{n},name {n}\n" for n in range(5000)))
    server = ["--url", cluster.url, "--cluster"]
    assert main(["load", str(source), "--key", "row:{id}", *server]) == 0
    assert len(list(cluster_client.scan_iter("row:*"))) == 5000
    assert main(["dump", str(copy), "--match", "row:*", *server]) == 0
    rows = sorted((json.loads(line) for line in copy.read_text().splitlines()), key=lambda row: int(row["id"]))
    assert [(int(row["id"]), row["name"]) for row in rows] == [(n, f"name {n}") for n in range(5000)]


def test_a_missing_cluster_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.csv"
    path.write_text("id\n1\n")
    assert main(["load", str(path), "--key", "id", "--url", "redis://127.0.0.1:1", "--cluster"]) == 1
    assert "no connection" in capsys.readouterr().err
