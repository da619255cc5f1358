"""SIGTERM and SIGHUP for the command line: they end a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

from redis_fastbatch.cli.common import EXIT_INTERRUPTED

ENDING = ("SIGTERM", "SIGHUP")

CLEANUP_SECONDS = 5.0
"""How long after a signal further ones are ignored."""


class Signals:
    """A context manager that turns SIGTERM and SIGHUP into KeyboardInterrupt.

    By default Python ends at once on these signals, and temporary files, the embedded server and keys of the
    command would stay. A signal that is ignored, as under nohup, stays ignored. For some seconds after a signal
    further ones are ignored, because a terminal that closes sends several, and they would interrupt the clean-up.
    """

    def __init__(self) -> None:
        self._caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._patient_until = 0.0

    @property
    def by(self) -> str:
        """The signal that arrived, for a message; empty if there was none."""
        return "" if self._caught is None else f" by {self._caught.name}"

    @property
    def exit_code(self) -> int:
        """The exit code of a command that was interrupted."""
        return EXIT_INTERRUPTED if self._caught is None else 128 + self._caught

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.Signals[name] for name in ENDING if hasattr(signal, name)):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now >= self._patient_until:
            self._patient_until = now + CLEANUP_SECONDS
            self._caught = signal.Signals(number)
            raise KeyboardInterrupt
