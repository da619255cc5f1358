"""The codec `json` writes and reads the same as the standard library's json, and refuses the same."""

from __future__ import annotations

import copy
import decimal
import enum
import gc
import json
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labels import label
from redis_fastbatch import DecodeError, EncodeError, JsonCodec
from redis_fastbatch.codecs import common_types, resolve
from tiers import examples

# One codec for all examples, because what it remembers must not affect later values.
codec = JsonCodec()
lenient = JsonCodec(allow_nan=True)

REFUSED = "refused"


class Text(str):
    def __str__(self) -> str:
        return "not this"


class Number(int):
    def __repr__(self) -> str:
        return "not this"


class Real(float):
    def __repr__(self) -> str:
        return "not this"


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: float


class Backwards(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


class OtherItems(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        return [("other", 1)]


def json_bytes(value: Any, **options: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), **options).encode()


def refuse_constant(name: str) -> Any:
    raise ValueError(name)


def ours(call: Callable[[Any], Any], value: Any) -> str:
    """Return the result as text, which tells 1 from True and 1.0, or REFUSED."""
    try:
        return repr(call(value))
    except (EncodeError, DecodeError):
        return REFUSED


def theirs(call: Callable[..., Any], value: Any, **options: Any) -> str:
    try:
        return repr(call(value, **options))
    except (ValueError, TypeError, RecursionError):
        return REFUSED


def agree_on_bytes(data: bytes) -> None:
    assert ours(codec.loads, data) == theirs(json.loads, data, parse_constant=refuse_constant)
    assert ours(lenient.loads, data) == theirs(json.loads, data)


def agree_on_value(value: Any) -> None:
    written = ours(codec.dumps, value)
    assert written == theirs(json_bytes, value, allow_nan=False)
    assert ours(lenient.dumps, value) == theirs(json_bytes, value)
    if written != REFUSED:
        agree_on_bytes(codec.dumps(value))


texts = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    [
        "",
        "id",
        "name",
        "é" * 9,
        "日本語",
        "😀",
        '"\\/\b\f\n\r\t\0\x1f\x7f',
        "a" * 7 + '"',
        "é" * 20 + "\n",
        "__type__",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.builds(Text, texts)
    | st.builds(Number, st.integers())
    | st.builds(Real, st.floats())
    | st.sampled_from([Colour.RED, -0.0, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 10**400, b"bytes", 1 + 2j])
)
keys = texts | st.none() | st.booleans() | st.integers() | st.floats() | st.builds(Text, texts) | st.tuples()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(Backwards)
        | st.dictionaries(keys, inner, max_size=5)
        | st.dictionaries(texts, inner, max_size=3).map(OtherItems)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=30,
)


@given(value=values)
@example(value=[10**5000])
@example(value={1: 1, "1": 2, False: 3, "false": 4})
@settings(max_examples=examples(1000), deadline=None)
def test_values_are_written_and_read_as_json_does(value: Any) -> None:
    agree_on_value(value)


@given(value=values, data=st.data())
@settings(max_examples=examples(1000), deadline=None)
def test_damaged_bytes_are_read_as_json_reads_them(value: Any, data: st.DataObject) -> None:
    written = theirs(json_bytes, value)
    damaged = bytearray(json_bytes(value) if written != REFUSED else b'[{"a": 1}]')
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        piece = data.draw(
            st.binary(max_size=3)
            | st.sampled_from(
                [b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b" \n\t\r", b"NaN", b"-", b"1e5", b".5", b"[]", b"{}"]
            )
        )
        damaged[place : place + data.draw(st.integers(0, 3))] = piece
    agree_on_bytes(bytes(damaged))


@given(value=values, indent=st.none() | st.integers(0, 3), ascii_only=st.booleans())
@settings(max_examples=examples(500), deadline=None)
def test_other_spellings_of_json_are_read(value: Any, indent: int | None, ascii_only: bool) -> None:
    try:
        data = json.dumps([value] * 9, indent=indent, ensure_ascii=ascii_only).encode()
    except (TypeError, ValueError):
        return
    agree_on_bytes(b" \r\n" + data + b"\t ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1,}',
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"1 2",
        b"01",
        b"-",
        b"-0",
        b"-0.0",
        b"1.",
        b".5",
        b"1e",
        b"1e+",
        b"1E400",
        b"-1e-400",
        b"123456789012345678",
        b"1234567890123456789",
        b"9" * 5000,
        b"0.1234567890123456",
        b"1234567890123456.5",
        b"0." + b"1" * 80,
        b'"',
        b'"\\',
        b'"\\u12"',
        b'"\\x"',
        b'"\\ud83d\\ude00"',
        b'"\\ud83d"',
        b'"\\ude00\\ud83d"',
        b'"\\ud83d\\u0041"',
        b'"a\nb"',
        b'"\x7f"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"\xef\xbb\xbf1",
        '"utf-16"'.encode("utf-16"),
        b"NaN",
        b"[Infinity,-Infinity]",
        b"Nan",
        b"tru",
        b"truex",
        b"null ",
        b'{"a":1,"a":2}',
        b"{1:2}",
        b'{"__type__":"dict","__data__":1}',
        b"[" * 150 + b"]" * 150,
        b"[" * 300 + b"]" * 300,
        b"[" * 100_000,
    ],
    ids=label,
)
def test_bytes_are_read_as_json_reads_them(data: bytes) -> None:
    agree_on_bytes(data)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [10, 199, 200, 201, 500, 100_000])
