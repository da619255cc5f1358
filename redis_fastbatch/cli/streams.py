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
    """Standard input as a stream. A signal ends a read that waits for data, and so does end().

    Arrow reads in its own threads in C, which Python's signal handlers do not interrupt.
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
        """Return True, for io.BufferedReader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes and read them."""
        ready, _, _ = select.select([self._descriptor, self._woken], [], [])
        if self._woken in ready:
            # Not an end of file, which would make a row of an unfinished line; nor EINTR, which would be retried.
            raise OSError(errno.ECANCELED, "interrupted")
        return os.readv(self._descriptor, [buffer])

    def end(self) -> None:
        """End this read and all later ones."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        """Close the stream. Standard input itself stays open."""
        if not self.closed:
            if self._listening:
                signal.set_wakeup_fd(self._wakes_others)
            os.close(self._woken)
            os.close(self._wake)
        super().close()


def open_pipe(file: str) -> Pipe | None:
    """Return standard input; None if the file is another, or standard input has no descriptor to wait for."""
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
        # Opened by Python, whose error messages are plainer than Arrow's.
        stream = pa.PythonFile(stack.enter_context(open(file, "rb")), mode="r")  # noqa: SIM115
    if compression is not None:
        stream = stack.enter_context(pa.CompressedInputStream(stream, compression))
    return stream


def can_seek(file: str) -> bool:
    # A pipe may have a name too: <(...) of a shell makes one.
    return file != "-" and Path(file).is_file()


def copied(stream: Any, stack: contextlib.ExitStack) -> Any:
    """Return a temporary file with the stream's bytes."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    while block := stream.read(1 << 20):
        copy.write(block)
    copy.seek(0)
    return copy
