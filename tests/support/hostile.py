"""Values that need default(), and threads that change containers during a batch."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 0.15


class Own:
    """A value that only default() can write."""


@contextlib.contextmanager
def changing_thread(change: Callable[[int], object]) -> Iterator[threading.Event]:
    """Call a function repeatedly in another thread, with the shortest interval between thread switches."""
    stop, interval = threading.Event(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def run() -> None:
        count = 0
        while not stop.is_set():
            change(count)
            count += 1

    thread = threading.Thread(target=run)
    thread.start()
    timer = threading.Timer(SECONDS, stop.set)
    timer.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
        timer.cancel()
        sys.setswitchinterval(interval)


def change_dict(table: dict[Any, Any]) -> Callable[[int], object]:
    """Return a function that adds and removes entries of a dict."""

    def change(count: int) -> None:
        table[f"k{count % 50}"] = [count, Own()]
        table.pop(f"k{count * 7 % 50}", None)

    return change
