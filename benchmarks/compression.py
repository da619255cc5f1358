"""Compressed values against plain ones: `python -m benchmarks compression`.

The same items are written and read with the plain codec and with each algorithm, in turns. The figures are the
bytes of the stored values, and the time of an item: wall time, and CPU time of this process without the server's.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import environment, results, shapes
from benchmarks.equality import same
from benchmarks.measure import frozen_heap
from benchmarks.servers import BINARIES, empty, running
from benchmarks.tables import table
from redis_fastbatch import CompressedCodec, FastBatch
from redis_fastbatch.codecs import AnyCodec

PLAIN = "plain"
CODECS: dict[str, Callable[[], AnyCodec]] = {
    PLAIN: lambda: "msgpack",
    "lz4": lambda: CompressedCodec("msgpack", "lz4", min_size=0),
    "zstd": lambda: CompressedCodec("msgpack", "zstd", min_size=0),
    "zlib": lambda: CompressedCodec("msgpack", "zlib", min_size=0),
}
"""Without min_size, because short values are measured too."""
HEADS = ("values", "codec", "bytes a value", "of plain", "set, µs", "CPU", "get, µs", "CPU")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=["dict5", "flight", "nested10k"])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def run(options: argparse.Namespace) -> int:
    """Measure and print a table."""
    rows: list[tuple[str, ...]] = []
    found: dict[str, dict[str, dict[str, float]]] = {}
    with running(options.server) as endpoint, frozen_heap():
        for shape in options.shapes:
            items = shapes.make(shape, options.items)
            clients = {name: FastBatch(endpoint.client(), codec=make()) for name, make in CODECS.items()}
            found[shape] = figures = {}
            samples: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in clients}
            for _ in range(options.rounds):
                for name in random.sample(list(clients), len(clients)):
                    empty(endpoint)
                    samples[name].append(_timed(clients[name], items))
                    figures.setdefault(name, {})["bytes"] = _stored(clients[name], items)
            for name, times in samples.items():
                for place, figure in enumerate(("set", "set_cpu", "get", "get_cpu")):
                    figures[name][figure] = statistics.median(sample[place] for sample in times) / len(items)
            rows += [_row(shape, name, figures) for name in clients]
    text = table(HEADS, rows, numbers=set(range(2, len(HEADS))))
    print(text)
    if options.name:
        directory = Path(results.__file__).parent / "results"
        described = environment.describe([options.server])
        document = {"environment": described, "items": options.items, "figures": found}
        (directory / f"{options.name}.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
        (directory / f"{options.name}.md").write_text(text + "\n")
    return 0


def _timed(client: FastBatch, items: shapes.Items) -> tuple[float, float, float, float]:
    """Return the seconds of a batch_set and a batch_get, each as wall time and CPU time."""
    keys = list(items)
    start, cpu = time.perf_counter(), time.process_time()
    report = client.batch_set(items)
    middle, middle_cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any] = client.batch_get(keys)
    end, end_cpu = time.perf_counter(), time.process_time()
    if report.written != len(items) or not same(found, items):
        raise RuntimeError("the values that were read are not those that were written")
    return middle - start, middle_cpu - cpu, end - middle, end_cpu - middle_cpu


def _stored(client: FastBatch, items: shapes.Items) -> float:
    """Return the average size of the stored values, in bytes."""
    pipeline = client.pipeline(transaction=False)
    for key in items:
        pipeline.strlen(key)
    sizes: list[int] = pipeline.execute()
    return statistics.fmean(sizes)


def _row(shape: str, name: str, figures: dict[str, dict[str, float]]) -> tuple[str, ...]:
    own = figures[name]
    times = (f"{own[figure] * 1e6:.2f}" for figure in ("set", "set_cpu", "get", "get_cpu"))
    return shape, name, f"{own['bytes']:,.0f}", f"{own['bytes'] / figures[PLAIN]['bytes']:.0%}", *times