def test_depth_is_limited_as_in_json(depth: int) -> None:
    value = nested(depth)
    try:
        expected: Any = json_bytes(value)
    except RecursionError:
        expected = REFUSED
    assert ours(codec.dumps, value) == (REFUSED if expected is REFUSED else repr(expected))


def test_a_container_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(EncodeError, match="Circular reference"):
        codec.dumps(loop)


ROWS = [{"id": i, "name": f"n{i}", "tags": [i, str(i)], "score": i / 4} for i in range(20)]


@pytest.mark.parametrize(
    "spelling", [{}, {"separators": (",", ":")}, {"indent": 1}], ids=["spaced", "compact", "lines"]
)
def test_rows_of_one_shape_are_read_in_every_spelling(spelling: dict[str, Any]) -> None:
    data = json.dumps(ROWS, **spelling).encode()
    fresh = JsonCodec()
    for _ in range(5):
        assert fresh.loads(data) == ROWS
    other = [{**row, "extra": 1} for row in ROWS] + [{"id": 1, "other": 2}, {}, {"id": 3}, *ROWS]
    assert fresh.loads(json.dumps(other, **spelling).encode()) == other


def test_rows_with_hidden_containers_are_seen_by_the_garbage_collector() -> None:
    compact = JsonCodec()
    for _ in range(9):
        compact.loads(b'{"a":1,"b":2}')
    row = compact.loads(b'{"a": [1],"b":2}')
    assert row == {"a": [1], "b": 2}
    assert gc.is_tracked(row)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"users": [1, 2, 3, {"age": {1}}]},
            r"\['users'\]\[3\]\['age'\]: JSON has no type for set; use .*JsonCodec\(default=",
        ),
        ([1, decimal.Decimal(1)], r"\[1\]: JSON has no type for decimal\.Decimal"),
        (
            {"a": {(1, 2): 3}},
            r"\['a'\] in a key: a key of a dict must be str, int, float, bool or None .*got tuple",
        ),
        ({"a": math.nan}, r"\['a'\]: JSON has no nan; use None, or JsonCodec\(allow_nan=True\)"),
        ([math.inf], r"\[0\]: JSON has no inf"),
        ({"k": ["\ud800"]}, r"\['k'\]\[0\]: a str holds the surrogate '\\ud800' at index 0"),
    ],
    ids=label,
)
def test_the_message_names_the_place_and_what_helps(value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        codec.dumps(value)


def test_default_is_called_for_other_types() -> None:
    typed = JsonCodec(default=common_types)
    assert typed.dumps({"d": decimal.Decimal("1.5"), "s": {7}}) == b'{"d":"1.5","s":[7]}'
    chained = JsonCodec(
        default=lambda value: value + 1 if isinstance(value, decimal.Decimal) and value < 3 else "end"
    )
    assert chained.dumps(decimal.Decimal(0)) == json_bytes(
        decimal.Decimal(0), default=lambda value: value + 1 if value < 3 else "end"
    )


@pytest.mark.parametrize(
    ("default", "message"),
    [
        (lambda value: 1 / 0, r"\['a'\]: default\(\) failed on object: ZeroDivisionError"),
        (lambda value: [math.nan], r"\['a'\]: \[0\]: JSON has no nan.*returned by default\(\) for object"),
        (lambda value: value, "Circular reference|recursion"),
    ],
    ids=["raises", "bad", "endless"],
)
def test_a_failure_of_default_names_the_value(default: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        JsonCodec(default=default).dumps({"a": object()})


def test_default_may_use_the_codec() -> None:
    def inner(value: Any) -> Any:
        return json.loads(typed.dumps(sorted(value)))

    typed = JsonCodec(default=inner)
    assert typed.dumps([{2, 1}, {"x": {3}}]) == b'[[1,2],{"x":[3]}]'


def test_containers_that_default_changes_are_refused() -> None:
    grown: dict[str, Any] = {"a": object()}
    with pytest.raises(EncodeError, match="changed size"):
        JsonCodec(default=lambda value: grown.update(b=1)).dumps(grown)
    longer: list[Any] = [object(), 1]
    with pytest.raises(EncodeError, match="changed size"):
        JsonCodec(default=lambda value: longer.clear()).dumps(longer)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1, NaN]", "JSON has no NaN; use JsonCodec"),
        (b"\x82\xa2id\x07", 'codec="msgpack"'),
        (b'{"a":}', "Expecting value"),
    ],
    ids=label,
)
def test_the_message_for_bad_bytes(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        codec.loads(data)
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__.__context__).__name__ != "Unusual"


@pytest.mark.parametrize("remade", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_codec_can_be_copied_and_pickled(remade: Any) -> None:
    again = remade(JsonCodec(default=common_types, allow_nan=True))
    assert again.dumps([math.inf, {1}]) == b"[Infinity,[1]]"
    assert again.loads(b"[NaN]") != [math.nan]


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="default must be callable or None, got int"):
        JsonCodec(default=5)  # type: ignore[arg-type]
    assert type(resolve("json")) is JsonCodec


def test_threads_can_share_a_codec() -> None:
    shared, wrong = JsonCodec(default=list), []

    def work(number: int) -> None:
        rows = [{"n": number, "i": i, "s": {i}} for i in range(50)]
        data = json_bytes([{"n": number, "i": i, "s": [i]} for i in range(50)])
        for _ in range(50):
            if shared.dumps(rows) != data or shared.loads(data) != json.loads(data):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
