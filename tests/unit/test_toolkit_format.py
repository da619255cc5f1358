"""The codec `toolkit` writes and reads the same as redis-toolkit's serializers."""

from __future__ import annotations

import collections
import decimal
import enum
import json
import math
import random
import struct
import sys
import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labels import label
from redis_fastbatch import DecodeError, EncodeError
from redis_fastbatch._core.toolkit import plain as plain
from redis_fastbatch._core.toolkit.codec import ToolkitCodec
from redis_fastbatch.codecs import resolve
from tiers import examples
from toolkit_reference import outcome, same, same_outcome, toolkit_module

# One codec for all examples, because what it remembers must not affect later values.
codec = ToolkitCodec()
exact = ToolkitCodec(preserve_int=True)


@pytest.fixture(scope="module", params=["redis-toolkit", "plain"])
def theirs(request: pytest.FixtureRequest) -> Any:
    """redis-toolkit's serializers, and the plain Python ones of this package, which are always installed."""
    if request.param == "plain":
        return SimpleNamespace(serialize_value=plain.dumps, deserialize_value=plain.loads)
    return toolkit_module("utils.serializers")


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2**70


class Mood(str, enum.Enum):
    GOOD = 'good "mood"\n'


class Text(str):
    def __str__(self) -> str:
        return "not this"


class Number(int):
    def __repr__(self) -> str:
        return "not this"


class Real(float):
    def __repr__(self) -> str:
        return "not this"


class Raw(bytes):
    pass


class Point(NamedTuple):
    x: int
    y: float


class Backwards(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


class OtherItems(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        return [("other", 1)]


any_text = st.text(st.characters(), max_size=60)
plain_floats = st.builds(lambda digits, places: digits / 10**places, st.integers(), st.integers(0, 12))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**66), 2**66),
    st.floats(),
    plain_floats,
    st.text(),
    st.text(st.sampled_from('ab"\\/\x00\x1f\x7f\n\r\t\b\f\u2028é😀')),
    st.binary(max_size=40),
    st.binary(max_size=40).map(bytearray),
    st.sampled_from([Colour.RED, Colour.BLUE, Mood.GOOD, Text("text"), Number(7), Real(0.5), Raw(b"raw")]),
)
keys = st.one_of(
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.sampled_from(["__type__", "__data__", "id", "name", Text("key"), Number(7), Colour.RED, Mood.GOOD]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
        st.lists(inner, max_size=3).map(Backwards),
        st.builds(Point, st.integers(), st.floats()),
        st.fixed_dictionaries({"id": st.integers(), "name": st.text(max_size=20), "score": inner}),
    ),
    max_leaves=25,
)


