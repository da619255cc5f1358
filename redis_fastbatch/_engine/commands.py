"""Which commands carry a batch. That depends on its options and on the commands that the server has.

Without expiry or condition a batch goes as MSET; with an expiry as MSETEX (Redis 8.4, Valkey 9.1) where the
server has it, else as pipelined SETs. Under `nx` or `xx`, and where items have expiries of their own, it always
goes as SETs.
"""

from __future__ import annotations

import datetime
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.expiry import ItemExpiry

Seconds: TypeAlias = "int | datetime.timedelta"
PointInTime: TypeAlias = "int | datetime.datetime"
Duration: TypeAlias = "Seconds | Callable[[Any], Seconds]"
Moment: TypeAlias = "PointInTime | Callable[[Any], PointInTime]"

_SECOND = datetime.timedelta(seconds=1)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

MSET = Command(b"MSET", many=True)
MGET = Command(b"MGET", many=True, with_values=False)
UNLINK = Command(b"UNLINK", many=True, with_values=False)


@dataclass(frozen=True)
class ColumnOfTimes:
    """The column of a table that has each row's expiry."""

    name: str


@dataclass(frozen=True)
class SetOptions:
    """SET's options for a whole batch.

    Attributes:
        ex: expiry in seconds from now. This and the next three may also be a callable of the key, or a
            ColumnOfTimes.
        px: expiry in milliseconds from now.
        exat: expiry as a Unix time in seconds.
        pxat: expiry as a Unix time in milliseconds.
        keepttl: a key that exists keeps its time to live.
        nx: write only keys that do not exist.
        xx: write only keys that exist.
        atomic: all or nothing.
        ex_jitter: each key's `ex` or `px` is changed at random by up to this part of it.

    Raises:
        ValueError: options that exclude each other, an expiry that is not positive, or a wrong jitter.
        TypeError: an expiry of another type.
    """

    ex: Duration | ColumnOfTimes | None = None
    px: Duration | ColumnOfTimes | None = None
    exat: Moment | ColumnOfTimes | None = None
    pxat: Moment | ColumnOfTimes | None = None
    keepttl: bool = False
    nx: bool = False
    xx: bool = False
    atomic: bool = False
    ex_jitter: float = 0

    def __post_init__(self) -> None:
        given = [name for name in ("ex", "px", "exat", "pxat") if getattr(self, name) is not None]
        if self.keepttl:
            given.append("keepttl")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.nx and self.xx:
            raise ValueError("nx and xx exclude each other")
        if self.ex_jitter:
            _check_jitter(self.ex_jitter, given)
        if given:
            _ = self.expiry

    @functools.cached_property
    def expiry(self) -> tuple[bytes, ...]:
        """SET's arguments for the expiry, where it is the same for all items."""
        if self.keepttl:
            return (b"KEEPTTL",)
        if self.item_expiry is None:
            for name in _UNITS:
                given = getattr(self, name)
                if given is not None:
                    return (name.upper().encode(), b"%d" % _number(name, given))
        return ()

    @functools.cached_property
    def item_expiry(self) -> ItemExpiry | None:
        """The expiry of each item, where it is not the same for all."""
        for name in _UNITS:
            given = getattr(self, name)
            more: dict[str, Any] = {"jitter": float(self.ex_jitter), "seed": random.getrandbits(64)}
            if isinstance(given, ColumnOfTimes):
                return ItemExpiry(name, _number, column=given.name, **more)
            if callable(given):
                return ItemExpiry(name, _number, of_key=given, **more)
            if given is not None and self.ex_jitter:
                return ItemExpiry(name, _number, fixed=_number(name, given), **more)
        return None

    @functools.cached_property
    def conditional(self) -> bool:
        """Whether a key may be skipped."""
        return self.nx or self.xx

    @functools.cached_property
    def repeatable(self) -> bool:
        """Whether commands whose outcome is unknown may be sent again."""
        return not (self.conditional or self.atomic)

    @functools.cached_property
    def msetex_helps(self) -> bool:
        """Whether MSETEX carries a batch with these options, where the server has it."""
        return bool(self.expiry) and not self.conditional

    def command(self, *, msetex: bool) -> Command:
        """Return the command that carries a batch; `msetex` says whether the server has MSETEX."""
        return self._msetex if msetex and self.msetex_helps else self._without_msetex

    @functools.cached_property
    def _msetex(self) -> Command:
        return Command(b"MSETEX", many=True, counted=True, tail=self.expiry)

    @functools.cached_property
    def _without_msetex(self) -> Command:
        return self.single if self.conditional or self.expiry or self.item_expiry else MSET

    @functools.cached_property
    def single(self) -> Command:
        """SET with these options, which carries one item."""
        condition = ((b"NX",) if self.nx else ()) + ((b"XX",) if self.xx else ())
        return Command(b"SET", many=False, tail=self.expiry + condition, expiry=self.item_expiry)


