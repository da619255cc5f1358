"""The serializers that hand-written code pairs with a Redis client, each used as its manual advises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import orjson
import ormsgpack


@dataclass(frozen=True)
class Serializer:
    """A pair of functions for one value, made once and used for all."""

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


MSGPACK = Serializer(
    "msgpack",
    # One Packer, whose buffer stays allocated from value to value.
    msgpack.Packer(use_bin_type=True).pack,
    functools.partial(msgpack.unpackb, raw=False, strict_map_key=False),
)
MSGSPEC = Serializer("msgspec", msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode)
ORMSGPACK = Serializer("ormsgpack", ormsgpack.packb, ormsgpack.unpackb)
ORJSON = Serializer("orjson", orjson.dumps, orjson.loads)
MSGSPEC_JSON = Serializer("msgspec.json", msgspec.json.Encoder().encode, msgspec.json.Decoder().decode)

ALL = (MSGPACK, MSGSPEC, ORMSGPACK)
"""Those that write MessagePack."""
JSON = (ORJSON, MSGSPEC_JSON)
"""Those that write JSON. They write a NaN as null."""
