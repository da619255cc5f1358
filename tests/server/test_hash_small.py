"""Small batches of hashes, which are sent and answered before a flight is made, have the results of large ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from labels import label
from redis_fastbatch import AsyncFastBatch, BatchError, DecodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import acl_user

ROWS: dict[Any, Any] = {f"u:{n}": {"id": n, "name": f"näme {n}"} for n in range(20)}
FOUND = {key: {"id": row["id"], "name": row["name"]} for key, row in ROWS.items()}
TYPES = {"id": int, "name": str}

Call = Callable[..., Any]


class Caller:
    """Calls methods of a client, synchronous or asyncio, one after the other over one connection."""

    def __init__(self, kind: str, server: EmbeddedServer, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if kind == "asyncio" else None
        retry = Retry(NoBackoff(), 2) if self._loop is None else redis.asyncio.retry.Retry(NoBackoff(), 2)
        options = {"host": server.host, "port": server.port, "retry": retry, "client_name": "small", **options}
        client: Any = redis.Redis if self._loop is None else redis.asyncio.Redis
        self.batch: Any = (FastBatch if self._loop is None else AsyncFastBatch)(client(**options))

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        called = getattr(self.batch, method)(*arguments, **options)
        return called if self._loop is None else self._loop.run_until_complete(called)

    def close(self) -> None:
        if self._loop is None:
            self.batch.close()
        else:
            self._loop.run_until_complete(self.batch.aclose())
            self._loop.close()


@pytest.fixture(params=["sync", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of each kind of client."""
    return str(request.param)


@pytest.fixture
def call(kind: str, valkey: EmbeddedServer, valkey_client: redis.Redis) -> Iterator[Caller]:
    """Return a caller whose client has read hashes before, so that it knows how large they are."""
    caller = Caller(kind, valkey)
    caller("batch_hset", ROWS)
    caller("batch_hgetall", ROWS)
    yield caller
    caller.close()


def python_calls(work: Callable[[], Any]) -> int:
    """Return how many functions of Python a call enters."""
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "options", [{}, {"ex": 100}, {"ex": lambda _: 100}, {"px": 99_000, "ex_jitter": 0.01}], ids=label
)
def test_small_batches_are_written(call: Caller, valkey_client: redis.Redis, options: dict[str, Any]) -> None:
    valkey_client.flushdb()
    report = call("batch_hset", ROWS, **options)
    assert (report.written, report.failed, report.confirmed_prefix) == (20, 0, 20)
    assert report.bytes_sent > sum(len(str(row)) for row in ROWS.values())
    assert {key: valkey_client.hgetall(key) for key in ROWS} == {
        key: {b"id": b"%d" % row["id"], b"name": row["name"].encode()} for key, row in ROWS.items()
    }
    assert {95 < valkey_client.ttl(key) <= 100 for key in ROWS} == {bool(options)}
    assert call("batch_hset", ROWS, **options).written == 20


def test_small_batches_are_read(call: Caller) -> None:
    keys = ["missing", *ROWS, "u:3"]
    assert call("batch_hgetall", keys, types=TYPES, default=7) == {"missing": 7, **FOUND}
    assert call("batch_hmget", keys, ["name", "none"], types=str) == {
        "missing": None,
        **{key: {"name": row["name"], "none": None} for key, row in FOUND.items()},
    }
    assert call("batch_hgetall", []) == {}


def test_they_take_few_calls(call: Caller) -> None:
    for method, arguments in (
        ("batch_hset", (ROWS,)),
        ("batch_hgetall", (list(ROWS),)),
        ("batch_hmget", (list(ROWS), ["id"])),
    ):
        # What is made once for a client is made here.
        call(method, *arguments)
        few = python_calls(lambda method=method, arguments=arguments: call(method, *arguments))
        # The same from a generator takes a flight.
        items = iter(arguments[0].items() if method == "batch_hset" else arguments[0])
        many = python_calls(lambda method=method, rest=(items, *arguments[1:]): call(method, *rest))
        assert few < many - 20, (method, few, many)


@pytest.mark.parametrize("options", [{}, {"ex": 100}], ids=label)
def test_a_refused_hash_fails_alone(call: Caller, valkey_client: redis.Redis, options: dict[str, Any]) -> None:
    valkey_client.flushdb()
    valkey_client.set("u:7", "a string")
    report = call("batch_hset", ROWS, on_error="report", **options)
    assert (report.written, report.confirmed_prefix, list(report.failures)) == (19, 20, ["u:7"])
    assert (valkey_client.get("u:7"), valkey_client.ttl("u:7")) == (b"a string", -1)
    assert {valkey_client.ttl(key) > 0 for key in ROWS if key != "u:7"} == {bool(options)}
    with pytest.raises(BatchError, match="key 'u:9'"):
        call("batch_hset", {**ROWS, "u:9": {"bad": []}}, **options)
    with pytest.raises(redis.ResponseError, match=r"^key 'u:7': WRONGTYPE"):
        call("batch_hgetall", ROWS)
    assert call("batch_hgetall", ROWS, on_error="report", types=TYPES) == {**FOUND, "u:7": None}


def test_a_value_that_does_not_fit_names_its_key_and_field(call: Caller) -> None:
    with pytest.raises(DecodeError, match="key 'u:0', field 'name'"):
        call("batch_hgetall", ROWS, types=int)
    assert call("batch_hgetall", ROWS, types=TYPES) == FOUND


def test_a_reply_may_be_larger_than_was_known(call: Caller, valkey_client: redis.Redis) -> None:
    large = {f"large:{n}": {"text": str(n) * 300_000} for n in range(5)}
    call("batch_hset", large)
    assert call("batch_hgetall", [*ROWS, *large], types=str)["large:3"] == large["large:3"]
    assert call("batch_hgetall", [*ROWS, *large], types=str)["u:3"] == {"id": "3", "name": "näme 3"}


@pytest.mark.parametrize("options", [{}, {"ex": 100}], ids=label)
def test_a_lost_connection_is_replaced(call: Caller, valkey_client: redis.Redis, options: dict[str, Any]) -> None:
    for method, arguments, more in (
        ("batch_hset", (ROWS,), options),
        ("batch_hgetall", (list(ROWS),), {"types": TYPES}),
    ):
        for each in valkey_client.client_list():
            if each["name"] == "small":
                valkey_client.client_kill_filter(_id=each["id"])
        result = call(method, *arguments, **more)
        assert result == FOUND if method == "batch_hgetall" else result.written == 20


def test_an_expiry_that_is_refused_is_reported(
    kind: str, valkey: EmbeddedServer, valkey_client: redis.Redis
) -> None:
    with acl_user(valkey, "-expire", prefix="") as user:
        call = Caller(kind, valkey, username=user.username, password=user.password)
        try:
            report = call("batch_hset", ROWS, ex=100, on_error="report")
        finally:
            call.close()
    assert (report.written, report.failed, report.confirmed_prefix) == (0, 20, 20)
    assert "has no permissions to run the 'expire' command" in str(report.failures["u:3"])
    assert valkey_client.ttl("u:3") == -1