@functools.lru_cache(maxsize=256, typed=True)
def _remembered(ex: Any, px: Any, keepttl: bool, nx: bool, xx: bool, atomic: bool) -> SetOptions:
    return SetOptions(ex, px, None, None, keepttl, nx, xx, atomic)


def set_options(
    ex: Duration | ColumnOfTimes | None,
    px: Duration | ColumnOfTimes | None,
    exat: Moment | ColumnOfTimes | None,
    pxat: Moment | ColumnOfTimes | None,
    keepttl: bool = False,
    nx: bool = False,
    xx: bool = False,
    atomic: bool = False,
    ex_jitter: float = 0,
) -> SetOptions:
    """Return SetOptions, which are made once for options that come again.

    Points in time do not come again. Besides, datetimes of different times may be equal (PEP 495). A callable
    would live on with all that it refers to.
    """
    if exat is None and pxat is None and not ex_jitter and not callable(ex) and not callable(px):
        try:
            return _remembered(ex, px, keepttl, nx, xx, atomic)
        except TypeError:
            # If one of them cannot be hashed, this refuses it by name.
            return SetOptions(ex, px, exat, pxat, keepttl, nx, xx, atomic)
    return SetOptions(ex, px, exat, pxat, keepttl, nx, xx, atomic, ex_jitter)


_UNITS = {"ex": 1, "px": 1000, "exat": 1, "pxat": 1000}


def _number(name: str, given: Any) -> int:
    """Return an expiry as SET takes it.

    Args:
        name: the argument that it was given for.
        given: what the caller gave, or what a callable of the caller's returned.
    """
    convert = _moment if name.endswith("at") else _duration
    return _positive(name, convert(name, given, _UNITS[name]), given)


def _check_jitter(jitter: Any, given: list[str]) -> None:
    if isinstance(jitter, bool) or not isinstance(jitter, (int, float)):
        raise TypeError(f"ex_jitter must be a float, got {type(jitter).__name__} {jitter!r:.100}")
    if not 0 <= jitter < 1:
        raise ValueError(f"ex_jitter must be at least 0 and less than 1, got {jitter}")
    if given not in (["ex"], ["px"]):
        raise ValueError("ex_jitter needs ex or px, whose times it changes")


def _duration(name: str, length: Any, unit: int) -> int:
    if isinstance(length, datetime.timedelta):
        return length // (_SECOND // unit)
    return _integer(name, length, "datetime.timedelta")


def _moment(name: str, moment: Any, unit: int) -> int:
    if isinstance(moment, datetime.datetime):
        # A naive one is local time. Not through timestamp(): milliseconds would suffer from being a float.
        try:
            return (moment.astimezone(datetime.timezone.utc) - _EPOCH) // (_SECOND // unit)
        except OverflowError:
            raise ValueError(f"{name} is beyond what a datetime holds in UTC: {moment}") from None
    return _integer(name, moment, "datetime.datetime")


def _integer(name: str, value: Any, other: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{name} must be an int or a {other}, got {type(value).__name__} {value!r:.100}{_advice(name, value)}"
        )
    return int(value.__index__())


def _advice(name: str, value: Any) -> str:
    """Return advice about an expiry of a wrong type."""
    if name == "ex" and isinstance(value, float):
        return ": px takes milliseconds"
    if name in ("ex", "px") and isinstance(value, datetime.datetime):
        return f": {name}at takes a point in time"
    if name in ("exat", "pxat") and isinstance(value, datetime.timedelta):
        return f": {name[:2]} takes a timedelta from now"
    return ""


def _positive(name: str, number: int, given: Any) -> int:
    """Return a number of seconds or milliseconds that SET takes; `given` is what the caller passed for it."""
    if 0 < number < 2**63:
        return number
    found = given if isinstance(given, int) else f"{type(given).__name__} {given}"
    if number == 0 and isinstance(given, datetime.timedelta) and given > datetime.timedelta(0):
        if name == "ex":
            raise ValueError(f"ex must be at least 1 second, got {found}: px takes milliseconds")
        raise ValueError(f"px must be at least 1 millisecond, got {found}")
    raise ValueError(f"{name} must be positive and fit into 64 bits, got {found}")
