"""RedisToolkit: reading and writing, limits, expiry, errors, retries."""

from __future__ import annotations

import socket
import threading
from collections import ChainMap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import redis_fastbatch
from redis_fastbatch import FastBatchError
from redis_fastbatch.server import EmbeddedServer
from redis_fastbatch.toolkit import (
    DEFAULT_OPTIONS,
    RedisOptions,
    RedisToolkit,
    RedisToolkitError,
    SerializationError,
    ValidationError,
)
from toolkit_reference import same

EVERY_TYPE = {
    "none": None,
    "true": True,
    "int": 7,
    "float": 0.1,
    "text": 'Grüße "日本"\n',
    "bytes": b"\x00\xff",
    "list": [1, "two", None, b"3"],
    "tuple": (1, 2),
    "dict": {"a": {"b": [1.5]}, "raw": b"x"},
}
QUICK = RedisOptions(retry_attempts=2, retry_delay=0.01)


@pytest.fixture
def toolkit(client: redis.Redis) -> RedisToolkit:
    return RedisToolkit(redis=client)


def test_values_of_every_type_are_written_and_read(toolkit: RedisToolkit) -> None:
    for name, value in EVERY_TYPE.items():
        toolkit.setter(name, value)
        assert same(toolkit.getter(name), value)
    toolkit.batch_set({f"batch:{name}": value for name, value in EVERY_TYPE.items()})
    assert same(
        toolkit.batch_get([f"batch:{name}" for name in EVERY_TYPE]),
        {f"batch:{name}": value for name, value in EVERY_TYPE.items()},
    )


@pytest.mark.parametrize("codec", ["toolkit", "toolkit-msgpack", "msgpack"])
def test_other_codecs_can_be_used(client: redis.Redis, codec: str) -> None:
    toolkit = RedisToolkit(redis=client, codec=codec)
    toolkit.batch_set({"a": {"x": [1, 2.5]}, "b": None})
    toolkit.setter("c", "text")
    assert toolkit.batch_get(["a", "b", "c"]) == {"a": {"x": [1, 2.5]}, "b": None, "c": "text"}


def test_preserve_int_keeps_0_and_1(client: redis.Redis) -> None:
    RedisToolkit(redis=client).setter("n", 1)
    assert RedisToolkit(redis=client).getter("n") is True
    assert same(RedisToolkit(redis=client, preserve_int=True).getter("n"), 1)
    assert same(RedisToolkit(redis=client, preserve_int=True).batch_get(["n"]), {"n": 1})
    with pytest.raises(ValueError, match="preserve_int"):
        RedisToolkit(redis=client, codec="msgpack", preserve_int=True)


def test_missing_keys_have_the_default(toolkit: RedisToolkit) -> None:
    toolkit.setter("stored", None)
    assert toolkit.getter("missing") is None
    assert toolkit.getter("missing", default=5) == 5
    assert toolkit.getter("stored", default=5) is None
    assert toolkit.batch_get(["missing", "stored"]) == {"missing": None, "stored": None}
    assert toolkit.batch_get(["missing", "stored"], default=0) == {"missing": 0, "stored": None}
    assert toolkit.batch_get([]) == {}
    assert toolkit.batch_get(name for name in ("a", "b")) == {"a": None, "b": None}


@pytest.mark.parametrize("how", [{"ex": 100}, {"expire": 100}, {"ex": timedelta(seconds=100)}], ids=str)
def test_values_expire(toolkit: RedisToolkit, how: dict[str, Any]) -> None:
    toolkit.setter("one", 1, **how)
    toolkit.batch_set({"two": 2, "three": 3}, **how)
    for name in ("one", "two", "three"):
        assert 90 < toolkit.client.ttl(name) <= 100
    toolkit.batch_set({"two": 2})
    assert toolkit.client.ttl("two") == -1


