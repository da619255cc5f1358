"""setter() and getter(): what they send, and what becomes of them when the connection is lost."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from checks import commands, in_use, proxied
from faults.streams import Direction, Fault, Then
from redis_fastbatch.server import EmbeddedServer
from redis_fastbatch.toolkit import (
    RedisOptions,
    RedisToolkit,
    RedisToolkitError,
    SerializationError,
    serialize_value,
)
from tiers import by_tier

LARGE = "x" * 300_000
RETRIES = pytest.mark.parametrize("retries", [0, 1])


def quiet(client: Any) -> RedisToolkit:
    """Return a toolkit that does not log, and leaves it to the client to try again."""
    return RedisToolkit(redis=client, options=RedisOptions(is_logger_info=False, retry_attempts=1))


def retry(retries: int) -> Retry:
    """Return a policy that tries again at once."""
    return Retry(NoBackoff(), retries)


@pytest.mark.parametrize("expiry", [None, 60, datetime.timedelta(minutes=1)])
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_commands_are_redis_pys(valkey: EmbeddedServer, expiry: Any, protocol: int) -> None:
    with proxied(valkey, record=True, protocol=protocol) as (proxy, client):
        toolkit = quiet(client)
        toolkit.setter("a", "once")
        before = len(commands(proxy.recorded(Direction.TO_SERVER)))
        toolkit.setter("ä", LARGE, ex=expiry)
        assert toolkit.getter("ä") == LARGE
        assert toolkit.getter("missing", default=7) == 7
        sent = commands(proxy.recorded(Direction.TO_SERVER))[before:]
        client.set("ä", serialize_value(LARGE), ex=expiry)
        client.get("ä")
        client.get("missing")
        assert sent == commands(proxy.recorded(Direction.TO_SERVER))[before + 3 :]


@RETRIES
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("value", ["short", LARGE], ids=["short", "large"])
def test_a_lost_connection_is_replaced_if_the_client_retries(
    valkey: EmbeddedServer, direction: Direction, retries: int, value: str
) -> None:
    with proxied(valkey, retry=retry(retries)) as (proxy, client):
        toolkit = quiet(client)
        client.set("a", serialize_value(value))
        for call in (lambda: toolkit.setter("a", value), lambda: toolkit.getter("a")):
            call()
            before = proxy.seen(direction)
            call()
            length = proxy.seen(direction) - before
            step = 1 + length // by_tier(5, 50)
            for place in range(0, length, step):
                proxy.inject_now(Fault(direction, after_bytes=place, then=Then.CUT))
                if retries:
                    assert call() in (None, value)
                else:
                    with pytest.raises((RedisToolkitError, SerializationError)):
                        call()
                assert in_use(client) == 0
                assert toolkit.getter("a") == value


def test_a_late_reply_is_not_taken_for_another(valkey: EmbeddedServer) -> None:
    with proxied(valkey, retry=retry(0), socket_timeout=0.2) as (proxy, client):
        toolkit = quiet(client)
        toolkit.setter("a", "first")
        toolkit.setter("b", "second")
        proxy.inject_now(Fault(Direction.TO_CLIENT, after_bytes=0, delay=0.5))
        with pytest.raises(SerializationError, match="socket_timeout"):
            toolkit.getter("a")
        assert toolkit.getter("b") == "second"


def test_bytes_that_are_not_resp_end_the_connection(valkey: EmbeddedServer) -> None:
    with proxied(valkey, retry=retry(0)) as (proxy, client):
        toolkit = quiet(client)
        toolkit.setter("a", "first")
        (connection,) = client.connection_pool._available_connections
        proxy.inject_now(Fault(Direction.TO_CLIENT, after_bytes=0, insert=b"?\r\n"))
        with pytest.raises(SerializationError) as caught:
            toolkit.getter("a")
        assert type(caught.value.original_exception) is redis.exceptions.InvalidResponse
        assert connection._sock is None
        assert toolkit.getter("a") == "first"


def test_refusals_are_redis_pys(valkey_client: redis.Redis) -> None:
    toolkit = quiet(valkey_client)
    valkey_client.rpush("list", 1)
    with pytest.raises(SerializationError, match="WRONGTYPE") as caught:
        toolkit.getter("list")
    assert type(caught.value.original_exception) is redis.ResponseError
    with pytest.raises(SerializationError) as invalid:
        toolkit.getter(None)  # type: ignore[arg-type]
    assert type(invalid.value.original_exception) is redis.DataError


def test_stored_bytes_are_not_decoded(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    with redis.Redis(host=valkey.host, port=valkey.port, decode_responses=True) as client:
        toolkit = quiet(client)
        toolkit.setter("a", b"\xff\x00")
        assert toolkit.getter("a") == b"\xff\x00"


class Counting(redis.Redis):
    """A client that counts its commands."""

    sent: list[Any]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.sent = [*getattr(self, "sent", []), args[0]]
        return super().execute_command(*args, **options)


def test_a_client_with_methods_of_its_own_sends_its_commands(valkey: EmbeddedServer) -> None:
    with Counting(host=valkey.host, port=valkey.port) as client:
        toolkit = quiet(client)
        toolkit.setter("a", 2)
        assert toolkit.getter("a") == 2
        assert client.sent == ["SET", "GET"]


def test_a_response_callback_is_called(valkey: EmbeddedServer) -> None:
    with redis.Redis(host=valkey.host, port=valkey.port) as client:
        client.set("a", 2)
        client.set_response_callback("GET", lambda reply, **_: b"3")
        assert quiet(client).getter("a") == 3


def test_a_single_connection_is_used(valkey: EmbeddedServer) -> None:
    with redis.Redis(host=valkey.host, port=valkey.port, single_connection_client=True) as client:
        toolkit = quiet(client)
        toolkit.setter("a", 2)
        assert toolkit.getter("a") == 2
