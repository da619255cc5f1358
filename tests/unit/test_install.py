"""What a user meets first: the import, what it loads and what it says when it cannot load."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import redis_fastbatch

# Slow to import, or wanted by few: each is loaded by those who use it.
OURS = ("aio", "cli", "server", "table", "toolkit")
LATE = {"rich", "pyarrow", "pandas", "numpy", "argparse", *(f"redis_fastbatch.{name}" for name in OURS)}


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with a folder at the front of its path."""
    path = "" if folder is None else f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=60)


def test_a_missing_core_is_an_import_error_of_one_line(tmp_path: Path) -> None:
    package = Path(redis_fastbatch.__file__).parent
    without = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(package, tmp_path / "redis_fastbatch", ignore=without)

    done = run("try:\n    import redis_fastbatch\nexcept ImportError as error:\n    print(error)", tmp_path)

    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("redis_fastbatch's compiled core is missing")
    assert "python setup.py build_ext --inplace" in done.stdout

    for arguments in (["-c", "import redis_fastbatch"], ["-m", "redis_fastbatch"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1
        assert done.stderr.splitlines()[-1].startswith("ImportError: redis_fastbatch's compiled core is missing")


def test_importing_loads_nothing_that_few_use() -> None:
    # redis itself loads what it likes.
    code = "import redis, sys; had = set(sys.modules); import redis_fastbatch; print(*set(sys.modules) - had)"
    done = run(code)

    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "redis_fastbatch.client" in loaded
    assert loaded.isdisjoint(LATE)


def test_every_public_name_is_there() -> None:
    for name in redis_fastbatch.__all__:
        assert getattr(redis_fastbatch, name) is not None


def test_the_version_stands_in_one_place() -> None:
    try:
        installed = importlib.metadata.version("redis-fastbatch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("imported from the source tree, not installed")

    assert redis_fastbatch.__version__ == installed
