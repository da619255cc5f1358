"""Values that somebody else wrote: what cannot be decoded is named by key and place, and on_error decides."""

from __future__ import annotations

import functools
import logging
import pickle
from typing import Any

import msgpack
import pytest
import redis

from checks import in_use
from redis_fastbatch import (
    BatchError,
    BatchReport,
    DecodeError,
    EncodeError,
    FastBatch,
    FastBatchError,
    MsgpackCodec,
)

FOREIGN = {
    "empty": (b"", 0),
    "unused byte": (b"\xc1", 0),
    "cut short": (msgpack.packb({"a": [1, 2, "text"]})[:-2], 7),
    "behind the value": (msgpack.packb([1]) + b"?", 2),
    "no utf-8": (b"\x92\x01\xa2\xff\xfe", 3),
    "length bomb": (b"\xdf\xff\xff\xff\xff", 5),
    "map as key": (b"\x81\x80\x02", 1),
    "pickle": (b"\x80\x04\x95", 1),
    "json": (b'{"a": 1}', 1),
    "deep": (b"\x91" * 3000, 1025),
}


@pytest.fixture
def mixed(client: redis.Redis) -> redis.Redis:
    """A client of a server that holds good and foreign values."""
    client.mset({key: data for key, (data, _) in FOREIGN.items()})
    client.mset({f"good{i}": msgpack.packb({"n": i}) for i in range(300)})
    return client


@pytest.mark.parametrize("name", FOREIGN)
def test_the_error_names_key_and_offset(mixed: redis.Redis, name: str) -> None:
    with pytest.raises(DecodeError, match=f"^key '{name}', at byte {FOREIGN[name][1]}: ") as caught:
        FastBatch(mixed).batch_get(["good1", name, "good2"])
    assert (caught.value.key, caught.value.offset) == (name, FOREIGN[name][1])
    assert in_use(mixed) == 0
    assert mixed.get("good1") == msgpack.packb({"n": 1})


def test_the_connection_is_used_again_after_it(mixed: redis.Redis) -> None:
    name = mixed.client_id()
    for _ in range(5):
        with pytest.raises(DecodeError):
            FastBatch(mixed).batch_get([f"good{i}" for i in range(300)] + ["json"])
    assert mixed.client_id() == name, "a value that cannot be decoded is no reason to connect anew"


def test_the_first_of_several_is_raised(mixed: redis.Redis) -> None:
    with pytest.raises(DecodeError) as caught:
        FastBatch(mixed).batch_get(["good1", "pickle", "json", "empty"])
    assert caught.value.key == "pickle"


