"""The codec msgpack writes and reads the same as the package msgpack, and refuses the same."""

from __future__ import annotations

import collections
import datetime
import enum
import math
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import ExtType, Timestamp

from labels import label
from msgpack_reference import (
    REFUSED,
    UTC,
    agree,
    ours_or_refused,
    same,
    their_bytes,
    their_value,
    theirs_or_refused,
    values,
)
from redis_fastbatch import DecodeError, EncodeError, MsgpackCodec
from tiers import examples


@pytest.fixture(scope="module")
def codec() -> MsgpackCodec:
    """One codec for all tests of the module, because what it remembers must not affect later values."""
    return MsgpackCodec()


@given(value=values)
@settings(max_examples=examples(400), deadline=None)
def test_values_are_written_and_read_as_msgpack_does(codec: MsgpackCodec, value: Any) -> None:
    data = codec.dumps(value)
    assert data == their_bytes(value)
    assert same(codec.loads(data), their_value(data))


@given(value=values, data=st.data())
@settings(max_examples=examples(400), deadline=None)
def test_damaged_bytes_are_read_as_msgpack_reads_them(
    codec: MsgpackCodec, value: Any, data: st.DataObject
) -> None:
    damaged = bytearray(codec.dumps(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        piece = data.draw(st.binary(max_size=3))
        damaged[place : place + data.draw(st.integers(0, 3))] = piece
    agree(codec, bytes(damaged))


@given(data=st.binary(max_size=60))
@settings(max_examples=examples(600), deadline=None)
def test_any_bytes_are_read_as_msgpack_reads_them(codec: MsgpackCodec, data: bytes) -> None:
    agree(codec, data)


@given(value=values)
@settings(max_examples=examples(100), deadline=None)
def test_a_value_truncated_anywhere_is_refused(codec: MsgpackCodec, value: Any) -> None:
    data = codec.dumps(value)
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            codec.loads(data[:size])


def fills() -> Iterator[bytes]:
    """Yield the bytes that follow a first byte."""
    for size in range(34):
        for byte in (0x00, 0x01, 0x20, 0x41, 0x7F, 0x80, 0xC0, 0xE2, 0xFF):
            yield bytes([byte]) * size
        yield bytes(range(0x40, 0x40 + size))


@pytest.mark.parametrize("marker", range(256))
def test_every_first_byte_is_read_as_msgpack_reads_it(codec: MsgpackCodec, marker: int) -> None:
    read = [agree(codec, bytes([marker]) + rest) for rest in fills()]
    if marker == 0xC1:
        assert not any(read)
    elif marker not in range(0xC5, 0xE0):
        assert any(read)


LENGTHS = (0, 1, 15, 16, 31, 32, 33, 255, 256, 257, 65535, 65536, 65537)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: "x" * n, id="ascii"),
        pytest.param(lambda n: "é" * (n // 2) + "x" * (n % 2), id="latin"),
        pytest.param(lambda n: "語" * (n // 3) + "x" * (n % 3), id="two-byte"),
        pytest.param(lambda n: "😀" * (n // 4) + "x" * (n % 4), id="four-byte"),
        pytest.param(lambda n: b"\xff" * n, id="bytes"),
        pytest.param(lambda n: bytearray(n), id="bytearray"),
        pytest.param(lambda n: memoryview(b"m" * n), id="memoryview"),
        pytest.param(lambda n: [None] * n, id="list"),
        pytest.param(lambda n: (1,) * n, id="tuple"),
        pytest.param(lambda n: {i: i for i in range(n)}, id="int keys"),
        pytest.param(lambda n: {f"k{i}": i for i in range(n)}, id="str keys"),
        pytest.param(lambda n: ExtType(5, b"e" * n), id="ext"),
    ],
)
def test_every_length_has_the_right_header(codec: MsgpackCodec, make: Callable[[int], Any], length: int) -> None:
    value = make(length)
    data = codec.dumps(value)
    assert data == their_bytes(value)
    assert same(codec.loads(data), their_value(data))
    for cut in {1, 2, 3, 5, len(data) // 2, len(data) - 1} & set(range(len(data))):
        assert not agree(codec, data[:cut])


def long_forms() -> Iterator[bytes]:
    """Yield values whose headers are longer than necessary: allowed, though no packer writes them."""
    for number in (0, 1, 127, 255):
        yield struct.pack(">BB", 0xCC, number)
        yield struct.pack(">BH", 0xCD, number)
        yield struct.pack(">BI", 0xCE, number)
        yield struct.pack(">BQ", 0xCF, number)
        yield struct.pack(">BI", 0xD2, number)
        yield struct.pack(">Bq", 0xD3, -number)
    for text in (b"", b"a", "é".encode(), b"name"):
        wide = [
            b"\xd9" + bytes([len(text)]),
            struct.pack(">BH", 0xDA, len(text)),
            struct.pack(">BI", 0xDB, len(text)),
        ]
        for header in wide:
            yield header + text
            # As keys too: the codec remembers keys, and their header must not matter.
            yield b"\x81" + header + text + b"\x07"
            yield struct.pack(">BH", 0xDE, 1) + header + text + b"\x07"
            yield struct.pack(">BI", 0xDF, 1) + bytes([0xA0 | len(text)]) + text + b"\x07"
    yield struct.pack(">BH", 0xDC, 2) + b"\x01\x02"
    yield struct.pack(">BI", 0xDD, 2) + b"\x01\x02"
    yield struct.pack(">Bf", 0xCA, 1.5)
    yield struct.pack(">Bf", 0xCA, math.inf)


def test_headers_longer_than_necessary_are_read(codec: MsgpackCodec) -> None:
    forms = list(long_forms())
    for _ in range(6):
        for data in forms:
            assert agree(codec, data)


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**31) - 1, 2**32 - 1, 2**32, -33, -32, 127, 128],
)
def test_ints_at_the_edges_of_their_formats_are_the_same(codec: MsgpackCodec, value: int) -> None:
    assert codec.dumps(value) == their_bytes(value)
    assert codec.loads(codec.dumps(value)) == value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 2**200, -(2**200)])
def test_ints_beyond_64_bits_are_refused(codec: MsgpackCodec, value: int) -> None:
    with pytest.raises(EncodeError, match=f"an int must be .* found (one of {value.bit_length()} bits|{value})$"):
        codec.dumps({"n": [value]})
    with pytest.raises(OverflowError):
        their_bytes(value)


@pytest.mark.parametrize("text", ["\ud800", "ab\udfff", "é\udc80", "😀\ud83d"])
def test_surrogates_are_refused(codec: MsgpackCodec, text: str) -> None:
    for value in (text, [text], {text: 1}, {"k": text}):
        with pytest.raises(EncodeError, match="surrogate"):
            codec.dumps(value)


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"ok\x80", b"\xe2\x82", b"0123456789\xff"],
)
def test_text_that_is_not_utf8_is_refused_with_its_offset(codec: MsgpackCodec, bad: bytes) -> None:
    start = len(bad.decode(errors="ignore"))
    text = bytes([0xA0 | len(bad)]) + bad
    long = b"\xda\x01\x00" + b"x" * (256 - len(bad)) + bad
    with pytest.raises(DecodeError) as of_text:
        codec.loads(b"\x92\x01" + text)
    assert of_text.value.offset == 3 + start
    with pytest.raises(DecodeError) as of_key:
        codec.loads(b"\x81" + text + b"\x01")
    assert of_key.value.offset == 2 + start
    with pytest.raises(DecodeError) as of_long:
        codec.loads(long)
    assert of_long.value.offset == len(long) - len(bad) + start


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"\xc1", 0),
        (b"\x92\x01", 1),
        (b"\x92\x01\xc1", 2),
        (b"\x01\x02", 1),
        (b"\x81\x80\x01", 1),
        (b"\xd9\x05abc", 2),
        (b"\xd6\xff\x00\x00\x00", 1),
    ],
)
def test_the_error_names_the_offset(codec: MsgpackCodec, data: bytes, offset: int) -> None:
    with pytest.raises(DecodeError, match=f"^at byte {offset}: ") as caught:
        codec.loads(data)
    assert caught.value.offset == offset
    assert caught.value.key is None


