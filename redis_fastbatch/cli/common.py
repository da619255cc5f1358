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
from redis_fastbatch.codecs import CodecName

DEFAULT_URL = "redis://localhost:6379/0"

LONGEST_MESSAGE = 500

DECODING = {"decode_responses", "encoding", "encoding_errors"}
"""Settings in a URL that are meant for other programs. The commands read values as bytes, and keys are UTF-8."""

A_NODE = "this is a node of a cluster: give --cluster"

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class CliError(Exception):
    """An error that is reported to the user in one plain line."""


def add_server(parser: argparse.ArgumentParser, *, cluster: bool = False) -> None:
    """Add the options that name the server, or the cluster if `cluster` is true."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url",
        default=os.environ.get("REDIS_URL", DEFAULT_URL),
        help="redis://, rediss:// or unix://, with user and password where the server wants them "
        f"(default: the environment variable REDIS_URL, else {DEFAULT_URL})",
    )
    if cluster:
        group.add_argument("--cluster", action="store_true", help="the URL is that of any node of a cluster")


def columns_option(text: str) -> list[str] | None:
    """Return the names in the option; None if it is empty."""
    names = text.split(",") if text else None
    for name in names or ():
        if names and names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"column {name!r} is named twice: name it once")
    return names


def connect(url: str, codec: CodecName = "msgpack", *, cluster: bool = False) -> FastBatch:
    """Return a client whose server, or cluster, has answered a PING.

    Raises:
        CliError: the server did not answer, or refused user and password, or the URL is not one.
    """
    try:
        place = _without_password(url)
        batch = FastBatch.from_url(_without_decoding(url), codec=codec, cluster=cluster)
        batch.client.ping()
    except ValueError as error:
        raise CliError(_url_reason(str(error))) from None
    except TypeError as error:
        raise CliError(f"the URL of {place} has a setting that redis-py does not know: {error}") from error
    except redis.AuthenticationError as error:
        raise CliError(f"{place} did not accept user and password: {error}") from error
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        raise CliError(f"no connection to {place}: {error}") from error
    return batch


def _without_decoding(url: str) -> str:
    """Return the URL without the settings that decode values or change how keys are encoded."""
    place, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if not DECODING & dict(parse_qsl(part)).keys()]
    return f"{place}{mark}{'&'.join(kept)}"


def _url_reason(error: str) -> str:
    """Return what is wrong with a URL.

    The error's own text is not used: a slash in a password ends the host's name, so it may show part of the
    password.
    """
    setting = re.match(r"Invalid value for [`'](\w+)[`'] in connection URL", error)
    if setting:
        return f"the URL sets {setting[1]} to a value that it cannot have"
    if error.startswith("Port "):
        return "the port in the URL is not a number up to 65535 (write a slash in the password as %2F)"
    return (
        "this is not the URL of a server: it must specify one of the following schemes (redis://, rediss://, "
        "unix://), and a slash in the password is written %2F"
    )


def _without_password(url: str) -> str:
    """Return the URL with stars for the password, and without its query, which may hold a password too."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{':***' if colon else ''}{at}{host}{parts.path}"


def positive(text: str) -> int:
    """Return the value of an option that takes a whole number from 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return number


def comes_from_a_cluster(error: BaseException) -> bool:
    """Return whether a node of a cluster gave this error to a client that is not a cluster client."""
    # MovedError is an AskError.
    return isinstance(error, (AskError, ClusterCrossSlotError))


def plain(error: BaseException) -> str:
    """Return the text of an exception in one line."""
    if isinstance(error, AskError):
        # redis-py leaves out the first word of the reply.
        return f"{'MOVED' if isinstance(error, MovedError) else 'ASK'} {_one_line(error)}"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[:LONGEST_MESSAGE])
    return text if len(text) < LONGEST_MESSAGE else f"{text}..."


def file_reason(file: str, error: Exception) -> str:
    """Return what is wrong with a file in one line."""
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
        # The reader of the pipe, or the terminal, is gone. The command goes on; its exit code shows the result.
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
