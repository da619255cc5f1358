"""`redis-fastbatch dump` writes hashes: alone with --as hash, and beside strings."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from cli_shell import Shell
from redis_fastbatch import FastBatch
from redis_fastbatch.cli import main
from servers import Cluster

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
parquet = pytest.importorskip("pyarrow.parquet")

COUNT = 2500
USERS = {f"u:{n}": {"id": n, "name": f"näme {n}", **({"city": "Ghent"} if n % 3 else {})} for n in range(COUNT)}
TEXTS = [{"id": str(row["id"]), "name": row["name"], "city": row.get("city")} for row in USERS.values()]


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Store USERS as hashes beside keys of other types, and return the command line."""
    shell.batch.batch_hset(USERS)
    shell.client.set("string", b"\x81\xa1x\x01")
    shell.client.lpush("list", 1)
    return shell


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a dump in any format, in the order of their ids."""
    if path.suffix == ".ndjson":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".parquet":
        rows = parquet.read_table(path).to_pylist()
    else:
        texts = csv.ConvertOptions(
            column_types=dict.fromkeys(("id", "name", "city", "key", "x"), pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        rows = csv.read_csv(path, convert_options=texts).to_pylist()
    return sorted(rows, key=lambda row: int(row.get("id") or -1))


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_hashes_are_dumped_and_other_keys_ignored(filled: Shell, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    assert filled("dump", "--as", "hash", path) == (0, "2,500 rows written\n")
    expected = TEXTS
    if form == "ndjson":
        expected = [{name: value for name, value in row.items() if value is not None} for row in TEXTS]
    assert rows_of(path) == expected
    if form == "parquet":
        assert parquet.read_schema(path).names == list(parquet.read_schema(path).names)
        assert set(parquet.read_schema(path).types) == {pa.string()}


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_columns_and_keys_are_chosen(filled: Shell, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    code, messages = filled("dump", "--as", "hash", "--columns", "id,city", "--key", "key", path, "--match", "u:*")
    assert (code, messages) == (0, "2,500 rows written\n")
    assert rows_of(path) == [
        {"key": f"u:{n}", "id": row["id"], "city": row["city"]} for n, row in enumerate(TEXTS)
    ]
    code, messages = filled("dump", "--as", "hash", "--columns", "city", "--key", "key", path, "--match", "u:*")
    assert (code, messages) == (0, "1,666 rows written, 834 gone meanwhile\n")


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_hashes_and_strings_are_told_apart(filled: Shell, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    code, messages = filled("dump", path, "--key", "key")
    assert (code, messages) == (
        1,
        "left out: 1 list (key 'list'): dump writes strings and hashes; --strings-only ignores other keys\n"
        "2,501 rows written, 1 left out\n",
    )
    rows = rows_of(path)
    assert len(rows) == 2501
    assert {name: str(value) for name, value in rows[0].items() if value is not None} == {
        "key": "string",
        "x": "1",
    }
    assert rows[-1]["key"] == "u:2499"
    assert filled("dump", path, "--strings-only") == (0, "1 rows written\n")


def test_columns_of_two_types_need_one_kind_of_keys(shell: Shell, tmp_path: Path) -> None:
    shell.batch.batch_hset({"hash": {"id": 1}})
    shell.batch.batch_set({"string": {"id": 1}})
    code, messages = shell("dump", tmp_path / "a.parquet")
    assert code == 1
    assert "or one kind of keys alone with --as value or --as hash" in messages
    assert not (tmp_path / "a.parquet").exists()
    assert shell("dump", tmp_path / "a.ndjson") == (0, "2 rows written\n")


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_a_hash_that_is_not_text_fails_alone(shell: Shell, tmp_path: Path, form: str) -> None:
    shell.batch.batch_hset({"a": {"id": 1}, "b": {"id": b"\xff"}, "c": {"id": 3}, "d": {b"\xfe": 4}})
    path = tmp_path / f"a.{form}"
    code, messages = shell("dump", path)
    assert code == 1
    assert messages.count("dump as NDJSON with --lossy") == 2
    assert messages.endswith("2 rows written, 2 failed\n")
    assert rows_of(path) == [{"id": "1"}, {"id": "3"}]
    assert shell("dump", path, "--on-error", "stop")[0] == 1
    failed = tmp_path / "failed.ndjson"
    shell("dump", path, "--on-error", failed)
    assert {json.loads(line)["key"] for line in failed.read_text().splitlines()} == {"b", "d"}


def test_lossy_writes_bytes_as_base64(shell: Shell, tmp_path: Path) -> None:
    shell.batch.batch_hset({"a": {"v": "é"}, "b": {"v": b"\xff", "w": "é"}})
    assert shell("dump", tmp_path / "a.ndjson", "--lossy", "--key", "key") == (0, "2 rows written\n")
    rows = sorted(map(json.loads, (tmp_path / "a.ndjson").read_text().splitlines()), key=lambda row: row["key"])
    assert rows == [
        {"key": "a", "v": "é"},
        {"key": "b", "v": base64.b64encode(b"\xff").decode(), "w": "é"},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "a"], "--columns names fields of hashes: add --as hash"),
        (["--as", "value", "--columns", "a"], "--columns names fields of hashes: add --as hash"),
        (["--as", "hash", "--strings-only"], "--strings-only and --as hash exclude each other"),
        (["--as", "hash", "--key", "id"], "the values have a field 'id' of their own"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("form", ["parquet", "ndjson"])
def test_wrong_options_are_refused(
    filled: Shell, tmp_path: Path, form: str, arguments: list[str], message: str
) -> None:
    code, messages = filled("dump", tmp_path / f"a.{form}", *arguments)
    assert (code, message in messages) == (1, True)


def test_hashes_are_loaded_and_dumped_over_a_cluster(
    cluster: Cluster, cluster_client: redis.RedisCluster, tmp_path: Path
) -> None:
    FastBatch(cluster_client).batch_hset(USERS)
    cluster_client.set("string", "1")
    path = tmp_path / "a.parquet"
    server = ["--url", cluster.url, "--cluster", "--quiet"]
    assert main(["dump", str(path), "--as", "hash", *server]) == 0
    assert rows_of(path) == TEXTS
    assert main(["load", str(path), "--as", "hash", "--key", "id", "--prefix", "copy:", *server]) == 0
    assert cluster_client.hgetall("copy:4") == cluster_client.hgetall("u:4")
