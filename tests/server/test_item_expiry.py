"""Expiries that differ from item to item: of a callable, of a table's column, spread at random."""

from __future__ import annotations

import asyncio
import datetime
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from labels import label
from redis_fastbatch import AsyncFastBatch, BatchReport, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer

HOUR = 3600
KEYS: list[Any] = [*(f"k{n}" for n in range(2500)), "ä1", b"b2", 3]
VALUES: dict[Any, Any] = {key: {"n": 1} for key in KEYS}


def seconds_of(key: Any) -> int:
    """Return the expiry of one of KEYS, which differs from that of the keys beside it."""
    return HOUR + 10 * int(key[1:] if isinstance(key, (str, bytes)) else key)


class Target:
    """One of the clients: its two methods that write, and the client that looks at what they wrote."""

    def __init__(self, kind: str, client: Any, url: str) -> None:
        self.client, self._kind, self._url = client, kind, url
        self._batch = FastBatch(client)

    def write(self, method: str, items: Any, **options: Any) -> BatchReport:
        if self._kind != "asyncio":
            report: BatchReport = getattr(self._batch, method)(items, **options)
            return report
        return asyncio.run(self._write_async(method, items, options))

    async def _write_async(self, method: str, items: Any, options: Any) -> BatchReport:
        async with AsyncFastBatch.from_url(self._url) as batch:
            report: BatchReport = await getattr(batch, method)(items, **options)
            return report

    def ttls(self, keys: Any) -> list[int]:
        with self.client.pipeline() as pipeline:
            for key in keys:
                pipeline.pttl(key)
            return list(pipeline.execute())


@pytest.fixture(params=["sync", "asyncio", "cluster"])
def target(request: pytest.FixtureRequest) -> Target:
    """Return each of the clients."""
    if request.param == "cluster":
        return Target(request.param, request.getfixturevalue("cluster_client"), "")
    valkey: EmbeddedServer = request.getfixturevalue("valkey")
    return Target(request.param, request.getfixturevalue("valkey_client"), valkey.url)


def assert_expire(target: Target, keys: Any, seconds_of_key: Callable[[Any], int]) -> None:
    for key, found in zip(keys, target.ttls(keys), strict=True):
        assert seconds_of_key(key) * 1000 - 20_000 < found <= seconds_of_key(key) * 1000, key


@pytest.mark.parametrize("method", ["batch_set", "batch_hset"])
def test_a_callable_gives_each_key_its_time(target: Target, method: str) -> None:
    seen: list[Any] = []

    def ex(key: Any) -> int:
        seen.append(key)
        return seconds_of(key)

    report = target.write(method, VALUES, ex=ex)
    assert (report.written, report.failed) == (len(KEYS), 0)
    assert seen == KEYS
    assert_expire(target, KEYS, seconds_of)


@pytest.mark.parametrize("method", ["batch_set", "batch_hset"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("ex", lambda _: datetime.timedelta(hours=1)),
        ("px", lambda _: HOUR * 1000),
        ("exat", lambda _: datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)),
        ("pxat", lambda _: int(time.time() * 1000) + HOUR * 1000),
    ],
    ids=["ex", "px", "exat", "pxat"],
)
def test_each_expiry_may_be_a_callable(valkey_client: redis.Redis, method: str, name: str, given: Any) -> None:
    target = Target("sync", valkey_client, "")
    assert target.write(method, {"a": {"n": 1}, "b": {"n": 2}}, **{name: given}).written == 2
    assert_expire(target, ["a", "b"], lambda _: HOUR)


@pytest.mark.parametrize("options", [{"nx": True}, {"xx": True}, {"atomic": True}, {"workers": 2}], ids=str)
def test_a_callable_goes_with_conditions(valkey_client: redis.Redis, options: dict[str, Any]) -> None:
    items = dict.fromkeys(KEYS, 1)
    if "xx" in options:
        FastBatch(valkey_client).batch_set(items)
    report = FastBatch(valkey_client).batch_set(items, ex=seconds_of, **options)
    assert report.written == len(KEYS)
    assert_expire(Target("sync", valkey_client, ""), KEYS, seconds_of)
    if "nx" in options:
        assert FastBatch(valkey_client).batch_set(items, ex=seconds_of, nx=True).skipped == len(KEYS)


