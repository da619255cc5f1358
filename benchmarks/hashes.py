"""Hashes, written and read: `python -m benchmarks hashes`.

All contenders take turns in one process, as in `commands`. Each hash has ten fields: five ints and five floats.
Where values of Python's types are asked for, contenders that return bytes convert them as a user would. The floor
is a bare socket that sends the same commands, encoded beforehand, and counts the bytes of the replies. First, each
contender does the work once. The server must then hold the same hashes, or the contender must have read them.

For tables, other contenders make dicts of the table's rows, or the table of dicts, with pyarrow.

polars-redis and adbc-driver-redis are not measured: the first has no wheel for this platform, and the package
index does not have the second.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import hiredis
import pyarrow as pa

from benchmarks import environment, results, tables
from benchmarks.equality import same
from benchmarks.floor import Sliced
from benchmarks.measure import WrongResult, frozen_heap, in_turns
from benchmarks.servers import BINARIES, Endpoint, apart, empty, running
from redis_fastbatch import FastBatch

OURS, PIPELINE, FLOOR = "redis_fastbatch", "redis-py pipeline", "floor"
COREDIS, GLIDE = "coredis pipeline", "valkey-glide batch"
FIELDS = 10
SOME = [f"field:{i}" for i in range(FIELDS // 2)]
TYPES: dict[str, Any] = {f"field:{i}": float if i % 2 else int for i in range(FIELDS)}
SECONDS = 3600

SCHEMA = pa.schema([(name, pa.float64() if kind is float else pa.int64()) for name, kind in TYPES.items()])

OPERATIONS = ("hset", "hset ex", "hgetall", "hgetall typed", "hmget", "hmget typed", "set table", "get table")
WRITES = ("hset", "hset ex", "set table")

Work = Callable[[], Any]


def row(number: int) -> dict[str, Any]:
    """Return the fields of a hash."""
    return {
        name: number * (i + 1) / 8 if kind is float else number + i for i, (name, kind) in enumerate(TYPES.items())
    }


def convert(fields: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the fields of a hash with their types, as a user of a client that returns bytes would."""
    return {(name := key.decode()): TYPES[name](value) for key, value in fields.items()}


def convert_some(values: Sequence[bytes]) -> dict[str, Any]:
    """Return the values of SOME with their names and types."""
    return {name: TYPES[name](value) for name, value in zip(SOME, values, strict=True)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--sizes", type=lambda text: list(map(int, text.split(","))), default=[200, 10_000])
    parser.add_argument("--rounds", type=int, default=15, help="of batches of 10,000; of 200, 20 times as many")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(OPERATIONS))
    parser.add_argument("--server", choices=sorted(BINARIES), default="valkey")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def run(options: argparse.Namespace) -> int:
    """Measure and print the tables; return the exit code."""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    with running(options.server) as endpoint, apart(endpoint):
        for size in options.sizes:
            rounds = options.rounds * (20 if size < 1000 else 1)
            for operation in options.only:
                with Contenders(endpoint, operation, size) as contenders, frozen_heap():
                    contenders.check()
                    measured[f"{operation}, {size:,}"] = contenders.measure(rounds)
                print(f"{operation}, {size:,}: measured", flush=True)
    described = environment.describe([options.server])
    document = _document(described, measured)
    print(document)
    if options.name:
        results.publish(options.name, {"environment": described, "hashes": measured}, document)
    return 0


