"""Where the command line begins: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import redis

from redis_fastbatch._version import __version__
from redis_fastbatch.cli import bench, demo, dump, load
from redis_fastbatch.cli.common import (
    A_NODE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    CliError,
    ensure_stderr,
    load_one_by_one,
    plain,
    say,
    tells_of_a_cluster,
)
from redis_fastbatch.cli.signals import Signals
from redis_fastbatch.errors import FastBatchError

COMMANDS = {
    "load": (load, "write the rows of a file to the server"),
    "dump": (dump, "write the values of the server's keys to a file"),
    "bench": (bench, "measure against the server, next to redis-py"),
    "demo": (demo, "see it at work, with a server of its own"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 only when all was done.

    SIGTERM and SIGHUP end a command as Ctrl-C does: it removes its temporary files, stops its server and deletes
    its keys. The exit code is then 128 and the signal's number, as a shell has it.
    """
    ensure_stderr()
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_reason_of_unknown(options, unknown))
    with Signals() as signals:
        code = _run(options, signals)
    return signals.exit_code if code == EXIT_INTERRUPTED else code


def _run(options: argparse.Namespace, signals: Signals) -> int:
    try:
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        # The terminal may be gone with the signal.
        with contextlib.suppress(OSError):
            say(f"interrupted{signals.by}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has had enough of it. Python would complain once more when it flushes.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (
        CliError,
        FastBatchError,
        redis.RedisError,
        OSError,
        ImportError,
        ValueError,
        NotImplementedError,
    ) as error:
        hint = f": {A_NODE}" if tells_of_a_cluster(error) else ""
        say(f"redis-fastbatch: {plain(error)}{hint}")
        return EXIT_FAILED


def program() -> NoReturn:
    """The console script: main(), and the end of the process."""
    code = main()
    if "pyarrow" in sys.modules:
        # Not by way of Python's own end: a thread of Arrow's that comes back amid it, from reading ahead, aborts
        # the process. All files are closed, and standard error keeps nothing back.
        os._exit(code)
    sys.exit(code)


def _reason_of_unknown(options: argparse.Namespace, unknown: list[str]) -> str:
    if options.run is not load.run or any(argument.startswith("-") for argument in unknown):
        return f"unrecognized arguments: {' '.join(unknown)}"
    files = shlex.join([options.file, *unknown])
    return f"load takes one file, and {unknown[0]} is another one: {load_one_by_one(files)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redis-fastbatch",
        description="Moves rows between files and Redis or Valkey, many at a time.",
        epilog="`redis-fastbatch COMMAND --help` explains a command and shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"redis-fastbatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, (module, summary) in COMMANDS.items():
        module.add_to(commands, name, summary)
    return parser
