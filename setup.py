"""Builds the Cython core; everything else about the package stands in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("redis_fastbatch", "_core")

# Line tracing (for coverage of the .pyx files) and sanitizers are asked for by whoever builds:
# see CONTRIBUTING.md.
TRACE = bool(os.environ.get("REDIS_FASTBATCH_TRACE"))
SANITIZE = os.environ.get("REDIS_FASTBATCH_SANITIZE", "")


def compile_args() -> list[str]:
    if sys.platform == "win32":
        return ["/O2"]
    args = ["-O3", "-fno-strict-aliasing", "-Wno-unreachable-code"]
    if SANITIZE:
        args = ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
    return args


def extensions() -> list[Extension]:
    return [
        Extension(
            f"redis_fastbatch._core.{source.stem}",
            [source.as_posix()],
            extra_compile_args=compile_args(),
            extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE else [],
            define_macros=[("CYTHON_TRACE", "1")] if TRACE else [],
        )
        for source in sorted(CORE.glob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython",
        nthreads=0 if os.environ.get("FB0") or sys.platform == "win32" else (os.cpu_count() or 1),
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": False,
            "linetrace": TRACE,
        },
    )
)
