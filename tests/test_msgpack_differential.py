"""The codec msgpack against the package msgpack: the same bytes, the same values, the same refusals."""

from __future__ import annotations

import collections
import datetime
import enum
import gc
import math
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgpack import ExtType, Timestamp

from redis_fastbatch import DecodeError, EncodeError, MsgpackCodec

UTC = datetime.timezone.utc
REFUSED = object()


def their_bytes(value: Any, **options: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True, datetime=True, **options))


def their_value(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, timestamp=3)


def theirs_or_refused(data: bytes) -> Any:
    # It has no one base of its errors: OverflowError for a timestamp, TypeError for a key, and others.
    try:
        return their_value(data)
    except Exception:
        return REFUSED


def ours_or_refused(codec: MsgpackCodec, data: bytes) -> Any:
    try:
        return codec.loads(data)
    except DecodeError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"offset {error.offset} of {len(data)} bytes") from error
        return REFUSED


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from True and 1.0, 0.0 from -0.0 and the order of keys, and knows NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def agree(codec: MsgpackCodec, data: bytes) -> bool:
    theirs = theirs_or_refused(data)
    ours = ours_or_refused(codec, data)
    assert (ours is REFUSED) == (theirs is REFUSED), (data[:80].hex(), ours, theirs)
    assert ours is REFUSED or same(ours, theirs), (data[:80].hex(), ours, theirs)
    return ours is not REFUSED


offsets = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
moments = st.datetimes(
    datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=st.just(UTC) | offsets
)
numbers = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-200, 300)
    | st.sampled_from(
        [sign * 2**bits + near for bits in (7, 8, 15, 16, 31, 32) for sign in (1, -1) for near in (-1, 0, 1)]
    )
)
texts = st.text(max_size=40) | st.text("abcdefgh", min_size=1, max_size=8)
leaves = (
    st.none()
    | st.booleans()
    | numbers
    | st.floats()
    | texts
    | st.binary(max_size=40)
    | moments
    | st.builds(ExtType, st.integers(0, 127), st.binary(max_size=20))
)
hashable = st.none() | st.booleans() | numbers | st.floats() | texts | st.binary(max_size=10)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts, inner, max_size=20)
        | st.dictionaries(hashable, inner, max_size=5)
    ),
    max_leaves=40,
)


@pytest.fixture(scope="module")
def codec() -> MsgpackCodec:
    """One for all tests of the module: what it remembers of earlier data must not show."""
    return MsgpackCodec()


@given(value=values)
@settings(max_examples=400, deadline=None)
def test_writes_the_same_bytes_and_reads_the_same_values(codec: MsgpackCodec, value: Any) -> None:
    data = codec.dumps(value)
    assert data == their_bytes(value)
    assert same(codec.loads(data), their_value(data))


@given(value=values, data=st.data())
@settings(max_examples=400, deadline=None)
def test_spoilt_bytes_are_read_alike_or_refused_by_both(
    codec: MsgpackCodec, value: Any, data: st.DataObject
) -> None:
    spoilt = bytearray(codec.dumps(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(spoilt)))
        piece = data.draw(st.binary(max_size=3))
        spoilt[place : place + data.draw(st.integers(0, 3))] = piece
    agree(codec, bytes(spoilt))


@given(data=st.binary(max_size=60))
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_read_alike_or_refused_by_both(codec: MsgpackCodec, data: bytes) -> None:
    agree(codec, data)


@given(value=values)
@settings(max_examples=100, deadline=None)
def test_truncated_anywhere_it_is_refused(codec: MsgpackCodec, value: Any) -> None:
    data = codec.dumps(value)
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            codec.loads(data[:size])


def fills() -> Iterator[bytes]:
    for size in range(34):
        for byte in (0x00, 0x01, 0x20, 0x41, 0x7F, 0x80, 0xC0, 0xE2, 0xFF):
            yield bytes([byte]) * size
        yield bytes(range(0x40, 0x40 + size))


