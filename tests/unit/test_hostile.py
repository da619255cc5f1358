"""Malicious bytes are refused, or cost no more to read than ordinary bytes of the same size."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from redis.exceptions import InvalidResponse

from msgpack_reference import their_value
from redis_fastbatch import DecodeError, MsgpackCodec
from redis_fastbatch._core.raw import RawCodec
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._transports.redispy import reply_reader

MEGABYTE = 1_000_000


def refused(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        MsgpackCodec().loads(data)
    return caught.value


def cost(function: Callable[[], Any]) -> tuple[float, int]:
    """Return the shortest of three times, in seconds, and the peak of memory, in bytes."""
    best = min(_timed(function) for _ in range(3))
    tracemalloc.start()
    try:
        function()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return best, peak


def _timed(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", [b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9"], ids=lambda marker: marker.hex())
@pytest.mark.parametrize("length", [1, 1000, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_false_length_takes_no_memory(marker: bytes, length: int) -> None:
    codec = MsgpackCodec()
    data = marker + struct.pack(">I", length)

    def attempt() -> None:
        with pytest.raises(DecodeError, match="expected"):
            codec.loads(data)

    assert cost(attempt)[1] < 100_000


def nested_lists(size: int, levels: int) -> bytes:
    """Return nested list headers. Each one declares as many items as bytes follow it."""
    headers = b"".join(b"\xdd" + struct.pack(">I", size - 5 * level - 5) for level in range(levels))
    return headers.ljust(size, b"\xc1")


@pytest.mark.parametrize("prefix", [b"", b"\x81\xa1k"], ids=["list", "list in a map"])
def test_nested_false_lengths_take_no_memory(prefix: bytes) -> None:
    data = prefix + nested_lists(MEGABYTE, 1000)
    seconds, peak = cost(lambda: refused(data))
    assert peak < 20 * MEGABYTE, "more memory than one list of a million items"
    assert seconds < 0.5


def test_nested_true_lengths_are_read() -> None:
    value: Any = []
    for level in range(50):
        value = (
            [value]
            if level % 2
            else [[i] for i in range(level)] + [value, {"k": [value]}]
            if level < 12
            else [value]
        )
    data = msgpack.packb(value)
    assert MsgpackCodec().loads(data) == value
    tight = b"\xdc\x00\x03" + b"\x92\x01\x02" + b"\x90" + b"\x05"
    assert MsgpackCodec().loads(tight) == [[1, 2], [], 5]


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81", b"\x81\xa1k", b"\x91\x81\x05", b"\xdc\x00\x01", b"\xde\x00\x01\xa0"]
)
def test_endless_nesting_is_refused(opening: bytes) -> None:
    assert "nested more than" in refused(opening * 2000 + b"\x00").reason or opening == b"\x81"
    for size in (1, 10, 1023, 1024, 1025, 100_000):
        refused(opening * size)


# -- dicts ---------------------------------------------------------------------------------------


def colliding_integers(count: int) -> list[int]:
    """Return integers with equal low bits: the worst collisions in a dict that 64-bit integers can cause."""
    return [i << 44 for i in range(count)]


def colliding_floats(count: int) -> list[float]:
    """Return floats that share their hashes in groups of 16: 2**61 is 1 modulo the prime of CPython's hash."""
    return [float(1 + i) * 2.0 ** (61 * k) for i in range(count // 16) for k in range(16)]


@pytest.mark.parametrize("make", [colliding_integers, colliding_floats])
def test_colliding_keys_cost_no_more_than_in_a_dict(make: Callable[[int], list[Any]]) -> None:
    keys = make(100_000)
    data = b"\xdf" + struct.pack(">I", len(keys)) + b"".join(msgpack.packb(key) + b"\xc0" for key in keys)
    codec = MsgpackCodec()
    dict_seconds, _ = cost(lambda: dict.fromkeys(list(keys)))
    seconds, _ = cost(lambda: codec.loads(data))
    assert codec.loads(data) == dict.fromkeys(keys)
    assert seconds < 10 * dict_seconds + 0.1


def test_keys_that_share_a_cache_entry_are_kept_apart() -> None:
    # The caches look at the length and at the first and last bytes, which are the same here.
    names = [f"abcd{i:04}wxyzABCD{i:04}WXYZ"[:24] for i in range(5000)]
    rows = [{name: i} for i, name in enumerate(names)]
    codec = MsgpackCodec()
    assert [codec.loads(msgpack.packb(row)) for row in rows] == rows
    assert codec.loads(msgpack.packb(rows)) == rows


@pytest.mark.parametrize("count", [2, 15, 40])
def test_the_last_of_duplicate_keys_wins(count: int) -> None:
    codec = MsgpackCodec()
    pairs = b"".join(b"\xa1k" + msgpack.packb(i) for i in range(count))
    data = b"\xde" + struct.pack(">H", count) + pairs
    for _ in range(10):
        assert codec.loads(data) == {"k": count - 1}


SPECIAL = (
    "__class__ __dict__ __weakref__ __slots__ __doc__ __init__ __del__ __hash__ __eq__ __getattribute__ "
    "__setattr__ __module__ mro self None"
)


@pytest.mark.parametrize("name", [*SPECIAL.split(), "a\0b", ""])
def test_field_names_have_no_special_meaning(name: str) -> None:
    codec = MsgpackCodec()
    for i in range(20):
        row = {name: i, "other": [i]}
        assert codec.loads(msgpack.packb(row)) == row
        assert type(codec.loads(msgpack.packb(row))) is dict


def test_rows_with_ever_new_shapes_stay_fast() -> None:
    """The codec learns and forgets shapes. Rows whose shapes always change must not become much slower."""
    rows = [msgpack.packb({f"f{(i // 5) % 97}": 1, f"g{(i // 5) % 89}": 2}) for i in range(50_000)]
    flat = [msgpack.packb({"f": 1, "g": 2}) for _ in range(50_000)]
    codec = MsgpackCodec()
    changing, _ = cost(lambda: [codec.loads(data) for data in rows])
    steady, _ = cost(lambda: [codec.loads(data) for data in flat])
    assert changing < 10 * steady + 0.1


# -- damaged -------------------------------------------------------------------------------------

WHOLE: Any = {
    "i": [0, -1, 127, -33, 2**16, 2**32, -(2**63), 2**64 - 1],
    "s": ["", "a", "é" * 20, "x" * 300, "语" * 30_000],
    "b": [b"", b"\xff" * 300],
    "m": {f"k{i}": {"n": i, "t": [i]} for i in range(20)},
    "f": [0.5, float("inf")],
    "e": msgpack.ExtType(5, b"12345"),
    "t": msgpack.Timestamp(1, 5),
}


@pytest.fixture(scope="module")
def learnt() -> MsgpackCodec:
    """A codec that knows the shapes, so that it reads rows from its templates."""
    codec = MsgpackCodec()
    for _ in range(20):
        codec.loads(msgpack.packb(WHOLE, datetime=True))
    return codec


def test_a_value_truncated_anywhere_is_refused(learnt: MsgpackCodec) -> None:
    data = msgpack.packb({**WHOLE, "s": ["", "a", "é" * 20, "x" * 300]})
    fresh = MsgpackCodec()
    for stop in range(len(data)):
        for codec in (learnt, fresh):
            with pytest.raises(DecodeError) as caught:
                codec.loads(data[:stop])
            assert 0 <= caught.value.offset <= stop


def test_a_value_with_any_byte_replaced_is_read_as_msgpack_reads_it(learnt: MsgpackCodec) -> None:
    """The codec reads damaged bytes as the package msgpack does, or both refuse them."""
    data = msgpack.packb({"k": {"n": 1, "t": [1, "é"]}, "f": 0.5, "i": [-33, 70_000]})
    for place in range(len(data)):
        for byte in range(256):
            damaged = data[:place] + bytes([byte]) + data[place + 1 :]
            assert outcome(learnt.loads, damaged) == outcome(their_value, damaged)


def outcome(loads: Callable[[bytes], Any], data: bytes) -> str:
    """Return the value read as text, so that NaN equals NaN and 1 differs from True."""
    try:
        return repr(loads(data))
    except (DecodeError, ValueError, TypeError, OverflowError, msgpack.UnpackException):
        return "refused"


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe8\xaf", b"\xe8\xafa", b"\x80" * 40]
)
def test_invalid_utf8_is_refused_with_its_offset(text: bytes) -> None:
    for before in (b"", b"0123456789" * 3):
        string = before + text
        error = refused(b"\xd9" + bytes([len(string)]) + string)
        assert "UTF-8" in error.reason
        assert 2 + len(before) <= error.offset < 2 + len(string)
    for codec in (MsgpackCodec(), MsgpackCodec()):
        for _ in range(10):
            with pytest.raises(DecodeError, match="UTF-8"):
                codec.loads(b"\x81" + bytes([0xA0 | len(text) & 0x1F]) + text[:31] + b"\xc0")


# -- replies -------------------------------------------------------------------------------------


def fed(data: bytes, max_value_size: int = 0) -> ReplyReader:
    reader = reply_reader(max_value_size)
    reader.feed(data)
    return reader


def test_attributes_are_skipped() -> None:
    attribute = b"|1\r\n+ttl\r\n*2\r\n:1\r\n$1\r\nx\r\n"
    reader = fed(attribute + b"+OK\r\n" + b":5\r\n" + attribute * 2 + b":6\r\n")
    assert [reader.reply() for _ in range(4)] == [(b"OK",), (5,), (6,), None]
    reader = fed(attribute + b"+OK\r\n+OK\r\n" + attribute + b":1\r\n")
    others: list[tuple[int, Any]] = []
    assert reader.statuses(3, 0, others) == 3
    assert others == [(2, 1)]
    reader = fed(attribute + b"*1\r\n$1\r\nx\r\n")
    assert reader.array(1) is True
    out: dict[str, Any] = {}
    assert reader.values(["k"], 0, RawCodec(), None, out, []) == 1
    assert out == {"k": b"x"}


@pytest.mark.parametrize("inner", [b"|1\r\n+a\r\n+b\r\n:1\r\n", b">1\r\n+a\r\n", b"=5\r\ntxt:a\r\n"])
def test_attributes_and_pushes_inside_a_reply_are_refused(inner: bytes) -> None:
    with pytest.raises(InvalidResponse, match="inside a reply"):
        fed(b"*2\r\n" + inner + b":2\r\n").reply()


def test_verbatim_strings_lose_their_prefix() -> None:
    assert fed(b"=4\r\ntxt:\r\n").reply() == (b"",)
    assert fed(b"=7\r\nmkd:abc\r\n:1\r\n").reply() == (b"abc",)
    for damaged in (b"=3\r\ntxt\r\n", b"=5\r\ntxtab\r\n", b"=5\r\ntxt:aXX", b"=-1\r\n"):
        with pytest.raises(InvalidResponse):
            fed(damaged).reply()


@pytest.mark.parametrize("reply", [b"%1\r\n*0\r\n+b\r\n", b"#x\r\n", b"=2\r\nab\r\n", b"!3\r\nERR\r\n", b",x\r\n"])
def test_what_hiredis_refuses_is_an_invalid_response(reply: bytes) -> None:
    with pytest.raises(InvalidResponse):
        fed(reply).reply()


def test_false_is_a_reply() -> None:
    assert fed(b"#f\r\n").reply() == (False,)


@pytest.mark.parametrize("rest", [b"+OK\r\n", b"$1\r\nx", b"-ERR no\r\n", b"\r\n"])
def test_a_reply_that_was_not_asked_for_is_an_error(rest: bytes) -> None:
    reader = fed(rest)
    with pytest.raises(InvalidResponse, match="not asked for"):
        reader.finished()


def test_push_messages_may_follow_the_last_reply() -> None:
    reader = fed(b">2\r\n+a\r\n:1\r\n>1\r\n+b")
    assert reader.finished() is False
    reader.feed(b"\r\n")
    assert reader.finished() is True
    assert reader.pushes == [[b"a", 1], [b"b"]]
    assert reply_reader().finished() is True


@pytest.mark.parametrize("count", [2**31, 10**17, 10**18 - 1])
@pytest.mark.parametrize("mark", [b"*", b"%", b"~"])
def test_a_false_count_of_elements_takes_no_memory(mark: bytes, count: int) -> None:
    def attempt() -> None:
        assert fed(mark + b"%d\r\n:1\r\n" % count).reply() is None

    assert cost(attempt)[1] < 1_000_000


def test_ten_thousand_errors_are_read() -> None:
    reader = fed(b"-" + b"x" * 1000 + b"\r\n" + b"-E\r\n" * 10_000)
    others: list[tuple[int, Any]] = []
    assert reader.statuses(10_001, 0, others) == 10_001
    assert all(isinstance(reply, ErrorReply) for _, reply in others)
