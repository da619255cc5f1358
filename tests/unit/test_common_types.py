"""codecs.common_types writes common types that MessagePack lacks."""

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


def round_trip(codec: MsgpackCodec, value: Any) -> Any:
    return codec.loads(codec.dumps(value))


def test_each_type_is_written_in_its_documented_form(codec: MsgpackCodec) -> None:
    values = [
        Decimal("1.10"),
        UUID(int=2),
        datetime.date(2024, 1, 2),
        datetime.time(3, 4),
        NAIVE,
        {5},
        Point(1, {2}),
    ]
    assert round_trip(codec, values) == [
        "1.10",
        "00000000-0000-0000-0000-000000000002",
        "2024-01-02",
        "03:04:00",
        "2024-02-29T12:00:00",
        [5],
        {"x": 1, "y": [2]},
    ]
    assert round_trip(codec, AWARE) == AWARE


def test_an_enum_member_is_written_as_its_value(codec: MsgpackCodec) -> None:
    assert {member.name: round_trip(codec, member) for member in Member} == {
        "NUMBER": 1,
        "PAIR": [1, "2.50"],
        "RATE": "0.19",
        "DAY": "2024-02-29",
        "MOMENT": AWARE,
        "NAIVE": "2024-02-29T12:00:00",
        "SOME": [3],
        "POINT": {"x": "00000000-0000-0000-0000-000000000001", "y": None},
    }


def test_numpy_scalars_and_arrays_become_plain_values(codec: MsgpackCodec) -> None:
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
    assert round_trip(codec, values) == [-3, 1.5, True, [[0, 1], [2, 3]], "2024-02-29", ["2024-02-29"]]
    assert round_trip(codec, numpy.datetime64("2024-02-29T12:00", "s")) == "2024-02-29T12:00:00"
    assert round_trip(codec, numpy.array(Decimal(1), dtype=object)) == "1"
    for value in (numpy.longdouble(1), numpy.complex64(1)):
        with pytest.raises(EncodeError, match="no type for"):
            codec.dumps(value)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("Y", "2024"),
        ("M", "2024-02"),
        ("D", "2024-02-29"),
        ("s", "2024-02-29T12:00:00"),
        ("us", "2024-02-29T12:00:00.000001"),
        ("ns", "2024-02-29T12:00:00.000001002"),
    ],
)
def test_numpy_datetimes_of_every_unit_become_text(codec: MsgpackCodec, unit: str, text: str) -> None:
    numpy = pytest.importorskip("numpy")
    moment = numpy.datetime64("2024-02-29T12:00:00.000001002", "ns").astype(f"M8[{unit}]")
    nothing = numpy.datetime64("NaT", unit)
    assert round_trip(codec, moment) == text
    assert round_trip(codec, nothing) is None
    assert round_trip(codec, numpy.array([[moment, nothing]])) == [[text, None]]
    assert round_trip(codec, numpy.array(moment)) == text
    assert round_trip(codec, numpy.array([], dtype=f"M8[{unit}]")) == []


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_numpy_durations_are_refused(codec: MsgpackCodec, unit: str) -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.timedelta64(1, unit), numpy.array([1], dtype=f"m8[{unit}]")):
        with pytest.raises(EncodeError, match=r"no common type: (timedelta64|ndarray)"):
            codec.dumps(value)


def test_pandas_timestamps_become_text(codec: MsgpackCodec) -> None:
    pandas = pytest.importorskip("pandas")
    moment = pandas.Timestamp("2024-02-29T12:00:00.000001002", tz="UTC")
    assert round_trip(codec, [moment, moment.tz_localize(None), pandas.NaT]) == [
        "2024-02-29T12:00:00.000001002+00:00",
        "2024-02-29T12:00:00.000001002",
        None,
    ]
    with pytest.raises(EncodeError, match=r"no type for pandas.*Timestamp"):
        MsgpackCodec().dumps(moment)


def test_other_types_are_refused(codec: MsgpackCodec) -> None:
    for value in (object(), Point, 1j):
        with pytest.raises(EncodeError, match="no common type"):
            codec.dumps(value)
