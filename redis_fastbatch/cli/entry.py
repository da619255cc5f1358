"""The entry point of the command line: it finds the command, runs it, and reports its errors."""

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
from redis_fastbatch.cli import bench, copy, delete, demo, dump, load
from redis_fastbatch.cli.common import (
    A_NODE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    CliError,
    comes_from_a_cluster,
    ensure_stderr,
    load_one_by_one,
    plain,
    say,
)
from redis_fastbatch.cli.signals import Signals
from redis_fastbatch.errors import FastBatchError

COMMANDS = {
    "load": (load, "write the rows of a file to the server"),
    "dump": (dump, "write the values of the server's keys to a file"),
    "copy": (copy, "copy keys of every type to another server or cluster"),
    "delete": (delete, "delete the keys of a pattern"),
    "bench": (bench, "measure reads and writes on the server, and compare with redis-py"),
    "demo": (demo, "show reads and writes of real records on a server of its own"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 only when all was done.

    SIGTERM and SIGHUP end a command as Ctrl-C does: it removes its temporary files, stops its server and deletes
    its keys. The exit code is then 128 plus the signal's number, as in a shell.
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
        # The terminal may be gone after SIGHUP.
        with contextlib.suppress(OSError):
            say(f"interrupted{signals.by}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of the output closed it. Python would report that once more when it flushes.
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
        hint = f": {A_NODE}" if comes_from_a_cluster(error) else ""
        say(f"redis-fastbatch: {plain(error)}{hint}")
        return EXIT_FAILED


def program() -> NoReturn:
    """Run main() and end the process. This is the console script."""
    code = main()
    if "pyarrow" in sys.modules:
        # Python's own shutdown could abort the process: a thread of Arrow may return from a read in the middle of
        # it. All files are closed here, and standard error is not buffered.
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
        description="Move rows between files and Redis or Valkey in batches.",
        epilog="`redis-fastbatch COMMAND --help` explains a command and shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"redis-fastbatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, (module, summary) in COMMANDS.items():
        module.add_to(commands, name, summary)
    return parser
