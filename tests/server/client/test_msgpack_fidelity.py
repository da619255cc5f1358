"""The codec msgpack loads what it dumps as an equal value, and refuses to dump what it could not load."""

from __future__ import annotations

import datetime
import enum
from collections import OrderedDict
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import BatchError, DecodeError, EncodeError, FastBatch, MsgpackCodec
from redis_fastbatch.codecs import common_types
from tiers import examples

UTC = datetime.timezone.utc
zones = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
points = st.datetimes(timezones=zones) | st.sampled_from(
    [
        datetime.datetime(9999, 12, 31, 23, tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5))),
    ]
)
stamps = st.builds(
    msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999).map(lambda n: n * 1000)
)
extensions = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))


class Word(str):
    """A str that is not equal to its own text."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Frozen(dict):  # type: ignore[type-arg]
    """A dict that can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 1


class Colour(enum.IntEnum):
    RED = 1


class Other:
    """A value that default() turns into another one."""

    def __init__(self, stands_for: Any) -> None:
        self.stands_for = stands_for


def default(value: Any) -> Any:
    if isinstance(value, Other):
        return value.stands_for
    raise TypeError(f"no type: {type(value).__name__}")


CODEC = MsgpackCodec(default=default)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs"]),
    st.binary(max_size=8),
    points,
    stamps,
    extensions,
    st.just(Colour.RED),
)
plain_keys = st.one_of(scalars, st.text(max_size=2), st.integers(0, 2))
keys = st.one_of(
    plain_keys,
    st.tuples(plain_keys),
    st.tuples(plain_keys, st.tuples(plain_keys)),
    st.sampled_from(["a", "b"]).map(Word),
    st.builds(Frozen, st.just({"a": 1})),
    st.builds(Other, st.one_of(plain_keys, st.just([1]), st.just({"a": 1}), st.just({1, 2}))),
)
values = st.recursive(
    scalars | st.builds(Other, scalars),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.builds(Other, st.lists(inner, max_size=2)),
    ),
    max_leaves=8,
)


