"""Progress: a bar or a line on a terminal, a callable, a log line now and then."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from redis_fastbatch import FastBatch, flight
from redis_fastbatch.report import DrawnProgress, LineProgress, make_progress

pty = pytest.importorskip("pty")

ITEMS = {f"key:{i}": i for i in range(5000)}


class Terminal:
    """A pseudo-terminal that stands in for stderr, and remembers what was written."""

    def __init__(self) -> None:
        self.text = ""
        self._master, slave = pty.openpty()
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        # Linux says EIO, not end of file, once nobody has the terminal open.
        try:
            while data := os.read(self._master, 65536):
                self.text += data.decode()
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    def close(self) -> None:
        self.stream.close()
        self._reading.join()
        os.close(self._master)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    opened = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", opened.stream)
    try:
        yield opened
    finally:
        monkeypatch.undo()
        opened.close()


@pytest.fixture
def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)


def plain(text: str) -> str:
    """Without what moves the cursor and colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sized", [True, False])
def test_a_bar_where_rich_is_installed(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, sized: bool, workers: int
) -> None:
    pytest.importorskip("rich")
    with terminal(monkeypatch) as screen:
        items: Any = ITEMS if sized else iter(ITEMS.items())
        FastBatch(valkey_client).batch_set(items, progress=True, workers=workers)
    last = plain(screen.text).rstrip().splitlines()[-1]
    assert ("5000/5000" if sized else "5000/?") in last
    assert "items/s" in last
    # The cursor is shown again.
    assert screen.text.rfind("\x1b[?25h") > screen.text.rfind("\x1b[?25l")


@pytest.mark.usefixtures("without_rich")
@pytest.mark.parametrize("sized", [True, False])
def test_a_plain_line_where_it_is_not(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, sized: bool
) -> None:
    monkeypatch.setattr(DrawnProgress, "INTERVAL", 0.0)
    with terminal(monkeypatch) as screen:
        items: Any = ITEMS if sized else iter(ITEMS.items())
        FastBatch(valkey_client).batch_set(items, progress=True)
    of = " of 5,000" if sized else ""
    states = screen.text.replace("\r\n", "\n").split("\r")
    assert len(states) > 3
    assert re.fullmatch(rf"5,000{of} items, [\d,]+ items/s \n", states[-1])
    assert all(re.fullmatch(rf"[\d,]+{of} items, [\d,]+ items/s \n?", state) for state in states[1:])


def test_the_screen_is_left_in_order_when_a_batch_fails(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")

    def items() -> Iterator[tuple[str, int]]:
        yield from ITEMS.items()
        raise ValueError("no more")

    with terminal(monkeypatch) as screen, pytest.raises(ValueError, match="no more"):
        FastBatch(valkey_client).batch_set(items(), progress=True)
    assert "5000/?" in screen.text
    assert screen.text.rfind("\x1b[?25h") > screen.text.rfind("\x1b[?25l")


@pytest.mark.parametrize("progress", [True, False, None])
def test_nothing_where_stderr_is_no_terminal(
    valkey_client: redis.Redis, capfd: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    FastBatch(valkey_client).batch_set(ITEMS, progress=progress)
    assert capfd.readouterr() == ("", "")


def test_drawing_is_seldom_and_ends_once() -> None:
    stream = io.StringIO()
    line = LineProgress(None, stream)
    for done in range(100_000):
        line.update(done)
    line.close()
    line.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") < 50
    assert "99,999 items" in stream.getvalue()


def test_no_progress_is_no_object() -> None:
    assert make_progress(None, 5) is None
    assert make_progress(False, 5) is None


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("sized", [True, False])
def test_a_callable_hears_of_every_command(client: redis.Redis, sized: bool, workers: int) -> None:
    heard: list[tuple[int, int | None]] = []
    items: Any = ITEMS if sized else iter(ITEMS.items())
    FastBatch(client).batch_set(
        items, progress=lambda *state: heard.append(state), chunk_size=500, workers=workers
    )
    assert len(heard) >= 10
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert {total for _, total in heard} == {5000 if sized else None}
    assert heard[-1][0] == 5000


def test_failed_items_are_done_too(valkey_client: redis.Redis) -> None:
    heard: list[int] = []
    items = {**ITEMS, "bad": object()}
    FastBatch(valkey_client).batch_set(items, on_error="report", progress=lambda done, _: heard.append(done))
    assert heard[-1] == 5001


def test_a_callable_that_raises_ends_the_batch(valkey_client: redis.Redis) -> None:
    def progress(done: int, total: int | None) -> None:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here") as caught:
        FastBatch(valkey_client).batch_set(ITEMS, progress=progress, chunk_size=100)
    report = caught.value.report  # type: ignore[attr-defined]
    assert 0 < report.confirmed_prefix <= report.written < 5000


def test_a_log_line_now_and_then(
    valkey_client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "LOG_INTERVAL", 0.0)
    with caplog.at_level(logging.INFO, "redis_fastbatch"):
        FastBatch(valkey_client).batch_set({**ITEMS, "bad": object()}, on_error="report", chunk_size=1000)
    pattern = r"batch_set: (\d+) items settled, (\d+) failed, ([\d.]+) items/s"
    lines = [re.fullmatch(pattern, record.getMessage()) for record in caplog.records]
    assert all(lines)
    counts = [int(line[1]) for line in lines if line]
    assert counts == sorted(counts)
    assert len(counts) >= 5
    assert (counts[-1], lines[-1] and lines[-1][2]) == (5001, "1")


def test_no_log_line_from_a_short_batch(valkey_client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "redis_fastbatch"):
        FastBatch(valkey_client).batch_set(ITEMS)
    assert not caplog.records
