"""Importing the package: what it loads, and its error if the compiled core is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import redis_fastbatch

# These are slow to import or rarely used, so they are imported on first use.
OURS = ("async_client", "cli", "server", "_cluster", "_tables", "toolkit")
LAZY = {"rich", "pyarrow", "pandas", "numpy", "argparse", *(f"redis_fastbatch.{name}" for name in OURS)}


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with a folder at the front of its import path."""
    path = "" if folder is None else f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=60)


def test_a_missing_core_is_an_import_error_with_a_one_line_message(tmp_path: Path) -> None:
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


def test_importing_the_package_loads_no_lazy_module() -> None:
    # What redis-py imports does not count.
    code = "import redis, sys; had = set(sys.modules); import redis_fastbatch; print(*set(sys.modules) - had)"
    done = run(code)

    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "redis_fastbatch.client" in loaded
    assert all(importlib.util.find_spec(f"redis_fastbatch.{name}") for name in OURS)
    assert loaded.isdisjoint(LAZY)


def test_every_public_name_can_be_imported() -> None:
    for name in redis_fastbatch.__all__:
        assert getattr(redis_fastbatch, name) is not None


def test_the_version_is_that_of_the_installed_distribution() -> None:
    try:
        installed = importlib.metadata.version("redis-fastbatch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("imported from the source tree, not installed")

    assert redis_fastbatch.__version__ == installed
