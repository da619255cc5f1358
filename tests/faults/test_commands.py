"""Connections cut at every place, in both directions, while commands of any kind are carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from faults.bench import EXPECTED_ERRORS, Bench, Operation, bench, check_report, written_by
from faults.matrix import DIRECTIONS, KINDS, RETRIES, ending, places
from faults.streams import Direction, Fault
from redis_fastbatch import BatchReport, col
from redis_fastbatch.server import EmbeddedServer

COUNT = 6
EXECUTE = Operation("execute", "batch_execute")
AT_ONCE = Operation("execute at once", "batch_execute")
REPEATABLE = Operation("execute repeatable", "batch_execute", {"repeatable": True})
TABLE = Operation("execute table", "batch_execute_table")
OPERATIONS = [EXECUTE, AT_ONCE, REPEATABLE, TABLE]


@pytest.fixture
def ready(valkey: EmbeddedServer, kind: str, retries: int) -> Iterator[Bench]:
    with bench(valkey, kind=kind, retries=retries) as made:
        yield made


def runner(ready: Bench, operation: Operation, keys: list[str]) -> Callable[[], BatchReport]:
    """Return a call that increments each key once; a repeatable one sets it to 1 instead."""
    method = getattr(ready.batch, operation.method)
    if operation is TABLE:
        table = pa.table({"key": keys})
        return lambda: method(table, ["INCR", col("key")], chunk_size=2)
    name = "SET" if operation is REPEATABLE else "INCR"
    commands = [(name, key, *([1] if name == "SET" else [])) for key in keys]
    size = None if operation is AT_ONCE else 2
    return lambda: method(commands, chunk_size=size, **operation.options)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@KINDS
@RETRIES
@DIRECTIONS
def test_commands_cut_at_every_place(
    ready: Bench, operation: Operation, kind: str, retries: int, direction: Direction
) -> None:
    traffic = ready.traffic(lambda: written_by(runner(ready, operation, ready.keys(COUNT))))
    for place in places(traffic, direction, kind, retries):
        keys = ready.keys(COUNT)
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        written = written_by(runner(ready, operation, keys))
        # A key that was incremented twice would hold 2.
        check_report(operation, range(COUNT), written, ready.stored(keys), [b"1"] * COUNT)
        if operation is REPEATABLE and retries:
            assert written.error is None
            assert written.report.written == COUNT
        ready.check_connection()


@KINDS
@RETRIES
@DIRECTIONS
def test_replies_cut_at_every_place(ready: Bench, kind: str, retries: int, direction: Direction) -> None:
    def run(keys: list[str]) -> tuple[list[Any], Exception | None]:
        found: list[Any] = []
        commands = [command for key in keys for command in (("INCR", key), ("MGET", key, "none"))]
        try:
            for reply in ready.batch.batch_execute_iter(commands):
                found.append(reply)
        except EXPECTED_ERRORS as error:
            return found, error
        return found, None

    traffic = ready.traffic(lambda: run(ready.keys(COUNT)))
    expected = [1, [b"1", None]] * COUNT
    for place in places(traffic, direction, kind, retries):
        keys = ready.keys(COUNT)
        ready.inject(Fault(direction, after_bytes=place, then=ending(place)))
        found, error = run(keys)
        assert found == expected[: len(found)]
        assert (error is None) == (len(found) == len(expected))
        stored = ready.stored(keys)
        assert set(stored) <= {None, b"1"}, "a command was carried out twice"
        assert all(stored[: (len(found) + 1) // 2]), "a reply came, but the command was not carried out"
        ready.check_connection()