@pytest.mark.parametrize(
    ("ex", "error"), [(0, ValueError), (-1, ValueError), (timedelta(0), ValueError), (1.5, TypeError)]
)
def test_invalid_expiries_are_refused(toolkit: RedisToolkit, ex: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="ex"):
        toolkit.setter("a", 1, ex=ex)
    with pytest.raises(error, match="ex"):
        toolkit.batch_set({"a": 1}, expire=ex)
    assert toolkit.client.dbsize() == 0


def test_ex_and_expire_exclude_each_other(toolkit: RedisToolkit) -> None:
    with pytest.raises(ValueError, match="expire"):
        toolkit.batch_set({"a": 1}, ex=1, expire=1)
    with pytest.raises(ValueError, match="expire"):
        toolkit.setter("a", 1, ex=1, expire=1)


def test_deleter_and_batch_delete_return_what_existed(toolkit: RedisToolkit) -> None:
    toolkit.batch_set({"a": 1, "b": 2, "c": 3})
    assert toolkit.deleter("a") is True
    assert toolkit.deleter("a") is False
    assert toolkit.batch_delete(["b", "missing", "c", "b"]) == {"b": True, "missing": False, "c": True}
    assert toolkit.batch_delete([]) == {}
    toolkit.batch_set({f"k{number}": number for number in range(2500)})
    assert toolkit.batch_delete(f"k{number}" for number in range(2500)) == {
        f"k{number}": True for number in range(2500)
    }


@pytest.mark.parametrize("name", ["ab", b"ab"])
def test_a_string_is_refused_as_a_batch_to_delete(toolkit: RedisToolkit, name: Any) -> None:
    toolkit.batch_set({"a": 1, "b": 2, "ab": 3})
    with pytest.raises(TypeError, match="got one "):
        toolkit.batch_delete(name)
    assert toolkit.client.dbsize() == 3


def test_any_mapping_is_a_batch(toolkit: RedisToolkit) -> None:
    toolkit.batch_set(ChainMap({"a": 1}, {"b": 2}))
    assert toolkit.batch_get(["a", "b"]) == {"a": True, "b": 2}


def test_an_empty_batch_sends_nothing() -> None:
    # By default redis-py makes ten attempts, which take eight seconds.
    unreachable = RedisToolkit(redis=redis.Redis(port=1, retry=Retry(NoBackoff(), 0)), options=QUICK)
    unreachable.batch_set({})
    unreachable.batch_set(ChainMap())
    with pytest.raises(RedisToolkitError):
        unreachable.batch_set({"a": 1})


