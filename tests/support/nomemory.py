"""Repeats one operation and lets its n-th allocation fail, for every n: `python nomemory.py NAME`.

It needs a process of its own, because a failing allocator affects the whole interpreter. Each run must raise
MemoryError or one of the package's errors, or return the right result. In the end nothing may be leaked.
"""

from __future__ import annotations

import _testcapi
import ctypes
import datetime
import gc
import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from redis_fastbatch import CompressedCodec, JsonCodec, MsgpackCodec
from redis_fastbatch._core.arrow.hash_columns import HashColumns
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.raw import RawCodec
from redis_fastbatch._core.resp.command_chunks import CommandWriter
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.expiry import ItemExpiry
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.hashes import HSET, MappingWriter, RoutedMappingWriter
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._core.resp.routed import RoutedCommandWriter, RoutedWriter, Router
from redis_fastbatch._core.toolkit.codec import ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._transports.redispy import reply_reader
from redis_fastbatch.errors import FastBatchError

MOST = 20_000
ENOUGH_RUNS = 1000
# What is made once, such as the entries of caches, must weigh little beside a leak in each sweep.
ENOUGH_SWEEPS = 32
# The codecs make a class for each shape of rows. Without memory, CPython cannot remove a class from the list of
# its base's subclasses, so a weak reference to it stays there.
MAKE_TYPES = (
    "msgpack loads",
    "msgpack loads odd",
    "toolkit loads",
    "json loads",
    "reader values",
    "hash rows",
    "hash fields",
)
# From 3.12 on, an object that dies before its `__dict__` leaks its values if there is no memory to copy them.
TYPES_LEFT = 60 if sys.version_info < (3, 12) else 400


# CPython 3.11 loses an exception if there is no memory for a frame of its traceback, and raises SystemError.
ALLOWED = (MemoryError, FastBatchError, SystemError)


class Text(str):
    """A subclass of str."""


UTC = datetime.timezone.utc
PLAIN = {"id": 1, "name": "é" * 20, "x": [1.5, 2**40, None, "语", b"bytes", (1, 2)], "d": {"k": True}, 5: "five"}
ODD = [
    datetime.datetime(2020, 1, 1, tzinfo=UTC),
    msgpack.ExtType(3, b"abc"),
    bytearray(b"x"),
    Text("t"),
    2**64 - 1,
]
BIG = {"text": "x" * 9000, "wide": "é" * 5000, "bytes": b"b" * 20_000}
ROWS = [{"number": i, "name": f"name {i}", "items": [i, str(i)]} for i in range(8)]
BULKS = [b"$%d\r\n%b\r\n" % (len(data), data) for data in map(msgpack.packb, ROWS)]
ARRAY = b"*8\r\n" + b"".join(BULKS)
HASHES: dict[Any, Any] = {f"key {i}": {"number": i, "half": i / 7, "näme": f"é {i}"} for i in range(8)}
HASH_TYPES = {"number": int, "half": float}
HASH_FIELDS = [("number", b"number"), ("half", b"half"), ("none", b"none")]


def _bulks(words: list[Any]) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(data), data) for data in (str(word).encode() for word in words))


HASH_REPLIES = b"".join(
    b"*6\r\n" + _bulks([word for pair in HASHES[f"key {i}"].items() for word in pair]) for i in range(8)
)
FIELD_REPLIES = b"".join(b"*3\r\n" + _bulks([i, i / 7]) + b"$-1\r\n" for i in range(8))


def hash_fields() -> Any:
    return HashRows(HASH_TYPES, fields=HASH_FIELDS)


def hash_columns() -> Any:
    return HashColumns(RowsBuilder(), wanted=False)


# No error reply: hiredis crashes on one if there is no memory for its text.
STATUSES = b"+OK\r\n" * 3 + b"$-1\r\n:1\r\n$2\r\nab\r\n"


def dumps(codec: Any, value: Any) -> Callable[[], Any]:
    return lambda: codec.dumps(value)


def loads_twice(make: Callable[[], Any], data: bytes) -> Callable[[], Any]:
    """Return a function that decodes with two new codecs, which must learn the shapes of rows."""
    return lambda: [make().loads(data) for _ in range(2)]


