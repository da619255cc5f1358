"""Build the Cython core. Everything else about the package is in pyproject.toml."""

import multiprocessing
import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("redis_fastbatch", "_core")
POSIX_ONLY = {CORE / "runtime" / "sockets.pyx"}

# Environment variables switch on line tracing (for coverage of the .pyx files), sanitizers and symbols (for
# profilers): see CONTRIBUTING.md. Cython's coverage plugin needs the C files beside their sources.
TRACE = bool(os.environ.get("REDIS_FASTBATCH_TRACE"))
SANITIZE = os.environ.get("REDIS_FASTBATCH_SANITIZE", "")
SYMBOLS = bool(os.environ.get("REDIS_FASTBATCH_SYMBOLS"))

# Cython 3.3.1 would free uninitialized pointers if an instance of a subclass from another module were made with
# keyword arguments, and there were no memory for the tuple of their names (__Pyx_CallTpnewAsVectorcall).
MACROS = [("CYTHON_VECTORCALL_TPNEW", "0"), *([("CYTHON_TRACE_NOGIL", "1")] if TRACE else [])]


def compile_args() -> list[str]:
    if sys.platform == "win32":
        return ["/O2"]
    if SANITIZE:
        return ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
    return ["-O3", "-g" if SYMBOLS else "-g0", "-fno-strict-aliasing", "-Wno-unreachable-code"]


def link_args() -> list[str]:
    if SANITIZE:
        return [f"-fsanitize={SANITIZE}"]
    # Without -s, symbols are 80 % of an extension's size.
    return ["-Wl,-s"] if sys.platform == "linux" and not SYMBOLS else []


def cython_processes() -> int:
    # With the start method spawn (Windows, macOS), each process would run this file again.
    return (os.cpu_count() or 1) if multiprocessing.get_start_method() == "fork" else 0


def extensions() -> list[Extension]:
    return [
        Extension(
            ".".join(source.with_suffix("").parts),
            [source.as_posix()],
            extra_compile_args=compile_args(),
            extra_link_args=link_args(),
            define_macros=MACROS,
        )
        for source in sorted(CORE.rglob("*.pyx"))
        if sys.platform != "win32" or source not in POSIX_ONLY
    ]


class BuildAndCopy(build_ext):
    """Copies the extensions into the source tree too, so that programs in a checkout find them.

    An example is `python -m redis_fastbatch` after `pip install .`.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


setup(
    cmdclass={"build_ext": BuildAndCopy},
    ext_modules=cythonize(
        extensions(),
        build_dir=None if TRACE else "build/cython",
        nthreads=cython_processes(),
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": False,
            "linetrace": TRACE,
        },
    ),
)