def as_read(value: Any, *, key: bool = False) -> Any:
    """Return the value that loads() must return, according to the documentation."""
    if isinstance(value, Other):
        return as_read(value.stands_for, key=key)
    if isinstance(value, msgpack.ExtType):
        return value
    if isinstance(value, msgpack.Timestamp):
        return datetime.datetime(1970, 1, 1, tzinfo=UTC) + datetime.timedelta(
            seconds=value.seconds, microseconds=value.nanoseconds // 1000
        )
    if isinstance(value, datetime.datetime):
        return value.astimezone(UTC).replace(fold=0)
    if isinstance(value, dict):
        return [(as_read(name, key=True), as_read(item)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        items = [as_read(item, key=key) for item in value]
        return tuple(items) if key else items
    if isinstance(value, Colour):
        return int(value)
    return str.__str__(value) if isinstance(value, str) else value


def as_pairs(value: Any) -> Any:
    """Return a loaded value with its dicts as lists of pairs, as as_read() returns them."""
    if isinstance(value, dict):
        return [(name, as_pairs(item)) for name, item in value.items()]
    return [as_pairs(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=examples(500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_a_dumped_value_is_loaded_as_an_equal_one(value: Any) -> None:
    try:
        data = CODEC.dumps(value)
    except EncodeError:
        return
    # repr() compares NaN as equal, and 1 and True as different.
    assert repr(as_pairs(CODEC.loads(data))) == repr(as_read(value))


REFUSED: dict[str, tuple[Any, str]] = {
    "after the year 9999": (
        datetime.datetime(9999, 12, 31, 23, tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
        r"within the years 1 to 9999 in UTC, found 9999-12-31 23:00:00-05:00",
    ),
    "before the year 1": (
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5))),
        "within the years 1 to 9999 in UTC",
    ),
    "a late Timestamp": (msgpack.Timestamp(253402300800), "within the years 1 to 9999 in UTC"),
    "an early Timestamp": (msgpack.Timestamp(-62135596801), "within the years 1 to 9999 in UTC"),
    "a dict as a key": (
        {Frozen(a=1): 1},
        r"in a key: a map's key must be hashable when it is read, found .*Frozen",
    ),
    "default() makes a dict of a key": ({Other({}): 1}, "a map's key must be hashable"),
    "keys equal after default()": (
        {"a": 1, Other("a"): 2},
        "must have each key once, found two that are read as 'a'",
    ),
    "1 and True": ({1: 1, Other(True): 2}, "found two that are read as"),
    "words": ({Word("a"): 1, Word("a"): 2}, "found two that are read as 'a'"),
    "points": ({msgpack.Timestamp(0, 1): 1, msgpack.Timestamp(0, 2): 2}, "found two that are read as"),
    "a reserved extension": (tuple.__new__(msgpack.ExtType, (-1, b"xy")), "a code from 0 to 127"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_cannot_be_loaded_are_refused(name: str) -> None:
    value, words = REFUSED[name]
    with pytest.raises(EncodeError, match=words):
        CODEC.dumps([value])


def test_the_first_and_the_last_datetime_are_written() -> None:
    for moment in (datetime.datetime.min, datetime.datetime.max):
        assert CODEC.loads(CODEC.dumps(moment.replace(tzinfo=UTC))) == moment.replace(tzinfo=UTC)


def test_the_error_names_the_place_in_the_value(valkey_client: redis.Redis) -> None:
    numpy = pytest.importorskip("numpy")
    value = {"users": [{}, {}, {}, {"name": "a", "age": numpy.int64(5)}]}
    with pytest.raises(BatchError) as raised:
        FastBatch(valkey_client).batch_set({"u:1": value})
    assert str(raised.value).endswith(
        "key 'u:1': ['users'][3]['age']: MessagePack has no type for numpy.int64; use a codec with default=, "
        "such as MsgpackCodec(default=codecs.common_types)"
    )
    assert MsgpackCodec(default=common_types).dumps(value) == msgpack.packb(
        {"users": [{}, {}, {}, {"name": "a", "age": 5}]}
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            [(1, {"a": "\ud800"})],
            r"^\[0\]\[1\]\['a'\]: a str must be valid Unicode, found the surrogate '\\ud800' at",
        ),
        ({"a": {("x", "\ud800"): 1}}, r"^\['a'\] in a key: a str must be"),
        ({"\ud800": 1}, r"^in a key: a str must be"),
        (OrderedDict(a=[object()]), r"^\['a'\]\[0\]: default\(\) failed on object: TypeError: no type: object$"),
        (
            {"a": [Other([1, 2**64])]},
            r"^\['a'\]\[0\]: \[1\]: an int must be .* \(returned by default\(\) for .*Other\)$",
        ),
        (
            [2**70],
            r"^\[0\]: an int must be .* found 1180591620717411303424 \(default\(\) failed on int: TypeError:",
        ),
    ],
)
def test_errors_name_indexes_and_keys(value: Any, words: str) -> None:
    with pytest.raises(EncodeError, match=words):
        CODEC.dumps(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            -(2**63) - 1,
            r"^an int must be from -2\*\*63 to 2\*\*64 - 1 for MessagePack, found -9223372036854775809$",
        ),
        ([2**10000], r"^\[0\]: an int must be .* found one of 10001 bits$"),
        (
            [datetime.datetime(2024, 5, 1)],
            r"^\[0\]: a datetime must have a time zone, .* found 2024-05-01 00:00:00;",
        ),
        (
            eval("[" * 50 + "1j" + "]" * 50),
            r"^(\[0\]){6}\.\.\.(\[0\]){6}: MessagePack has no type for complex; use",
        ),
    ],
)
def test_errors_name_indexes_and_keys_without_default(value: Any, words: str) -> None:
    with pytest.raises(EncodeError, match=words):
        MsgpackCodec().dumps(value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b'{"a":1}',
            r'expected one value in 7 bytes, found 6 more bytes after it; this looks like JSON: .*codec="json"',
        ),
        (b"[1,2]", "looks like JSON"),
        (b'"text"', "looks like JSON"),
        (b'{"__type__": "int", "__data__": 7}', 'redis-toolkit\'s format: use codec="toolkit"'),
        (b"hello, world\n", 'looks like text: was it written with SET, or with codec="raw"'),
        (b"\x80\x04K\x01.", "looks like a pickle"),
        (b"\x01\x02\x03", "found 2 more bytes after it; was it written with another codec"),
        (b"\xc1\x01", 'codec="toolkit-msgpack"'),
    ],
)
def test_bytes_of_other_codecs_are_recognised(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        CODEC.loads(data)


@pytest.mark.parametrize("key", [1.5, 1.0, float("nan"), True, None, (1,)])
def test_keys_are_str_bytes_or_int(valkey_client: redis.Redis, key: Any) -> None:
    """A float is not a key: 1.0 and 1 are the same key of a dict, but redis-py writes them differently."""
    batch = FastBatch(valkey_client)
    words = rf"a key must be str, bytes or int, found {type(key).__name__}; convert it"
    with pytest.raises(BatchError, match=words):
        batch.batch_set([(key, 1)])
    with pytest.raises(EncodeError, match=words):
        batch.batch_get([key])
    assert valkey_client.dbsize() == 0