def parsed(data: bytes) -> list[list[bytes]]:
    """Return the commands in the bytes. The last one must be complete."""
    reader = reply_reader()
    reader.feed(data)
    commands = []
    while (whole := reader.reply()) is not None:
        commands.append(whole[0])
    assert len(reader) == 0, "bytes after the last command"
    return commands


def fill(command: Command, extract: Command | None = None) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return a function that encodes a batch, and one that makes its chunk comparable."""
    items = [(f"key {i}", row) for i, row in enumerate(ROWS)] + [(b"bytes", BIG)]

    def run() -> tuple[Chunk, int]:
        writer = BatchWriter(items, command, MsgpackCodec(), max_items=100, max_bytes=2**20)
        chunk = writer.blank()
        writer.fill(chunk)
        if extract is not None:
            chunk = chunk.extract(extract, [0, 3, 8])
        return chunk, len(writer.failures) + (writer.source_error is not None)

    def check(result: tuple[Chunk, int]) -> Any:
        chunk, failed = result
        commands = parsed(bytes(memoryview(chunk)))
        also = len(chunk.command.tail) + (2 if chunk.command.expiry else 0)
        arguments = sum(len(one) - 1 - also for one in commands)
        assert arguments == 2 * chunk.count == 2 * len(chunk.keys) == 2 * len(chunk.values)
        return "partial" if failed else commands

    return run, check


COMMANDS: list[Any] = [
    ("ZADD", "board", 1.5, "amina"),
    ["XADD", b"events", "*", "näme", "é" * 900, "number", 2**40],
    ("CONFIG GET", "maxmemory"),
    ("SADD", "big", *map(str, range(400)), "x" * 20_000),
]


def filled(make: Callable[[], BatchWriter]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return a function that encodes items with a writer, and one that makes its chunks comparable."""

    def run() -> tuple[list[Chunk], int]:
        writer = make()
        if not isinstance(writer, RoutedWriter):
            chunk = writer.blank()
            writer.fill_some(chunk, 100)
            return [chunk], len(writer.failures) + (writer.source_error is not None)
        writer.advance(100)
        chunks = []
        # Not in a comprehension: CPython 3.11 leaks the cell of a variable if there is no memory after it.
        for node, _ in writer.begun():
            sealed = writer.sealed(node)
            if sealed is not None:
                chunks.append(sealed[0])
        return chunks, len(writer.failures) + (writer.source_error is not None)

    def check(result: tuple[list[Chunk], int]) -> Any:
        chunks, failed = result
        commands = [command for chunk in chunks for command in parsed(bytes(memoryview(chunk)))]
        assert len(commands) == sum(len(chunk.keys) for chunk in chunks)
        return "partial" if failed else commands

    return run, check


def writers() -> dict[str, Callable[[], BatchWriter]]:
    """Return what makes writers of commands and hashes, by name."""
    router = Router([slot % 3 for slot in range(16384)])
    routable = [COMMANDS[i] for i in (0, 1, 3)]
    hashes: Any = {f"key {i}": row for i, row in enumerate(HASHES.values())}
    return {
        "execute": lambda: CommandWriter(
            COMMANDS, CommandEncoder("utf-8", "strict", RULES), max_items=100, max_bytes=2**20
        ),
        "execute routed": lambda: RoutedCommandWriter(
            routable, CommandEncoder("utf-8", "strict", RULES), router, max_items=100, max_bytes=2**20
        ),
        "hset": lambda: MappingWriter(hashes, HSET, None, max_items=100, max_bytes=2**20),
        "hset routed": lambda: RoutedMappingWriter(hashes, HSET, None, router, max_items=100, max_bytes=2**20),
    }


def read_values() -> Any:
    reader, out, failures = reply_reader(), {}, []
    for start in range(0, len(ARRAY), 40):
        reader.feed(ARRAY[start : start + 40])
        if not reader.elements and not out and reader.array(8) is not True:
            continue
        reader.values(list(range(8)), len(out), MsgpackCodec(), None, out, failures)
    return [out, len(failures)]


def values_checked(result: Any) -> Any:
    # Not in read_values(): CPython 3.12 crashes if there is no memory for a function object.
    out, failed = result
    assert failed or all(out[key] == ROWS[key] for key in range(8) if key in out)
    return result