def test_report_goes_on_with_the_default(mixed: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    keys = [*FOREIGN, *(f"good{i}" for i in range(300)), "none"]
    with caplog.at_level(logging.WARNING, "redis_fastbatch"):
        found = FastBatch(mixed).batch_get(keys, default="default", on_error="report")
    assert found == {
        **dict.fromkeys(FOREIGN, "default"),
        **{f"good{i}": {"n": i} for i in range(300)},
        "none": "default",
    }
    assert list(found) == keys
    (record,) = caplog.records
    assert f"{len(FOREIGN)} values could not be decoded" in record.getMessage()


def test_a_callable_gets_key_bytes_and_error(mixed: redis.Redis) -> None:
    letters: dict[Any, tuple[bytes | None, Exception]] = {}

    def on_error(key: Any, data: bytes | None, error: Exception) -> None:
        letters[key] = data, error

    keys = [*FOREIGN, *(f"good{i}" for i in range(300))]
    found = FastBatch(mixed).batch_get(keys, on_error=on_error)
    assert {key: data for key, (data, _) in letters.items()} == {key: data for key, (data, _) in FOREIGN.items()}
    for key, (_, error) in letters.items():
        assert isinstance(error, DecodeError)
        assert (error.key, error.offset) == (key, FOREIGN[key][1])
    assert sum(value is not None for value in found.values()) == 300


def keep(letters: list[Any], *letter: Any) -> None:
    letters.append(letter)


def test_iterating(mixed: redis.Redis) -> None:
    keys = ["good1", "json", "good2", "empty", "good3"]
    fast = FastBatch(mixed)
    for chunk_size in (1, 2, 100):
        rows = fast.batch_get_iter(keys, chunk_size=chunk_size)
        with pytest.raises(DecodeError) as caught:
            list(rows)
        assert caught.value.key == "json"
        letters: list[Any] = []
        put = functools.partial(keep, letters)
        found = list(fast.batch_get_iter(keys, chunk_size=chunk_size, default=0, on_error=put))
        assert found == [("good1", {"n": 1}), ("json", 0), ("good2", {"n": 2}), ("empty", 0), ("good3", {"n": 3})]
        assert [letter[0] for letter in letters] == ["json", "empty"]


def test_a_callable_that_raises_ends_it(mixed: redis.Redis) -> None:
    def on_error(key: Any, data: bytes | None, error: Exception) -> None:
        raise LookupError(f"enough: {key}")

    with pytest.raises(LookupError, match="enough: json"):
        FastBatch(mixed).batch_get(["good1", "json"], on_error=on_error)
    assert in_use(mixed) == 0
    assert mixed.ping()


def test_keys_of_a_wrong_type_go_to_the_callable_too(client: redis.Redis) -> None:
    letters: list[Any] = []
    client.set("a", msgpack.packb(1))
    found = FastBatch(client).batch_get(["a", None, "b"], on_error=lambda *one: letters.append(one))
    assert (found["a"], found["b"]) == (1, None)
    assert [(key, data) for key, data, _ in letters] == [(None, None)]


@pytest.mark.parametrize(
    ("codec", "data", "offset"),
    [
        ("json", b"{", 1),
        ("json", b"[1, 2", 5),
        ("json", b"\xff", 0),
        ("json", b"", 0),
        ("json", b"1 2", 2),
        ("json", '["é", "😀", x]'.encode(), 15),
        ("json", b'["ab\xff"]', 4),
    ],
)
def test_json(client: redis.Redis, codec: str, data: bytes, offset: int) -> None:
    client.set("bad", data)
    with pytest.raises(DecodeError, match="key 'bad'") as caught:
        FastBatch(client, codec).batch_get(["bad"])
    assert caught.value.offset == offset


def test_what_a_hook_raises_is_the_cause(client: redis.Redis) -> None:
    def hook(code: int, data: bytes) -> Any:
        raise LookupError("unknown extension")

    client.set("ext", b"\x92\x01\xd4\x07x")
    with pytest.raises(DecodeError, match=r"key 'ext'.*type 7: LookupError: unknown extension") as caught:
        FastBatch(client, MsgpackCodec(ext_hook=hook)).batch_get(["ext"])
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    "error", [FastBatchError("not ours"), EncodeError("not ours"), BatchError("not ours", BatchReport())]
)
def test_whatever_a_codec_of_ones_own_raises_concerns_its_value_alone(
    client: redis.Redis, error: Exception
) -> None:
    class Picky:
        def dumps(self, value: str) -> bytes:
            return value.encode()

        def loads(self, data: bytes) -> str:
            if data == b"bad":
                raise error
            return data.decode()

    client.mset({"a": "good", "b": "bad", "c": "good"})
    letters: list[Any] = []
    found = FastBatch(client, Picky()).batch_get(["a", "b", "c"], on_error=lambda *one: letters.append(one))
    assert found == {"a": "good", "b": None, "c": "good"}
    [(key, data, told)] = letters
    assert (key, data, type(told), told.__cause__) == ("b", b"bad", DecodeError, error)


def test_whatever_a_hook_raises_concerns_its_value_alone(client: redis.Redis) -> None:
    def hook(code: int, data: bytes) -> Any:
        return MsgpackCodec().dumps(object())

    client.mset({"a": b"\x01", "b": b"\xd4\x07x", "c": b"\x03"})
    fast = FastBatch(client, MsgpackCodec(ext_hook=hook))
    with pytest.raises(DecodeError, match="key 'b'") as caught:
        fast.batch_get(["a", "b", "c"])
    assert isinstance(caught.value.__cause__, EncodeError)
    assert fast.batch_get(["a", "b", "c"], on_error="report") == {"a": 1, "b": None, "c": 3}


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("what", 5, "key")))
    assert (str(error), error.reason, error.offset, error.key) == ("key 'key', at byte 5: what", "what", 5, "key")
