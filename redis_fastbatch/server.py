"""A temporary Valkey or Redis server on loopback, for the demo, the tests and the benchmarks.

The server has a private temporary directory, listens only on 127.0.0.1 and on a unix socket, writes nothing to
disk unless configured to, and ends with its parent process. Linux and macOS only.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from redis_fastbatch._server.binaries import (
    checked_binary,
    debian_redis_binary,
    embedded_binary,
    falkordb_redis_binary,
    find_binary,
    version_of,
)
from redis_fastbatch._server.configuration import (
    DEFAULTS,
    FREE_PORT,
    LOOPBACK,
    FreePort,
    Options,
    OptionValue,
    chosen_ports,
    configuration,
)
from redis_fastbatch._server.process import answers, discard, kill, private_directory, tied_to_parent
from redis_fastbatch.errors import ServerError

if TYPE_CHECKING:
    import redis

__all__ = [
    "FREE_PORT",
    "EmbeddedServer",
    "ServerError",
    "debian_redis_binary",
    "embedded_binary",
    "falkordb_redis_binary",
    "find_binary",
]

PORT_ATTEMPTS: Final = 8
LOG_LINES_IN_ERRORS: Final = 10


class EmbeddedServer:
    """A private server process; it and its data are gone after stop().

    It is a context manager: `with EmbeddedServer() as server: server.client().ping()`. It keeps its directory and
    ports over kill() and restart(), until stop().

    If util-linux's setpriv is installed and start() was called in the main thread, the server is killed whenever
    its parent ends (the kernel ties the child to the thread that made it). Otherwise it is killed at interpreter
    exit and when the object is garbage-collected. Only a parent that is itself killed leaves the directory on
    disk.

    Attributes:
        host: the IPv4 loopback address.
        binary: the server program.
    """

    host: Final = LOOPBACK

    def __init__(
        self,
        binary: str | os.PathLike[str] | None = None,
        *,
        directives: Sequence[str] = (),
        arguments: Sequence[str] = (),
        start_timeout: float = 20.0,
        stop_timeout: float = 10.0,
        **options: OptionValue | FreePort,
    ) -> None:
        """Prepare a server; start() or entering the context starts it.

        Args:
            binary: a valkey-server or redis-server; by default the one that embedded_binary() finds.
            directives: whole lines of the configuration file, for directives that are repeated.
            arguments: appended to the command line, such as `--sentinel`.
            start_timeout: seconds until the server must answer its first PING, including the time to load its
                data.
            stop_timeout: seconds until it must have shut down; then it is killed.
            **options: configuration directives, with underscores for hyphens: `appendonly=True`,
                `save=(60, 1)`, `tls_port=FREE_PORT`. They override the defaults: any free port,
                loopback only, no persistence. The directory and the unix socket cannot be changed.

        Raises:
            ServerError: `binary` is not an executable file, or it is None and none is installed.
        """
        self.binary = embedded_binary() if binary is None else checked_binary(os.fspath(binary))
        self._directives = tuple(directives)
        self._arguments = tuple(arguments)
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        given = {name.replace("_", "-"): value for name, value in options.items()}
        self._options: Options = {**DEFAULTS, **given}
        self._ports: dict[str, int] = {}
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., EmbeddedServer] | None = None

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"port={self._ports.get('port')}, pid={self.pid}" if self.running else "not running"
        return f"<EmbeddedServer {self.binary.name} {state}>"

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ServerError: the server is not running.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.binary} is not running")
        return self._process.pid

    @property
    def port(self) -> int:
        """The TCP port.

        Raises:
            ServerError: the server was not started.
        """
        return self.port_of("port")

    @property
    def directory(self) -> Path:
        """The private directory with the configuration, the log, the unix socket and persisted data.

        Raises:
            ServerError: the server was never started, or was stopped.
        """
        if self._directory is None:
            raise ServerError(f"{self.binary} was not started")
        return self._directory

    @property
    def unix_socket_path(self) -> str:
        """The path of the unix socket."""
        return str(self.directory / "s")

    @property
    def url(self) -> str:
        """The server's URL over TCP, for redis-py; without credentials."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The server's URL over its unix socket, for redis-py; without credentials."""
        return f"unix://{self.unix_socket_path}?db=0"

    @functools.cached_property
    def version(self) -> str:
        """The program's name and version, such as `Valkey 9.1.2`.

        Raises:
            ServerError: the binary cannot be run, or prints no such version.
        """
        return version_of(self.binary)

    def port_of(self, option: str) -> int:
        """Return the port number of an option: `port`, or any that was given as FREE_PORT, such as `tls_port`.

        Raises:
            ServerError: the server was not started, or was not given the option.
        """
        try:
            return self._ports[option.replace("_", "-")]
        except KeyError:
            raise ServerError(f"{self.binary} has no {option}: not started, or not asked for") from None

    def client(self, **kwargs: Any) -> redis.Redis:
        """Return a new redis-py client over TCP.

        Args:
            **kwargs: arguments of redis.Redis; with `unix_socket_path` the client uses the unix socket.
        """
        import redis

        return redis.Redis(**{"host": self.host, "port": self.port, **kwargs})

    def log(self, lines: int | None = None) -> str:
        """Return the server's output since its last start.

        Args:
            lines: return only this many lines from the end; all by default.
        """
        text = self._log_path.read_text(encoding="utf-8", errors="replace") if self._log_path.exists() else ""
        kept = text.splitlines()
        return "\n".join(kept if lines is None else kept[-lines:])

    def start(self) -> EmbeddedServer:
        """Start the server and wait until it answers.

        After `kill` this brings it back on the same ports and directory, as `restart` does.

        Returns:
            The server itself.

        Raises:
            ServerError: it already runs, or does not start; the message ends with the last lines of its log.
        """
        if self.running:
            raise ServerError(f"{self.binary} is running already, with pid {self.pid}")
        try:
            if self._directory is None:
                self._start_anew()
            else:
                self._start_again()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Shut the server down, or kill it if that takes too long, and remove its directory.

        Does nothing when it is already stopped.
        """
        self._shut_down()
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        self._ports = {}

    def kill(self) -> None:
        """Kill the server like a crash, and keep its directory and ports for restart()."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def restart(self) -> EmbeddedServer:
        """Shut the server down if it runs, and start it with the same ports and directory.

        Returns:
            The server itself.

        Raises:
            ServerError: it was never started, or does not start again.
        """
        if self._directory is None:
            raise ServerError(f"{self.binary} was not started")
        self._shut_down()
        return self.start()

    @property
    def _log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def _config_path(self) -> Path:
        return self.directory / "server.conf"

    def _start_anew(self) -> None:
        self._directory = private_directory()
        for _ in range(PORT_ATTEMPTS):
            self._ports = chosen_ports(self._options)
            self._write_config()
            if self._launched():
                return
        raise ServerError(self._complaint(f"found its ports taken {PORT_ATTEMPTS} times"))

    def _start_again(self) -> None:
        # An existing configuration stays as it is: CONFIG REWRITE and Sentinel keep their state in it.
        deadline = time.monotonic() + self._start_timeout
        while not self._launched():
            if time.monotonic() > deadline:
                raise ServerError(self._complaint(f"found its port taken for {self._start_timeout} s"))
            time.sleep(0.05)

    def _write_config(self) -> None:
        settings = {
            **self._options,
            **self._ports,
            "dir": str(self.directory),
            "unixsocket": self.unix_socket_path,
        }
        self._config_path.write_text(configuration(settings, self._directives), encoding="utf-8")

    def _launched(self) -> bool:
        """Start the process and wait for it; return False if it ended because a port was taken."""
        self._log_path.write_bytes(b"")
        self._process = self._spawned()
        self._guard(self._process)
        deadline = time.monotonic() + self._start_timeout
        pause = 0.002
        while not answers(self.unix_socket_path, deadline):
            if self._process.poll() is not None:
                return self._ended_early(self._process.returncode)
            if time.monotonic() > deadline:
                raise ServerError(self._complaint(f"did not answer within {self._start_timeout} s"))
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    def _spawned(self) -> subprocess.Popen[bytes]:
        command = [*tied_to_parent(), str(self.binary), str(self._config_path), *self._arguments]
        with self._log_path.open("ab") as log:
            try:
                # In a new session, so that Ctrl-C reaches only the program that uses the server, and that stops
                # it.
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.directory,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerError(f"cannot run {self.binary}: {error}") from error

    def _guard(self, process: subprocess.Popen[bytes]) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, discard, process, self.directory, os.getpid())

    def _ended_early(self, status: int) -> bool:
        self._process = None
        if "Address already in use" in self.log():
            return False
        raise ServerError(self._complaint(f"ended at once, with status {status}"))

    def _complaint(self, what: str) -> str:
        tail = self.log(LOG_LINES_IN_ERRORS)
        return f"{self.binary} {what}; it printed:\n{tail}" if tail else f"{self.binary} {what}"

    def _shut_down(self) -> None:
        if self._process is None:
            return
        # SIGTERM makes the server shut down, and needs neither credentials nor a free connection.
        self._process.terminate()
        try:
            self._process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            kill(self._process)
        self._process = None