@pytest.mark.parametrize("marker", range(256))
def test_every_first_byte(codec: MsgpackCodec, marker: int) -> None:
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
def test_every_length_header(codec: MsgpackCodec, make: Callable[[int], Any], length: int) -> None:
    value = make(length)
    data = codec.dumps(value)
    assert data == their_bytes(value)
    assert same(codec.loads(data), their_value(data))
    for cut in {1, 2, 3, 5, len(data) // 2, len(data) - 1} & set(range(len(data))):
        assert not agree(codec, data[:cut])


def long_forms() -> Iterator[bytes]:
    """Headers wider than they need be: legal, though no packer writes them."""
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
            # As a key, over and over: what is learnt of keys must not depend on how they are written.
            yield b"\x81" + header + text + b"\x07"
            yield struct.pack(">BH", 0xDE, 1) + header + text + b"\x07"
            yield struct.pack(">BI", 0xDF, 1) + bytes([0xA0 | len(text)]) + text + b"\x07"
    yield struct.pack(">BH", 0xDC, 2) + b"\x01\x02"
    yield struct.pack(">BI", 0xDD, 2) + b"\x01\x02"
    yield struct.pack(">Bf", 0xCA, 1.5)
    yield struct.pack(">Bf", 0xCA, math.inf)


def test_headers_wider_than_necessary(codec: MsgpackCodec) -> None:
    forms = list(long_forms())
    for _ in range(6):
        for data in forms:
            assert agree(codec, data)


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**31) - 1, 2**32 - 1, 2**32, -33, -32, 127, 128],
)
def test_ints_at_the_edges(codec: MsgpackCodec, value: int) -> None:
    assert codec.dumps(value) == their_bytes(value)
    assert codec.loads(codec.dumps(value)) == value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 2**200, -(2**200)])
def test_ints_beyond_64_bits_are_refused(codec: MsgpackCodec, value: int) -> None:
    with pytest.raises(EncodeError, match=f"an int of {value.bit_length()} bits"):
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
def test_text_that_is_no_utf8_is_refused_with_its_place(codec: MsgpackCodec, bad: bytes) -> None:
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
        (b"\x81\x90\x01", 1),
        (b"\xd9\x05abc", 2),
        (b"\xd6\xff\x00\x00\x00", 1),
    ],
)
def test_the_error_says_where(codec: MsgpackCodec, data: bytes, offset: int) -> None:
    with pytest.raises(DecodeError, match=f"^at byte {offset}: ") as caught:
        codec.loads(data)
    assert caught.value.offset == offset
    assert caught.value.key is None


def test_announced_lengths_cost_nothing_before_they_are_checked(codec: MsgpackCodec) -> None:
    huge = b"\xff\xff\xff\xff"
    for marker in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        data = bytes([marker]) + huge
        assert not agree(codec, data)
        # Thousands of them in one value: were anything set aside for each, this would take terabytes.
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
def test_moments_at_the_edges_of_the_timestamp_formats(
    codec: MsgpackCodec, moment: datetime.datetime
) -> None:
    data = codec.dumps(moment)
    assert data == their_bytes(moment)
    assert codec.loads(data) == moment
    assert codec.loads(data).tzinfo == UTC


@given(
    seconds=st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 2**34 + 1) | st.integers(-(2**36), 2**38),
    nanoseconds=st.integers(0, 999_999_999),
)
@settings(deadline=None)
def test_timestamps(codec: MsgpackCodec, seconds: int, nanoseconds: int) -> None:
    data = codec.dumps(Timestamp(seconds, nanoseconds))
    assert data == their_bytes(Timestamp(seconds, nanoseconds))
    agree(codec, data)