def test_false_lengths_cost_nothing(codec: MsgpackCodec) -> None:
    huge = b"\xff\xff\xff\xff"
    for marker in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        data = bytes([marker]) + huge
        assert not agree(codec, data)
        # A thousand of them in one value: if the codec allocated memory for each, this would take terabytes.
        assert not agree(codec, b"\xdc\x03\xe8" + data * 1000)
    assert not agree(codec, b"\xdd\x00\xff\xff\xff" * 200)
    assert not agree(codec, b"\xdf\x00\x00\x00\x05" + b"\xa1k\x01" * 4)


# -- datetimes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        datetime.datetime(1970, 1, 1, tzinfo=UTC),
        datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.datetime(1, 1, 1, tzinfo=UTC),
        datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
        datetime.datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
        datetime.datetime(2514, 5, 30, 1, 53, 3, 999999, tzinfo=UTC),
        datetime.datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC),
    ],
)
def test_datetimes_at_the_edges_of_the_timestamp_formats_are_the_same(
    codec: MsgpackCodec, moment: datetime.datetime
) -> None:
    data = codec.dumps(moment)
    assert data == their_bytes(moment)
    assert codec.loads(data) == moment
    assert codec.loads(data).tzinfo == UTC


# The years 1 to 9999.
FIRST_SECOND = -62135596800
LAST_SECOND = 253402300799


