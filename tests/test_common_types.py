"""codecs.common_types: what the commonest types that MessagePack lacks are written as."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from redis_fastbatch import EncodeError, MsgpackCodec
from redis_fastbatch.codecs import common_types

AWARE = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)
NAIVE = datetime.datetime(2024, 2, 29, 12)


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


class Member(enum.Enum):
    NUMBER = 1
    PAIR = (1, Decimal("2.50"))
    RATE = Decimal("0.19")
    DAY = datetime.date(2024, 2, 29)
    MOMENT = AWARE
    NAIVE = NAIVE
    SOME = frozenset({3})
    POINT = Point(UUID(int=1))


@pytest.fixture
def codec() -> MsgpackCodec:
    return MsgpackCodec(default=common_types)


def written(codec: MsgpackCodec, value: Any) -> Any:
    return codec.loads(codec.dumps(value))


def test_each_type(codec: MsgpackCodec) -> None:
    values = [
        Decimal("1.10"),
        UUID(int=2),
        datetime.date(2024, 1, 2),
        datetime.time(3, 4),
        NAIVE,
        {5},
        Point(1, {2}),
    ]
    assert written(codec, values) == [
        "1.10",
        "00000000-0000-0000-0000-000000000002",
        "2024-01-02",
        "03:04:00",
        "2024-02-29T12:00:00",
        [5],
        {"x": 1, "y": [2]},
    ]
    assert written(codec, AWARE) == AWARE


def test_members_of_an_enum_whatever_their_value_is(codec: MsgpackCodec) -> None:
    assert {member.name: written(codec, member) for member in Member} == {
        "NUMBER": 1,
        "PAIR": [1, "2.50"],
        "RATE": "0.19",
        "DAY": "2024-02-29",
        "MOMENT": AWARE,
        "NAIVE": "2024-02-29T12:00:00",
        "SOME": [3],
        "POINT": {"x": "00000000-0000-0000-0000-000000000001", "y": None},
    }


def test_numpy(codec: MsgpackCodec) -> None:
    numpy = pytest.importorskip("numpy")
    day = numpy.datetime64("2024-02-29")
    values = [
        numpy.int8(-3),
        numpy.float32(1.5),
        numpy.bool_(True),
        numpy.arange(4).reshape(2, 2),
        day,
        numpy.array([day]),
    ]
    assert written(codec, values) == [-3, 1.5, True, [[0, 1], [2, 3]], "2024-02-29", ["2024-02-29"]]
    assert written(codec, numpy.datetime64("2024-02-29T12:00", "s")) == "2024-02-29T12:00:00"
    assert written(codec, numpy.array(Decimal(1), dtype=object)) == "1"
    for value in (numpy.longdouble(1), numpy.complex64(1), numpy.timedelta64(1, "s")):
        with pytest.raises(EncodeError, match="no type for"):
            codec.dumps(value)


def test_no_common_type(codec: MsgpackCodec) -> None:
    for value in (object(), Point, 1j):
        with pytest.raises(EncodeError, match="no common type"):
            codec.dumps(value)
