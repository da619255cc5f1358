"""Measure how much memory a load takes: `python -m benchmarks load`.

It makes CSV and Parquet files of several sizes, loads each with the real command line in its own process, and
watches the resident memory of that process. Memory is bounded if a file of ten times the size has the same peak.
Keys repeat after a given number of rows, so that the server's memory stays bounded too. Each row is still written,
and a key's value must be its last row.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute, csv, parquet

from benchmarks import environment, results, tables
from benchmarks.servers import BINARIES, Endpoint, empty, running
from redis_fastbatch import FastBatch

MB = 10**6
PREFIX = "row:"
CHECKED = 10_000
SAMPLE_SECONDS = 0.02

# The default size of a row group in pyarrow's write_table().
ROW_GROUP = 1 << 20


@dataclass
class Loaded:
    """How one file was loaded.

    Attributes:
        size: of the file, in bytes.
        keys: how many the server had afterwards.
        seconds: from the start of the process to its end.
        peak: the largest resident memory of the process, in bytes.
        early, late: its resident memory, the median of the second and of the last quarter of the time, in bytes.
        server: the most memory that the server has used, in bytes.
    """

    format: str
    size: int
    rows: int
    keys: int
    seconds: float
    peak: int
    early: int
    late: int
    server: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--sizes", type=_numbers, default=[0.01, 0.5, 5.0], metavar="GB,GB", help="file sizes, in 10^9 bytes"
    )
    parser.add_argument("--formats", type=lambda text: text.split(","), default=list(WRITERS))
    parser.add_argument("--keys", type=int, default=1_000_000, help="rows after which the keys repeat")
    parser.add_argument("--directory", type=Path, help="directory for the files (default: a temporary one)")
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def run(options: argparse.Namespace) -> int:
    """Make the files, one at a time, load them, and print a table."""
    done = []
    with tempfile.TemporaryDirectory(prefix="redis-fastbatch-load-", dir=options.directory) as folder:
        for kind in options.formats:
            for size in options.sizes:
                file = Path(folder, f"rows.{kind}")
                rows = make_file(file, int(size * 1e9), options.keys)
                done.append(load(file, rows, options.keys, options.server))
                file.unlink()
                print(f"{kind}, {size:g} GB: {done[-1].peak / MB:,.0f} MB", file=sys.stderr, flush=True)
                # Saved after each file, so that an interruption loses only the rest.
                if options.name:
                    _save(done, options)
    print(document(done, options.keys))
    return 0


def columns(first: int, count: int, keys: int) -> pa.Table:
    """Rows that follow from their numbers alone, so that the check can make some of them again."""
    row = np.arange(first, first + count, dtype=np.int64)
    mixed = row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words, others = ((mixed >> np.uint64(shift)) % np.uint64(len(WORDS)) for shift in (48, 24))
    return pa.table(
        {
            "id": row % keys,
            "row": row,
            "station": WORDS.take(pa.array(row % 1000)),
            "at": pa.array(row + 1_700_000_000).cast(pa.timestamp("s")),
            "temperature": np.round((mixed >> np.uint64(40)).astype(np.float64) / 2**24 * 60 - 20, 2),
            "valid": pa.array(row % 7 != 0),
            "note": compute.binary_join_element_wise(WORDS.take(words), WORDS.take(others), " "),
        }
    )


def _words() -> pa.Array:
    letters = np.random.default_rng(5).integers(ord("a"), ord("z") + 1, (1 << 16, 24), dtype=np.uint8)
    return pa.array(word.tobytes().decode() for word in letters)


WORDS = _words()


@contextmanager
def _csv(file: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    with csv.CSVWriter(file, schema) as writer:
        yield writer.write_table


@contextmanager
def _parquet(file: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    with parquet.ParquetWriter(file, schema, compression="snappy") as writer:
        yield lambda table: writer.write_table(table, row_group_size=ROW_GROUP)


WRITERS = {"csv": _csv, "parquet": _parquet}


def make_file(file: Path, size: int, keys: int) -> int:
    """Write rows until the file has that many bytes; return how many rows it has."""
    rows, step = 0, min(ROW_GROUP, max(1, size // 150))
    with WRITERS[file.suffix[1:]](file, columns(0, 0, keys).schema) as write:
        while not rows or file.stat().st_size < size:
            write(columns(rows, step, keys))
            rows += step
    return rows


def load(file: Path, rows: int, keys: int, server: str) -> Loaded:
    """Load a file into an empty server and look at what is there then."""
    with running(server) as endpoint:
        empty(endpoint)
        seconds, peak, samples = _watched(file, endpoint.port)
        there = check(endpoint, rows, keys)
        with endpoint.client() as client:
            used: int = client.info("memory")["used_memory_peak"]
    early, late = _quarter(samples, 1), _quarter(samples, 3)
    return Loaded(file.suffix[1:], file.stat().st_size, rows, there, seconds, peak, early, late, used)


def _quarter(samples: Sequence[int], number: int) -> int:
    part = samples[len(samples) * number // 4 : len(samples) * (number + 1) // 4]
    return int(statistics.median(part or samples))


def _watched(file: Path, port: int) -> tuple[float, int, list[int]]:
    """Run the command: return its seconds, its peak memory, and samples of its memory."""
    command = [sys.executable, "-m", "redis_fastbatch", "load", str(file), "--key", "id", "--prefix", PREFIX]
    said = file.with_suffix(".txt")
    samples: list[int] = []
    peak = 0
    with said.open("wb") as errors:
        started = time.perf_counter()
        # Not resource's ru_maxrss: that starts at the memory of this process when it forked.
        with subprocess.Popen([*command, "--url", f"redis://localhost:{port}"], stderr=errors) as process:
            while process.poll() is None:
                status = _status(process.pid)
                if "VmHWM" in status:
                    peak = max(peak, status["VmHWM"])
                    samples.append(status["VmRSS"])
                time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{file.name}: exit status {process.returncode}: {said.read_text(encoding='utf-8')}")
    return seconds, peak, samples


def _status(pid: int) -> dict[str, int]:
    """Return the memory sizes that the kernel reports for a process, in bytes; empty when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except ProcessLookupError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in fields}


