"""`redis-fastbatch load` from standard input, and interrupts during it."""

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
@pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")
def test_ctrl_c_reports_what_was_written(shell: Shell, options: str, request: pytest.FixtureRequest) -> None:
    """The reported number of rows is on the server."""
    command = [sys.executable, "-m", "redis_fastbatch", "load", "-", "--key", "id", "--format"]
    process = subprocess.Popen(
        [*command, *options.split(), "--url", shell.url],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    # If the test fails, the load must not continue and disturb later tests.
    request.addfinalizer(process.kill)
    assert process.stdin is not None
    text = b"some text" * 10
    row = b"%d," + text + b"\n" if options.startswith("csv") else b'{"id": %d, "text": "' + text + b'"}\n'
    process.stdin.write(b"id,text\n" if options.startswith("csv") else b"")
    process.stdin.write(b"".join(row % number for number in range(by_tier(100_000, 600_000))))
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not shell.client.dbsize() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    messages = process.stderr.read().decode()  # type: ignore[union-attr]
    assert process.wait(30) == 130, messages
    *unknown, summary = messages.splitlines()
    counts = re.match(r"interrupted: ([\d,]+) written(?:, ([\d,]+) failed)?", summary)
    assert counts, messages
    for line in unknown:
        assert re.match(r"row \d+: outcome unknown: |\.\.\. and [\d,]+ more$", line), messages
    written, failed = (int((count or "0").replace(",", "")) for count in counts.groups())
    assert shell.client.dbsize() > 0
    assert written <= shell.client.dbsize() <= written + failed


# The last step of Python's shutdown sleeps, so that a read that still runs ends during the shutdown.
INTERRUPTED_READ = """
import argparse, io, os, signal, sys, time
from redis_fastbatch.cli import inputs

class SlowFile(io.BytesIO):
    def read(self, size=-1):
        if self.tell():
            time.sleep(0.5)
        else:
            os.kill(os.getpid(), signal.SIGINT)
        return super().read(size)

class SlowShutdown:
    def __del__(self, sleep=time.sleep):
        sleep(1.5)

sys.modules["slow shutdown"] = SlowShutdown()
inputs.open_stream = lambda *_: SlowFile(b"k,v\\n" + b"1,2\\n" * 10_000_000)
options = argparse.Namespace(file="a.csv", format=None, delimiter=None, types=[], nulls=[])
try:
    with inputs.open_input(options):
        time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.full
def test_ctrl_c_ends_the_process_while_arrow_reads_ahead() -> None:
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


def messages_of(process: subprocess.Popen[bytes]) -> str:
    """Wait until a process ends, while its standard input is open. Return its messages."""
    assert process.stderr is not None
    process.wait(60)
    return process.stderr.read().decode()


CSV_LINES = b"id,text\n" + b"".join(b"%d,some text\n" % number for number in range(1_000_000))


@pytest.mark.parametrize("workers", ["1", pytest.param("3", marks=pytest.mark.full)])
@pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")
def test_ctrl_c_ends_a_load_that_waits_for_input(shell: Shell, workers: str) -> None:
    """Python cannot exit during a read. The process must neither wait for its end nor abort."""
    with loading(shell, "--key", "id", "--workers", workers) as process:
        assert process.stdin is not None
        process.stdin.write(CSV_LINES)
        process.stdin.flush()
        before = -1
        while (now := shell.client.dbsize()) > before or not now:
            before = now
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        messages = messages_of(process)
    assert process.returncode == 130, messages
    assert messages.splitlines()[-1].startswith("interrupted: ")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of a pipe's contents")
def test_ctrl_c_ends_a_load_before_the_first_rows(shell: Shell) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    with loading(shell, "--key", "id") as process:
        assert process.stdin is not None
        process.stdin.write(CSV_LINES[:1000])
        process.stdin.flush()
        unread = bytearray(4)
        while fcntl.ioctl(process.stdin, termios.FIONREAD, unread) or any(unread):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert (messages_of(process), process.returncode) == ("interrupted\n", 130)


@pytest.mark.parametrize("workers", ["1", pytest.param("3", marks=pytest.mark.full)])
def test_mistakes_are_reported_while_standard_input_is_open(shell: Shell, workers: str) -> None:
    with loading(shell, "--key", "number", "--workers", workers) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(CSV_LINES)
            process.stdin.flush()
        messages = messages_of(process)
    words = "redis-fastbatch: column 'number': there is no such column; there are 'id', 'text'\n"
    assert (messages, process.returncode) == (words, 1)


def test_a_closed_standard_input_is_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert shell("load", "-", "--format", "csv", "--key", "k") == (
        1, "redis-fastbatch: standard input is closed\n"
    )  # fmt: skip
