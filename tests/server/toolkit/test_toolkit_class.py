"""RedisToolkit: reading and writing, limits, expiry, errors, retrying, logging."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import ChainMap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
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
    RedisConnectionConfig,
    RedisOptions,
    RedisToolkit,
    RedisToolkitError,
    SerializationError,
    ValidationError,
    pool_manager,
)
from servers import wait_until
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


def test_a_value_of_every_type_comes_back(toolkit: RedisToolkit) -> None:
    for name, value in EVERY_TYPE.items():
        toolkit.setter(name, value)
        assert same(toolkit.getter(name), value)
    toolkit.batch_set({f"batch:{name}": value for name, value in EVERY_TYPE.items()})
    assert same(
        toolkit.batch_get([f"batch:{name}" for name in EVERY_TYPE]),
        {f"batch:{name}": value for name, value in EVERY_TYPE.items()},
    )


@pytest.mark.parametrize("codec", ["toolkit", "toolkit-msgpack", "msgpack"])
def test_other_codecs(client: redis.Redis, codec: str) -> None:
    toolkit = RedisToolkit(redis=client, codec=codec)
    toolkit.batch_set({"a": {"x": [1, 2.5]}, "b": None})
    toolkit.setter("c", "text")
    assert toolkit.batch_get(["a", "b", "c"]) == {"a": {"x": [1, 2.5]}, "b": None, "c": "text"}


def test_preserve_int(client: redis.Redis) -> None:
    RedisToolkit(redis=client).setter("n", 1)
    assert RedisToolkit(redis=client).getter("n") is True
    assert same(RedisToolkit(redis=client, preserve_int=True).getter("n"), 1)
    assert same(RedisToolkit(redis=client, preserve_int=True).batch_get(["n"]), {"n": 1})
    with pytest.raises(ValueError, match="preserve_int"):
        RedisToolkit(redis=client, codec="msgpack", preserve_int=True)


def test_missing_keys_and_defaults(toolkit: RedisToolkit) -> None:
    toolkit.setter("stored", None)
    assert toolkit.getter("missing") is None
    assert toolkit.getter("missing", default=5) == 5
    assert toolkit.getter("stored", default=5) is None
    assert toolkit.batch_get(["missing", "stored"]) == {"missing": None, "stored": None}
    assert toolkit.batch_get(["missing", "stored"], default=0) == {"missing": 0, "stored": None}
    assert toolkit.batch_get([]) == {}
    assert toolkit.batch_get(name for name in ("a", "b")) == {"a": None, "b": None}


@pytest.mark.parametrize("how", [{"ex": 100}, {"expire": 100}, {"ex": timedelta(seconds=100)}], ids=str)
def test_expiry(toolkit: RedisToolkit, how: dict[str, Any]) -> None:
    toolkit.setter("one", 1, **how)
    toolkit.batch_set({"two": 2, "three": 3}, **how)
    for name in ("one", "two", "three"):
        assert 90 < toolkit.client.ttl(name) <= 100
    toolkit.batch_set({"two": 2})
    assert toolkit.client.ttl("two") == -1


@pytest.mark.parametrize(
    ("ex", "error"), [(0, ValueError), (-1, ValueError), (timedelta(0), ValueError), (1.5, TypeError)]
)
def test_no_expiry_at_all(toolkit: RedisToolkit, ex: Any, error: type[Exception]) -> None:
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


def test_deleting(toolkit: RedisToolkit) -> None:
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
def test_one_name_is_no_batch_to_delete(toolkit: RedisToolkit, name: Any) -> None:
    toolkit.batch_set({"a": 1, "b": 2, "ab": 3})
    with pytest.raises(TypeError, match="got one "):
        toolkit.batch_delete(name)
    assert toolkit.client.dbsize() == 3


def test_any_mapping_is_a_batch(toolkit: RedisToolkit) -> None:
    toolkit.batch_set(ChainMap({"a": 1}, {"b": 2}))
    assert toolkit.batch_get(["a", "b"]) == {"a": True, "b": 2}


def test_an_empty_batch_asks_no_server() -> None:
    # Without redis-py's ten attempts, which take eight seconds.
    away = RedisToolkit(redis=redis.Redis(port=1, retry=Retry(NoBackoff(), 0)), options=QUICK)
    away.batch_set({})
    away.batch_set(ChainMap())
    with pytest.raises(RedisToolkitError):
        away.batch_set({"a": 1})


def test_after_cleanup_every_method_lacks_the_client(client: redis.Redis) -> None:
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
    """What is too long is refused, and nothing of its batch is written."""

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
    def test_batches(self, client: redis.Redis, bad: dict[str, Any], codec: str) -> None:
        if codec == "toolkit-msgpack":
            bad = {key: value * 3 if isinstance(value, str) else value for key, value in bad.items()}
        toolkit = RedisToolkit(redis=client, options=self.SMALL, codec=codec)
        with pytest.raises(ValidationError):
            toolkit.batch_set({"good": 1, **bad})
        assert client.dbsize() == 0

    def test_single_values(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        with pytest.raises(ValidationError):
            toolkit.setter("k" * 11, 1)
        with pytest.raises(ValidationError, match="big"):
            toolkit.setter("big", "x" * 100)
        assert client.dbsize() == 0

    def test_the_limits_themselves_are_allowed(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        room = 100 - len('{"__type__": "str", "__data__": ""}')
        full = {f"{number:010}": "x" * room for number in range(10)}
        toolkit.batch_set(full)
        toolkit.setter("k" * 10, "x" * room)
        assert toolkit.batch_get(list(full)) == full
        with pytest.raises(ValidationError):
            toolkit.batch_set({**full, "one more": 1})

    def test_they_can_be_turned_off(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=self.SMALL)
        off = RedisOptions(max_key_length=10, max_value_size=100, enable_validation=False)
        toolkit.setter("k" * 11, "x" * 1000, off)
        toolkit.batch_set({"k" * 12: "x" * 1000}, off)
        assert client.dbsize() == 2

    def test_a_key_without_a_length_is_a_type_error(self, toolkit: RedisToolkit) -> None:
        with pytest.raises(TypeError):
            toolkit.batch_set({5: 1})  # type: ignore[dict-item]

    def test_the_defaults(self) -> None:
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


def test_bytes_that_cannot_be_read(toolkit: RedisToolkit) -> None:
    toolkit.client.set("bad", b'{"__type__": "bytes", "__data__": 5}')
    for read in (lambda: toolkit.getter("bad"), lambda: toolkit.batch_get(["ok", "bad"])):
        with pytest.raises(SerializationError) as caught:
            read()
        assert caught.value.original_exception is not None


def test_keys_of_other_types(toolkit: RedisToolkit) -> None:
    toolkit.client.rpush("list", 1)
    assert toolkit.batch_get(["list"]) == {"list": None}
    with pytest.raises(SerializationError) as caught:
        toolkit.getter("list")
    assert isinstance(caught.value.original_exception, redis.ResponseError)


def test_what_other_programs_store_can_be_read(toolkit: RedisToolkit) -> None:
    toolkit.client.mset({"counter": 41, "text": "plain", "json": '{"a": [1]}', "raw": b"\xff\xfe"})
    toolkit.client.incr("counter")
    assert toolkit.batch_get(["counter", "text", "json", "raw"]) == {
        "counter": 42,
        "text": "plain",
        "json": {"a": [1]},
        "raw": b"\xff\xfe",
    }
    assert toolkit.getter("counter") == 42


def test_a_client_that_decodes_replies(server: EmbeddedServer) -> None:
    with redis.Redis(host=server.host, port=server.port, decode_responses=True) as client:
        client.flushall()
        toolkit = RedisToolkit(redis=client)
        toolkit.setter("a", {"x": b"\xff"})
        assert toolkit.getter("a") == toolkit.batch_get(["a"])["a"] == {"x": b"\xff"}
        # Not text, which the client takes all for.
        client.set("bytes", b"\xff")
        assert toolkit.getter("bytes") == toolkit.batch_get(["bytes"])["bytes"] == b"\xff"
        packed = RedisToolkit(redis=client, codec="toolkit-msgpack")
        packed.setter("b", {"id": 1})
        assert packed.getter("b") == packed.batch_get(["b"])["b"] == {"id": 1}


def test_errors_of_the_server_become_the_toolkits(client: redis.Redis) -> None:
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
def nobody() -> Iterator[RedisToolkit]:
    """A toolkit whose server is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = redis.Redis(port=free.getsockname()[1], retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        yield RedisToolkit(redis=client, options=QUICK)


def test_without_a_server(nobody: RedisToolkit, caplog: pytest.LogCaptureFixture) -> None:
    assert nobody.health_check() is False
    with pytest.raises(RedisToolkitError) as caught:
        nobody.setter("a", 1)
    assert isinstance(caught.value.__cause__, redis.ConnectionError)
    with pytest.raises(RedisToolkitError):
        nobody.batch_set({"a": 1})
    for read in (lambda: nobody.getter("a"), lambda: nobody.batch_get(["a"])):
        with pytest.raises(SerializationError) as failed:
            read()
        assert isinstance(failed.value.original_exception, redis.ConnectionError)
    with pytest.raises(SerializationError):
        nobody.publisher("channel", 1)
    with pytest.raises(redis.ConnectionError):
        nobody.deleter("a")
    with pytest.raises(RedisToolkitError):
        nobody.batch_delete(["a"])
    retries = [record for record in caplog.records if "trying again" in record.getMessage()]
    assert len(retries) == 7
    assert {record.name for record in caplog.records} == {"redis_fastbatch"}


def test_a_connection_that_comes_back_is_not_noticed(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client, options=QUICK)
    toolkit.batch_set({"a": 5})
    client.client_kill_filter(_type="normal", skipme=False)
    assert toolkit.batch_get(["a"]) == {"a": 5}
    client.client_kill_filter(_type="normal", skipme=False)
    toolkit.batch_set({"a": 6})
    assert toolkit.getter("a") == 6


def test_a_batch_is_written_and_read_at_one_moment(server: EmbeddedServer, client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    keys = [f"k{number}" for number in range(3000)]
    toolkit.batch_set(dict.fromkeys(keys, 2))
    stop = threading.Event()
    mixed: list[set[Any]] = []

    def look() -> None:
        with server.client() as other:
            watcher = RedisToolkit(redis=other)
            while not stop.is_set():
                found = set(watcher.batch_get(keys).values())
                if len(found) > 1:
                    mixed.append(found)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(3, 40):
        toolkit.batch_set(dict.fromkeys(keys, number), ex=1000 if number % 2 else None)
    stop.set()
    thread.join()
    assert mixed == []


def test_without_atomic(client: redis.Redis) -> None:
    toolkit = RedisToolkit(redis=client)
    toolkit.batch_set({f"k{number}": number for number in range(5000)}, atomic=False)
    assert client.dbsize() == 5000
    keys = [f"k{number}" for number in range(5000)]
    assert same(toolkit.batch_get(keys, atomic=False), toolkit.batch_get(keys))
    with pytest.raises(SerializationError):
        toolkit.batch_set({"new": 5, "bad": object()}, atomic=False)
    assert toolkit.getter("new") == 5


class TestConnections:
    def test_a_client_and_a_config_exclude_each_other(self, client: redis.Redis) -> None:
        with pytest.raises(ValueError, match="both"):
            RedisToolkit(redis=client, config=RedisConnectionConfig())

    def test_pools_are_shared_by_configuration(self, server: EmbeddedServer) -> None:
        config = RedisConnectionConfig(host=server.host, port=server.port)
        one, two = (
            RedisToolkit(config=config),
            RedisToolkit(config=RedisConnectionConfig(server.host, server.port)),
        )
        other = RedisToolkit(config=RedisConnectionConfig(server.host, server.port, db=1))
        assert one.client.connection_pool is two.client.connection_pool
        assert one.client.connection_pool is not other.client.connection_pool
        one.setter("a", "shared")
        one.cleanup()
        assert one.client is None
        assert two.getter("a") == "shared"
        stats = pool_manager.get_pool_stats()
        assert all(set(counts) >= {"created_connections", "in_use_connections"} for counts in stats.values())
        assert pool_manager.close_pool(config) is True
        assert pool_manager.close_pool(config) is False
        pool_manager.close_all_pools()
        assert pool_manager.get_pool_stats() == {}

    def test_a_pool_of_ones_own(self, server: EmbeddedServer) -> None:
        options = RedisOptions(use_connection_pool=False)
        config = RedisConnectionConfig(server.host, server.port)
        with RedisToolkit(config=config, options=options) as toolkit:
            assert toolkit.client.connection_pool is not pool_manager.get_pool(config)
            toolkit.setter("a", 1)
        assert toolkit.client is None
        pool_manager.close_all_pools()

    def test_max_connections(self, server: EmbeddedServer) -> None:
        config = RedisConnectionConfig(server.host, server.port)
        pool = pool_manager.get_pool(config, 3)
        assert pool.max_connections == 3
        assert pool_manager.get_pool(config) is pool
        pool_manager.close_all_pools()

    def test_tls_gets_a_pool_of_tls_connections(self) -> None:
        pool = pool_manager.get_pool(RedisConnectionConfig(ssl=True, ssl_ca_certs="ca.pem"))
        assert pool.connection_class is redis.SSLConnection
        assert pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"
        pool_manager.close_all_pools()

    def test_cleanup_twice_and_the_context_manager(self, client: redis.Redis) -> None:
        with RedisToolkit(redis=client) as toolkit:
            assert toolkit.health_check() is True
        toolkit.cleanup()
        assert toolkit.client is None


class TestLogging:
    def test_each_operation_tells_of_itself(self, client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "redis_fastbatch")
        toolkit = RedisToolkit(redis=client, options=RedisOptions(max_log_size=20))
        toolkit.setter("a", {"field": "x" * 100})
        toolkit.getter("a")
        toolkit.setter("b", b"\xff" * 50)
        toolkit.setter("c", list(range(100)))
        toolkit.batch_set({"d": 1})
        toolkit.batch_get(["d"])
        toolkit.deleter("d")
        toolkit.batch_delete(["a"])
        toolkit.publisher("channel", "x")
        text = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
        assert [line.split()[0].rstrip(":") for line in text] == [
            *("set", "get", "set", "set", "batch_set", "batch_get", "delete", "batch_delete", "publish")
        ]
        assert all(len(line) < 80 for line in text)

    @pytest.mark.parametrize(
        "options", [RedisOptions(is_logger_info=False), RedisOptions(log_level="WARNING")], ids=["off", "level"]
    )
    def test_it_can_be_turned_off(
        self, client: redis.Redis, options: RedisOptions, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "redis_fastbatch")
        toolkit = RedisToolkit(redis=client, options=options)
        toolkit.setter("a", 1)
        toolkit.batch_set({"a": 1})
        toolkit.batch_get(["a"])
        assert [record for record in caplog.records if record.levelno == logging.INFO] == []

    def test_nothing_is_formatted_for_nobody(self, client: redis.Redis) -> None:
        class Costly(dict):  # type: ignore[type-arg]
            def __str__(self) -> str:
                raise AssertionError("formatted")

            __repr__ = __str__

        RedisToolkit(redis=client).setter("a", Costly(a=1))

    def test_a_file_of_its_own(self, client: redis.Redis, tmp_path: Path) -> None:
        path = tmp_path / "toolkit.log"
        logger = logging.getLogger("redis_fastbatch")
        level, handlers = logger.level, logger.handlers[:]
        try:
            options = RedisOptions(log_path=str(path))
            for _ in range(2):
                RedisToolkit(redis=client, options=options).setter("a", "to be seen")
        finally:
            logger.setLevel(level)
            for handler in set(logger.handlers) - set(handlers):
                logger.removeHandler(handler)
                handler.close()
        assert path.read_text().count("to be seen") == 2

    def test_a_level_that_there_is_not(self, client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
        for level in ("LOUD", None):
            with caplog.at_level(logging.INFO, logger="redis_fastbatch"):
                RedisToolkit(redis=client, options=RedisOptions(log_level=level)).setter("a", 1)  # type: ignore[arg-type]
            assert caplog.messages == [f"there is no log level {level!r}: INFO holds", "set a: 1"]
            caplog.clear()
        for known in ("SUCCESS", logging.INFO):
            RedisToolkit(redis=client, options=RedisOptions(log_level=known))  # type: ignore[arg-type]


class TestPubSub:
    def test_channels_and_a_handler(self, client: redis.Redis) -> None:
        got: list[tuple[str, Any]] = []
        with RedisToolkit(redis=client, channels=["a", "b"], message_handler=lambda *m: got.append(m)) as toolkit:
            _wait_for_listener(client, "b")
            toolkit.publisher("a", {"x": (1, b"2")})
            toolkit.publisher("b", "text")
            client.publish("b", "raw")
            _wait(lambda: len(got) == 3)
            thread = toolkit.sub_thread
        assert got == [("a", {"x": [1, b"2"]}), ("b", "text"), ("b", "raw")]
        assert thread is not None
        assert not thread.is_alive()

    def test_dynamic_subscriptions(self, client: redis.Redis) -> None:
        got: list[Any] = []
        with RedisToolkit(redis=client) as toolkit:
            assert toolkit.subscribe_dynamic("a", lambda channel, value: got.append((channel, value)))
            toolkit.publisher("a", 5)
            _wait(lambda: got == [("a", 5)])
            thread = toolkit.sub_thread
            # While the thread runs: neither channel misses a message.
            assert toolkit.subscribe_dynamic("b", lambda channel, value: got.append((channel, value * 2)))
            assert toolkit.sub_thread is thread
            toolkit.publisher("a", 6)
            toolkit.publisher("b", 7)
            _wait(lambda: got[1:] == [("a", 6), ("b", 14)])
            stats = toolkit.get_subscription_stats()
            assert (stats["enabled"], stats["static_channels"], stats["total_messages"]) == (True, 2, 3)
            assert toolkit.unsubscribe_dynamic("a") is True
            assert toolkit.unsubscribe_dynamic("a") is False
            _wait(lambda: dict(client.pubsub_numsub("a"))[b"a"] == 0)
            assert list(toolkit.get_expired_channels()) == ["a"]
            assert toolkit.resubscribe_channel("a") is True
            assert toolkit.resubscribe_channel("never") is False
            toolkit.publisher("a", 8)
            _wait(lambda: got[-1] == ("a", 8))
            toolkit.unsubscribe_dynamic("a")
            toolkit.unsubscribe_dynamic("b")
            _wait(lambda: toolkit.sub_thread is not None and not toolkit.sub_thread.is_alive())
            toolkit.subscribe_dynamic("c", lambda channel, value: got.append(value))
            toolkit.publisher("c", "again")
            _wait(lambda: got[-1] == "again")

    def test_a_channel_that_goes_and_comes_again_misses_nothing(self, client: redis.Redis) -> None:
        got: list[int] = []
        with RedisToolkit(redis=client) as toolkit:
            toolkit.subscribe_dynamic("other", print)
            for number in range(2, 30):
                toolkit.subscribe_dynamic("a", lambda channel, value: got.append(value))
                toolkit.publisher("a", number)
                _wait(lambda number=number: got[-1:] == [number])
                # Sometimes the subscriber notices in time that it is not wanted, sometimes not.
                toolkit.unsubscribe_dynamic("a")
                time.sleep(number % 4 * 0.04)
        assert got == list(range(2, 30))

    def test_a_callback_may_subscribe_and_fail(self, client: redis.Redis) -> None:
        got: list[Any] = []

        def first(channel: str, value: Any) -> None:
            toolkit.subscribe_dynamic("second", lambda channel, value: got.append(value))
            raise RuntimeError("the listener goes on")

        with RedisToolkit(redis=client) as toolkit:
            toolkit.subscribe_dynamic("first", first)
            toolkit.publisher("first", 1)
            _wait_for_listener(client, "second")
            toolkit.publisher("second", "heard")
            _wait(lambda: got == ["heard"])

    def test_a_subscription_that_expires_falls_back_to_the_handler(self, client: redis.Redis) -> None:
        got: list[str] = []
        with RedisToolkit(
            redis=client,
            options=RedisOptions(subscription_check_interval=0.05),
            message_handler=lambda channel, value: got.append("handler"),
        ) as toolkit:
            toolkit.subscribe_dynamic("a", lambda channel, value: got.append("callback"))
            toolkit.publisher("a", 1)
            _wait(lambda: got == ["callback"])
            # Only now: on a busy machine it would expire before its message comes.
            toolkit.subscription_manager.expire_minutes = 0.1 / 60
            _wait(lambda: "a" in toolkit.get_expired_channels())
            toolkit.publisher("a", 1)
            _wait(lambda: got == ["callback", "handler"])

    def test_a_lost_connection_is_found_again(self, client: redis.Redis) -> None:
        got: list[Any] = []
        options = RedisOptions(subscriber_retry_delay=1)
        with RedisToolkit(redis=client, options=options) as toolkit:
            toolkit.subscribe_dynamic("a", lambda channel, value: got.append(value))
            client.client_kill_filter(_type="pubsub")
            _wait_for_listener(client, "a")
            toolkit.publisher("a", 5)
            _wait(lambda: got == [5])

    def test_when_they_are_off(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=RedisOptions(enable_dynamic_subscription=False))
        assert toolkit.subscription_manager is None
        assert toolkit.subscribe_dynamic("a", print) is False
        assert toolkit.unsubscribe_dynamic("a") is False
        assert toolkit.resubscribe_channel("a") is False
        assert toolkit.get_expired_channels() == {}
        assert toolkit.get_subscription_stats()["enabled"] is False

    def test_another_manager(self, client: redis.Redis) -> None:
        from redis_fastbatch.toolkit.subscription_manager import SubscriptionManager

        with RedisToolkit(redis=client) as toolkit:
            manager = SubscriptionManager(expire_minutes=1)
            toolkit.set_subscription_manager(manager)
            toolkit.subscribe_dynamic("a", print)
            assert list(manager.get_active_channels()) == ["a"]
            toolkit.set_subscription_manager(None)
            assert toolkit.subscribe_dynamic("b", print) is False

    def test_run_subscriber_ends_the_thread(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, channels=["a"], message_handler=print)
        assert toolkit.run_subscriber is True
        toolkit.run_subscriber = False
        _wait(lambda: toolkit.sub_thread is not None and not toolkit.sub_thread.is_alive())


def _wait(condition: Any) -> None:
    wait_until(condition, "what the test waits for", 10)


def _wait_for_listener(client: redis.Redis, channel: str) -> None:
    _wait(lambda: dict(client.pubsub_numsub(channel))[channel.encode()] == 1)
    time.sleep(0.01)


def test_the_short_way_to_the_class() -> None:
    assert redis_fastbatch.RedisToolkit is RedisToolkit