def read_statuses() -> Any:
    reader, non_ok_replies = reply_reader(), []
    reader.feed(STATUSES)
    reader.statuses(6, 0, non_ok_replies)
    return [(index, str(one) if isinstance(one, ErrorReply) else one) for index, one in non_ok_replies]


def read_hashes(rows: Callable[[], Any], data: bytes) -> Callable[[], Any]:
    """Return a function that reads the replies of 8 hashes, which arrive in pieces."""

    def run() -> Any:
        reader, out, failures, done = reply_reader(), {}, [], 0
        keys, hashes = list(range(8)), rows()
        for start in range(0, len(data), 150):
            reader.feed(data[start : start + 150])
            done = hashes.read(reader, keys, done, None, out, failures)
        return [out, done, len(failures)]

    return run


def fill_refused() -> Callable[[], Any]:
    """Return a function that raises the error about a mapping which cannot be encoded."""
    # Made here: CPython 3.11 crashes if there is no memory for the arguments of a base's __init__.
    writer = MappingWriter(itertools.repeat(("key", {"a": 1, "b": [1]})), HSET, None, max_items=9, max_bytes=9000)
    chunk = writer.blank()

    def run() -> Any:
        chunk.restart(HSET)
        writer.failures.clear()
        writer.fill_some(chunk, 1)
        raise writer.failures[0][2]

    return run


def hashes_checked(result: Any) -> Any:
    out, done, failed = result
    return "partial" if failed else [out, done]


def returned(result: Any) -> Any:
    return result


def operations() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Return, by name, a function to run, and one that makes its result comparable."""
    mset, single = Command(b"MSET", many=True), Command(b"SET", many=False, tail=(b"EX", b"9"))
    each_expires = Command(b"SET", many=False, tail=(b"NX",), expiry=ItemExpiry("ex", int, of_key=len))
    hook = MsgpackCodec(default=lambda value: sorted(value), ext_hook=lambda code, data: [code, data])
    learnt = MsgpackCodec()
    rows = msgpack.packb(ROWS)
    for _ in range(9):
        learnt.loads(rows)
    compressed = CompressedCodec("msgpack", "zlib")
    json_rows, learnt_json = json.dumps(ROWS).encode(), JsonCodec()
    for _ in range(9):
        learnt_json.loads(json_rows)
    deep: list[Any] = []
    for _ in range(250):
        deep = [deep]
    toolkit = {"a": [1, 2.5, None, "é\n"], "b": {"c": True}, "n": "x" * 200}
    made: dict[str, Callable[[], Any]] = {
        "msgpack dumps": dumps(MsgpackCodec(), PLAIN),
        "msgpack dumps odd": dumps(MsgpackCodec(), ODD),
        "msgpack dumps big": lambda: MsgpackCodec().dumps(BIG),
        "msgpack dumps default": dumps(hook, {"set": {1, 2}}),
        "msgpack dumps refused": dumps(MsgpackCodec(), [1, {"k": object}]),
        "msgpack loads": loads_twice(MsgpackCodec, msgpack.packb([*ROWS, PLAIN])),
        "msgpack loads learnt": lambda: learnt.loads(rows),
        "msgpack loads odd": loads_twice(lambda: hook, msgpack.packb(ODD, datetime=True)),
        "msgpack loads refused": lambda: learnt.loads(rows[:-1]),
        "toolkit dumps": dumps(ToolkitCodec(), toolkit),
        "toolkit loads": loads_twice(ToolkitCodec, ToolkitCodec().dumps([toolkit] * 3)),
        "toolkit-msgpack dumps": dumps(ToolkitMsgpackCodec(), toolkit),
        "json dumps": dumps(JsonCodec(default=sorted), {**toolkit, "set": {1, 2}, 5: [], "é": "é" * 900}),
        "json dumps slowly": dumps(JsonCodec(), deep),
        "json dumps refused": dumps(JsonCodec(), [1, {"k": object}]),
        "json loads": loads_twice(JsonCodec, json.dumps([*ROWS, toolkit] * 3).encode()),
        "json loads learnt": lambda: learnt_json.loads(json_rows),
        "compressed dumps": dumps(CompressedCodec("msgpack", "zlib"), ROWS * 3),
        "compressed loads": partial(compressed.loads, compressed.dumps(ROWS * 3)),
        "raw dumps": dumps(RawCodec(), "é" * 5000),
        "reader statuses": read_statuses,
        "fill HSET refused": fill_refused(),
    }
    return {
        **{name: (run, returned) for name, run in made.items()},
        "reader values": (read_values, values_checked),
        "hash rows": (read_hashes(lambda: HashRows(HASH_TYPES), HASH_REPLIES), hashes_checked),
        "hash fields": (
            read_hashes(lambda: HashRows(HASH_TYPES, fields=HASH_FIELDS), FIELD_REPLIES),
            hashes_checked,
        ),
        "hash columns": (read_hashes(hash_columns, HASH_REPLIES), hashes_checked),
        **{name: filled(make) for name, make in writers().items()},
        "fill MSET": fill(mset),
        "fill SET": fill(single),
        "extract": fill(mset, single),
        "fill SET with expiries": fill(each_expires),
        "extract SET with expiries": fill(each_expires, each_expires),
    }


def attempt(run: Callable[[], Any], first: int, last: int) -> Any:
    """Return the result, or the exception's type, when the allocations from number `first` to `last` fail."""
    _testcapi.set_nomemory(first, last)
    try:
        result = run()
    except ALLOWED as error:
        _testcapi.remove_mem_hooks()
        return type(error)
    finally:
        _testcapi.remove_mem_hooks()
    return result