@given(
    body=st.binary(min_size=4, max_size=4)
    | st.binary(min_size=8, max_size=8)
    | st.binary(min_size=12, max_size=12)
    | st.binary(max_size=16)
)
@settings(deadline=None)
def test_timestamps_of_any_content(codec: MsgpackCodec, body: bytes) -> None:
    agree(codec, b"\xc7" + bytes([len(body)]) + b"\xff" + body)


def test_a_datetime_without_a_zone_is_refused(codec: MsgpackCodec) -> None:
    with pytest.raises(EncodeError, match="without a time zone"):
        codec.dumps(datetime.datetime(2024, 1, 1))


def test_a_zone_that_fails_is_the_items_error(codec: MsgpackCodec) -> None:
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
    ids=repr,
)
def test_subclasses_are_written_as_their_bases(codec: MsgpackCodec, value: Any) -> None:
    for nested in (value, [value], {"k": value}):
        assert codec.dumps(nested) == their_bytes(nested)


def test_the_items_of_a_dict_subclass_are_what_its_items_method_says(codec: MsgpackCodec) -> None:
    class Reversed(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            return reversed(list(super().items()))

    value = Reversed(a=1, b=2)
    assert codec.dumps(value) == their_bytes(value) == their_bytes({"b": 2, "a": 1})


def test_a_dict_subclass_whose_length_lies_is_refused(codec: MsgpackCodec) -> None:
    class Liar(dict):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 5

    with pytest.raises(EncodeError, match="changed size"):
        codec.dumps({"k": Liar(a=1)})


def test_a_view_with_gaps_is_refused(codec: MsgpackCodec) -> None:
    with pytest.raises(EncodeError, match="memoryview"):
        codec.dumps(memoryview(b"abcdef")[::2])
    with pytest.raises((ValueError, BufferError)):
        their_bytes(memoryview(b"abcdef")[::2])


def test_a_released_view_is_refused(codec: MsgpackCodec) -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(EncodeError, match="released"):
        codec.dumps([view])


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, range(3), datetime.date(2024, 1, 1), len, Ellipsis])
def test_other_types_are_refused(codec: MsgpackCodec, value: Any) -> None:
    with pytest.raises(EncodeError, match=type(value).__name__):
        codec.dumps({"k": [value]})


def test_input_of_loads_may_be_any_buffer(codec: MsgpackCodec) -> None:
    for data in (bytearray(b"\xa1x"), memoryview(b"?\xa1x")[1:]):
        assert codec.loads(data) == "x"
    with pytest.raises(TypeError):
        codec.loads("text")
    with pytest.raises(BufferError):
        codec.loads(memoryview(b"\xa1?x?")[::2])


def test_nan_is_not_one_object(codec: MsgpackCodec) -> None:
    one, other = codec.loads(codec.dumps([math.nan, math.nan]))
    assert math.isnan(one)
    assert math.isnan(other)
    assert [one] != [other], "one NaN object for both would make the lists equal, by identity"


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
def test_whatever_nesting_can_be_written_can_be_read(codec: MsgpackCodec, make: Callable[[Any], Any]) -> None:
    value = nested(1024, make)
    assert codec.dumps(codec.loads(codec.dumps(value))) == codec.dumps(value)
    with pytest.raises(EncodeError, match="nested more than 1024 levels"):
        codec.dumps(nested(1025, make))


