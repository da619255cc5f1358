"""The drop-in against redis-toolkit itself: `python -m benchmarks.toolkit`.

It measures batches, single values, the serializers alone, the import time, and the size on disk with all
dependencies. Ratios say how many times faster ours is than redis-toolkit.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import redis_fastbatch
from benchmarks import shapes
from benchmarks.disturbance import Watch
from benchmarks.equality import same
from benchmarks.measure import Contender, Timing, frozen_heap, interleaved
from benchmarks.peers.base import LARGEST_VALUE
from benchmarks.peers.toolkit import Toolkit
from benchmarks.servers import BINARIES, Endpoint, running
from redis_fastbatch.codecs import resolve
from redis_fastbatch.toolkit import RedisOptions, RedisToolkit

CODECS = ("toolkit", "toolkit-msgpack")
SINGLES = 1_000
IMPORTS = 9
OPTIONS = RedisOptions(is_logger_info=False, max_value_size=LARGEST_VALUE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toolkit", description=__doc__)
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--shape", choices=sorted(shapes.SHAPES), default="dict5")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=10, help="rounds to measure again when disturbed")
    options = parser.parse_args(arguments)
    items = shapes.make(options.shape, options.items)
    few = dict(list(items.items())[:SINGLES])
    with running(options.server) as endpoint, frozen_heap():
        print(f"{endpoint.version}, {options.items:,} x {options.shape}, times for one item\n")
        for title, contenders, count in (
            ("batch_set", batch_set(endpoint, items), len(items)),
            ("batch_get", batch_get(endpoint, items), len(items)),
            ("setter", setter(endpoint, few), len(few)),
            ("getter", getter(endpoint, few), len(few)),
            ("serialize", serialize(items), len(items)),
            ("deserialize", deserialize(items), len(items)),
        ):
            watch = Watch([endpoint.pid], options.repeats)
            show(title, interleaved(contenders, options.rounds, watch), count)
            if watch.share is not None:
                print(f"  (other programs took {watch.share:.0%} of the machine)\n")
    show_import_times()
    show_sizes()
    return 0


def toolkits(endpoint: Endpoint) -> Iterator[tuple[str, Any]]:
    """Yield redis-toolkit's class and ours with each codec, each with a database of its own."""
    theirs = Toolkit(endpoint)
    yield theirs.name, theirs._toolkit
    for database, codec in enumerate(CODECS, start=5):
        yield f"ours, {codec}", RedisToolkit(redis=endpoint.client(database), options=OPTIONS, codec=codec)


def batch_set(endpoint: Endpoint, items: shapes.Items) -> list[Contender]:
    """Return the ways to write one batch of all items."""
    return [
        contender(name, lambda toolkit=toolkit: toolkit.batch_set(items), reads(toolkit, items))
        for name, toolkit in toolkits(endpoint)
    ]


def batch_get(endpoint: Endpoint, items: shapes.Items) -> list[Contender]:
    """Return the ways to read one batch of all keys."""
    keys = list(items)
    made = []
    for name, toolkit in toolkits(endpoint):
        toolkit.batch_set(items)
        made.append(contender(name, lambda toolkit=toolkit: toolkit.batch_get(keys), reads(toolkit, items)))
    return made


def setter(endpoint: Endpoint, items: shapes.Items) -> list[Contender]:
    """Return the ways to write with a call for each item."""

    def run(toolkit: Any) -> None:
        for key, value in items.items():
            toolkit.setter(key, value)

    return [
        contender(name, lambda toolkit=toolkit: run(toolkit), reads(toolkit, items))
        for name, toolkit in toolkits(endpoint)
    ]


def getter(endpoint: Endpoint, items: shapes.Items) -> list[Contender]:
    """Return the ways to read with a call for each key."""
    made = []
    for name, toolkit in toolkits(endpoint):
        toolkit.batch_set(items)
        run = lambda toolkit=toolkit: {key: toolkit.getter(key) for key in items}  # noqa: E731
        made.append(contender(name, run, reads(toolkit, items)))
    return made


def reads(toolkit: Any, items: shapes.Items) -> Callable[[], None]:
    """Return a check that the values come back as they were."""

    def check() -> None:
        found = toolkit.batch_get(list(items))
        # redis-toolkit reads the ints 0 and 1 as bools, which compare equal.
        if found != items and not same(found, items):
            raise AssertionError("other values came back")

    return check