@pytest.mark.parametrize("method", ["batch_set", "batch_hset"])
def test_an_item_without_a_time_fails_alone(target: Target, method: str) -> None:
    class Unfit(Exception):
        pass

    given: dict[str, Any] = {
        "zero": 0,
        "low": -5,
        "text": "60",
        "none": None,
        "bool": True,
        "long": 2**63,
    }

    def ex(key: str) -> Any:
        if key == "raises":
            raise Unfit("no time for you")
        return given.get(key, HOUR)

    items = {key: {"n": 1} for key in ("first", *given, "raises", "last")}
    report = target.write(method, items, ex=ex, on_error="report")
    assert (report.written, report.failed) == (2, 7)
    assert report.failures.keys() == {*given, "raises"}
    assert all(isinstance(error, EncodeError) for error in report.failures.values())
    assert str(report.failures["low"]) == "key 'low': ex must be positive and fit into 64 bits, got -5"
    assert str(report.failures["none"]).startswith(
        "key 'none': ex must be an int or a datetime.timedelta, got NoneType"
    )
    assert str(report.failures["raises"]) == "key 'raises': Unfit: no time for you"
    assert isinstance(report.failures["raises"].__cause__, Unfit)
    assert [ttl > 0 for ttl in target.ttls(["first", "last"])] == [True, True]
    assert target.ttls([*given, "raises"]) == [-2] * 7


@pytest.mark.parametrize("method", ["batch_set", "batch_hset"])
@pytest.mark.parametrize(
    "expiry", [{"ex": 100}, {"px": 100_000}, {"ex": lambda _: 100}], ids=["ex", "px", "callable"]
)
def test_jitter_spreads_expiries(target: Target, method: str, expiry: dict[str, Any]) -> None:
    report = target.write(method, VALUES, **expiry, ex_jitter=0.2)
    assert report.written == len(KEYS)
    ttls = target.ttls(KEYS)
    # Times are sent in milliseconds: in seconds there would be only 41 of them.
    assert len(set(ttls)) > 1500
    assert 75_000 < min(ttls) < 83_000
    assert 117_000 < max(ttls) <= 120_000
    assert 97_000 < sum(ttls) / len(ttls) < 102_000


def test_a_short_time_stays_positive(valkey_client: redis.Redis) -> None:
    report = FastBatch(valkey_client).batch_set(dict.fromkeys(range(500), 1), px=1, ex_jitter=0.99)
    assert report.written == 500


