"""Progress: a callable gets it, a terminal displays it, and without a terminal nothing is printed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from redis_fastbatch import BatchError, FastBatch
from redis_fastbatch.report import LineProgress, make_progress
from redis_fastbatch.server import EmbeddedServer


def test_a_callable_gets_done_and_total(client: redis.Redis) -> None:
    calls: list[tuple[int, int | None]] = []
    for options in ({}, {"ex": 5}, {"nx": True}):
        calls.clear()
        client.flushall()
        FastBatch(client).batch_set(
            {f"k{i}": i for i in range(3500)}, progress=lambda *one: calls.append(one), **options
        )
        done = [one for one, _ in calls]
        assert done == sorted(done)
        assert len(done) >= 3
        assert done[-1] == 3500
        assert {total for _, total in calls} == {3500}


def test_the_total_of_a_generator_is_none(valkey_client: redis.Redis) -> None:
    calls: list[tuple[int, int | None]] = []
    FastBatch(valkey_client).batch_set(
        ((f"k{i}", i) for i in range(2000)), progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (2000, None)


def test_skipped_and_failed_items_count_as_done(valkey_client: redis.Redis) -> None:
    calls: list[int] = []
    valkey_client.set("k5", "old")
    items: dict[str, Any] = {f"k{i}": i for i in range(1500)}
    items["k7"] = object()
    with pytest.raises(BatchError):
        FastBatch(valkey_client).batch_set(items, nx=True, progress=lambda done, total: calls.append(done))
    assert calls[-1] == 1500


def test_a_callable_that_raises_ends_the_batch(valkey_client: redis.Redis) -> None:
    def progress(done: int, total: int | None) -> None:
        raise LookupError(f"after {done}")

    with pytest.raises(LookupError, match="after") as caught:
        FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(5000)}, progress=progress)
    report = caught.value.report  # type: ignore[attr-defined]
    assert 0 < report.written < 5000
    assert valkey_client.ping()


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Make a terminal standard error. Yield a function that returns the text on it."""
    pty = pytest.importorskip("pty")
    reading, writing = pty.openpty()
    # Not in a fixture: pytest replaces standard error again before it calls the test.
    before = sys.stderr
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        sys.stderr = stream
        try:
            yield lambda: _read_all(stream, reading)
        finally:
            sys.stderr = before
    os.close(reading)


def _read_all(stream: io.TextIOBase, reader: int) -> str:
    stream.flush()
    os.set_blocking(reader, False)
    found = b""
    # A terminal returns a few kilobytes at a time.
    with contextlib.suppress(BlockingIOError):
        while more := os.read(reader, 100_000):
            found += more
    return found.decode()


def test_a_terminal_displays_progress(valkey_client: redis.Redis) -> None:
    with terminal() as output:
        FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
        assert "3000" in output().replace(",", "")


def test_the_terminal_is_restored_after_an_error(valkey_client: redis.Redis) -> None:
    items: dict[str, Any] = {f"k{i}": i for i in range(3000)}
    items["bad"] = object()
    with terminal() as output:
        with pytest.raises(BatchError):
            FastBatch(valkey_client).batch_set(items, progress=True)
        text = output()
    # The cursor is visible again, and is at the beginning of a line.
    assert text.removesuffix("\x1b[?25h").endswith("\n")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def test_nothing_is_printed_without_a_terminal(valkey_client: redis.Redis, capfd: Any) -> None:
    FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("progress", [None, False])
def test_progress_is_off_by_default(progress: bool | None) -> None:
    assert make_progress(progress, 10) is None


def test_the_plain_line_contains_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineProgress, "INTERVAL", 0.0)
    for total, expected in ((5000, "1,500 of 5,000 items"), (None, "1,500 items")):
        stream = io.StringIO()
        line = LineProgress(total, stream)
        line.update(1500)
        line.close()
        line.close()
        assert expected in stream.getvalue()
        assert stream.getvalue().count("\n") == 1
        assert stream.getvalue().endswith("\n")


class ClosedTerminal(io.StringIO):
    """A terminal whose window was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("stream", [None, ClosedTerminal()], ids=["none", "gone"])
def test_a_batch_is_written_if_standard_error_fails(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(LineProgress, "INTERVAL", 0.0)
    # Without rich, progress is a plain line.
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", stream)
        report = FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
    assert report.written == valkey_client.dbsize() == 3000


def test_a_closed_standard_error_turns_progress_off(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", closed)
        assert make_progress(True, 10) is None


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_batch_is_written_without_standard_error(valkey: EmbeddedServer, closed: str) -> None:
    with valkey.client() as client:
        client.flushall()
        code = (
            "from redis_fastbatch import FastBatch\n"
            f"FastBatch.from_url({valkey.url!r}).batch_set({{f'k{{i}}': i for i in range(3000)}}, progress=True)"
        )
        done = subprocess.run(
            ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], capture_output=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, b"")
        assert client.dbsize() == 3000
