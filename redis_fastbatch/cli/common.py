"""What the commands share: the server's options and the connection, errors, and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO
from urllib.parse import parse_qsl, urlsplit

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, MovedError

from redis_fastbatch.client import FastBatch

DEFAULT_URL = "redis://localhost:6379/0"

LONGEST_MESSAGE = 500

DECODING = {"decode_responses", "encoding", "encoding_errors"}
"""Settings that a URL may have for other programs: values are bytes here, and keys UTF-8 as files are."""

A_NODE = "this is a node of a cluster: give --cluster"

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class CliError(Exception):
    """Something to tell the user in one plain line."""


def add_server(parser: argparse.ArgumentParser, *, cluster: bool = False) -> None:
    """The options that say which server is meant, or, where `cluster` is true, which cluster."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        default=os.environ.get("REDIS_URL", DEFAULT_URL),
        help="redis://, rediss:// or unix://, with user and password where the server wants them "
        f"(default: the environment variable REDIS_URL, else {DEFAULT_URL})",
    )
    if cluster:
        group.add_argument("--cluster", action="store_true", help="the URL is that of any node of a cluster")


def connect(url: str, codec: str = "msgpack", *, cluster: bool = False) -> FastBatch:
    """A client whose server, or cluster, has answered.

    Raises:
        CliError: it did not, or did not let us in.
    """
    try:
        place = _without_password(url)
        batch = FastBatch.from_url(_without_decoding(url), codec=codec, cluster=cluster)
        batch.client.ping()
    except ValueError as error:
        raise CliError(_url_reason(str(error))) from None
    except TypeError as error:
        raise CliError(f"the URL of {place} sets what redis-py does not know: {error}") from error
    except redis.AuthenticationError as error:
        raise CliError(f"{place} did not accept user and password: {error}") from error
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        raise CliError(f"no connection to {place}: {error}") from error
    return batch


def _without_decoding(url: str) -> str:
    """The URL without what would make a client decode what it reads, or encode keys in its own way."""
    place, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if not DECODING & dict(parse_qsl(part)).keys()]
    return f"{place}{mark}{'&'.join(kept)}"


def _url_reason(error: str) -> str:
    """What is wrong with a URL. Not as the error has it, whose text may be a piece of the password: one with a
    slash in it ends the host's name."""
    setting = re.match(r"Invalid value for [`'](\w+)[`'] in connection URL", error)
    if setting:
        return f"the URL sets {setting[1]} to what that cannot be"
    if error.startswith("Port "):
        return "the port in the URL is no number up to 65535 (a slash in the password is written %2F)"
    return (
        "that is no URL of a server: it must specify one of the following schemes (redis://, rediss://, "
        "unix://), and have %2F for a slash in the password"
    )


def _without_password(url: str) -> str:
    """The URL with stars for a password before the host, and without its query, which may hold one too."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{':***' if colon else ''}{at}{host}{parts.path}"


def positive(text: str) -> int:
    """An option's value that is a number from 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return number


def tells_of_a_cluster(error: BaseException) -> bool:
    """Whether it is what a node of a cluster answers to those who take it for a server of its own."""
    # MovedError is an AskError.
    return isinstance(error, (AskError, ClusterCrossSlotError))


def plain(error: BaseException) -> str:
    """What an exception says, in one line of text."""
    if isinstance(error, AskError):
        # redis-py has left the reply's first word out.
        return f"{'MOVED' if isinstance(error, MovedError) else 'ASK'} {_one_line(error)}"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[:LONGEST_MESSAGE])
    return text if len(text) < LONGEST_MESSAGE else f"{text}..."


def file_reason(file: str, error: Exception) -> str:
    """What is wrong with a file, in one line of text."""
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: {error.strerror}"
    return f"{file}: {plain(error)}"


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Name the file in errors of the system that do not, such as of a full disk.

    Raises:
        CliError: the file cannot be opened or written.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        # Of a pipe, or the server.
        raise
    except OSError as error:
        hint = ": free space, or name a file on another disk" if error.errno == errno.ENOSPC else ""
        # Arrow has a text of its own for them.
        reason = os.strerror(error.errno) if error.errno else plain(error)
        raise CliError(f"{file}: {reason}{hint}") from error


def load_one_by_one(files: str) -> str:
    """Return the advice to load several files.

    Args:
        files: the files as a shell takes them.
    """
    return (
        "load them one after the other, such as with "
        f'for file in {files}; do redis-fastbatch load "$file" --key COLUMN; done'
    )


def say(line: str) -> None:
    """Write a line to standard error; standard output is for data."""
    ensure_stderr()
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # The reader of a pipe has gone, or the terminal. The command goes on, and its exit code tells the outcome.
        sys.stderr = _nowhere()


def ensure_stderr() -> None:
    """Give a process that has no standard error one that goes nowhere.

    pythonw.exe starts programs without one, and so does `2>&-` in a shell. print() would then write to standard
    output, among the data, and argparse would fail. The next file or socket would also get the number 2, which
    libraries in C write their warnings to.
    """
    if sys.stderr is None or sys.stderr.closed:
        sys.stderr = _nowhere()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
