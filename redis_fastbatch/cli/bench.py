"""`redis-fastbatch bench`: measures reads and writes on a server, and compares them with redis-py.

It uses its own keys, which expire and are deleted at the end.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import redis

from redis_fastbatch.cli.common import CliError, add_server, comes_from_a_cluster, connect, positive, say
from redis_fastbatch.client import FastBatch

CHUNK = 1000
EXPIRY = 3600

EXAMPLES = """\
examples:
  redis-fastbatch bench --url redis://cache:6379/0
  redis-fastbatch bench --rows 300000 --chart bench.png
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Write generated rows of eight fields to the server and read them, in several ways.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=positive, default=50_000, help="rows to write and read (default: 50000)")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each way is measured (default: 5)")
    parser.add_argument("--chart", type=Path, metavar="FILE.png", help="also draw a chart (needs matplotlib)")
    add_server(parser)
    parser.set_defaults(run=run)


@dataclass
class Way:
    """A way to write or to read all rows.

    Attributes:
        group: what it does; ways of one group are compared.
        name: how it does that.
        run: runs it once.
        seconds: the time of each run.
    """

    group: str
    name: str
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of its times, in seconds."""
        return statistics.median(self.seconds)


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, and draw a chart if --chart is given."""
    if options.chart is not None:
        _check_chart(options.chart)
    with connect(options.url) as batch:
        bench = Bench(batch, options.rows)
        try:
            ways = _measured(bench, options.rounds)
        except redis.RedisError as error:
            if comes_from_a_cluster(error):
                raise CliError("this is a node of a cluster: bench measures single servers") from error
            raise
        version = _version(batch.client)
    lines = table(ways, options.rows)
    print(f"{version}, {options.rows:,} rows of 8 fields, medians of {options.rounds} rounds\n")
    print("\n".join(lines))
    if options.chart is not None:
        draw(ways, options.rows, options.chart, version)
        say(f"chart: {options.chart}")
    return 0


def _measured(bench: Bench, rounds: int) -> list[Way]:
    """Measure the ways and delete their keys; return the ways with their times."""
    try:
        ways = bench.ways()
        _measure(ways, rounds)
        return ways
    finally:
        # After Ctrl-C, replies to redis-py's own pipeline may be unread.
        bench.client.connection_pool.disconnect()
        bench.batch.batch_delete(bench.keys)


def _check_chart(file: Path) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    pyplot = _drawing()
    figure = pyplot.figure()
    known = figure.canvas.get_supported_filetypes()
    pyplot.close(figure)
    if file.suffix[1:].lower() not in known:
        raise CliError(f"--chart {file}: expected a name that ends with one of .{', .'.join(sorted(known))}")
    if not os.access(file if file.exists() else file.parent, os.W_OK) or file.is_dir():
        raise CliError(f"--chart {file}: it cannot be written")


def _version(client: redis.Redis) -> str:
    try:
        info: Any = client.info("server")
    except redis.ResponseError:
        return "the server"
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info.get('redis_version')}"