def check(endpoint: Endpoint, rows: int, keys: int) -> int:
    """Return how many keys there are.

    Raises:
        AssertionError: a key is missing or unexpected, or its value is not its last row.
    """
    with endpoint.client() as client:
        there = int(client.dbsize())
        if there != min(rows, keys):
            raise AssertionError(f"{there:,} keys rather than {min(rows, keys):,}")
        numbers = range(max(0, rows - keys), rows, max(1, min(rows, keys) // CHECKED))
        expected = {}
        for number in numbers:
            (row,) = columns(number, 1, keys).to_pylist()
            expected[f"{PREFIX}{row['id']}"] = {**row, "at": row["at"].isoformat()}
        found = FastBatch(client).batch_get(expected)
    for key, row in expected.items():
        if found.get(key) != row:
            raise AssertionError(f"{key}: {found.get(key)} rather than {row}")
    return there


def document(done: Sequence[Loaded], keys: int) -> str:
    """Return the table, and a sentence that compares the largest file with the smaller ones."""
    heads = (
        "format", "GB", "rows", "keys", "s", "rows/s", "MB/s", "peak RSS, MB",
        "RSS, 2nd quarter", "RSS, last quarter", "server, MB",
    )  # fmt: skip
    rows = [
        (
            each.format,
            f"{each.size / 1e9:.2f}",
            f"{each.rows:,}",
            f"{each.keys:,}",
            f"{each.seconds:,.1f}",
            f"{each.rows / each.seconds:,.0f}",
            f"{each.size / each.seconds / MB:,.0f}",
            *(f"{size / MB:,.0f}" for size in (each.peak, each.early, each.late, each.server)),
        )
        for each in done
    ]
    lines = [
        "GB and MB are 10^9 and 10^6 bytes of the file: of text for CSV, snappy-compressed columns "
        f"for Parquet, whose row groups have {ROW_GROUP:,} rows. Keys repeat after {keys:,} rows, so that the "
        "server's memory is bounded; each row is written. Seconds are of the whole process.",
        tables.table(heads, rows, numbers=set(range(1, len(heads)))),
        *_comparisons(done),
    ]
    return "\n\n".join(lines)


def _comparisons(done: Sequence[Loaded]) -> Iterator[str]:
    for kind in dict.fromkeys(each.format for each in done):
        *smaller, largest = sorted((each for each in done if each.format == kind), key=lambda each: each.size)
        for each in smaller:
            yield (
                f"{kind}: {largest.size / each.size:.0f} times the bytes of {each.size / 1e9:.2f} GB take "
                f"{largest.peak / each.peak:.2f} times the peak memory."
            )


def _save(done: Sequence[Loaded], options: argparse.Namespace) -> None:
    about = environment.describe([options.server])
    content = {"environment": about, "keys": options.keys, "loads": [asdict(each) for each in done]}
    parts = ["# Loading files in bounded memory", tables.circumstances(about), document(done, options.keys)]
    results.publish(options.name, content, "\n\n".join(parts))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark by itself."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
