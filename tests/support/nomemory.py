"""Runs one operation again and again, with the n-th allocation failing, for all n: `python nomemory.py NAME`.

In a process of its own, as an allocator that fails is for the whole interpreter. Each run must end in MemoryError,
or in one of the package's errors, or with the right result; and in the end nothing may have been leaked.
"""

from __future__ import annotations

import _testcapi
import ctypes
import datetime
import gc
import sys
from collections.abc import Callable
from typing import Any

import msgpack

from redis_fastbatch import MsgpackCodec
from redis_fastbatch._core.raw import RawCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._core.toolkit.codec import ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch._transports.redispy import reply_reader
from redis_fastbatch.errors import FastBatchError

MOST = 20_000
ENOUGH_RUNS = 1000
# Shapes of rows are learnt by means of a class, and CPython keeps a weak reference to one in the list of its
# base's subclasses when there is no memory to take it out.
MAKE_TYPES = ("msgpack loads", "msgpack loads odd", "toolkit loads", "reader values")
# From 3.12 on an object that dies while its `__dict__` lives on leaves its values behind where there is no memory
# to hand them over.
TYPES_LEFT = 60 if sys.version_info < (3, 12) else 400


# CPython 3.11 loses an exception when there is no memory for a frame object of its traceback, and says so by a
# SystemError.
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
# No error reply: hiredis dies of one when there is no memory for its text.
STATUSES = b"+OK\r\n" * 3 + b"$-1\r\n:1\r\n$2\r\nab\r\n"


def dumps(codec: Any, value: Any) -> Callable[[], Any]:
    return lambda: codec.dumps(value)


def loads_anew(make: Callable[[], Any], data: bytes) -> Callable[[], Any]:
    """Decode with a new codec, which has to learn everything, shapes of rows too."""
    return lambda: [make().loads(data) for _ in range(2)]


def parsed(data: bytes) -> list[list[bytes]]:
    """Return the commands in some bytes, which must hold whole commands only."""
    reader = reply_reader()
    reader.feed(data)
    commands = []
    while (whole := reader.reply()) is not None:
        commands.append(whole[0])
    assert len(reader) == 0, "bytes behind the last command"
    return commands


def fill(command: Command, extract: Command | None = None) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """Return functions that encode a batch, and that make comparable results of its chunks."""
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
        arguments = sum(len(one) - 1 - len(chunk.command.tail) for one in commands)
        assert arguments == 2 * chunk.count == 2 * len(chunk.keys) == 2 * len(chunk.values)
        return "partial" if failed else commands

    return run, check


def read_values() -> Any:
    reader, out, failures = reply_reader(), {}, []
    for start in range(0, len(ARRAY), 40):
        reader.feed(ARRAY[start : start + 40])
        if not reader.elements and not out and reader.array(8) is not True:
            continue
        reader.values(list(range(8)), len(out), MsgpackCodec(), None, out, failures)
    return [out, len(failures)]


def values_checked(result: Any) -> Any:
    # Not where memory fails: CPython 3.12 dies when there is none to make a function.
    out, failed = result
    assert failed or all(out[key] == ROWS[key] for key in range(8) if key in out)
    return result


def read_statuses() -> Any:
    reader, others = reply_reader(), []
    reader.feed(STATUSES)
    reader.statuses(6, 0, others)
    return [(index, str(one) if isinstance(one, ErrorReply) else one) for index, one in others]


def returned(result: Any) -> Any:
    return result


def operations() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Return, by name, what to run, and what makes something comparable of its result."""
    mset, single = Command(b"MSET", many=True), Command(b"SET", many=False, tail=(b"EX", b"9"))
    hook = MsgpackCodec(default=lambda value: sorted(value), ext_hook=lambda code, data: [code, data])
    learnt = MsgpackCodec()
    rows = msgpack.packb(ROWS)
    for _ in range(9):
        learnt.loads(rows)
    toolkit = {"a": [1, 2.5, None, "é\n"], "b": {"c": True}, "n": "x" * 200}
    made: dict[str, Callable[[], Any]] = {
        "msgpack dumps": dumps(MsgpackCodec(), PLAIN),
        "msgpack dumps odd": dumps(MsgpackCodec(), ODD),
        "msgpack dumps big": lambda: MsgpackCodec().dumps(BIG),
        "msgpack dumps default": dumps(hook, {"set": {1, 2}}),
        "msgpack dumps refused": dumps(MsgpackCodec(), [1, {"k": object}]),
        "msgpack loads": loads_anew(MsgpackCodec, msgpack.packb([*ROWS, PLAIN])),
        "msgpack loads learnt": lambda: learnt.loads(rows),
        "msgpack loads odd": loads_anew(lambda: hook, msgpack.packb(ODD, datetime=True)),
        "msgpack loads refused": lambda: learnt.loads(rows[:-1]),
        "toolkit dumps": dumps(ToolkitCodec(), toolkit),
        "toolkit loads": loads_anew(ToolkitCodec, ToolkitCodec().dumps([toolkit] * 3)),
        "toolkit-msgpack dumps": dumps(ToolkitMsgpackCodec(), toolkit),
        "raw dumps": dumps(RawCodec(), "é" * 5000),
        "reader statuses": read_statuses,
    }
    return {
        **{name: (run, returned) for name, run in made.items()},
        "reader values": (read_values, values_checked),
        "fill MSET": fill(mset),
        "fill SET": fill(single),
        "extract": fill(mset, single),
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
    """Let every allocation fail once, alone and with all that follow. Return how many there are."""
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
    raise AssertionError("it allocates without end")


MALLINFO = [*"abcdefg", "uordblks", "fordblks", "keepcost"]


class Mallinfo(ctypes.Structure):
    """glibc's account of its heap."""

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
    while sweeps < 8 or sweeps * count < ENOUGH_RUNS:
        count = sweep(run, check, expected) if not isinstance(expected, type) else sweep_refused(run)
        sweeps += 1
    more_blocks, more_used = in_use()
    objects, size = (more_blocks - blocks) / sweeps, (more_used - used) / sweeps
    # One leak at one of the allocations would be an object a sweep.
    most = TYPES_LEFT if name in MAKE_TYPES else 0.8
    assert objects < most, f"{objects} objects a sweep of {count} are leaked"
    assert size < 1024 + 100 * most, f"{size} bytes a sweep of {count} are leaked"
    print(f"{name}: each of {count} allocations failed; {objects:.2f} objects and {size:.0f} bytes a sweep")


def sweep_refused(run: Callable[[], Any]) -> int:
    """Do the same as sweep() for what always raises, until it raises the package's own error."""
    for number in range(MOST):
        results = [attempt(run, number, last) for last in (number + 1, 0)]
        assert all(issubclass(result, ALLOWED) for result in results)
        if all(issubclass(result, FastBatchError) for result in results) and number > 2:
            return number
    raise AssertionError("it allocates without end")


if __name__ == "__main__":
    main(sys.argv[1])
