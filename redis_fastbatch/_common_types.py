"""Values of common types as the nearest types that MessagePack and JSON have."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID

NANOSECONDS = {"W": 604_800 * 10**9, "D": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9} | {
    unit: 10**power for unit, power in (("s", 9), ("ms", 6), ("us", 3), ("ns", 0))
}
"""How long the units of numpy's timedelta64 are, except years and months, which vary, and units below ns."""


def common_types(value: Any) -> Any:
    """Return a value of a common type as the nearest type that codecs write: a `default=` for a codec.

    Decimal, UUID, date, time and naive datetime become str. So do aware datetimes of a subclass, such as
    pandas.Timestamp. timedelta becomes ISO 8601 in days and seconds, such as "P1DT2.5S". numpy arrays become
    lists, and numpy scalars numbers, except that datetime64 becomes a str as exact as its unit, and timedelta64
    one as timedelta does. NaT and pandas.NA become None. Dataclasses, attrs classes, msgspec Structs and pydantic
    models become dicts, sets become lists, and members of an Enum become their value. Reading gives the type that
    was written.

    Raises:
        TypeError: the value is of another type.
    """
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        # pandas.NaT is a datetime that does not equal itself.
        return value.isoformat() if value == value else None
    if isinstance(value, datetime.timedelta):
        return iso_duration(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, enum.Enum):
        return _nearest(value.value)
    if not isinstance(value, type):
        fields = _fields(value)
        if fields is not None:
            return fields
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _of_numpy(numpy, value)
    pandas = sys.modules.get("pandas")
    # While pandas is imported, it may have no NA yet.
    if pandas is not None and value is getattr(pandas, "NA", pandas):
        return None
    raise TypeError(f"no common type: {type(value).__name__}")


def iso_duration(value: datetime.timedelta) -> str:
    """Return a duration in ISO 8601, in days and seconds. pandas' Timedelta keeps its nanoseconds."""
    if hasattr(value, "as_unit"):
        return _duration_text(value.as_unit("ns").value)
    return _duration_text(value // datetime.timedelta(microseconds=1) * 1000)


def _duration_text(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    days, seconds = divmod(seconds, 86400)
    text = f"{sign}P{days}D" if days or not nanoseconds else f"{sign}P"
    if seconds or fraction:
        text += f"T{seconds}"
        if fraction:
            text += f".{fraction:09}".rstrip("0")
        text += "S"
    return text


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of an object of a class that declares them; None for other objects."""
    kind = type(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(kind, "__struct_encode_fields__"):
        # The names that msgspec writes, so that a codec with type= reads them.
        config = kind.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        names = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
        return tag | {written: getattr(value, name) for written, name in names}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if hasattr(kind, "__pydantic_fields__"):
        fields: dict[str, Any] = value.model_dump(round_trip=True)
        return fields
    return None


def _of_numpy(numpy: Any, value: Any) -> Any:
    if value.dtype.kind == "M":
        plain = _moments(numpy, value)
    elif value.dtype.kind == "m":
        plain = _durations(numpy, value)
    else:
        plain = value.tolist()
    if isinstance(plain, numpy.generic):
        # Python has no type for a long double.
        return plain
    return _nearest(plain)


def _moments(numpy: Any, value: Any) -> Any:
    """Return the text of each datetime64: tolist() gives ints for some units, and loses the unit."""
    texts = numpy.asarray(numpy.datetime_as_string(value)).astype(object)
    texts[numpy.isnat(value)] = None
    return texts.tolist()


def _durations(numpy: Any, value: Any) -> Any:
    """Return the text of each timedelta64."""
    unit, count = numpy.datetime_data(value.dtype)
    if unit not in NANOSECONDS:
        raise TypeError(f"no common type: {type(value).__name__} of unit {unit!r}")
    texts = numpy.empty(numpy.shape(value), object)
    for place, ticks in numpy.ndenumerate(numpy.asarray(value).astype("int64")):
        texts[place] = _duration_text(int(ticks) * count * NANOSECONDS[unit])
    texts[numpy.isnat(value)] = None
    return texts.tolist()


def _nearest(value: Any) -> Any:
    """Return a replacement of MessagePack's types; the first one may be of a common type too, such as Decimal."""
    if type(value) is datetime.datetime and value.tzinfo is not None:
        return value
    try:
        return common_types(value)
    except TypeError:
        return value
