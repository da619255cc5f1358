"""codecs.common_types writes common types that MessagePack lacks."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from redis_fastbatch import EncodeError, JsonCodec, MsgpackCodec, RawCodec
from redis_fastbatch._tables.write import arrow_default
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


def test_durations_become_text_as_tables_write_them(codec: MsgpackCodec) -> None:
    spans = [
        datetime.timedelta(days=1, seconds=2, microseconds=500_000),
        datetime.timedelta(),
        -datetime.timedelta(hours=1),
        datetime.timedelta.max,
    ]
    texts = ["P1DT2.5S", "P0D", "-PT3600S", "P999999999DT86399.999999S"]
    assert round_trip(codec, spans) == texts
    assert MsgpackCodec().dumps(texts) == MsgpackCodec(default=arrow_default).dumps(spans)


def test_numpy_durations_become_text(codec: MsgpackCodec) -> None:
    numpy = pytest.importorskip("numpy")
    for unit, text in (
        ("W", "P7D"),
        ("D", "P1D"),
        ("h", "PT3600S"),
        ("m", "PT60S"),
        ("s", "PT1S"),
        ("ms", "PT0.001S"),
        ("us", "PT0.000001S"),
        ("ns", "PT0.000000001S"),
        ("25s", "PT25S"),
    ):
        one = numpy.timedelta64(1, unit) if unit != "25s" else numpy.array(1, "m8[25s]")[()]
        nothing = numpy.timedelta64("NaT", unit)
        assert round_trip(codec, [one, nothing, -one]) == [text, None, f"-{text}"]
        assert round_trip(codec, numpy.array([[one, nothing]])) == [[text, None]]
        assert round_trip(codec, numpy.array([], dtype=one.dtype)) == []
    assert round_trip(codec, numpy.timedelta64(2**62, "s")) == "P53375995583650DT27904S"
    for value in (numpy.timedelta64(1, "Y"), numpy.array([1], dtype="m8[ps]")):
        with pytest.raises(EncodeError, match=r"no common type: (timedelta64|ndarray) of unit"):
            codec.dumps(value)


def test_pandas_durations_and_missing_values(codec: MsgpackCodec) -> None:
    pandas = pytest.importorskip("pandas")
    span = pandas.Timedelta(days=1, nanoseconds=7)
    assert round_trip(codec, [span, pandas.NA, pandas.NaT]) == ["P1DT0.000000007S", None, None]
    assert round_trip(codec, pandas.Series([1, None], dtype="Int64").tolist()) == [1, None]


def test_objects_that_declare_fields_become_dicts(codec: MsgpackCodec) -> None:
    msgspec = pytest.importorskip("msgspec")
    attrs = pytest.importorskip("attrs")
    pydantic = pytest.importorskip("pydantic")
    struct = msgspec.defstruct("Pair", ["left_one", "right"], rename="camel", tag="pair")
    made = attrs.make_class("Made", ["x"])
    day = datetime.date(2024, 1, 2)
    model = pydantic.create_model("Model", name=str, inner=(Any, None), day=(datetime.date, day))
    assert round_trip(codec, struct(1, {2})) == {"type": "pair", "leftOne": 1, "right": [2]}
    assert round_trip(codec, made(made(UUID(int=2)))) == {"x": {"x": str(UUID(int=2))}}
    assert round_trip(codec, model(name="a", inner=model(name="b"))) == {
        "name": "a",
        "inner": {"name": "b", "inner": None, "day": "2024-01-02"},
        "day": "2024-01-02",
    }
    assert MsgpackCodec(type=struct).loads(codec.dumps(struct(1, 2))) == struct(1, 2)
    for kind in (struct, made, model):
        with pytest.raises(EncodeError, match="no common type"):
            codec.dumps(kind)


@pytest.mark.parametrize("kind", [MsgpackCodec, JsonCodec])
def test_messages_name_the_place_and_the_argument_that_helps(kind: Any) -> None:
    value = {"users": [1, 2, 3, {"age": Point(1)}]}
    name = kind.__name__
    place = r"\['users'\]\[3\]\['age'\]"
    advice = rf"{place}: .* has no type for .*Point; use .*, such as {name}\(default=codecs.common_types\)"
    with pytest.raises(EncodeError, match=rf"^{advice}, or with type=, such as {name}\(type=Point\)$"):
        kind().dumps(value)
    value["users"][3]["age"] = 1j
    with pytest.raises(EncodeError, match=rf"^{place}: .*complex.*{name}\(default=codecs.common_types\)$"):
        kind().dumps(value)
    value["users"][3]["age"] = Point({"x": 1j})
    with pytest.raises(EncodeError, match=rf"^{place}: \['x'\]\['x'\]: .*no common type: complex"):
        kind(default=common_types).dumps(value)


def test_the_codec_raw_names_another_codec() -> None:
    with pytest.raises(EncodeError, match='got dict; use another codec, such as codec="msgpack"'):
        RawCodec().dumps({})


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
    for value in (object(), Point, 1j, type("Own", (), {})()):
        with pytest.raises(EncodeError, match="no common type"):
            codec.dumps(value)