def test_a_time_that_cannot_be_spread_fails_alone(valkey_client: redis.Redis) -> None:
    report = FastBatch(valkey_client).batch_set(
        {"a": 1, "b": 1}, ex=lambda key: 2**62 if key == "a" else 60, ex_jitter=0.1, on_error="report"
    )
    assert (report.written, list(report.failures)) == (1, ["a"])
    assert "ex must be shorter where it is spread" in str(report.failures["a"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ex": "60"}, TypeError, "ex must be an int or a datetime.timedelta, got str '60'"),
        ({"ex": 60, "px": lambda _: 1}, ValueError, "ex and px exclude each other"),
        ({"ex_jitter": 0.1}, ValueError, "ex_jitter needs ex or px"),
        ({"exat": 2**33, "ex_jitter": 0.1}, ValueError, "ex_jitter needs ex or px"),
        ({"ex": 60, "ex_jitter": 1}, ValueError, "ex_jitter must be at least 0 and less than 1, got 1"),
        ({"ex": 60, "ex_jitter": -0.1}, ValueError, "ex_jitter must be at least 0 and less than 1, got -0.1"),
        ({"ex": 60, "ex_jitter": "1"}, TypeError, "ex_jitter must be a float, got str '1'"),
        ({"ex": 0, "ex_jitter": 0.1}, ValueError, "ex must be positive"),
    ],
    ids=label,
)
@pytest.mark.parametrize("method", ["batch_set", "batch_hset"])
def test_wrong_expiries_are_refused(
    valkey_client: redis.Redis, method: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(FastBatch(valkey_client), method)({"a": {"n": 1}}, **options)
    assert valkey_client.dbsize() == 0


def test_a_callable_is_not_kept_after_the_batch(valkey_client: redis.Redis) -> None:
    class Ex:
        def __call__(self, key: Any) -> int:
            return 60

    ex = Ex()
    kept = weakref.ref(ex)
    batch = FastBatch(valkey_client)
    batch.batch_set({"a": 1}, ex=ex)
    batch.batch_hset({"h": {"a": 1}}, ex=ex)
    del ex
    gc.collect()
    assert kept() is None


def test_a_lost_connection_repeats_the_same_times(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    with redis.Redis.from_url(valkey.url, retry=Retry(NoBackoff(), 3)) as client:
        client.ping()
        calls: list[Any] = []

        def ex(key: Any) -> int:
            calls.append(key)
            if len(calls) == 1200:
                valkey_client.client_kill_filter(_type="normal", skipme=True)
            return seconds_of(key)

        report = FastBatch(client).batch_hset(((key, {"n": 1}) for key in KEYS), ex=ex)
    assert (report.written, calls) == (len(KEYS), KEYS)
    assert_expire(Target("sync", valkey_client, ""), KEYS, seconds_of)


pa = pytest.importorskip("pyarrow")


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("kind", ["uint8", "int64"])
def test_a_column_has_each_rows_time(target: Target, as_: str, kind: str) -> None:
    times = [1 + n % 200 for n in range(2500)]
    table = pa.table({"id": range(2500), "n": range(2500), "ttl": pa.array(times, getattr(pa, kind)())})
    columns = ["n"] if kind == "uint8" else None
    report = target.write("batch_set_table", table, key="id", ex="ttl", as_=as_, columns=columns)
    assert (report.written, report.failed) == (2500, 0)
    ttls = target.ttls(range(2500))
    late = [(n, found) for n, found in enumerate(ttls) if not times[n] * 1000 - 20_000 < found <= times[n] * 1000]
    assert not [pair for pair in late if times[pair[0]] > 20]
    if as_ == "hash":
        assert target.client.hgetall(199) == {b"n": b"199", **({} if columns else {b"id": b"199", b"ttl": b"200"})}
    else:
        wanted = {"n": 199} if columns else {"id": 199, "n": 199, "ttl": 200}
        assert FastBatch(target.client).batch_get([199]) == {199: wanted}


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_a_row_without_a_time_fails_alone(target: Target, as_: str) -> None:
    table = pa.table({"id": list("abcde"), "ttl": pa.array([60, None, 0, -3, 70])})
    failed: list[Any] = []
    report = target.write(
        "batch_set_table", table, key="id", ex="ttl", as_=as_, on_error=lambda *failure: failed.append(failure)
    )
    assert (report.written, report.failed) == (2, 3)
    assert str(report.failures[1]) == "row 1: column 'ttl': ex must be positive and fit into 64 bits, found null"
    assert str(report.failures[3]) == "row 3: column 'ttl': ex must be positive and fit into 64 bits, found -3"
    expected = {b"id": b"d", b"ttl": b"-3"} if as_ == "hash" else {"id": "d", "ttl": -3}
    assert failed[2][:2] == (3, expected)
    assert [ttl > 0 for ttl in target.ttls("abcde")] == [True, False, False, False, True]


def test_a_uint64_that_is_too_long_fails_alone(valkey_client: redis.Redis) -> None:
    table = pa.table({"id": ["a", "b"], "ttl": pa.array([2**64 - 1, 60], pa.uint64())})
    report = FastBatch(valkey_client).batch_set_table(table, key="id", px="ttl", on_error="report")
    assert "found 18446744073709551615" in str(report.failures[0])


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_jitter_spreads_the_rows_of_a_table(target: Target, as_: str) -> None:
    table = pa.table({"id": range(2500), "ttl": [100] * 2500})
    for ex in ("ttl", 100):
        assert target.write("batch_set_table", table, key="id", ex=ex, ex_jitter=0.1, as_=as_).written == 2500
        ttls = target.ttls(range(2500))
        assert len(set(ttls)) > 1500
        assert 85_000 < min(ttls) <= max(ttls) <= 110_000


def test_rows_that_the_server_refuses_are_reported_as_they_are(valkey_client: redis.Redis) -> None:
    # Redis adds the time to now, which overflows.
    table = pa.table({"id": ["a", "b", "c"], "n": [1, 2, 3], "ttl": [60, 2**62, 60]})
    failed: list[Any] = []
    report = FastBatch(valkey_client).batch_set_table(
        table, key="id", px="ttl", columns=["n"], on_error=lambda *failure: failed.append(failure)
    )
    if report.failed:
        assert (report.written, [failure[:2] for failure in failed]) == (2, [(1, {"n": 2})])
    assert valkey_client.pttl("c") > 0


@pytest.mark.parametrize(
    ("ex", "error", "message"),
    [
        ("name", EncodeError, "column 'name': ex must be a column of integers; cast the column"),
        ("nothing", EncodeError, "column 'nothing': there is no such column"),
        (len, TypeError, "ex must be a time or the name of a column with each row's time, got a callable"),
    ],
    ids=label,
)
@pytest.mark.parametrize("as_", ["value", "hash"])
def test_a_wrong_column_is_refused(
    valkey_client: redis.Redis, as_: Any, ex: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FastBatch(valkey_client).batch_set_table(pa.table({"id": [1], "name": ["x"]}), key="id", ex=ex, as_=as_)
