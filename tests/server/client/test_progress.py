"""Progress: a callable hears of it, a terminal shows it, and nothing else is disturbed."""

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


def test_a_callable_hears_done_and_total(client: redis.Redis) -> None:
    heard: list[tuple[int, int | None]] = []
    for options in ({}, {"ex": 5}, {"nx": True}):
        heard.clear()
        client.flushall()
        FastBatch(client).batch_set(
            {f"k{i}": i for i in range(3500)}, progress=lambda *one: heard.append(one), **options
        )
        done = [one for one, _ in heard]
        assert done == sorted(done)
        assert len(done) >= 3
        assert done[-1] == 3500
        assert {total for _, total in heard} == {3500}


def test_the_total_of_a_generator_is_not_known(valkey_client: redis.Redis) -> None:
    heard: list[tuple[int, int | None]] = []
    FastBatch(valkey_client).batch_set(
        ((f"k{i}", i) for i in range(2000)), progress=lambda done, total: heard.append((done, total))
    )
    assert heard[-1] == (2000, None)


def test_skipped_and_failed_items_are_done_too(valkey_client: redis.Redis) -> None:
    heard: list[int] = []
    valkey_client.set("k5", "old")
    items: dict[str, Any] = {f"k{i}": i for i in range(1500)}
    items["k7"] = object()
    with pytest.raises(BatchError):
        FastBatch(valkey_client).batch_set(items, nx=True, progress=lambda done, total: heard.append(done))
    assert heard[-1] == 1500


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
    """A terminal as standard error; yields what returns what was shown on it."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    # Not in a fixture: pytest puts its own standard error in place again before a test is called.
    before = sys.stderr
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        sys.stderr = stream
        try:
            yield lambda: _all_that_was_written(stream, ours)
        finally:
            sys.stderr = before
    os.close(ours)


def _all_that_was_written(stream: io.TextIOBase, reader: int) -> str:
    stream.flush()
    os.set_blocking(reader, False)
    shown = b""
    # A terminal hands out a few kilobytes at a time.
    with contextlib.suppress(BlockingIOError):
        while more := os.read(reader, 100_000):
            shown += more
    return shown.decode()


def test_a_terminal_shows_it(valkey_client: redis.Redis) -> None:
    with terminal() as shown:
        FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
        assert "3000" in shown().replace(",", "")


def test_a_terminal_is_left_in_order_after_an_error(valkey_client: redis.Redis) -> None:
    items: dict[str, Any] = {f"k{i}": i for i in range(3000)}
    items["bad"] = object()
    with terminal() as shown:
        with pytest.raises(BatchError):
            FastBatch(valkey_client).batch_set(items, progress=True)
        text = shown()
    # The cursor is shown again, and stands at the beginning of a line.
    assert text.removesuffix("\x1b[?25h").endswith("\n")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def test_what_is_no_terminal_shows_nothing(valkey_client: redis.Redis, capfd: Any) -> None:
    FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("progress", [None, False])
def test_none_is_asked_for(progress: bool | None) -> None:
    assert make_progress(progress, 10) is None


def test_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
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


class Hung(io.StringIO):
    """A terminal that was there and has gone."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("stream", [None, Hung()], ids=["none", "gone"])
def test_progress_without_a_terminal_writes_all_the_same(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    monkeypatch.setattr(LineProgress, "INTERVAL", 0.0)
    # rich is not there for the plain line to be drawn.
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", stream)
        report = FastBatch(valkey_client).batch_set({f"k{i}": i for i in range(3000)}, progress=True)
    assert report.written == valkey_client.dbsize() == 3000


def test_a_closed_standard_error_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as without:
        without.setattr(sys, "stderr", closed)
        assert make_progress(True, 10) is None


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_process_without_standard_error_writes_all_the_same(valkey: EmbeddedServer, closed: str) -> None:
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