@given(
    seconds=st.integers(FIRST_SECOND, LAST_SECOND) | st.integers(-1, 2**34 + 1) | st.integers(-(2**35), 2**37),
    nanoseconds=st.integers(0, 999_999_999),
)
@settings(deadline=None)
def test_timestamps_are_written_and_read_as_msgpack_does(
    codec: MsgpackCodec, seconds: int, nanoseconds: int
) -> None:
    data = codec.dumps(Timestamp(seconds, nanoseconds))
    assert data == their_bytes(Timestamp(seconds, nanoseconds))
    agree(codec, data)


@given(seconds=st.integers(-(2**63), FIRST_SECOND - 1) | st.integers(LAST_SECOND + 1, 2**63 - 1))
@settings(deadline=None)
def test_timestamps_outside_the_years_1_to_9999_are_refused(codec: MsgpackCodec, seconds: int) -> None:
    with pytest.raises(EncodeError, match="within the years 1 to 9999"):
        codec.dumps(Timestamp(seconds, 0))
    with pytest.raises(DecodeError, match="expected a timestamp in the years 1 to 9999"):
        codec.loads(their_bytes(Timestamp(seconds, 0)))


@given(
    body=st.binary(min_size=4, max_size=4)
    | st.binary(min_size=8, max_size=8)
    | st.binary(min_size=12, max_size=12)
    | st.binary(max_size=16)
)
@settings(deadline=None)
def test_any_timestamp_bytes_are_read_as_msgpack_reads_them(codec: MsgpackCodec, body: bytes) -> None:
    agree(codec, b"\xc7" + bytes([len(body)]) + b"\xff" + body)


def test_a_datetime_without_a_zone_is_refused(codec: MsgpackCodec) -> None:
    with pytest.raises(EncodeError, match="must have a time zone"):
        codec.dumps(datetime.datetime(2024, 1, 1))


def test_an_error_of_a_time_zone_is_raised(codec: MsgpackCodec) -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
            raise RuntimeError("no such zone")

    with pytest.raises(RuntimeError, match="no such zone"):
        codec.dumps(datetime.datetime(2024, 1, 1, tzinfo=Zone()))


# -- other types ---------------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 3


class Level(str, enum.Enum):
    HIGH = "high"


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Bytes(bytes):
    pass


class Rows(list):
    pass


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Level.HIGH,
        Text("text"),
        Number(-5),
        Real(2.5),
        Bytes(b"raw"),
        Rows([1, [2]]),
        Point(1, "y"),
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, {"k": [1]}),
        collections.Counter("abca"),
        Timestamp(5, 6),
        ExtType(1, b"x"),
        bytearray(b"array"),
        memoryview(b"view"),
        memoryview(bytearray(b"abcd")).cast("H"),
        {Text("key"): Number(1)},
        {1: "a", "1": "b", b"1": "c", None: "d", False: "e", 1.5: "f"},
    ],
    ids=label,
)
def test_subclasses_are_written_as_their_bases(codec: MsgpackCodec, value: Any) -> None:
    for nested in (value, [value], {"k": value}):
        assert codec.dumps(nested) == their_bytes(nested)


