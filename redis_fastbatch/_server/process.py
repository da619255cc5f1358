"""The process of a server: its directory, its command line, its first answer, and its end."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# sockaddr_un holds 104 bytes on macOS and 108 on Linux, with the terminating zero.
UNIX_PATH_BYTES: Final = 103


def private_directory() -> Path:
    """Make a temporary directory whose path has room for a unix socket's name, and return it."""
    directory = tempfile.mkdtemp(prefix="fastbatch-")
    if len(os.fsencode(directory)) + len("/s") <= UNIX_PATH_BYTES:
        return Path(directory)
    # The path of a unix socket is limited, and TMPDIR may be long.
    os.rmdir(directory)
    return Path(tempfile.mkdtemp(prefix="fastbatch-", dir="/tmp"))


def tied_to_parent() -> Sequence[str]:
    """Return the words before a command that end its process with this one; none where that is not possible."""
    if threading.current_thread() is not threading.main_thread():
        # PR_SET_PDEATHSIG fires when the thread that forked ends, not the process. A server started in a worker
        # thread would be killed when that thread finishes.
        return ()
    return setpriv()


@functools.cache
def setpriv() -> Sequence[str]:
    """Return util-linux's setpriv with its options; nothing if it is not installed."""
    program = shutil.which("setpriv")
    if program is None:
        return ()
    # Busybox's setpriv does not have this option.
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=20)
    return (program, "--pdeathsig", "KILL", "--") if "--pdeathsig" in usage.stdout else ()


def answers(unix_socket_path: str, deadline: float) -> bool:
    """Return whether the server answers PING on its unix socket, which no other process can hold."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            sock.connect(unix_socket_path)
            sock.sendall(b"PING\r\n")
            answer = sock.recv(64)
        except OSError:
            return False
    # An error such as NOAUTH is an answer too. LOADING means that one will come.
    return bool(answer) and not answer.startswith(b"-LOADING")


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait for its end."""
    process.kill()
    process.wait()


def discard(process: subprocess.Popen[bytes], directory: Path, owner: int) -> None:
    """Kill a server and remove its directory, if this process is the owner.

    Args:
        process: the server.
        directory: its directory.
        owner: the id of the process that started it.
    """
    # A forked child inherits the object but does not own the server.
    if os.getpid() != owner:
        return
    kill(process)
    shutil.rmtree(directory, ignore_errors=True)
