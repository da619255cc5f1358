"""Parts of the drop-in: names, options, retries, subscriptions, serializers."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from redis_fastbatch.toolkit import RedisConnectionConfig, RedisOptions, SerializationError
from redis_fastbatch.toolkit.exceptions import RedisToolkitError, wrap_redis_exceptions
from redis_fastbatch.toolkit.subscription_manager import ChannelInfo, SubscriptionManager
from redis_fastbatch.toolkit.utils import retry
from redis_fastbatch.toolkit.utils.retry import simple_retry, with_retry
from redis_fastbatch.toolkit.utils.serializers import (
    BytesAwareJSONEncoder,
    deserialize_numpy_array,
    deserialize_value,
    serialize_numpy_array,
    serialize_value,
)
from servers import wait_until
from toolkit_reference import outcome, same_outcome, toolkit_module

NAMES = {
    "": [
        "RedisToolkit",
        "RedisOptions",
        "RedisConnectionConfig",
        "DEFAULT_OPTIONS",
        "RedisToolkitError",
        "SerializationError",
        "ValidationError",
        "simple_retry",
        "serialize_value",
        "deserialize_value",
        "pool_manager",
        "__version__",
    ],
    "core": ["RedisToolkit", "logger"],
    "options": ["RedisOptions", "RedisConnectionConfig", "DEFAULT_OPTIONS", "DEFAULT_CONNECTION_CONFIG"],
    "exceptions": ["RedisToolkitError", "SerializationError", "ValidationError", "wrap_redis_exceptions"],
    "pool_manager": ["ConnectionPoolManager", "pool_manager", "logger"],
    "subscription_manager": ["SubscriptionManager", "ChannelInfo", "logger"],
    "utils": ["simple_retry", "serialize_value", "deserialize_value"],
    "utils.retry": ["simple_retry", "with_retry", "logger"],
    "utils.serializers": [
        "serialize_value",
        "deserialize_value",
        "serialize_numpy_array",
        "deserialize_numpy_array",
        "BytesAwareJSONEncoder",
    ],
}


def ours(name: str) -> Any:
    return importlib.import_module(f"redis_fastbatch.toolkit{'.' if name else ''}{name}")


@pytest.mark.parametrize("module", NAMES)
def test_every_name_of_the_toolkit_exists(module: str) -> None:
    for name in NAMES[module]:
        assert hasattr(toolkit_module(module), name), f"redis-toolkit has no {name}: mend NAMES"
        assert hasattr(ours(module), name)


@pytest.mark.parametrize(
    ("module", "cls"),
    [
        ("core", "RedisToolkit"),
        ("pool_manager", "ConnectionPoolManager"),
        ("subscription_manager", "SubscriptionManager"),
        ("options", "RedisOptions"),
        ("options", "RedisConnectionConfig"),
        ("exceptions", "SerializationError"),
    ],
)
def test_methods_take_the_same_arguments(module: str, cls: str) -> None:
    """The drop-in may have more parameters after those of redis-toolkit."""
    their_class, our_class = getattr(toolkit_module(module), cls), getattr(ours(module), cls)
    for name, method in inspect.getmembers(their_class):
        if name.startswith("_") and name != "__init__":
            continue
        assert hasattr(our_class, name), name
        if inspect.isfunction(method):
            theirs_takes = signature(method)
            assert signature(getattr(our_class, name))[: len(theirs_takes)] == theirs_takes, name


@pytest.mark.parametrize("function", ["simple_retry", "with_retry"])
def test_decorators_take_the_same_arguments(function: str) -> None:
    theirs_takes = signature(getattr(toolkit_module("utils.retry"), function))
    assert signature(getattr(ours("utils.retry"), function)) == theirs_takes


def signature(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return names and defaults of the parameters, without *args and **kwargs."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [(one.name, one.default) for one in parameters if one.kind not in open_ended]


@pytest.mark.parametrize("cls", ["RedisOptions", "RedisConnectionConfig"])
def test_the_options_have_the_same_fields_and_defaults(cls: str) -> None:
    their_class, our_class = getattr(toolkit_module("options"), cls), getattr(ours("options"), cls)
    assert dataclasses.asdict(our_class()) == dataclasses.asdict(their_class())


bad_options: list[dict[str, Any]] = [
    {"log_level": "LOUD"},
    {"log_level": "info"},
    {"log_level": "CRITICAL"},
    {"max_log_size": 0},
    {"subscriber_retry_delay": 0},
    {"subscriber_stop_timeout": 0},
    {"max_value_size": 0},
    {"max_key_length": 0},
    {"max_connections": 0},
    {"max_connections": "many"},
    {"max_connections": None},
    {"max_value_size": None},
    {"retry_attempts": None},
    {"retry_delay": "1"},
    {"max_connections": 1},
    {"retry_attempts": -1},
    {"retry_attempts": 0},
    {"retry_delay": -0.1},
    {"retry_delay": 0},
    {"retry_backoff": 0.9},
    {"retry_backoff": 1},
    {"log_path": "/no such place/file.log"},
    {"log_path": "file.log"},
    {},
]
bad_configs: list[dict[str, Any]] = [
    {"port": 0},
    {"port": 65536},
    {"port": 65535},
    {"db": -1},
    {"db": None},
    {"port": None},
    {"socket_timeout": "1"},
    {"connection_timeout": 0},
    {"socket_timeout": -1},
    {"socket_timeout": 0.1},
    {"health_check_interval": -1},
    {"health_check_interval": 0},
    {"ssl": True, "ssl_cert_reqs": "maybe"},
    {"ssl": False, "ssl_cert_reqs": "maybe"},
    {"ssl": True, "ssl_cert_reqs": "none"},
    {},
]


@pytest.mark.parametrize(
    ("cls", "settings"),
    [("RedisOptions", one) for one in bad_options] + [("RedisConnectionConfig", one) for one in bad_configs],
    ids=str,
)
def test_validate_refuses_the_same_settings(cls: str, settings: dict[str, Any]) -> None:
    theirs = outcome(lambda _: getattr(toolkit_module("options"), cls)(**settings).validate(), None)
    ours_ = outcome(lambda _: getattr(ours("options"), cls)(**settings).validate(), None)
    assert same_outcome(ours_, theirs)
    assert type(ours_[1]) is type(theirs[1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "h", "port": 1, "db": 2, "password": "p", "username": "u"},
        {"password": "", "socket_keepalive_options": {}},
        {"socket_keepalive_options": {1: 2}, "connection_timeout": 1.5, "socket_timeout": 2.5},
        {"retry_on_timeout": True, "retry_on_error": [OSError]},
        {"ssl": True},
        {"ssl": True, "ssl_keyfile": "k", "ssl_certfile": "c", "ssl_ca_certs": "a", "ssl_cert_reqs": "none"},
    ],
    ids=str,
)
def test_to_redis_kwargs_returns_the_same(settings: dict[str, Any]) -> None:
    theirs = toolkit_module("options").RedisConnectionConfig(**settings).to_redis_kwargs()
    assert RedisConnectionConfig(**settings).to_redis_kwargs() == theirs


class Flaky:
    """A callable that raises an error `failures` times, then returns its arguments."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self.failures = failures
        self.error = error or redis.ConnectionError("away")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return args, kwargs


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces sleep(); the seconds of each pause."""
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    return slept


class TestRetry:
    def test_with_retry_pauses_longer_each_time(self, pauses: list[float]) -> None:
        flaky = Flaky(3)
        retries: list[tuple[str, int]] = []
        decorated = with_retry(
            max_attempts=4,
            delay=0.5,
            backoff_factor=3,
            on_retry=lambda error, attempt: retries.append((str(error), attempt)),
        )(flaky)
        assert decorated(1, a=2) == ((1,), {"a": 2})
        assert pauses == [0.5, 1.5, 4.5]
        assert retries == [("away", 1), ("away", 2), ("away", 3)]

    def test_with_retry_raises_the_last_error(self, pauses: list[float]) -> None:
        flaky = Flaky(9)
        with pytest.raises(redis.ConnectionError):
            with_retry()(flaky)()
        assert flaky.calls == 3
        assert pauses == [0.1, 0.2]

    def test_other_errors_are_raised_at_once(self, pauses: list[float]) -> None:
        flaky = Flaky(9, KeyError("no"))
        with pytest.raises(KeyError):
            with_retry(exceptions=redis.RedisError)(flaky)()
        assert flaky.calls == 1
        assert pauses == []

    def test_there_is_always_one_attempt(self, pauses: list[float]) -> None:
        assert with_retry(max_attempts=0)(Flaky(0))() == ((), {})
        assert simple_retry(Flaky(0), max_retries=-1)() == ((), {})

    def test_an_error_of_on_retry_is_ignored(self, pauses: list[float]) -> None:
        def complain(error: Exception, attempt: int) -> None:
            raise RuntimeError

        assert with_retry(on_retry=complain)(Flaky(1))() == ((), {})

    def test_simple_retry_limits_its_pauses(self, pauses: list[float]) -> None:
        assert simple_retry(Flaky(3), max_retries=3, base_delay=1, max_delay=3)(1) == ((1,), {})
        assert pauses == [1, 2, 3]

    def test_simple_retry_works_with_and_without_parentheses(self) -> None:
        @simple_retry
        def one() -> str:
            """One."""
            return "one"

        @simple_retry(max_retries=1)
        def two() -> str:
            return "two"

        assert (one(), two(), one.__name__, one.__doc__) == ("one", "two", "one", "One.")

    def test_retries_are_logged_by_the_modules_logger(
        self, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines: list[str] = []

        class Log:
            def __getattr__(self, level: str) -> Callable[..., None]:
                return lambda message, *values: lines.append(f"{level} {message % values}")

        monkeypatch.setattr(retry, "logger", Log())
        with_retry(max_attempts=2)(Flaky(1))()
        with pytest.raises(redis.ConnectionError):
            with_retry(max_attempts=2)(Flaky(2))()
        assert [line.split()[0] for line in lines] == ["warning", "info", "warning", "error"]


def test_wrap_redis_exceptions_wraps_only_redis_errors() -> None:
    with pytest.raises(RedisToolkitError) as caught:
        wrap_redis_exceptions(Flaky(1, redis.ResponseError("no")))()
    assert isinstance(caught.value.__cause__, redis.ResponseError)
    with pytest.raises(KeyError):
        wrap_redis_exceptions(Flaky(1, KeyError("other")))()
    assert wrap_redis_exceptions(Flaky(0))(1) == ((1,), {})


class TestSubscriptionManager:
    def test_channels_can_be_added_removed_and_added_again(self) -> None:
        with SubscriptionManager(check_interval=60) as manager:
            assert manager.subscribe_dynamic("a", print) is True
            assert manager.subscribe_dynamic("b", print) is True
            assert manager.get_channel_callback("a") is print
            assert manager.subscribe_dynamic("a", repr) is True
            assert manager.get_channel_callback("a") is repr
            manager.update_activity("a")
            manager.update_activity("unknown")
            assert manager.get_active_channels()["a"]["message_count"] == 1
            assert manager.get_active_channels()["a"]["is_active"] is True
            assert manager.unsubscribe_dynamic("a") is True
            assert manager.unsubscribe_dynamic("a") is False
            assert manager.get_channel_callback("a") is None
            assert manager.get_expired_channels()["a"]["message_count"] == 1
            assert manager.resubscribe("a") is True
            assert manager.resubscribe("a") is False
            assert manager.get_channel_callback("a") is repr
            manager.unsubscribe_dynamic("b")
            assert manager.subscribe_dynamic("b", print) is True
            assert manager.get_expired_channels() == {}
            manager.unsubscribe_dynamic("b")
            assert manager.clear_expired() == 1
            assert repr(manager) == "SubscriptionManager(active=1, expired=0, running=True)"
        assert repr(manager).endswith("running=False)")

    def test_statistics_have_the_toolkits_keys(self) -> None:
        theirs = toolkit_module("subscription_manager").SubscriptionManager()
        manager = SubscriptionManager()
        for one in (theirs, manager):
            one.subscribe_dynamic("a", print)
            one.update_activity("a")
            one.stop()
        assert manager.get_statistics() == theirs.get_statistics()
        for name in ("get_active_channels", "get_expired_channels"):
            one, other = getattr(manager, name)(), getattr(theirs, name)()
            assert {key: set(info) for key, info in one.items()} == {key: set(info) for key, info in other.items()}

    def test_only_a_quiet_channel_expires(self) -> None:
        manager = SubscriptionManager(expire_minutes=2 / 60, check_interval=0.05)
        manager.subscribe_dynamic("quiet", print)
        manager.subscribe_dynamic("busy", print)
        deadline = time.monotonic() + 30
        while not manager.get_expired_channels() and time.monotonic() < deadline:
            manager.update_activity("busy")
            time.sleep(0.02)
        assert list(manager.get_active_channels()) == ["busy"]
        assert list(manager.get_expired_channels()) == ["quiet"]
        assert manager.get_statistics()["total_expired"] == 1
        wait_until(lambda: not manager.get_statistics()["is_running"], "the end of the last channel", 10)
        manager.subscribe_dynamic("quiet", print)
        assert manager.get_statistics()["is_running"] is True
        manager.stop()

    @pytest.mark.parametrize(("cleanup", "kept"), [(True, {"a2", "a3"}), (False, {"a0", "a1", "a2", "a3"})])
    def test_only_the_latest_expired_channels_are_remembered(self, cleanup: bool, kept: set[str]) -> None:
        manager = SubscriptionManager(0, 0.01, cleanup, max_expired=2)
        for number in range(4):
            manager._channels[f"a{number}"] = ChannelInfo(f"a{number}", print, last_activity=float(number))
        manager.start()
        wait_until(lambda: not manager.get_active_channels(), "expiry", 10)
        assert set(manager.get_expired_channels()) == kept


class TestSerializers:
    @pytest.mark.parametrize(
        "data",
        [0, 1, 2, 5.5, None, "text", b"__NONE__", bytearray(b"__NONE__"), bytearray(b"\xff"), memoryview(b"x")],
    )
    def test_deserialize_takes_what_the_toolkit_takes(self, data: Any) -> None:
        theirs = toolkit_module("utils.serializers").deserialize_value
        assert same_outcome(outcome(deserialize_value, data), outcome(theirs, data))

    @pytest.mark.parametrize(
        "data",
        [
            b'{"__type__": "bytes", "__data__": 5}',
            b'{"__type__": "int", "__data__": "x"}',
            b'{"__type__": "tuple", "__data__": 5}',
        ],
    )
    def test_deserialize_raises_what_the_toolkit_raises(self, data: bytes) -> None:
        theirs = outcome(toolkit_module("utils.serializers").deserialize_value, data)
        assert type(outcome(deserialize_value, data)[1]) is type(theirs[1])

    def test_serialize_raises_serialization_error(self) -> None:
        with pytest.raises(SerializationError) as caught:
            serialize_value({1, 2})
        assert caught.value.original_data == {1, 2}

    def test_numpy_functions_return_the_same(self) -> None:
        numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
        theirs = toolkit_module("utils.serializers")
        array = numpy.arange(4.0).reshape(2, 2)
        assert serialize_numpy_array(array) == theirs.serialize_numpy_array(array)
        wrapper = {"__dtype__": "int8", "__shape__": [2], "__data__": [1, 2]}
        assert deserialize_numpy_array(wrapper).tolist() == theirs.deserialize_numpy_array(wrapper).tolist()
        for call in (lambda: serialize_numpy_array([1]), lambda: deserialize_numpy_array({})):
            with pytest.raises(SerializationError):
                call()

    def test_the_json_encoder_writes_the_same(self) -> None:
        theirs = toolkit_module("utils.serializers").BytesAwareJSONEncoder
        value = {"a": b"x", "b": [bytearray(b"y")]}
        assert BytesAwareJSONEncoder().encode(value) == theirs().encode(value)
        with pytest.raises(TypeError):
            BytesAwareJSONEncoder().encode({1, 2})


def test_importing_the_drop_in_loads_no_slow_module() -> None:
    code = (
        "import sys, redis_fastbatch.toolkit;"
        "print(*{'numpy', 'matplotlib', 'PIL', 'loguru', 'asyncio', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # redis-py may load asyncio.
    assert set(done.stdout.split()) <= {"asyncio"}
    package_alone = subprocess.run(
        [sys.executable, "-c", "import sys, redis_fastbatch; print('redis_fastbatch.toolkit' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert package_alone.stdout.strip() == "False"


def test_options_take_positional_arguments() -> None:
    assert RedisOptions(True, 10, "DEBUG").log_level == "DEBUG"


@pytest.mark.parametrize(
    "data",
    [
        b'{"__type__":"numpy"}',
        b'{"__type__":"numpy","__data__":[1],"__dtype__":"bad","__shape__":[1]}',
        b'{"__type__":"numpy","__data__":[1],"__dtype__":"int64","__shape__":[2]}',
        b'{"__type__":"bytes","__data__":5}',
        b'{"__type__":"bytes","__data__":"a"}',
        b'[{"__type__":"bytes","__data__":5}]',
        b'[{"__type__":"bytes","__data__":"a"}]',
    ],
    ids=bytes.decode,
)
def test_invalid_wrappers_raise_the_same_error(data: bytes) -> None:
    pytest.importorskip("numpy")
    theirs = toolkit_module("utils.serializers").deserialize_value
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs(data)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        deserialize_value(data)
    assert raised.type.__name__ == expected.type.__name__
    original = getattr(expected.value, "original_exception", None)
    assert type(getattr(raised.value, "original_exception", None)) is type(original)