def test_a_dict_subclass_is_written_by_its_items_method(codec: MsgpackCodec) -> None:
    class Reversed(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            return reversed(list(super().items()))

    value = Reversed(a=1, b=2)
    assert codec.dumps(value) == their_bytes(value) == their_bytes({"b": 2, "a": 1})


def test_a_dict_subclass_with_a_false_length_is_refused(codec: MsgpackCodec) -> None:
    class Liar(dict):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 5

    with pytest.raises(EncodeError, match="changed size"):
        codec.dumps({"k": Liar(a=1)})


def test_a_memoryview_with_gaps_is_refused(codec: MsgpackCodec) -> None:
    with pytest.raises(EncodeError, match="memoryview"):
        codec.dumps(memoryview(b"abcdef")[::2])
    with pytest.raises((ValueError, BufferError)):
        their_bytes(memoryview(b"abcdef")[::2])


def test_a_released_memoryview_is_refused(codec: MsgpackCodec) -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(EncodeError, match="released"):
        codec.dumps([view])


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, range(3), datetime.date(2024, 1, 1), len, Ellipsis])
def test_other_types_are_refused(codec: MsgpackCodec, value: Any) -> None:
    with pytest.raises(EncodeError, match=type(value).__name__):
        codec.dumps({"k": [value]})


def test_loads_takes_any_contiguous_buffer(codec: MsgpackCodec) -> None:
    for data in (bytearray(b"\xa1x"), memoryview(b"?\xa1x")[1:]):
        assert codec.loads(data) == "x"
    with pytest.raises(TypeError):
        codec.loads("text")
    with pytest.raises(BufferError):
        codec.loads(memoryview(b"\xa1?x?")[::2])


def test_each_nan_is_an_object_of_its_own(codec: MsgpackCodec) -> None:
    one, other = codec.loads(codec.dumps([math.nan, math.nan]))
    assert math.isnan(one)
    assert math.isnan(other)
    assert [one] != [other], "lists with the same NaN object are equal"


# -- nesting -------------------------------------------------------------------------------------


def nested(levels: int, make: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "make",
    [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner}, lambda inner: Rows([inner])],
    ids=["list", "tuple", "dict", "subclass"],
)
def test_the_deepest_nesting_that_is_written_is_read(codec: MsgpackCodec, make: Callable[[Any], Any]) -> None:
    value = nested(1024, make)
    assert codec.dumps(codec.loads(codec.dumps(value))) == codec.dumps(value)
    with pytest.raises(EncodeError, match="nested more than 1024 levels"):
        codec.dumps(nested(1025, make))


@pytest.mark.parametrize("marker", [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\x01"])
def test_as_deep_nesting_is_read_as_msgpack_reads(codec: MsgpackCodec, marker: bytes) -> None:
    for levels in range(1000, 1040):
        data = marker * levels + b"\x01"
        assert (ours_or_refused(codec, data) is REFUSED) == (theirs_or_refused(data) is REFUSED), levels
    for levels in (5_000, 200_000):
        with pytest.raises(DecodeError, match="nested"):
            codec.loads(marker * levels + b"\x01")


def test_ten_thousand_levels_are_refused(codec: MsgpackCodec) -> None:
    for make in (lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)):
        with pytest.raises(EncodeError, match="nested more than"):
            codec.dumps(nested(10_000, make))


def test_containers_that_contain_themselves_are_refused(codec: MsgpackCodec) -> None:
    items: list[Any] = [1]
    items.append(items)
    row: dict[str, Any] = {"a": 1}
    row["self"] = row
    for value in (items, row, [row, items], collections.OrderedDict(me=row)):
        with pytest.raises(EncodeError, match="holds itself"):
            codec.dumps(value)


def test_the_deepest_nesting_fits_on_a_small_stack(codec: MsgpackCodec) -> None:
    done: list[Any] = []

    def work() -> None:
        for make in (lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: Rows([inner])):
            done.append(codec.loads(codec.dumps(nested(1024, make))))

    # The stack size of threads on Alpine; with glibc it is 8 MiB.
    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(done) == 3