def serialize(items: shapes.Items) -> list[Contender]:
    """Return the ways to serialize the values."""
    theirs = serializers()
    expected = [theirs.serialize_value(value) for value in items.values()]
    ways = {"redis-toolkit": theirs.serialize_value, **{codec: resolve(codec).dumps for codec in CODECS}}

    def check(codec: str) -> None:
        if codec == "toolkit" and list(map(ways[codec], items.values())) != expected:
            raise AssertionError("the bytes differ from redis-toolkit's")

    return [
        Contender(
            name if name == "redis-toolkit" else f"ours, {name}",
            "peer" if name == "redis-toolkit" else "ours",
            lambda dumps=dumps: [dumps(value) for value in items.values()],
            lambda name=name: check(name),
        )
        for name, dumps in ways.items()
    ]


def deserialize(items: shapes.Items) -> list[Contender]:
    """Return the ways to deserialize the values."""
    theirs = serializers()
    stored = [theirs.serialize_value(value) for value in items.values()]
    made = [contender("redis-toolkit", lambda: [theirs.deserialize_value(data) for data in stored])]
    for name in CODECS:
        codec = resolve(name)
        data = [codec.dumps(value) for value in items.values()]
        made.append(
            contender(f"ours, {name}", lambda codec=codec, data=data: [codec.loads(each) for each in data])
        )
    return made


def serializers() -> Any:
    """Return redis-toolkit's module, which benchmarks.peers.toolkit imported with its messages silenced."""
    return sys.modules["redis_toolkit.utils.serializers"]


def contender(name: str, run: Callable[[], Any], check: Callable[[], None] = lambda: None) -> Contender:
    """Return a contender that runs once before its check."""

    def run_and_check() -> None:
        run()
        check()

    return Contender(name, "ours" if name.startswith("ours") else "peer", run, run_and_check)


def show(title: str, timings: Sequence[Timing], count: int) -> None:
    """Print a table of times and ratios."""
    theirs = timings[0]
    print(f"{title:24}{'ns':>9}{'best':>9}{'times faster':>14}  quartiles")
    for timing in timings:
        ratio = timing.times_faster_than(theirs)
        print(
            f"  {timing.name:22}{timing.median / count:9,.0f}{timing.best / count:9,.0f}{ratio.value:13.1f}x"
            f"  {ratio.low:.1f} - {ratio.high:.1f}"
        )


def show_import_times() -> None:
    """Print how long a fresh interpreter takes to import each module, without the interpreter's start."""
    modules = ("", "redis", "redis_fastbatch", "redis_fastbatch.toolkit", "redis_toolkit")
    samples: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(IMPORTS):
        for module in modules:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module or 'sys'}"], check=True, capture_output=True)
            samples[module].append(time.perf_counter() - started)
    own_start = statistics.median(samples.pop(""))
    print("import, ms without the interpreter's start")
    for module, seconds in samples.items():
        print(f"  {module:24}{(statistics.median(seconds) - own_start) * 1000:8.0f}")
    print()


def show_sizes() -> None:
    """Print the installed sizes, the dependencies of each included."""
    print("installed, MB with all dependencies (and by itself)")
    own_files = [path for path in Path(redis_fastbatch.__file__).parent.rglob("*") if _is_installed(path)]
    own = sum(path.stat().st_size for path in own_files)
    ours = dependencies(["redis", "hiredis", "msgpack"])
    theirs = dependencies(["redis-toolkit"])
    print(f"  redis-fastbatch     {(own + sum(ours.values())) / 1e6:8.1f}  ({own / 1e6:.1f})")
    print(f"  redis-toolkit       {sum(theirs.values()) / 1e6:8.1f}  ({theirs['redis-toolkit'] / 1e6:.1f})")
    largest = sorted(theirs, key=theirs.__getitem__, reverse=True)[:5]
    print(f"  its largest: {', '.join(f'{name} {theirs[name] / 1e6:.1f}' for name in largest)}")


def _is_installed(path: Path) -> bool:
    return path.suffix in (".py", ".pyi", ".so", ".typed")


def dependencies(names: Sequence[str]) -> dict[str, int]:
    """Return the bytes on disk of distributions and all their dependencies, by name."""
    sizes: dict[str, int] = {}
    rest = list(names)
    while rest:
        name = re.sub(r"[-_.]+", "-", rest.pop()).lower()
        if name in sizes:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            # Not needed on this Python or platform.
            continue
        files = [Path(str(found.locate_file(file))) for file in found.files or ()]
        sizes[name] = sum(file.stat().st_size for file in files if file.exists() and file.suffix != ".pyc")
        for requirement in found.requires or ():
            if "extra ==" not in requirement:
                rest.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return sizes


if __name__ == "__main__":
    raise SystemExit(main())