class Contenders(ExitStack):
    """The ways to do one operation.

    Args:
        endpoint: the server.
        operation: one of OPERATIONS.
        count: how many hashes.
    """

    def __init__(self, endpoint: Endpoint, operation: str, count: int) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._operation = operation
        self._rows = {f"user:{i}": row(i) for i in range(count)}
        self._keys = list(self._rows)
        self._table = pa.Table.from_pylist(list(self._rows.values()), SCHEMA)
        self._client = self.enter_context(endpoint.client())
        self._fast = FastBatch(self._client)
        self._typed = operation.endswith("typed")
        self._begin()
        self._work = dict(self._ways())

    def _begin(self) -> None:
        """Bring the server into the state in which every run begins."""
        empty(self._endpoint)
        if self._operation not in WRITES:
            self._fast.batch_hset(self._rows)

    def _ways(self) -> Iterator[tuple[str, Work]]:
        yield OURS, self._ours()
        yield PIPELINE, self._pipeline
        yield from self._coredis()
        yield from self._glide()
        data = b"".join(map(hiredis.pack_command, self._commands()))
        yield FLOOR, self.enter_context(Sliced(self._endpoint, data, len(list(self._commands())))).run

    def _ours(self) -> Work:
        fast, rows, keys = self._fast, self._rows, self._keys
        if self._operation == "hset":
            return lambda: fast.batch_hset(rows)
        if self._operation == "hset ex":
            return lambda: fast.batch_hset(rows, ex=SECONDS)
        if self._operation == "set table":
            table = self._table.add_column(0, "key", pa.array(keys))
            return lambda: fast.batch_set_table(table, key="key", columns=list(TYPES), as_="hash")
        if self._operation == "get table":
            return lambda: fast.batch_get_table(keys, as_="hash", schema=SCHEMA)
        types = TYPES if self._typed else None
        if self._operation.startswith("hgetall"):
            return lambda: fast.batch_hgetall(keys, types=types)
        return lambda: fast.batch_hmget(keys, SOME, types=types)

    def _pipeline(self) -> Any:
        with self._client.pipeline(transaction=False) as pipe:
            self._queue(pipe, "mapping")
            return self._converted(pipe.execute())

    def _queue(self, pipe: Any, mapping: str) -> None:
        """Queue the operation in a pipeline by its own methods. `mapping` is the name of hset()'s argument."""
        if self._operation in WRITES:
            for key, fields in zip(self._keys, self._given(), strict=True):
                pipe.hset(key, **{mapping: fields})
                if self._operation == "hset ex":
                    pipe.expire(key, SECONDS)
        elif self._whole:
            for key in self._keys:
                pipe.hgetall(key)
        else:
            for key in self._keys:
                pipe.hmget(key, SOME)

    @property
    def _whole(self) -> bool:
        """Whether all fields are read."""
        return self._operation.startswith("hgetall") or self._operation == "get table"

    def _given(self) -> Iterable[dict[str, Any]]:
        """Return the hashes to write."""
        return self._table.to_pylist() if self._operation == "set table" else self._rows.values()

    def _converted(self, replies: Sequence[Any]) -> Any:
        """Return replies as a dict by key, with the values that were asked for."""
        if self._operation in WRITES:
            return None
        if self._operation == "get table":
            return pa.Table.from_pylist(list(map(convert, replies)), SCHEMA)
        if self._typed:
            kind = convert if self._operation.startswith("hgetall") else convert_some
            return dict(zip(self._keys, map(kind, replies), strict=True))
        return dict(zip(self._keys, replies, strict=True))

    def _coredis(self) -> Iterator[tuple[str, Work]]:
        try:
            import coredis
        except ImportError:
            return
        from benchmarks.peers.eventloop import OpenClient

        endpoint = self._endpoint
        opened = OpenClient(lambda: coredis.Redis(endpoint.host, endpoint.port, verify_version=False))
        self.callback(opened.close)

        async def batched() -> Any:
            async with opened.client.pipeline(transaction=False) as pipe:
                self._queue(pipe, "field_values")
            return self._converted([_as_dict(reply) for reply in pipe.results or ()])

        yield COREDIS, lambda: opened.run(batched())

    def _glide(self) -> Iterator[tuple[str, Work]]:
        try:
            from glide import Batch, BatchOptions
        except ImportError:
            return
        from benchmarks.peers.eventloop import OpenClient
        from benchmarks.peers.glide import TIMEOUT_MS, connected

        opened = OpenClient(lambda: connected(self._endpoint, 0))
        self.callback(opened.close)

        async def batched() -> Any:
            batch = Batch(is_atomic=False)
            if self._operation in WRITES:
                for key, fields in zip(self._keys, self._given(), strict=True):
                    # It takes only text.
                    batch.hset(key, {name: repr(value) for name, value in fields.items()})
                    if self._operation == "hset ex":
                        batch.expire(key, SECONDS)
            else:
                for key in self._keys:
                    if self._whole:
                        batch.hgetall(key)
                    else:
                        batch.hmget(key, list(SOME))
            replies = await opened.client.exec(batch, True, options=BatchOptions(timeout=TIMEOUT_MS))
            return self._converted(replies or [])

        yield GLIDE, lambda: opened.run(batched())

    def _commands(self) -> Iterator[tuple[Any, ...]]:
        for key, fields in self._rows.items():
            if self._operation in WRITES:
                yield ("HSET", key, *(word for pair in fields.items() for word in pair))
                if self._operation == "hset ex":
                    yield ("EXPIRE", key, SECONDS)
            else:
                names = TYPES if self._operation == "get table" else SOME
                yield ("HGETALL", key) if self._operation.startswith("hgetall") else ("HMGET", key, *names)

    def check(self) -> None:
        """Let every contender do the work once, and compare the outcomes.

        Raises:
            WrongResult: a contender has written or read other hashes.
        """
        wanted = self._wanted()
        for name, work in self._work.items():
            if self._operation not in WRITES:
                found = work()
                # HMGET's values have names with us, and are lists with others.
                plain = name == OURS and self._operation == "hmget"
                found = {key: list(each.values()) for key, each in found.items()} if plain else found
                if self._operation == "get table" and name != FLOOR:
                    found = dict(zip(self._keys, found.to_pylist(), strict=True))
                if name != FLOOR and not same(wanted, found):
                    raise WrongResult(f"{name}: other hashes were read")
                continue
            self._begin()
            work()
            stored = self._fast.batch_hgetall(self._keys, types=TYPES)
            expires = all(self._client.ttl(key) > 0 for key in self._keys[:: max(1, len(self._keys) // 20)])
            if not same(self._rows, stored) or expires != (self._operation == "hset ex"):
                raise WrongResult(f"{name}: other hashes were written")

    def _wanted(self) -> dict[str, Any]:
        """Return what is read of every key."""
        if self._operation in ("hgetall typed", "get table"):
            return self._rows
        some = {key: {name: fields[name] for name in SOME} for key, fields in self._rows.items()}
        if self._operation == "hmget typed":
            return some
        if self._operation == "hmget":
            return {key: [repr(value).encode() for value in fields.values()] for key, fields in some.items()}
        return {
            key: {name.encode(): repr(value).encode() for name, value in fields.items()}
            for key, fields in self._rows.items()
        }

    def measure(self, rounds: int) -> dict[str, dict[str, float]]:
        """Return figures in nanoseconds for a hash: wall time and this process's CPU time, as medians, and p99."""
        samples = in_turns(self._work, rounds, self._begin if self._operation in WRITES else lambda: None)
        count = len(self._keys)
        return {
            name: {
                "wall": statistics.median(wall for wall, _ in found) / count,
                "cpu": statistics.median(cpu for _, cpu in found) / count,
                "p99": sorted(wall for wall, _ in found)[len(found) * 99 // 100] / count,
            }
            for name, found in samples.items()
        }


def _as_dict(reply: Any) -> Any:
    """Return coredis' reply in the form of the others."""
    return list(reply) if isinstance(reply, tuple) else reply


def _document(described: dict[str, Any], measured: dict[str, dict[str, dict[str, float]]]) -> str:
    parts = ["# Hashes", tables.circumstances(described)]
    names = list(dict.fromkeys(name for found in measured.values() for name in found))
    heads = ("operation, hashes", *names)
    numbers = set(range(1, len(heads)))
    for figure, title in (("wall", "Wall time, p50"), ("p99", "Wall time, p99"), ("cpu", "Client CPU, p50")):
        rows = [
            (kind, *(f"{found[name][figure]:,.0f}" if name in found else "" for name in names))
            for kind, found in measured.items()
        ]
        parts += [f"## {title}: nanoseconds a hash", tables.table(heads, rows, numbers=numbers)]
        rows = [(kind, *(_faster(found, name, figure) for name in names)) for kind, found in measured.items()]
        parts += [f"## {title}: how many times faster ours is", tables.table(heads, rows, numbers=numbers)]
    return "\n\n".join(parts)


def _faster(found: dict[str, dict[str, float]], name: str, figure: str) -> str:
    return f"{found[name][figure] / found[OURS][figure]:.2f}" if name in found else ""