def sweep(run: Callable[[], Any], check: Callable[[Any], Any], expected: Any) -> int:
    """Let every allocation fail once, alone and then with all later ones. Return the number of allocations."""
    for number in range(MOST):
        for last in (number + 1, 0):
            result = attempt(run, number, last)
            if isinstance(result, type):
                assert issubclass(result, ALLOWED)
                continue
            comparable = check(result)
            assert comparable == expected or comparable == "partial", (number, comparable)
        if not isinstance(result, type) and number > 2 and check(result) == expected:
            return number
    raise AssertionError(f"it makes more than {MOST} allocations")


MALLINFO = [*"abcdefg", "uordblks", "fordblks", "keepcost"]


class Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2() returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO]


def in_use() -> tuple[int, int]:
    """Return how many objects, and how many bytes of malloc(), are in use."""
    gc.collect()
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return sys.getallocatedblocks(), 0
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return sys.getallocatedblocks(), info.uordblks


def main(name: str) -> None:
    run, check = operations()[name]
    try:
        expected = check(run())
    except FastBatchError as error:
        expected = type(error)
    sweep(run, check, expected) if not isinstance(expected, type) else sweep_refused(run)
    blocks, used = in_use()
    sweeps = count = 0
    while sweeps < ENOUGH_SWEEPS or sweeps * count < ENOUGH_RUNS:
        count = sweep(run, check, expected) if not isinstance(expected, type) else sweep_refused(run)
        sweeps += 1
    more_blocks, more_used = in_use()
    objects, size = (more_blocks - blocks) / sweeps, (more_used - used) / sweeps
    # A leak at one of the allocations loses one object in each sweep.
    most = TYPES_LEFT if name in MAKE_TYPES else 0.8
    assert objects < most, f"{objects} objects are leaked in a sweep of {count} allocations"
    assert size < 1024 + 100 * most, f"{size} bytes are leaked in a sweep of {count} allocations"
    print(
        f"{name}: each of {count} allocations failed; {objects:.2f} objects and {size:.0f} bytes leaked in a sweep"
    )


def sweep_refused(run: Callable[[], Any]) -> int:
    """Do the same as sweep() for an operation that always raises, until it raises the package's own error."""
    for number in range(MOST):
        results = [attempt(run, number, last) for last in (number + 1, 0)]
        assert all(issubclass(result, ALLOWED) for result in results)
        if all(issubclass(result, FastBatchError) for result in results) and number > 2:
            return number
    raise AssertionError(f"it makes more than {MOST} allocations")


if __name__ == "__main__":
    main(sys.argv[1])