@given(values)
@example(OtherItems(a=1))
@example(OtherItems())
@example({"a": OtherItems(a=1), "b": OtherItems(), "c": Backwards([1, 2])})
@example({1: "a", "1": "b", False: "c", 1.5: "d", None: "e", math.inf: "f"})
@example([0.0, -0.0, 1e15, 1e16, 1e17, 1e-4, 1e-5, 123456789012345.6, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
@example([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**4000, 0, 9, 10, 99, 100, 999, 1000, 9999, 10000])
@settings(max_examples=examples(600), deadline=None)
def test_values_are_written_as_the_toolkit_writes_them(theirs: Any, value: Any) -> None:
    assert same_outcome(outcome(codec.dumps, value), outcome(theirs.serialize_value, value))


@given(values)
@settings(max_examples=examples(400), deadline=None)
def test_written_values_are_read_as_the_toolkit_reads_them(theirs: Any, value: Any) -> None:
    written = outcome(theirs.serialize_value, value)
    if written[0] == "returned":
        data = written[1]
        assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@given(st.floats(allow_nan=False, allow_infinity=False) | plain_floats)
@settings(max_examples=examples(1000), deadline=None)
def test_floats_are_written_as_repr_writes_them(number: float) -> None:
    assert codec.dumps(number) == b'{"__type__": "float", "__data__": %s}' % repr(number).encode()


def test_floats_near_every_power_are_written_as_repr_writes_them() -> None:
    numbers = [0.0, -0.0, *(10.0**power for power in range(-323, 309)), *(5e-324 * n for n in range(1, 3000))]
    for power in range(-1074, 1024):
        numbers += [2.0**power, -math.nextafter(2.0**power, math.inf), math.nextafter(2.0**power, 0)]
    random_bits = random.Random("floats")
    numbers += struct.unpack("50000d", random_bits.randbytes(400_000))
    numbers += [random_bits.random() for _ in range(50_000)]
    numbers += [random_bits.getrandbits(70) / 10 ** random_bits.randrange(30) for _ in range(50_000)]
    numbers = [number for number in numbers if math.isfinite(number)]
    written = codec.dumps(numbers).decode()
    assert written[written.index("[") + 1 : -2].split(", ") == list(map(repr, numbers))


@given(st.binary(max_size=30) | any_text.map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=examples(400), deadline=None)
def test_any_bytes_are_read_as_the_toolkit_reads_them(theirs: Any, data: bytes) -> None:
    assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@pytest.mark.parametrize("byte", range(256))
def test_any_single_byte_is_read_as_the_toolkit_reads_it(theirs: Any, byte: int) -> None:
    data = bytes([byte])
    assert same(codec.loads(data), theirs.deserialize_value(data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
type_names = st.sampled_from(
    ["dict", "list", "tuple", "str", "int", "float", "bool", "bytes", "bytearray", "numpy", "set", "Colour"]
)
wrappers = st.builds(
    lambda name, data, more: {"__type__": name, **({} if data is ... else {"__data__": data}), **more},
    type_names | json_values,
    json_values
    | st.just(...)
    | st.sampled_from([0, 1, 0.0, 1.0, True, False, "QUJD", "QQ==", "QQ", "Q Q = =", "é"]),
    st.dictionaries(st.sampled_from(["a", "__type__", "__shape__"]), json_values, max_size=1),
)
nested_wrappers = st.recursive(
    wrappers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    json_values
    | wrappers
    | nested_wrappers
    | nested_wrappers.map(lambda data: {"__type__": "dict", "__data__": data}),
    st.booleans(),
    st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]),
)
@settings(max_examples=examples(800), deadline=None)
def test_any_json_is_read_as_the_toolkit_reads_it(
    theirs: Any, value: Any, ascii_only: bool, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    data = text.encode("utf-8", "surrogatepass")
    assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw bytes that the codec wrote, with a few of them changed, inserted, deleted or cut off."""
    data = bytearray(codec.dumps(draw(st.dictionaries(st.text(max_size=5), scalars, max_size=4) | scalars)))
    likely = st.sampled_from(b'"\\{}[]:, 0123456789eE.-+truefalsnIy\x00\x1f\xc3\xff')
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "insert", "delete", "cut"])):
            case "change" if at < len(data):
                data[at] = draw(likely)
            case "insert":
                data.insert(at, draw(likely))
            case "delete":
                del data[at : at + draw(st.integers(1, 3))]
            case "cut":
                del data[at:]
    return bytes(data)


@given(damaged())
@settings(max_examples=examples(1500), deadline=None)
def test_damaged_values_are_read_as_the_toolkit_reads_them(theirs: Any, data: bytes) -> None:
    assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{}",
        b"[]",
        b"0",
        b"1",
        b"42",
        b"-1",
        b"1e400",
        b"NaN",
        b"-Infinity",
        b"true",
        b"null",
        b"__NONE__",
        b'"__NONE__"',
        b"\xef\xbb\xbf{}",
        b'{"a": 1}',
        b'{"a": 1, "a": 2}',
        b'{"__type__": "int", "__data__": 1, "__data__": 5}',
        b'{"__type__": "int", "__data__": 0}',
        b'{"__type__": "int", "__data__": 0.0}',
        b'{"__type__": "int", "__data__": "12"}',
        b'{"__type__": "int", "__data__": -0}',
        b'{"__type__": "int", "__data__": 01}',
        b'{"__type__": "int", "__data__": ' + b"9" * 5000 + b"}",
        b'{"__type__": "float", "__data__": 1.}',
        b'{"__type__": "float", "__data__": 1e400}',
        b'{"__type__": "float", "__data__": 0.' + b"1" * 100 + b"}",
        b'{"__type__": "str"}',
        b'{"__type__": "str", "__data__": "\\ud83d\\ude00"}',
        b'{"__type__": "str", "__data__": "\\ud83d"}',
        b'{"__type__": "str", "__data__": "\\u00e9\\n\\/"}',
        b'{"__type__": "str", "__data__": "\\u00eg"}',
        b'{"__type__": "str", "__data__": "a\\"}',
        b'{"__type__": "str", "__data__": "a"',
        b'{"__type__": "str", "__data__": "a"} ',
        b'{"__type__": "str", "__data__": "\xff"}',
        b'{"__type__": "str", "__data__": "\\n\xff"}',
        b'{"__type__": "str", "__data__": {"a": NaN}}',
        b'{"__type__": "bytes", "__data__": "QUI="}',
        b'{"__type__": "bytes", "__data__": "QU"}',
        b'{"__type__": "bytes", "__data__": "Q"}',
        b'{"__type__": "bytes", "__data__": "===="}',
        b'{"__type__": "bytes", "__data__": "QU=="}',
        b'{"__type__": "bytes", "__data__": "QR=="}',
        b'{"__type__": "bytes", "__data__": "Q\xc3\xa9=="}',
        b'{"__type__": "bytes", "__data__": null}',
        b'{"__type__": "bytearray", "__data__": "QUI="}',
        b'{"__type__": "list", "__data__": {"a": 1}}',
        b'{"__type__": "tuple", "__data__": {"a": 1}}',
        b'{"__type__": "tuple", "__data__": 5}',
        b'{"__type__": "dict", "__data__": {"__type__": "bytes", "__data__": "QUI="}}',
        b'{"__type__": "dict", "__data__": {"__type__": "bytes"}}',
        b'{"__type__": "dict", "__data__": {"\\u005f_type__": "bytes", "__data__": "QUI="}}',
        b'{"__type__": "dict", "__data__": {"a": {"__data__": "QUI=", "__type__": "bytes"}}}',
        b'{"__type__": "dict", "__data__": {"__type__": "bytes", "__data__": {"__type__": "bytes"}}}',
        b'{"__type__": "set", "__data__": [{"__type__": "bytes", "__data__": "QUI="}]}',
        b'{"__type__": ["bytes"], "__data__": 1}',
        b'{"__type__": "numpy", "__dtype__": "int64", "__shape__": [2], "__data__": [1, 2]}',
        b'{"__type__": "numpy", "__dtype__": "nonsense", "__shape__": [2], "__data__": [1, 2]}',
        b'{"__type__": "numpy"}',
    ],
)
def test_unusual_values_are_read_as_the_toolkit_reads_them(theirs: Any, data: bytes) -> None:
    assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@pytest.mark.parametrize(
    "text", ["10", "-7", "3.5", "ünï", "日本語", "٣", "{not json", "true story", "\ufeffx", "-"]
)
def test_values_of_other_programs_are_read_as_the_toolkit_reads_them(theirs: Any, text: str) -> None:
    assert same(codec.loads(text.encode()), theirs.deserialize_value(text.encode()))


def test_rows_of_one_shape_are_independent(theirs: Any) -> None:
    rows: list[Any] = [{"id": n, "name": f"n{n}", "tags": [n]} for n in range(50)]
    rows += [
        {"id": 1},
        {"id": 1, "name": "a"},
        {"id": 1, "name": "a", "tags": [], "more": 2},
        {"id": 2, "x": 1},
    ]
    rows += [{"id": n, "other": None} for n in range(20)] + [
        {},
        {"": 1},
        {"i": 1},
        {"id": {"id": {"id": 3}}},
    ] * 6
    rows += [{"id": 1, 'na"me': n, "tags": b"raw"} for n in range(20)]
    rows += [{str(n): n for n in range(width)} for width in (29, 30, 31, 100) for _ in range(10)]
    for row in rows * 2:
        data = theirs.serialize_value(row)
        assert codec.dumps(row) == data
        assert same(codec.loads(data), theirs.deserialize_value(data))


def test_rows_are_ordinary_dicts() -> None:
    data = codec.dumps({"id": 1, "name": "a"})
    rows = [codec.loads(data) for _ in range(20)]
    for number, row in enumerate(rows):
        row["id"] = number
        row["more"] = number
        del row["name"]
    assert rows == [{"id": number, "more": number} for number in range(20)]


def test_preserve_int_keeps_zero_and_one() -> None:
    assert codec.loads(codec.dumps(1)) is True
    assert codec.loads(codec.dumps(0)) is False
    for number in (0, 1, 2):
        assert same(exact.loads(exact.dumps(number)), number)
    assert exact.loads(exact.dumps(True)) is True
    assert same(exact.loads(b'{"__type__":"int","__data__":1}'), 1)
    assert same(exact.loads(b'{"__type__": "int", "__data__": 1.0}'), 1)


def test_numpy_arrays_are_written_and_read_as_the_toolkit_does(theirs: Any) -> None:
    numpy = pytest.importorskip("numpy", reason="redis-toolkit writes NumPy arrays; NumPy is not installed")
    for array in (
        numpy.arange(6).reshape(2, 3),
        numpy.array([1.5, math.nan]),
        numpy.array(["a", "é"]),
        numpy.array(5),
    ):
        data = theirs.serialize_value(array)
        assert codec.dumps(array) == data
        assert str(codec.loads(data)) == str(theirs.deserialize_value(data))
    for refused in (numpy.int64(3), numpy.array([1j]), {"a": numpy.arange(2)}):
        assert same_outcome(outcome(codec.dumps, refused), outcome(theirs.serialize_value, refused))
    assert codec.dumps(numpy.float64(0.1)) == theirs.serialize_value(numpy.float64(0.1))


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        decimal.Decimal(1),
        1j,
        {"a": {1}},
        {(1, 2): 3},
        {b"a": 1},
        memoryview(b"a"),
        "\ud800",
        ["\udfff"],
    ],
    ids=label,
)
def test_what_the_toolkit_refuses_is_refused(theirs: Any, value: Any) -> None:
    with pytest.raises(EncodeError):
        codec.dumps(value)
    assert outcome(theirs.serialize_value, value)[0] == "raised"


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("depth", [1, 150, 199, 200, 201, 240])
def test_deeply_nested_values_are_the_same(theirs: Any, depth: int) -> None:
    value = nested(depth)
    data = theirs.serialize_value(value)
    assert codec.dumps(value) == data
    assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


def test_endless_nesting_is_an_error_and_not_a_crash() -> None:
    endless: list[Any] = []
    endless.append(endless)
    table: dict[str, Any] = {}
    table["again"] = [table]

    def check() -> None:
        for value in (endless, table, nested(100_000)):
            with pytest.raises(EncodeError):
                codec.dumps(value)
        for data in (
            b"[" * 1_000_000,
            b'{"__type__": "list", "__data__": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        ):
            with pytest.raises(DecodeError):
                codec.loads(data)

    check()
    # A thread may have a smaller stack than the main thread.
    thread = threading.Thread(target=check)
    thread.start()
    thread.join()


def test_an_int_with_too_many_digits_for_python_is_refused() -> None:
    with pytest.raises(EncodeError):
        codec.dumps({"n": 10 ** (sys.get_int_max_str_digits() + 10)})


def test_a_dict_that_changes_size_while_it_is_written_is_refused() -> None:
    class Growing(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            outer["new"] = 1
            return super().items()

    outer: dict[str, Any] = {"a": Growing(a=1), "b": 2}
    with pytest.raises(EncodeError, match="changed size"):
        codec.dumps(outer)


def test_the_codec_is_found_by_its_name() -> None:
    assert type(resolve("toolkit")) is ToolkitCodec
