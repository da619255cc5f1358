"""The command line without standard error, or with a closed pipe as standard error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from redis_fastbatch import FastBatch
from redis_fastbatch.server import EmbeddedServer

PROGRAM = '"$0" -m redis_fastbatch "$@"'


def run(redirection: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a shell that redirects its streams."""
    command = ["bash", "-c", f"set -o pipefail; {PROGRAM} {redirection}", sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write a file of 100 rows, and return its path."""
    file = tmp_path / "rows.ndjson"
    file.write_text("".join(json.dumps({"k": f"k{n}", "n": n}) + "\n" for n in range(100)))
    return file


@pytest.mark.parametrize("redirection", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-", "2>&1 | true", "2> >(true)"])
def test_load_works_without_standard_error(
    valkey: EmbeddedServer, valkey_client: redis.Redis, rows: Path, redirection: str
) -> None:
    done = run(redirection, "load", rows, "--key", "k", "--url", valkey.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert FastBatch(valkey_client).batch_get(["k99"]) == {"k99": {"k": "k99", "n": 99}}


def test_dump_writes_only_data_to_standard_output(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    FastBatch(valkey_client).batch_set({"a": {"n": 1}})
    done = run("2>&-", "dump", "-", "--format", "ndjson", "--url", valkey.url)
    assert done.returncode == 0
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("load",), 2), (("load", "/no/such/file", "--key", "k"), 1), (("--version",), 0)],
)
def test_exit_codes_are_the_same_without_standard_error(arguments: tuple[str, ...], code: int) -> None:
    with_it, without = run("", *arguments), run("2>&-", *arguments)
    assert (with_it.returncode, without.returncode) == (code, code)
    assert without.stdout == with_it.stdout
