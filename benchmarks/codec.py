"""Serialization by itself, without a server: ours, msgspec, ormsgpack and msgpack.

Every contender runs in the same comprehension, one call for each value, and keeps its results. So all pay the same
for the loop and give the garbage collector the same work. Our methods for a whole list, `dumps_many` and
`loads_many`, which need no call for each value, are measured as contenders of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks import serializers, shapes
from benchmarks.disturbance import Watch
from benchmarks.equality import same
from benchmarks.measure import Contender, Role, WrongResult, frozen_heap, interleaved
from benchmarks.peers.base import OURS
from benchmarks.results import Cell
from benchmarks.serializers import Serializer
from redis_fastbatch.codecs import resolve

OPERATIONS = ("encode", "decode")
SERVER = "none"

Convert = Callable[[Sequence[Any]], list[Any]]


def run(
    shape_names: Sequence[str], sizes: Sequence[int], rounds: Callable[[int], int], repeats: int
) -> Iterator[Cell]:
    """Yield a cell for encoding and one for decoding, for each shape and size."""
    for shape in shape_names:
        for size in sizes:
            if size > shapes.SHAPES[shape].largest:
                continue
            values = list(shapes.make(shape, size).values())
            encoded = [serializers.MSGPACK.dumps(value) for value in values]
            value_bytes = sum(map(len, encoded))
            for operation, source, outcome in (("encode", values, encoded), ("decode", encoded, values)):
                contenders = _contenders(operation, source, outcome)
                watch = Watch([], repeats)
                with frozen_heap():
                    timings = interleaved(contenders, rounds(size), watch)
                yield Cell(SERVER, operation, shape, size, value_bytes, timings, watch.share)


def _contenders(operation: str, source: Sequence[Any], outcome: Sequence[Any]) -> list[Contender]:
    ours = resolve("msgpack")
    one_call_each = [Serializer(OURS, ours.dumps, ours.loads), *serializers.ALL]
    ways = {
        each.name: partial(_all, each.dumps if operation == "encode" else each.loads) for each in one_call_each
    }
    whole = getattr(ours, "dumps_many" if operation == "encode" else "loads_many", None)
    if whole is not None:
        ways[f"{OURS}, whole list"] = whole
    return [_contender(name, convert, source, outcome) for name, convert in ways.items()]


def _contender(name: str, convert: Convert, source: Sequence[Any], outcome: Sequence[Any]) -> Contender:
    def check() -> None:
        if not same(list(outcome), convert(source)):
            raise WrongResult("the outcome is not what msgpack's is")

    role: Role = "ours" if name.startswith(OURS) else "peer"
    return Contender(name, role, partial(convert, source), check)


def _all(convert: Callable[[Any], Any], source: Sequence[Any]) -> list[Any]:
    return [convert(value) for value in source]