def test_methods_fail_after_cleanup(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    toolkit.cleanup()
    for write in (
        lambda: toolkit.setter("a", 1),
        lambda: toolkit.batch_set({"a": 1}),
        lambda: toolkit.batch_delete(["a"]),
        lambda: toolkit.deleter("a"),
    ):
        with pytest.raises(AttributeError):
            write()
    for read in (lambda: toolkit.getter("a"), lambda: toolkit.batch_get(["a"])):
        with pytest.raises(SerializationError) as caught:
            read()
        assert isinstance(caught.value.original_exception, AttributeError)


class TestLimits:
    """Keys and values that are too long are refused, and nothing of their batch is written."""

    SMALL = RedisOptions(max_key_length=10, max_value_size=100)

    @pytest.mark.parametrize(
        "bad",
        [
            {"k" * 11: 1},
            {"big": "x" * 100},
            {"b" * 11: 1, "big": "x" * 100},
            {f"k{number}": "x" * 40 for number in range(20)},
        ],
        ids=["key", "value", "both", "total"],
    )
    @pytest.mark.parametrize("codec", ["toolkit", "toolkit-msgpack"])
    def test_long_keys_and_values_fail_their_batch(
        self, client: redis.Redis, bad: dict[str, Any], codec: str
    ) -> None:
        if codec == "toolkit-msgpack":
            bad = {key: value * 3 if isinstance(value, str) else value for key, value in bad.items()}
        toolkit = RedisToolkit(redis=client, options=self.SMALL, codec=codec)
        with pytest.raises(ValidationError):
            toolkit.batch_set({"good": 1, **bad})
        assert client.dbsize() == 0

    def test_long_keys_and_values_are_refused(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        with pytest.raises(ValidationError):
            toolkit.setter("k" * 11, 1)
        with pytest.raises(ValidationError, match="big"):
            toolkit.setter("big", "x" * 100)
        assert client.dbsize() == 0

    def test_keys_and_values_may_have_the_maximum_length(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        room = 100 - len('{"__type__": "str", "__data__": ""}')
        full = {f"{number:010}": "x" * room for number in range(10)}
        toolkit.batch_set(full)
        toolkit.setter("k" * 10, "x" * room)
        assert toolkit.batch_get(list(full)) == full
        with pytest.raises(ValidationError):
            toolkit.batch_set({**full, "one more": 1})

    def test_limits_can_be_turned_off(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        off = RedisOptions(max_key_length=10, max_value_size=100, enable_validation=False)
        toolkit.setter("k" * 11, "x" * 1000, off)
        toolkit.batch_set({"k" * 12: "x" * 1000}, off)
        assert client.dbsize() == 2

    def test_a_key_without_a_length_is_a_type_error(self, toolkit: RedisToolkit) -> None:
        with pytest.raises(TypeError):
            toolkit.batch_set({5: 1})  # type: ignore[dict-item]

    def test_limits_have_the_toolkits_defaults(self) -> None:
        assert (DEFAULT_OPTIONS.max_key_length, DEFAULT_OPTIONS.max_value_size) == (512, 10 * 1024 * 1024)


def test_a_value_that_cannot_be_written_fails_its_whole_batch(toolkit: RedisToolkit) -> None:
    bad = object()
    with pytest.raises(SerializationError, match="'b'") as caught:
        toolkit.batch_set({"a": 1, "b": bad, "c": 3})
    assert caught.value.original_data is bad
    assert isinstance(caught.value.original_exception, TypeError)
    assert toolkit.client.dbsize() == 0
    with pytest.raises(SerializationError, match="'b'"):
        toolkit.setter("b", bad)


def test_bytes_that_cannot_be_decoded_are_an_error(toolkit: RedisToolkit) -> None:
    toolkit.client.set("bad", b'{"__type__": "bytes", "__data__": 5}')
    for read in (lambda: toolkit.getter("bad"), lambda: toolkit.batch_get(["ok", "bad"])):
        with pytest.raises(SerializationError) as caught:
            read()
        assert caught.value.original_exception is not None


def test_keys_of_other_types_are_none_or_an_error(toolkit: RedisToolkit) -> None:
    toolkit.client.rpush("list", 1)
    assert toolkit.batch_get(["list"]) == {"list": None}
    with pytest.raises(SerializationError) as caught:
        toolkit.getter("list")
    assert isinstance(caught.value.original_exception, redis.ResponseError)


def test_values_of_other_programs_are_read(toolkit: RedisToolkit) -> None:
    toolkit.client.mset({"counter": 41, "text": "plain", "json": '{"a": [1]}', "raw": b"\xff\xfe"})
    toolkit.client.incr("counter")
    assert toolkit.batch_get(["counter", "text", "json", "raw"]) == {
        "counter": 42,
        "text": "plain",
        "json": {"a": [1]},
        "raw": b"\xff\xfe",
    }
    assert toolkit.getter("counter") == 42


def test_a_client_may_decode_responses(server: EmbeddedServer) -> None:
    with redis.Redis(host=server.host, port=server.port, decode_responses=True) as client:
        client.flushall()
        toolkit = RedisToolkit(redis=client)
        toolkit.setter("a", {"x": b"\xff"})
        assert toolkit.getter("a") == toolkit.batch_get(["a"])["a"] == {"x": b"\xff"}
        # Not UTF-8, so that the client cannot decode it.
        client.set("bytes", b"\xff")
        assert toolkit.getter("bytes") == toolkit.batch_get(["bytes"])["bytes"] == b"\xff"
        packed = RedisToolkit(redis=client, codec="toolkit-msgpack")
        packed.setter("b", {"id": 1})
        assert packed.getter("b") == packed.batch_get(["b"])["b"] == {"id": 1}


def test_errors_of_the_server_become_toolkit_errors(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(RedisToolkitError) as single:
            toolkit.setter("a", 1)
        with pytest.raises(RedisToolkitError) as many:
            toolkit.batch_set({"a": 1, "b": 2})
    finally:
        client.config_set("maxmemory", "0")
    assert isinstance(single.value.__cause__, redis.ResponseError)
    assert isinstance(many.value.__cause__, redis.ResponseError)
    assert issubclass(RedisToolkitError, FastBatchError)


@pytest.fixture
def unreachable() -> Iterator[RedisToolkit]:
    """Return a toolkit whose server does not exist."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = redis.Redis(port=free.getsockname()[1], retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        yield RedisToolkit(redis=client, options=QUICK)


def test_without_a_server_every_method_raises_the_toolkits_error(
    unreachable: RedisToolkit, caplog: pytest.LogCaptureFixture
) -> None:
    assert unreachable.health_check() is False
    with pytest.raises(RedisToolkitError) as caught:
        unreachable.setter("a", 1)
    assert isinstance(caught.value.__cause__, redis.ConnectionError)
    with pytest.raises(RedisToolkitError):
        unreachable.batch_set({"a": 1})
    for read in (lambda: unreachable.getter("a"), lambda: unreachable.batch_get(["a"])):
        with pytest.raises(SerializationError) as failed:
            read()
        assert isinstance(failed.value.original_exception, redis.ConnectionError)
    with pytest.raises(SerializationError):
        unreachable.publisher("channel", 1)
    with pytest.raises(redis.ConnectionError):
        unreachable.deleter("a")
    with pytest.raises(RedisToolkitError):
        unreachable.batch_delete(["a"])
    retries = [record for record in caplog.records if "trying again" in record.getMessage()]
    assert len(retries) == 7
    assert {record.name for record in caplog.records} == {"redis_fastbatch"}


def test_a_lost_connection_is_replaced(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client, options=QUICK)
    toolkit.batch_set({"a": 5})
    client.client_kill_filter(_type="normal", skipme=False)
    assert toolkit.batch_get(["a"]) == {"a": 5}
    client.client_kill_filter(_type="normal", skipme=False)
    toolkit.batch_set({"a": 6})
    assert toolkit.getter("a") == 6


def test_batches_are_atomic(server: EmbeddedServer, client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    keys = [f"k{number}" for number in range(3000)]
    toolkit.batch_set(dict.fromkeys(keys, 2))
    stop = threading.Event()
    mixed: list[set[Any]] = []

    def watch() -> None:
        with server.client() as other:
            watcher = RedisToolkit(redis=other)
            while not stop.is_set():
                found = set(watcher.batch_get(keys).values())
                if len(found) > 1:
                    mixed.append(found)

    thread = threading.Thread(target=watch)
    thread.start()
    for number in range(3, 40):
        toolkit.batch_set(dict.fromkeys(keys, number), ex=1000 if number % 2 else None)
    stop.set()
    thread.join()
    assert mixed == []


def test_batches_may_be_not_atomic(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    toolkit.batch_set({f"k{number}": number for number in range(5000)}, atomic=False)
    assert client.dbsize() == 5000
    keys = [f"k{number}" for number in range(5000)]
    assert same(toolkit.batch_get(keys, atomic=False), toolkit.batch_get(keys))
    with pytest.raises(SerializationError):
        toolkit.batch_set({"new": 5, "bad": object()}, atomic=False)
    assert toolkit.getter("new") == 5


def test_the_class_is_a_name_of_the_package() -> None:
    assert redis_fastbatch.RedisToolkit is RedisToolkit