class Bench:
    """The rows, and the ways to move them."""

    def __init__(self, batch: FastBatch, rows: int) -> None:
        prefix = f"redis-fastbatch:bench:{secrets.token_hex(4)}:"
        self.batch = batch
        self.client = batch.client
        self.rows = list(islice(made_up_rows(), rows))
        self.keys = [f"{prefix}{row['id']}" for row in self.rows]
        self._prefix = prefix

    def ways(self) -> list[Way]:
        """Return all ways; those that need pyarrow only if it is installed."""
        items = dict(zip(self.keys, self.rows, strict=True))
        ways = [
            Way("write", "batch_set", lambda: self.batch.batch_set(items, ex=EXPIRY)),
            Way("write", "redis-py, a pipeline of SETs + msgpack", self.write_by_pipeline),
            Way("read", "batch_get", lambda: self.batch.batch_get(self.keys)),
            Way("read", "redis-py, MGET + msgpack", self.read_by_mget),
        ]
        try:
            import pyarrow as pa
        except ImportError:
            return ways
        arrow = pa.Table.from_pylist(self.rows)
        return [
            *ways,
            Way("write", "batch_set_table", lambda: self.write_table(arrow)),
            Way("read", "batch_get_table", lambda: self.batch.batch_get_table(self.keys)),
            Way("read", "batch_get + Table.from_pylist", self.read_pylist),
        ]

    def write_table(self, arrow: Any) -> None:
        """Write the rows from columns."""
        self.batch.batch_set_table(arrow, key="id", prefix=self._prefix, ex=EXPIRY)

    def read_pylist(self) -> Any:
        """Return the rows as a table that is made of dicts."""
        import pyarrow as pa

        return pa.Table.from_pylist(list(self.batch.batch_get(self.keys).values()))

    def write_by_pipeline(self) -> None:
        """Write the rows with a pipeline, as in redis-py's documentation."""
        pairs = zip(self.keys, self.rows, strict=True)
        while some := list(islice(pairs, CHUNK)):
            with self.client.pipeline(transaction=False) as pipeline:
                for key, row in some:
                    pipeline.set(key, msgpack.packb(row), ex=EXPIRY)
                pipeline.execute()

    def read_by_mget(self) -> dict[str, Any]:
        """Read the rows, a thousand keys at a time."""
        found: dict[str, Any] = {}
        for start in range(0, len(self.keys), CHUNK):
            keys = self.keys[start : start + CHUNK]
            values: Any = self.client.mget(keys)
            found.update(zip(keys, (value and msgpack.unpackb(value) for value in values), strict=True))
        return found


def made_up_rows() -> Iterator[dict[str, Any]]:
    """Return made-up orders, the same ones in every run."""
    chance = random.Random("redis-fastbatch")
    for number in range(2**62):
        yield {
            "id": number,
            "customer": f"customer {chance.randrange(10_000)}",
            "email": f"{chance.randrange(10**6)}@example.com",
            "state": chance.choice(("new", "paid", "packed", "shipped")),
            "items": chance.randrange(1, 20),
            "total": round(chance.uniform(1, 500), 2),
            "weight": chance.uniform(0.1, 40),
            "gift": chance.random() < 0.1,
        }


def _measure(ways: list[Way], rounds: int) -> None:
    """Run the ways in turns, in a new order each round, so that a disturbance affects all of them."""
    order = random.Random(rounds)
    writers = [way for way in ways if way.group == "write"]
    # The first run of each does not count: it opens connections, and the server's memory grows.
    for way in [*writers, *ways]:
        way.run()
    for _ in range(rounds):
        for way in order.sample(ways, len(ways)):
            gc.collect()
            started = time.perf_counter()
            result = way.run()
            way.seconds.append(time.perf_counter() - started)
            del result


def table(ways: list[Way], rows: int) -> list[str]:
    """Return the results, fastest first, with each time as a multiple of the fastest."""
    lines = []
    for group in ("write", "read"):
        ranked = sorted((way for way in ways if way.group == group), key=lambda way: way.median)
        lines.append(f"{group:40}{'rows/s':>12}{'us/row':>9}{'x':>7}")
        for way in ranked:
            ratio = way.median / ranked[0].median
            lines.append(f"  {way.name:38}{rows / way.median:12,.0f}{way.median / rows * 1e6:9.2f}{ratio:7.1f}")
        lines.append("")
    return lines[:-1]


def _drawing() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise CliError("--chart needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(ways: list[Way], rows: int, file: Path, version: str) -> None:
    """Draw a bar for each way: its rows per second."""
    pyplot = _drawing()
    figure, axes = pyplot.subplots(2, 1, figsize=(8, 5), layout="constrained")
    for axis, group in zip(axes, ("write", "read"), strict=True):
        ranked = sorted((way for way in ways if way.group == group), key=lambda way: -way.median)
        rates = [rows / way.median for way in ranked]
        ours = ["tab:green" if way.name.startswith("batch_") else "tab:gray" for way in ranked]
        bars = axis.barh([way.name for way in ranked], rates, color=ours)
        axis.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
        axis.set_title(f"{group}, rows a second")
        axis.set_xlim(0, max(rates) * 1.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{version}, {rows:,} rows of 8 fields")
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
