"""Codecs of FastBatch: those of the package, subclasses of them, and custom ones."""

from __future__ import annotations

import enum
import json
import pickle
from typing import Any

import msgpack
import pytest
import redis

from redis_fastbatch import FastBatch, MsgpackCodec
from redis_fastbatch.codecs import RawCodec, ToolkitCodec, ToolkitMsgpackCodec


def test_the_codec_json_writes_compact_json(client: redis.Redis) -> None:
    FastBatch(client, "json").batch_set({"a": {"k": ["é", 1.5, None]}, "b": "x"}, ex=5)
    assert client.get("a") == '{"k":["é",1.5,null]}'.encode()
    assert FastBatch(client, "json").batch_get(["a", "b"]) == {"a": {"k": ["é", 1.5, None]}, "b": "x"}


def test_the_codec_raw_writes_values_as_redis_stores_them(client: redis.Redis) -> None:
    items = {"s": "é", "b": b"\xff", "i": 12, "f": 1.5, "a": bytearray(b"x"), "m": memoryview(b"y")}
    FastBatch(client, "raw").batch_set(items)
    assert client.mget(list(items)) == ["é".encode(), b"\xff", b"12", b"1.5", b"x", b"y"]
    assert client.incr("i") == 13
    assert FastBatch(client, "raw").batch_get(["s", "i"]) == {"s": "é".encode(), "i": b"13"}


class Text(str):
    pass


class Level(str, enum.Enum):
    HIGH = "höch"


class Number(enum.IntEnum):
    ONE = 1


def test_the_codec_raw_writes_subclasses_by_their_contents(client: redis.Redis) -> None:
    items = {"s": Text("plain"), "t": Text("é"), "e": Level.HIGH, "i": Number.ONE}
    FastBatch(client, "raw").batch_set(items)
    assert client.mget(list(items)) == [b"plain", "é".encode(), "höch".encode(), b"1"]


def test_a_custom_codec_is_used(client: redis.Redis) -> None:
    class Upper:
        def dumps(self, value: str) -> bytes:
            return value.upper().encode()

        def loads(self, data: bytes) -> str:
            return data.decode().lower()

    fast = FastBatch(client, Upper())
    fast.batch_set({"k": "text"})
    assert client.get("k") == b"TEXT"
    assert fast.batch_get(["k"]) == {"k": "text"}


class ReversedBytes(MsgpackCodec):
    """MessagePack with the bytes in reverse order."""

    def dumps(self, value: Any) -> bytes:
        return super().dumps(value)[::-1]

    def loads(self, data: Any) -> Any:
        return super().loads(data[::-1])


def test_a_subclass_of_a_codec_is_used_by_its_own_methods(client: redis.Redis) -> None:
    items = {"k": {"a": [1, "text"]}, "l": None}
    fast = FastBatch(client, ReversedBytes())
    fast.batch_set(items, ex=9)
    assert client.get("k") == ReversedBytes().dumps(items["k"]) == MsgpackCodec().dumps(items["k"])[::-1]
    assert fast.batch_get(items) == items
    with pytest.raises(ValueError, match="the codec of a table must be"):
        fast.batch_set_table(None, key="k")


@pytest.mark.parametrize("base", [MsgpackCodec, ToolkitCodec, ToolkitMsgpackCodec])
def test_a_subclass_of_a_codec_need_not_call_init(client: redis.Redis, base: Any) -> None:
    class Own(base):
        def __init__(self, note: str) -> None:
            self.note = note

    items = {"k": {"a": [1, "text"]}, "l": 5}
    FastBatch(client, Own("mine")).batch_set(items)
    assert client.mget(list(items)) == [base().dumps(value) for value in items.values()]
    assert FastBatch(client, Own("mine")).batch_get(items) == items


def test_a_codec_with_hooks_is_used(client: redis.Redis) -> None:
    codec = MsgpackCodec(
        default=lambda value: msgpack.ExtType(1, json.dumps(sorted(value)).encode()),
        ext_hook=lambda code, data: set(json.loads(data)),
    )
    fast = FastBatch(client, codec)
    fast.batch_set({"k": {"tags": {1, 2}}}, ex=9)
    assert fast.batch_get(["k"]) == {"k": {"tags": {1, 2}}}


class AsyncCodec:
    async def dumps(self, value: Any) -> bytes:
        return b""

    async def loads(self, data: bytes) -> Any:
        return data


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        (MsgpackCodec, r"such as MsgpackCodec\(\)"),
        (ReversedBytes, r"such as ReversedBytes\(\)"),
        (AsyncCodec(), r"dumps\(\) must be a plain method"),
    ],
)
def test_codec_classes_and_async_codecs_are_refused(valkey_client: redis.Redis, codec: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        FastBatch(valkey_client, codec)


def test_modules_and_classes_of_static_methods_are_codecs(client: redis.Redis) -> None:
    class Static:
        @staticmethod
        def dumps(value: Any) -> bytes:
            return json.dumps(value).encode()

        @classmethod
        def loads(cls, data: bytes) -> Any:
            return json.loads(data)

    for codec in (Static, Static(), pickle, msgpack):
        FastBatch(client, codec).batch_set({"k": [1]})
        assert FastBatch(client, codec).batch_get(["k"]) == {"k": [1]}


def test_raw_takes_no_arguments() -> None:
    codec: Any = RawCodec
    with pytest.raises(TypeError, match="argument"):
        codec(1)
    with pytest.raises(TypeError, match="argument"):
        codec(encoding="latin-1")


@pytest.mark.parametrize("codec", ["nonsense", object(), None, 5])
def test_other_objects_than_codecs_are_refused(valkey_client: redis.Redis, codec: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="codec"):
        FastBatch(valkey_client, codec)
