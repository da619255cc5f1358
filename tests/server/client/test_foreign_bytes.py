"""Values of other programs that cannot be decoded: the error names key and offset, and on_error decides."""

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
    "after the value": (msgpack.packb([1]) + b"?", 2),
    "not utf-8": (b"\x92\x01\xa2\xff\xfe", 3),
    "false length": (b"\xdf\xff\xff\xff\xff", 5),
    "map as key": (b"\x81\x80\x02", 1),
    "pickle": (b"\x80\x04\x95", 1),
    "json": (b'{"a": 1}', 1),
    "deep": (b"\x91" * 3000, 1025),
}


@pytest.fixture
def mixed(client: redis.Redis) -> redis.Redis:
    """Store good and foreign values, and return the client."""
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


def test_a_value_that_cannot_be_decoded_keeps_the_connection(mixed: redis.Redis) -> None:
    connection = mixed.client_id()
    for _ in range(5):
        with pytest.raises(DecodeError):
            FastBatch(mixed).batch_get([f"good{i}" for i in range(300)] + ["json"])
    assert mixed.client_id() == connection, "the client has connected again"


def test_the_first_of_several_errors_is_raised(mixed: redis.Redis) -> None:
    with pytest.raises(DecodeError) as caught:
        FastBatch(mixed).batch_get(["good1", "pickle", "json", "empty"])
    assert caught.value.key == "pickle"


def test_report_replaces_bad_values_by_the_default(mixed: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
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


def test_on_error_gets_key_bytes_and_error(mixed: redis.Redis) -> None:
    failures: dict[Any, tuple[bytes | None, Exception]] = {}

    def on_error(key: Any, data: bytes | None, error: Exception) -> None:
        failures[key] = data, error

    keys = [*FOREIGN, *(f"good{i}" for i in range(300))]
    found = FastBatch(mixed).batch_get(keys, on_error=on_error)
    assert {key: data for key, (data, _) in failures.items()} == {key: data for key, (data, _) in FOREIGN.items()}
    for key, (_, error) in failures.items():
        assert isinstance(error, DecodeError)
        assert (error.key, error.offset) == (key, FOREIGN[key][1])
    assert sum(value is not None for value in found.values()) == 300


def keep(failures: list[Any], *failure: Any) -> None:
    failures.append(failure)


def test_iteration_follows_on_error(mixed: redis.Redis) -> None:
    keys = ["good1", "json", "good2", "empty", "good3"]
    fast = FastBatch(mixed)
    for chunk_size in (1, 2, 100):
        rows = fast.batch_get_iter(keys, chunk_size=chunk_size)
        with pytest.raises(DecodeError) as caught:
            list(rows)
        assert caught.value.key == "json"
        failures: list[Any] = []
        on_error = functools.partial(keep, failures)
        found = list(fast.batch_get_iter(keys, chunk_size=chunk_size, default=0, on_error=on_error))
        assert found == [("good1", {"n": 1}), ("json", 0), ("good2", {"n": 2}), ("empty", 0), ("good3", {"n": 3})]
        assert [failure[0] for failure in failures] == ["json", "empty"]


def test_on_error_that_raises_ends_the_batch(mixed: redis.Redis) -> None:
    def on_error(key: Any, data: bytes | None, error: Exception) -> None:
        raise LookupError(f"enough: {key}")

    with pytest.raises(LookupError, match="enough: json"):
        FastBatch(mixed).batch_get(["good1", "json"], on_error=on_error)
    assert in_use(mixed) == 0
    assert mixed.ping()


def test_on_error_gets_keys_of_a_wrong_type(client: redis.Redis) -> None:
    failures: list[Any] = []
    client.set("a", msgpack.packb(1))
    found = FastBatch(client).batch_get(["a", None, "b"], on_error=lambda *one: failures.append(one))
    assert (found["a"], found["b"]) == (1, None)
    assert [(key, data) for key, data, _ in failures] == [(None, None)]


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
def test_bad_json_is_a_decode_error_with_its_offset(
    client: redis.Redis, codec: str, data: bytes, offset: int
) -> None:
    client.set("bad", data)
    with pytest.raises(DecodeError, match="key 'bad'") as caught:
        FastBatch(client, codec).batch_get(["bad"])
    assert caught.value.offset == offset


def test_an_error_of_ext_hook_is_the_cause(client: redis.Redis) -> None:
    def hook(code: int, data: bytes) -> Any:
        raise LookupError("unknown extension")

    client.set("ext", b"\x92\x01\xd4\x07x")
    with pytest.raises(DecodeError, match=r"key 'ext'.*type 7: LookupError: unknown extension") as caught:
        FastBatch(client, MsgpackCodec(ext_hook=hook)).batch_get(["ext"])
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    "error", [FastBatchError("not ours"), EncodeError("not ours"), BatchError("not ours", BatchReport())]
)
def test_an_error_of_a_custom_codec_fails_only_its_value(client: redis.Redis, error: Exception) -> None:
    class Picky:
        def dumps(self, value: str) -> bytes:
            return value.encode()

        def loads(self, data: bytes) -> str:
            if data == b"bad":
                raise error
            return data.decode()

    client.mset({"a": "good", "b": "bad", "c": "good"})
    failures: list[Any] = []
    found = FastBatch(client, Picky()).batch_get(["a", "b", "c"], on_error=lambda *one: failures.append(one))
    assert found == {"a": "good", "b": None, "c": "good"}
    [(key, data, raised)] = failures
    assert (key, data, type(raised), raised.__cause__) == ("b", b"bad", DecodeError, error)


def test_an_error_of_a_hook_fails_only_its_value(client: redis.Redis) -> None:
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
