"""The package msgpack as the reference for the codec msgpack, and functions that compare the two."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Any

import msgpack
from hypothesis import strategies as st
from msgpack import ExtType

from redis_fastbatch import DecodeError, MsgpackCodec

UTC = datetime.timezone.utc
REFUSED = object()


def their_bytes(value: Any, **options: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True, datetime=True, **options))


def their_value(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, timestamp=3, object_pairs_hook=dict_of)


def dict_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a map's pairs as a dict. Arrays in keys become tuples, because msgpack reads them as lists."""
    return {as_key(key): value for key, value in pairs}


def as_key(key: Any) -> Any:
    return tuple(map(as_key, key)) if isinstance(key, list) else key


def theirs_or_refused(data: bytes) -> Any:
    """Return what msgpack reads, or REFUSED."""
    # Its errors have no common base: OverflowError for a timestamp, TypeError for a key, and others.
    try:
        return their_value(data)
    except Exception:
        return REFUSED


def ours_or_refused(codec: MsgpackCodec, data: bytes) -> Any:
    """Return what the codec reads, or REFUSED. Check the offset of its error."""
    try:
        return codec.loads(data)
    except DecodeError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"offset {error.offset} of {len(data)} bytes") from error
        return REFUSED


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, with the same types and order of keys.

    1 differs from True and 1.0, 0.0 from -0.0. NaN equals NaN.
    """
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
    """Check that codec and msgpack read the same, or both refuse the bytes. Return whether they were read."""
    theirs = theirs_or_refused(data)
    ours = ours_or_refused(codec, data)
    assert (ours is REFUSED) == (theirs is REFUSED), (data[:80].hex(), ours, theirs)
    assert ours is REFUSED or same(ours, theirs), (data[:80].hex(), ours, theirs)
    return ours is not REFUSED


offsets = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
moments = st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=st.just(UTC) | offsets)
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