@pytest.mark.parametrize("marker", [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\x01"])
def test_the_deepest_nesting_read_is_msgpacks(codec: MsgpackCodec, marker: bytes) -> None:
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


def test_cycles_are_refused(codec: MsgpackCodec) -> None:
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

    # As Alpine's Python has it; glibc's threads have 8 MiB.
    before = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(done) == 3


# -- default and ext_hook ------------------------------------------------------------------------


def test_default_is_called_as_msgpack_does(codec: MsgpackCodec) -> None:
    def default(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    value = {"set": {3, 1}, "complex": [1j], "nested": {"range": range(3)}}
    assert MsgpackCodec(default=default).dumps(value) == their_bytes(value, default=default)


def test_default_may_return_what_needs_default_again_inside() -> None:
    def default(value: Any) -> Any:
        return list(value) if isinstance(value, frozenset) else str(value)

    value = frozenset([frozenset([frozenset([1j])])])
    assert MsgpackCodec(default=default).dumps(value) == their_bytes(value, default=default)


def test_default_that_returns_the_unwritable_is_told_so() -> None:
    with pytest.raises(EncodeError, match=r"complex.*default\(\) made it of a set"):
        MsgpackCodec(default=lambda value: 1j).dumps({1})


def test_default_that_never_ends_is_refused() -> None:
    with pytest.raises(EncodeError, match="nested more than"):
        MsgpackCodec(default=lambda value: [value]).dumps(object())


def test_default_handles_ints_that_are_too_large() -> None:
    assert MsgpackCodec(default=str).loads(MsgpackCodec(default=str).dumps([2**64])) == [str(2**64)]


def test_default_that_raises_is_the_cause() -> None:
    def default(value: Any) -> Any:
        raise LookupError("not here")

    with pytest.raises(EncodeError, match=r"default\(\) failed on a set: not here") as caught:
        MsgpackCodec(default=default).dumps([{1}])
    assert isinstance(caught.value.__cause__, LookupError)


def test_default_may_use_the_same_codec() -> None:
    codec = MsgpackCodec(default=lambda value: codec.dumps(sorted(value)))
    assert codec.loads(codec.loads(codec.dumps({2, 1}))) == [1, 2]


def test_what_is_no_exception_passes_through_default() -> None:
    def default(value: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MsgpackCodec(default=default).dumps([{1}])


LIST_CHANGES: list[Callable[[list[Any]], object]] = [
    list.clear,
    list.pop,
    lambda items: items.append(7),
    lambda items: items.extend(range(1000)),
    lambda items: items.__delitem__(0),
]
DICT_CHANGES: list[Callable[[dict[Any, Any]], object]] = [
    dict.clear,
    dict.popitem,
    lambda row: row.update({f"new{i}": i for i in range(1000)}),
    lambda row: row.__setitem__("new", 1),
    lambda row: row.__delitem__("first"),
]


@pytest.mark.parametrize("change", LIST_CHANGES)
def test_a_list_that_changes_size_while_it_is_written(change: Callable[[list[Any]], object]) -> None:
    items: list[Any] = [[1], {1}, [2], [3]]

    def default(value: Any) -> Any:
        change(items)
        return "x"

    with pytest.raises(EncodeError, match="changed size"):
        MsgpackCodec(default=default).dumps(items)


@pytest.mark.parametrize("change", DICT_CHANGES)
def test_a_dict_that_changes_size_while_it_is_written(change: Callable[[dict[Any, Any]], object]) -> None:
    row: dict[Any, Any] = {"first": [1], "second": {1}, "third": [2], "fourth": 3}

    def default(value: Any) -> Any:
        change(row)
        return "x"

    with pytest.raises(EncodeError, match="changed size"):
        MsgpackCodec(default=default).dumps(row)


def test_containers_whose_items_are_replaced_while_they_are_written() -> None:
    # As many as before: what is written may be old or new, but must be whole.
    items: list[Any] = [{1}, [2] * 50, [3] * 50]
    row: dict[str, Any] = {"a": {1}, "b": [2] * 50, "c": [3] * 50}

    def default(value: Any) -> Any:
        items[:] = [None, [None], "new"]
        row.update(a=None, b=[None], c="new")
        gc.collect()
        return "x"

    codec = MsgpackCodec(default=default)
    assert codec.loads(codec.dumps(items)) == ["x", [None], "new"]
    items[0] = {1}
    row["a"] = {1}
    assert codec.loads(codec.dumps(row)) == {"a": "x", "b": [None], "c": "new"}


def test_keys_replaced_under_a_dict_of_the_same_size() -> None:
    row: dict[str, Any] = {f"k{i}": [i] for i in range(5)}
    row["k1"] = {1}

    def default(value: Any) -> Any:
        row.clear()
        row.update({f"other{i}": [i] for i in range(5)})
        return "x"

    written = packed_or_refused(MsgpackCodec(default=default), row)
    assert written is REFUSED or len(written) == 5


def packed_or_refused(codec: MsgpackCodec, value: Any) -> Any:
    try:
        return codec.loads(codec.dumps(value))
    except EncodeError:
        return REFUSED


def test_extensions_become_ext_types_by_default(codec: MsgpackCodec) -> None:
    for size in (0, 1, 2, 3, 4, 8, 12, 16, 17, 300, 70_000):
        value = [ExtType(42, b"z" * size)]
        assert codec.loads(codec.dumps(value)) == value


def test_negative_extension_codes_are_read(codec: MsgpackCodec) -> None:
    assert agree(codec, b"\xd4\xfex") is agree(codec, b"\xd4\x80x")


def test_ext_hook_gets_code_and_bytes() -> None:
    seen: list[tuple[int, bytes]] = []

    def hook(code: int, data: bytes) -> Any:
        seen.append((code, data))
        return {"made": data}

    codec = MsgpackCodec(ext_hook=hook)
    assert codec.loads(codec.dumps([ExtType(3, b"abc"), 1])) == [{"made": b"abc"}, 1]
    assert seen == [(3, b"abc")]


def test_ext_hook_that_raises_is_the_cause() -> None:
    def hook(code: int, data: bytes) -> Any:
        raise LookupError("no such code")

    with pytest.raises(DecodeError, match=r"ext_hook\(\) failed on type 9: no such code") as caught:
        MsgpackCodec(ext_hook=hook).loads(b"\x93\x01\xd4\x09x\x02")
    assert isinstance(caught.value.__cause__, LookupError)
    assert 2 <= caught.value.offset <= 3


def test_ext_hook_that_raises_amid_rows_leaves_the_codec_in_order() -> None:
    def hook(code: int, data: bytes) -> Any:
        if data == b"!":
            raise LookupError("now")
        return data

    codec = MsgpackCodec(ext_hook=hook)
    rows = [{"a": 1, "e": ExtType(1, b"!" if i % 5 == 4 else b"."), "z": [i]} for i in range(60)]
    for i, row in enumerate(rows):
        if i % 5 == 4:
            with pytest.raises(DecodeError):
                codec.loads(their_bytes(row))
        else:
            assert codec.loads(their_bytes(row)) == {"a": 1, "e": b".", "z": [i]}


def test_ext_hook_may_use_the_same_codec_and_shapes() -> None:
    codec = MsgpackCodec(ext_hook=lambda code, data: codec.loads(data))
    inner = their_bytes({"a": [1], "b": 2})
    other = their_bytes({"c": [1], "d": 2})
    for _ in range(40):
        outer = {"a": ExtType(1, inner), "b": [ExtType(1, other), ExtType(1, inner)]}
        assert codec.loads(their_bytes(outer)) == {
            "a": {"a": [1], "b": 2},
            "b": [{"c": [1], "d": 2}, {"a": [1], "b": 2}],
        }


def test_hooks_must_be_callable() -> None:
    with pytest.raises(TypeError, match="default"):
        MsgpackCodec(default="str")
    with pytest.raises(TypeError, match="ext_hook"):
        MsgpackCodec(ext_hook=1)


# -- rows of one shape ---------------------------------------------------------------------------

ALPHABET = "abcdef"
row_values = (
    st.none()
    | st.integers(-5, 300)
    | st.sampled_from(["", "x", "New York"])
    | st.floats()
    | st.lists(numbers, max_size=2)
    | st.dictionaries(st.sampled_from(ALPHABET), numbers, max_size=3)
)
row_keys = st.sampled_from([*ALPHABET, "a_long_field_name_of_over_thirty_two_bytes", "é", "", "x" * 70])
shapes = st.lists(row_keys, unique=True, max_size=7)


def add_key(row: dict[Any, Any]) -> None:
    row["added"] = [row]


def drop_key(row: dict[Any, Any]) -> None:
    if row:
        del row[next(iter(row))]


def add_many(row: dict[Any, Any]) -> None:
    row.update({f"many{i}": i for i in range(40)})


def overwrite(row: dict[Any, Any]) -> None:
    for key in row:
        row[key] = "overwritten"


def int_key(row: dict[Any, Any]) -> None:
    row[0] = object()


CHANGES: list[Callable[[dict[Any, Any]], object]] = [
    add_key,
    drop_key,
    add_many,
    overwrite,
    int_key,
    dict.clear,
    dict.popitem,
    dict.copy,
]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_rows_of_few_shapes_stay_independent(data: st.DataObject) -> None:
    known = data.draw(st.lists(shapes, min_size=1, max_size=3))
    codec = MsgpackCodec()
    rows: list[dict[Any, Any]] = []
    expected: list[dict[Any, Any]] = []
    for _ in range(data.draw(st.integers(5, 40))):
        row = {key: data.draw(row_values) for key in data.draw(st.sampled_from(known))}
        rows.append(codec.loads(their_bytes(row)))
        expected.append(row)
        if data.draw(st.integers(0, 3)) == 0:
            victim = data.draw(st.integers(0, len(rows) - 1))
            change = data.draw(st.sampled_from(CHANGES))
            if rows[victim]:
                change(rows.pop(victim))
                del expected[victim]
    assert same(rows, expected)
    for row in rows:
        row.clear()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("width", [1, 2, 5, 19, 29, 30, 31, 40])
def test_changing_a_row_changes_no_other(change: Callable[[dict[Any, Any]], object], width: int) -> None:
    codec = MsgpackCodec()
    make = {f"field{i}": i for i in range(width)}
    rows = [codec.loads(their_bytes({**make, "field0": n})) for n in range(50)]
    for row in rows[::3]:
        change(row)
    rows += [codec.loads(their_bytes({**make, "field0": n})) for n in range(50, 100)]
    for n, row in enumerate(rows):
        if n >= 50 or n % 3:
            assert same(row, {**make, "field0": n})


@pytest.mark.parametrize("width", [1, 2, 5, 19, 29, 30, 31, 100, 1000])
def test_rows_are_ordinary_dicts(width: int) -> None:
    codec = MsgpackCodec()
    make = {f"field{i}": i for i in range(width)}
    for _ in range(30):
        row = codec.loads(their_bytes(make))
        assert type(row) is dict
        assert row == make
        assert list(row) == list(make)
        assert list(row.items()) == list(make.items())
        assert list(reversed(row)) == list(reversed(make))
        assert row.copy() == {**row} == dict(row) == make
        assert row | {"more": 1} == {**make, "more": 1}
        assert list({**row, "more": 1}) == [*make, "more"]
        assert row.pop("field0") == 0
        row["field0"] = "again"
        assert list(row) == [*list(make)[1:], "field0"]
        assert len(row) == width


def test_fields_that_come_and_go() -> None:
    codec = MsgpackCodec()
    full = {"id": 1, "name": "n", "tags": ["t"], "size": 2.5}
    for i in range(400):
        row = {key: value for position, (key, value) in enumerate(full.items()) if i >> position & 1}
        row["id"] = i
        if i % 7 == 0:
            row["extra"] = {"nested": row["id"]}
        assert same(codec.loads(their_bytes(row)), row)


def test_the_same_keys_in_another_order() -> None:
    codec = MsgpackCodec()
    for i in range(100):
        for row in ({"a": i, "b": [i], "c": "x"}, {"a": i, "c": "x", "b": [i]}, {"c": 1, "b": 2, "a": 3}):
            assert same(codec.loads(their_bytes(row)), row)


def test_shapes_inside_shapes() -> None:
    codec = MsgpackCodec()
    for i in range(100):
        inner = {"a": {"a": i, "b": [{"a": i, "b": i}]}, "b": 1}
        row = {"a": inner, "b": [{"a": 1, "b": {"a": 2, "b": 3}}] * 3}
        assert same(codec.loads(their_bytes(row)), row)
        assert same(codec.loads(their_bytes([row] * 3)), [row] * 3)


def test_a_key_that_comes_twice() -> None:
    codec = MsgpackCodec()
    twice = b"\x83\xa1a\x01\xa1b\x02\xa1a\x03"
    once = b"\x83\xa1a\x01\xa1b\x02\xa1c\x03"
    for data in [twice] * 20 + [once] * 20 + [twice, once] * 20:
        assert agree(codec, data)
    assert codec.loads(twice) == {"a": 3, "b": 2}


def test_keys_that_are_no_str() -> None:
    codec = MsgpackCodec()
    rows: list[dict[Any, Any]] = [{1: "a", "b": 2}, {b"x": 1, "b": 2}, {"b": 2, None: 1}, {1.5: [1], True: 2}]
    for _ in range(30):
        for row in rows:
            assert same(codec.loads(their_bytes(row)), row)


def test_keys_that_cannot_be_keys() -> None:
    codec = MsgpackCodec()
    good, bad = their_bytes({"a": 1, "b": 2}), b"\x82\xa1a\x01\x91\x01\x02"
    for _ in range(20):
        assert agree(codec, good)
        assert not agree(codec, bad)
        with pytest.raises(DecodeError, match="a map's key is a list"):
            codec.loads(bad)


def test_rows_truncated_after_their_shape_is_known() -> None:
    codec = MsgpackCodec()
    data = their_bytes({"id": 5, "name": "some name", "tags": ["a", {"b": 1}], "at": 2.5, "raw": b"abc"})
    for _ in range(20):
        codec.loads(data)
    for size in range(len(data)):
        assert not agree(codec, data[:size])
        # Nothing of the row that was given up may show in the next one.
        assert agree(codec, data)


@given(place=st.integers(0, 60), byte=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_rows_spoilt_after_their_shape_is_known(place: int, byte: int) -> None:
    codec = MsgpackCodec()
    data = their_bytes({"id": 5, "name": "some name", "tags": ["a", {"b": 1}], "at": 2.5, "raw": b"abc"})
    for _ in range(8):
        codec.loads(data)
    spoilt = bytearray(data)
    spoilt[place % len(data)] = byte
    agree(codec, bytes(spoilt))
    assert agree(codec, data)


def test_more_shapes_than_are_remembered() -> None:
    codec = MsgpackCodec()
    rows = [{f"s{shape}_{i}": i for i in range(1 + shape % 9)} for shape in range(500)]
    for _ in range(12):
        for row in rows:
            assert same(codec.loads(their_bytes(row)), row)


def test_field_names_are_shared_between_rows() -> None:
    rows = decoded_rows({"name_of_a_field": 1}, 100)
    # Not one: the template of a shape may have the interned str, which the first rows have not.
    assert len({id(key) for row in rows for key in row}) <= 2


def test_texts_longer_and_shorter_than_what_is_shared(codec: MsgpackCodec) -> None:
    words = [letter * size for letter in "abé語" for size in range(20)]
    for _ in range(3):
        for word in words:
            for value in (word, [word], {word: word}, {"k": word}):
                assert same(codec.loads(their_bytes(value)), value)


@given(words=st.lists(st.text(max_size=20) | st.binary(max_size=20), max_size=60))
@settings(deadline=None)
def test_texts_that_repeat(codec: MsgpackCodec, words: list[str | bytes]) -> None:
    for value in (words, dict.fromkeys(words), [{"w": word} for word in words]):
        assert same(codec.loads(their_bytes(value)), value)


# -- the garbage collector -----------------------------------------------------------------------


class Witness:
    """Weakly referable: shows whether what held it was collected."""


def decoded_rows(row: dict[str, Any], count: int = 30) -> list[dict[str, Any]]:
    codec = MsgpackCodec()
    data = their_bytes(row)
    return [codec.loads(data) for _ in range(count)]


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "items": [1, 2]},
        {"items": [], "a": "text"},
        {"inner": {"b": [1]}, "a": 1},
        {"a": 1, "ext": ExtType(1, b"x")},
        {f"f{i}": [i] for i in range(40)},
    ],
    ids=str,
)
def test_rows_with_containers_are_known_to_the_collector(row: dict[str, Any]) -> None:
    for decoded in decoded_rows(row):
        assert gc.is_tracked(decoded)
        assert all(gc.is_tracked(value) for value in decoded.values() if isinstance(value, list))


@pytest.mark.parametrize(
    "row", [{"a": 1, "items": [1, 2]}, {"a": 1, "b": "text"}, {"inner": {"b": {"c": 1}}}], ids=str
)
def test_cycles_through_rows_are_collected(row: dict[str, Any]) -> None:
    gone = []
    for decoded in decoded_rows(row):
        witness = Witness()
        gone.append(weakref.ref(witness))
        decoded["self"] = decoded
        decoded["witness"] = witness
    del decoded, witness
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_cycles_through_an_existing_field_are_collected() -> None:
    gone = []
    for decoded in decoded_rows({"a": 1, "b": "text", "c": None}):
        witness = Witness()
        gone.append(weakref.ref(witness))
        decoded["a"], decoded["c"] = decoded, witness
    del decoded, witness
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_cycles_through_nested_lists_are_collected() -> None:
    gone = []
    for decoded in decoded_rows({"a": [[]], "b": {"c": []}}):
        witness = Witness()
        gone.append(weakref.ref(witness))
        decoded["a"][0].append(decoded)
        decoded["b"]["c"].extend([decoded, witness])
    del decoded, witness
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_values_are_released_with_their_rows() -> None:
    witnesses: list[weakref.ref[Witness]] = []

    def hook(code: int, data: bytes) -> Witness:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        return witness

    codec = MsgpackCodec(ext_hook=hook)
    data = their_bytes({"a": ExtType(1, b"x"), "b": [ExtType(1, b"y")]})
    rows = [codec.loads(data) for _ in range(50)]
    assert len(witnesses) == 100
    assert all(witness() is not None for witness in witnesses)
    rows.clear()
    gc.collect()
    assert not any(witness() is not None for witness in witnesses)


def test_a_codec_is_released_with_its_hooks() -> None:
    witness = Witness()
    codec = MsgpackCodec(default=lambda value, held=witness: 1, ext_hook=lambda code, data, held=witness: 1)
    for _ in range(10):
        codec.loads(codec.dumps({"a": [1]}))
    gone = weakref.ref(witness)
    del codec, witness
    gc.collect()
    assert gone() is None


@example(rows=[{"a": 1}] * 20)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=4), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_collector_may_run_at_any_time(rows: list[dict[str, Any]]) -> None:
    codec = MsgpackCodec()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        read = [codec.loads(their_bytes(row)) for row in rows]
        for row in read:
            row["self"] = row
    finally:
        gc.set_threshold(*before)
    for row, original in zip(read, rows, strict=True):
        del row["self"]
        assert same(row, their_value(their_bytes(original)))


def test_threads_may_share_a_codec() -> None:
    codec = MsgpackCodec()
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(2000):
            row = {f"f{number % 3}": i, "shared": [number], "text": f"t{i % 7}"}
            if codec.loads(codec.dumps(row)) != row:
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
