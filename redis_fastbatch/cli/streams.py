"""The bytes of the file that `load` reads: from a file or standard input, decompressed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any


class Pipe(io.RawIOBase):
    """Standard input, where a signal ends the waiting for what comes, and end() does.

    Arrow waits in C, in threads of its own, where Python's signals do not reach.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._wakes_others = -1
        self._listening = threading.current_thread() is threading.main_thread()
        if self._listening:
            self._wakes_others = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Asked by the buffer before it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for bytes."""
        ready, _, _ = select.select([self._descriptor, self._woken], [], [])
        if self._woken in ready:
            # Not the file's end, which would make a row of a line's beginning; nor EINTR, which is tried again.
            raise OSError(errno.ECANCELED, "interrupted")
        return os.readv(self._descriptor, [buffer])

    def end(self) -> None:
        """Ends all waiting, now and later."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        """Standard input itself stays open."""
        if not self.closed:
            if self._listening:
                signal.set_wakeup_fd(self._wakes_others)
            os.close(self._woken)
            os.close(self._wake)
        super().close()


def open_pipe(file: str) -> Pipe | None:
    """Standard input; None where the file is another, or standard input has no descriptor to wait for."""
    if file != "-" or sys.platform == "win32":
        return None
    try:
        return Pipe(sys.stdin.fileno())
    except io.UnsupportedOperation:
        return None


def open_stream(file: str, pipe: Pipe | None, compression: str | None, stack: contextlib.ExitStack) -> Any:
    import pyarrow as pa

    if pipe is not None:
        stream = pa.PythonFile(stack.enter_context(io.BufferedReader(pipe, 1 << 20)), mode="r")
    elif file == "-":
        stream = pa.PythonFile(sys.stdin.buffer, mode="r")
    else:
        # Opened by Python, which says in plain words why a file cannot be.
        stream = pa.PythonFile(stack.enter_context(open(file, "rb")), mode="r")  # noqa: SIM115
    if compression is not None:
        stream = stack.enter_context(pa.CompressedInputStream(stream, compression))
    return stream


def can_seek(file: str) -> bool:
    # A pipe has a name too where the shell makes one, as <(...) does.
    return file != "-" and Path(file).is_file()


def copied(stream: Any, stack: contextlib.ExitStack) -> Any:
    """The stream's bytes in a temporary file."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    while block := stream.read(1 << 20):
        copy.write(block)
    copy.seek(0)
    return copy
