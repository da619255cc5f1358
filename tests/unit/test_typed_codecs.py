"""Codecs with type=: dataclasses, NamedTuples, TypedDicts, attrs classes, Structs and pydantic models."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import pytest

from redis_fastbatch import DecodeError, EncodeError, JsonCodec, MsgpackCodec

msgspec = pytest.importorskip("msgspec")

KEY = UUID(int=7)
AWARE = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)


@dataclass
class Address:
    city: str
    since: datetime.date


@dataclass
class User:
    name: str
    age: int
    score: float = 0.0
    homes: list[Address] = field(default_factory=list)
    nickname: str | None = None
    key: UUID = KEY
    balance: Decimal = Decimal("1.10")
    seen: datetime.datetime = AWARE
    photo: bytes = b"\xff\x00"
    tags: frozenset[str] = frozenset({"a"})


class Point(NamedTuple):
    x: int
    y: float


class Row(TypedDict):
    id: int
    name: str


USER = User("Zoë", 36, 2.5, [Address("Łódź", datetime.date(2020, 1, 2))])


@pytest.fixture(params=[MsgpackCodec, JsonCodec])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def struct(**options: Any) -> Any:
    return msgspec.defstruct("Pair", [("left", int), ("right", str)], **options)


def models() -> Any:
    """Return pydantic models as a namespace; they are made here because pydantic may be missing."""
    pydantic = pytest.importorskip("pydantic", "2.11")

    class Home(pydantic.BaseModel):
        city: str
        since: datetime.date

    class Person(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        name: str = pydantic.Field(alias="fullName")
        age: int
        homes: list[Home] = pydantic.Field(default_factory=list)
        ratio: float = 0.5
        photo: bytes = b"bytes"
        seen: datetime.datetime = AWARE
        local: datetime.datetime = datetime.datetime(2024, 2, 29)
        span: datetime.timedelta = datetime.timedelta(days=1, seconds=2)
        key: UUID = UUID(int=7)
        balance: Decimal = Decimal("1.10")
        tags: set[int] = pydantic.Field(default_factory=lambda: {1})
        note: str | None = None

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def initial(self) -> str:
            return self.name[0]

    class Models:
        home = Home
        person = Person
        one = Person(fullName="Zoë", age=36, homes=[Home(city="Łódź", since=datetime.date(2020, 1, 2))])
        adapter = staticmethod(pydantic.TypeAdapter)

    Models.home.model_rebuild(_types_namespace={"datetime": datetime})
    return Models


def test_objects_come_back_equal_and_of_their_class(kind: Any) -> None:
    pair = struct()
    tagged = struct(tag=True, array_like=True, rename="upper")
    for type_, value in (
        (User, USER),
        (Point, Point(3, 0.5)),
        (Row, {"id": 1, "name": "a"}),
        (pair, pair(1, "b")),
        (tagged, tagged(1, "b")),
        (list[User], [USER, USER]),
        (dict[str, Point], {"a": Point(1, 2.0)}),
        (User | None, None),
        (User | None, USER),
        (int, 5),
        (Any, {"a": [1]}),
    ):
        codec = kind(type=type_)
        found = codec.loads(codec.dumps(value))
        assert found == value
        assert type(found) is type(value)
        assert codec.loads_many(codec.dumps_many([value, value])) == [value, value]


def test_attrs_classes_are_read() -> None:
    attrs = pytest.importorskip("attrs")
    made = attrs.make_class("Made", {"x": attrs.field(type=int)})
    for kind in (MsgpackCodec, JsonCodec):
        codec = kind(type=made)
        assert codec.loads(codec.dumps(made(4))) == made(4)


def test_the_bytes_are_plain_and_other_codecs_read_them() -> None:
    assert json.loads(JsonCodec(type=Point).dumps(Point(1, 2.5))) == [1, 2.5]
    found = MsgpackCodec().loads(MsgpackCodec(type=User).dumps(USER))
    assert (found["name"], found["seen"], found["photo"]) == ("Zoë", AWARE, b"\xff\x00")
    assert MsgpackCodec(type=Row).loads(MsgpackCodec().dumps({"id": 1, "name": "a"})) == {"id": 1, "name": "a"}


def test_what_does_not_fit_is_an_error_with_its_path(kind: Any) -> None:
    good, codec = kind().dumps({"name": "a", "age": 1, "homes": []}), kind(type=User)
    assert codec.loads(good) == User("a", 1)
    for value, message in (
        ({"name": "a", "age": "x"}, r"the value does not fit User: Expected `int`, got `str` - at `\$.age`"),
        ({"name": "a", "age": 1, "homes": [{"city": 3}]}, r"Expected `str`, got `int` - at `\$.homes\[0\].city`"),
        ({"age": 1}, "required field `name`"),
        (7, "Expected `object`, got `int`"),
    ):
        with pytest.raises(DecodeError, match=message) as caught:
            codec.loads(kind().dumps(value))
        assert isinstance(caught.value.__cause__, msgspec.ValidationError)
    for data in (b"", good[:-1], good + good, b"\xc1"):
        with pytest.raises(DecodeError):
            codec.loads(data)


def test_another_value_is_converted_or_refused(kind: Any) -> None:
    codec = kind(type=User)
    assert codec.loads(codec.dumps({"name": "a", "age": 1})) == User("a", 1)
    for value in ({"name": "a", "age": "x"}, 5, None, "text", [USER]):
        with pytest.raises(EncodeError, match=f"cannot write this {type(value).__name__} as User: the"):
            codec.dumps(value)
    with pytest.raises(EncodeError, match="cannot write this list as Row"):
        kind(type=Row).dumps([1])


def test_unknown_types_need_default(kind: Any) -> None:
    codec = kind(type=User)
    with pytest.raises(EncodeError, match=r"cannot write this User as User: .*complex"):
        codec.dumps(User("a", 1j))  # type: ignore[arg-type]
    helped = kind(type=User, default=lambda value: int(value.real))
    assert helped.loads(helped.dumps(User("a", 2j))).age == 0  # type: ignore[arg-type]


def test_extensions_are_read_by_ext_hook() -> None:
    data = MsgpackCodec().dumps({"id": 1, "value": __import__("msgpack").ExtType(5, b"abc")})
    hooked = MsgpackCodec(type=dict[str, Any], ext_hook=lambda code, data: (code, data))
    assert hooked.loads(data)["value"] == (5, b"abc")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_refuses_numbers_that_it_lacks(number: float) -> None:
    codec = JsonCodec(type=User)
    for value in (User("a", 1, number), User("null", 1, number, nickname="b")):
        with pytest.raises(EncodeError, match=r"\['score'\]: JSON has no (nan|inf)"):
            codec.dumps(value)
    # A text and a None are no reason to refuse.
    assert codec.loads(codec.dumps(User("null", 1))) == User("null", 1)
    packed = MsgpackCodec(type=Point)
    assert str(packed.loads(packed.dumps(Point(1, number))).y) == str(number)
    with pytest.raises(ValueError, match="allow_nan must be False"):
        JsonCodec(type=User, allow_nan=True)


def test_pydantic_models_come_back_equal(kind: Any) -> None:
    found = models()
    codec = kind(type=found.person)
    again = codec.loads(codec.dumps(found.one))
    assert again == found.one
    assert type(again) is found.person
    many = kind(type=list[found.person])
    assert many.loads(many.dumps([found.one])) == [found.one]
    adapted = kind(type=found.adapter(dict[str, found.person]))
    assert adapted.loads(adapted.dumps({"a": found.one})) == {"a": found.one}
    # Programs that use the alias are read too.
    assert codec.loads(kind().dumps({"fullName": "a", "age": 1})).name == "a"


def test_a_dataclass_may_hold_pydantic_models(kind: Any) -> None:
    found = models()
    holder = dataclass(type("Holder", (), {"__annotations__": {"home": found.home}}))
    derived = dataclass(type("Derived", (holder,), {}))
    for made in (holder, derived):
        value = made(found.one.homes[0])  # type: ignore[call-arg]
        codec = kind(type=made)
        assert codec.loads(codec.dumps(value)) == value
    # Not a class, whose annotations would be texts that name a local variable.
    row = NamedTuple("Row", [("homes", list[found.home])])  # type: ignore[misc] # noqa: UP014
    codec = kind(type=row)
    assert codec.loads(codec.dumps(row(found.one.homes))) == row(found.one.homes)


def test_what_does_not_fit_a_pydantic_model_is_an_error_with_its_path(kind: Any) -> None:
    found = models()
    codec = kind(type=found.person)
    value = {"name": "a", "age": "x", "homes": [{"city": "b", "since": "2020-01-01"}, {"city": 3}]}
    with pytest.raises(DecodeError, match=r"the value does not fit Person: .*integer.* - at `\$.age` \(2 more\)"):
        codec.loads(kind().dumps(value))
    value["age"] = 3
    with pytest.raises(DecodeError, match=r"valid string - at `\$.homes\[1\].city`"):
        codec.loads(kind().dumps(value))
    with pytest.raises(EncodeError, match=r"cannot write this dict as Person: .* - at `\$.age`"):
        codec.dumps({"name": "a"})
    changed = found.one.model_copy()
    changed.age = "x"
    with pytest.raises(EncodeError, match=r"cannot write this Person as Person: .*Expected `int`"):
        codec.dumps(changed)
    with pytest.raises(EncodeError, match=r"\['ratio'\]: JSON has no nan"):
        JsonCodec(type=found.person).dumps(found.one.model_copy(update={"ratio": math.nan}))


def test_codecs_with_types_are_copied_and_pickled(kind: Any) -> None:
    for codec in (pickle.loads(pickle.dumps(kind(type=User))), copy.deepcopy(kind(type=User))):
        assert codec.type is User
        assert codec.loads(codec.dumps(USER)) == USER
    assert kind().type is None


def test_a_missing_library_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match=r"pip install 'redis-fastbatch\[typed\]'"):
        kind(type=User)


def test_types_that_no_library_knows_are_refused_at_once(kind: Any) -> None:
    with pytest.raises(TypeError, match="not supported"):
        kind(type=5)
