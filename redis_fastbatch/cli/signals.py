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
    """Raises KeyboardInterrupt where one of the signals arrives, as long as it is entered.

    Python's own reaction to them is to end at once: temporary files, the embedded server and keys that are to be
    deleted would stay. A signal that is ignored, as nohup has it, stays ignored. For some seconds after a signal
    further ones are ignored, so that they do not interrupt the clean-up: a terminal that closes sends several.
    """

    def __init__(self) -> None:
        self._caught: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._patient_until = 0.0

    @property
    def by(self) -> str:
        """Which signal arrived, for a message; empty where none did."""
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
