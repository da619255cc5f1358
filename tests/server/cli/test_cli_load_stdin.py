"""`redis-fastbatch load` from standard input, and what interrupts it there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cli_shell import Shell
from tiers import by_tier

pytest.importorskip("pyarrow.csv")


@pytest.mark.parametrize(
    "options",
    [
        "csv",
        pytest.param("csv --workers 3", marks=pytest.mark.full),
        "ndjson",
        pytest.param("ndjson --as hash", marks=pytest.mark.full),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c(shell: Shell, options: str, request: pytest.FixtureRequest) -> None:
    """An interrupted load reports what it has written, and the server has that."""
    command = [sys.executable, "-m", "redis_fastbatch", "load", "-", "--key", "id", "--format"]
    process = subprocess.Popen(
        [*command, *options.split(), "--url", shell.url],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    # A load that goes on after a failed test would write to the server of the next ones.
    request.addfinalizer(process.kill)
    assert process.stdin is not None
    row = b"%d,some text\n" if options.startswith("csv") else b'{"id": %d, "text": "some text"}\n'
    process.stdin.write(b"id,text\n" if options.startswith("csv") else b"")
    process.stdin.write(b"".join(row % number for number in range(by_tier(1_000_000, 3_000_000))))
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not shell.client.dbsize() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    said = process.stderr.read().decode()  # type: ignore[union-attr]
    assert process.wait(30) == 130, said
    *unknown, summary = said.splitlines()
    counts = re.match(r"interrupted: ([\d,]+) written(?:, ([\d,]+) failed)?", summary)
    assert counts, said
    for line in unknown:
        assert re.match(r"row \d+: outcome unknown: |\.\.\. and [\d,]+ more$", line), said
    written, failed = (int((count or "0").replace(",", "")) for count in counts.groups())
    assert shell.client.dbsize() > 0
    assert written <= shell.client.dbsize() <= written + failed


# The last step of Python's shutdown sleeps here, so that a read that still runs ends during it.
INTERRUPTED_READ = """
import argparse, io, os, signal, sys, time
from redis_fastbatch.cli import inputs

class Slow(io.BytesIO):
    def read(self, size=-1):
        if self.tell():
            time.sleep(0.5)
        else:
            os.kill(os.getpid(), signal.SIGINT)
        return super().read(size)

class Late:
    def __del__(self, sleep=time.sleep):
        sleep(1.5)

sys.modules["late"] = Late()
inputs.open_stream = lambda *_: Slow(b"k,v\\n" + b"1,2\\n" * 10_000_000)
options = argparse.Namespace(file="a.csv", format=None, delimiter=None, types=[], nulls=[])
try:
    with inputs.open_input(options):
        time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.full
def test_ctrl_c_while_arrow_reads_ahead() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_READ], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@contextlib.contextmanager
def loading(shell: Shell, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a load of CSV from standard input, which stays open."""
    command = [sys.executable, "-m", "redis_fastbatch", "load", "-", "--format", "csv", "--url", shell.url, *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def rest_of(process: subprocess.Popen[bytes]) -> str:
    """Return its messages until it ends, while its standard input is still open."""
    assert process.stderr is not None
    process.wait(60)
    return process.stderr.read().decode()


CSV_LINES = b"id,text\n" + b"".join(b"%d,some text\n" % number for number in range(1_000_000))


@pytest.mark.parametrize("workers", ["1", pytest.param("3", marks=pytest.mark.full)])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_while_nothing_comes(shell: Shell, workers: str) -> None:
    """It waited for the end of standard input, or was aborted, because Python cannot end during a read."""
    with loading(shell, "--key", "id", "--workers", workers) as process:
        assert process.stdin is not None
        process.stdin.write(CSV_LINES)
        process.stdin.flush()
        before = -1
        while (now := shell.client.dbsize()) > before or not now:
            before = now
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said = rest_of(process)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("interrupted: ")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the pipe what it holds")
def test_ctrl_c_before_the_first_rows_are_there(shell: Shell) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    with loading(shell, "--key", "id") as process:
        assert process.stdin is not None
        process.stdin.write(CSV_LINES[:1000])
        process.stdin.flush()
        unread = bytearray(4)
        while fcntl.ioctl(process.stdin, termios.FIONREAD, unread) or any(unread):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert (rest_of(process), process.returncode) == ("interrupted\n", 130)


@pytest.mark.parametrize("workers", ["1", pytest.param("3", marks=pytest.mark.full)])
def test_mistakes_are_told_while_standard_input_is_open(shell: Shell, workers: str) -> None:
    with loading(shell, "--key", "number", "--workers", workers) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(CSV_LINES)
            process.stdin.flush()
        said = rest_of(process)
    words = "redis-fastbatch: column 'number': there is no such column; there are 'id', 'text'\n"
    assert (said, process.returncode) == (words, 1)


def test_standard_input_that_is_closed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert shell("load", "-", "--format", "csv", "--key", "k") == (
        1, "redis-fastbatch: standard input is closed\n"
    )  # fmt: skip
