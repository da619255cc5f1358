"""The machine and the versions that figures were measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.servers import BINARIES
from redis_fastbatch.server import EmbeddedServer, find_binary

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "redis",
    "hiredis",
    "redis-toolkit",
    "msgpack",
    "msgspec",
    "ormsgpack",
    "coredis",
    "valkey-glide",
    "pandas",
    "pyarrow",
)


def describe(servers: Sequence[str]) -> dict[str, Any]:
    """Return what a reader needs to compare these figures with others."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "servers": {name: _server_version(name) for name in servers},
    }


def commit() -> str:
    """Return the short hash of the commit, with -modified where the code is not that of the commit."""
    try:
        return _git("rev-parse", "--short", "HEAD") + _modified()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _modified() -> str:
    changes = _git(
        "status", "--porcelain", "--untracked-files=no", "redis_fastbatch", "benchmarks", ":!benchmarks/results"
    )
    return "-modified" if changes else ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _server_version(name: str) -> str:
    binary = find_binary(BINARIES[name])
    return EmbeddedServer(binary).version if binary else "not installed"
