"""Expiries and conditions give the same keys, values and times to live, whichever commands a server has."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from redis_fastbatch import FastBatch
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._transports.capabilities import capabilities

UTC = datetime.timezone.utc
WEST = datetime.timezone(datetime.timedelta(hours=-5))
ITEMS = {f"k{i}": i for i in range(1200)}
HOUR = 3600


def in_an_hour() -> datetime.datetime:
    return datetime.datetime.now(UTC) + datetime.timedelta(hours=1)


EXPIRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "ex": lambda: {"ex": HOUR},
    "ex timedelta": lambda: {"ex": datetime.timedelta(hours=1)},
    "px": lambda: {"px": HOUR * 1000},
    "px timedelta": lambda: {"px": datetime.timedelta(hours=1)},
    "exat": lambda: {"exat": int(time.time()) + HOUR},
    "exat datetime": lambda: {"exat": in_an_hour()},
    "exat naive datetime": lambda: {"exat": in_an_hour().astimezone().replace(tzinfo=None)},
    "pxat": lambda: {"pxat": int(time.time() * 1000) + HOUR * 1000},
    "pxat datetime": lambda: {"pxat": in_an_hour()},
}


@pytest.fixture(params=EXPIRIES)
def expiry(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return each form of an expiry in an hour."""
    return EXPIRIES[request.param]()


def ttls(client: redis.Redis, keys: Any) -> set[int]:
    """Return the times to live in milliseconds."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        return set(pipeline.execute())


def expires_in_an_hour(client: redis.Redis, keys: Any) -> bool:
    found = ttls(client, keys)
    return HOUR * 1000 - 5000 < min(found) <= max(found) <= HOUR * 1000


@pytest.mark.parametrize("condition", [{}, {"nx": True}, {"xx": True}, {"atomic": True}], ids=str)
def test_every_form_of_expiry_is_set(
    client: redis.Redis, expiry: dict[str, Any], condition: dict[str, Any]
) -> None:
    if condition.get("xx"):
        client.mset(dict.fromkeys(ITEMS, "old"))
    report = FastBatch(client).batch_set(ITEMS, **expiry, **condition)
    assert (report.written, report.skipped, report.failed) == (len(ITEMS), 0, 0)
    assert FastBatch(client).batch_get(ITEMS) == ITEMS
    assert expires_in_an_hour(client, ITEMS)


def test_without_an_expiry_keys_do_not_expire(client: redis.Redis) -> None:
    client.set("k0", "old", ex=5)
    FastBatch(client).batch_set(ITEMS)
    assert ttls(client, ITEMS) == {-1}


def test_keepttl_keeps_the_time_to_live(client: redis.Redis) -> None:
    client.set("k0", "old", ex=HOUR)
    client.set("k1", "old")
    for condition in ({}, {"xx": True}, {"atomic": True}):
        FastBatch(client).batch_set({"k0": 1, "k1": 2, "k2": 3}, keepttl=True, **condition)
        assert FastBatch(client).batch_get(["k0", "k1"]) == {"k0": 1, "k1": 2}
        assert expires_in_an_hour(client, ["k0"])
        assert ttls(client, ["k1"]) == {-1}


def test_milliseconds_are_exact() -> None:
    # In floats, 1.001 * 1000 is 1000.9999999999999.
    start = datetime.datetime(2030, 1, 1, tzinfo=UTC)
    for some in range(1, 3000):
        length = datetime.timedelta(milliseconds=some)
        assert SetOptions(px=length).expiry == (b"PX", b"%d" % some)
        assert SetOptions(pxat=start + length).expiry == (b"PXAT", b"%d" % (1_893_456_000_000 + some))
    assert SetOptions(exat=start).expiry == (b"EXAT", b"1893456000")


def test_exat_and_pxat_are_exact(client: redis.Redis) -> None:
    until = datetime.datetime(2033, 5, 18, 3, 33, 20, 1000, tzinfo=UTC)
    FastBatch(client).batch_set({"a": 1}, pxat=until)
    FastBatch(client).batch_set({"b": 1}, exat=until)
    assert client.pexpiretime("a") == 2_000_000_000_001
    assert client.pexpiretime("b") == 2_000_000_000_000


def test_keys_expire(client: redis.Redis) -> None:
    FastBatch(client).batch_set({"a": 1, "b": 2}, px=80)
    FastBatch(client).batch_set({"c": 3}, pxat=datetime.datetime.now(UTC) + datetime.timedelta(milliseconds=80))
    time.sleep(0.15)
    assert FastBatch(client).batch_get(["a", "b", "c"]) == {"a": None, "b": None, "c": None}


def test_an_expiry_in_the_past_leaves_no_key(client: redis.Redis) -> None:
    client.set("a", "old")
    FastBatch(client).batch_set({"a": 1, "b": 2}, exat=1000)
    assert client.exists("a", "b") == 0


@pytest.mark.parametrize("with_expiry", [False, True])
def test_nx_writes_only_new_keys(client: redis.Redis, with_expiry: bool) -> None:
    old = {f"k{i}": "old" for i in range(0, 1200, 3)}
    FastBatch(client).batch_set(old)
    report = FastBatch(client).batch_set(ITEMS, nx=True, **({"ex": HOUR} if with_expiry else {}))
    assert (report.written, report.skipped, report.failed) == (800, 400, 0)
    assert report.skipped_keys == list(old)
    assert FastBatch(client).batch_get(ITEMS) == {**ITEMS, **old}
    assert ttls(client, old) == {-1}
    new = [key for key in ITEMS if key not in old]
    assert expires_in_an_hour(client, new) if with_expiry else ttls(client, new) == {-1}


@pytest.mark.parametrize("with_expiry", [False, True])
def test_xx_writes_only_existing_keys(client: redis.Redis, with_expiry: bool) -> None:
    old = {f"k{i}": "old" for i in range(0, 1200, 3)}
    FastBatch(client).batch_set(old)
    report = FastBatch(client).batch_set(ITEMS, xx=True, **({"px": HOUR * 1000} if with_expiry else {}))
    assert (report.written, report.skipped, report.failed) == (400, 800, 0)
    assert len(report.skipped_keys) == 800
    assert client.dbsize() == 400
    assert FastBatch(client).batch_get(old) == {key: ITEMS[key] for key in old}


def test_skipped_keys_are_kept_in_bounded_memory(client: redis.Redis) -> None:
    report = FastBatch(client).batch_set(((f"k{i}", i) for i in range(3000)), xx=True)
    assert (report.written, report.skipped, len(report.skipped_keys)) == (0, 3000, 1000)
    assert report.skipped_keys == [f"k{i}" for i in range(1000)]


def test_nx_writes_the_first_of_equal_keys(client: redis.Redis) -> None:
    report = FastBatch(client).batch_set([("a", 1), ("a", 2), ("a", 3)], nx=True)
    assert (report.written, report.skipped) == (1, 2)
    assert FastBatch(client).batch_get(["a"]) == {"a": 1}


# -- arguments that are refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ex": 1, "px": 1}, "ex and px exclude each other"),
        ({"ex": 1, "exat": 1, "pxat": 2}, "ex and exat and pxat exclude"),
        ({"ex": 1, "keepttl": True}, "ex and keepttl exclude"),
        ({"nx": True, "xx": True}, "nx and xx exclude"),
        ({"ex": 0}, "ex must be positive"),
        ({"ex": -1}, "ex must be positive"),
        ({"px": 0}, "px must be positive"),
        ({"exat": 0}, "exat must be positive"),
        ({"ex": 2**63}, "64 bits"),
        ({"ex": datetime.timedelta(0)}, "ex must be positive"),
        ({"ex": datetime.timedelta(seconds=-5)}, "ex must be positive"),
        ({"exat": datetime.datetime(1960, 1, 1, tzinfo=UTC)}, "exat must be positive"),
        ({"pxat": datetime.datetime.max.replace(tzinfo=WEST)}, "pxat is beyond what a datetime holds"),
    ],
    ids=str,
)
def test_invalid_expiries_are_refused(client: redis.Redis, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FastBatch(client).batch_set({"a": 1}, **options)
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"ex": 1.5},
        {"ex": "10"},
        {"px": True},
        {"exat": datetime.timedelta(1)},
        {"ex": in_an_hour()},
        {"pxat": 1e12},
    ],
    ids=lambda options: "-".join(f"{name} {type(value).__name__}" for name, value in options.items()),
)
def test_expiries_of_other_types_are_refused(client: redis.Redis, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be an int or a datetime"):
        FastBatch(client).batch_set({"a": 1}, **options)
    assert client.dbsize() == 0


def test_a_timedelta_shorter_than_its_unit_is_refused(client: redis.Redis) -> None:
    with pytest.raises(ValueError, match=r"ex must be at least 1 second, .*px"):
        FastBatch(client).batch_set({"a": 1}, ex=datetime.timedelta(milliseconds=900))
    FastBatch(client).batch_set({"a": 1}, px=datetime.timedelta(milliseconds=900))
    assert 0 < client.pttl("a") <= 900


# -- MSETEX or SET -------------------------------------------------------------------------------


def calls(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def has_msetex(client: redis.Redis) -> bool:
    return b"msetex" in client.command_list()


def test_msetex_is_used_if_the_server_has_it(client: redis.Redis) -> None:
    client.config_resetstat()
    FastBatch(client).batch_set(ITEMS, ex=HOUR)
    has_it = has_msetex(client)
    assert (calls(client, "msetex") > 0) == has_it
    assert calls(client, "set") == (0 if has_it else len(ITEMS))


def test_the_server_is_asked_for_msetex_once(client: redis.Redis) -> None:
    client.config_resetstat()
    for _ in range(5):
        FastBatch(client).batch_set({"a": 1}, ex=HOUR)
        FastBatch(client).batch_set({"a": 1}, px=HOUR)
    assert calls(client, "command|info") == 1


def test_the_server_is_not_asked_if_msetex_is_not_needed(client: redis.Redis) -> None:
    client.config_resetstat()
    for options in ({}, {"nx": True, "ex": 5}, {"xx": True}):
        FastBatch(client).batch_set({"a": 1}, **options)
    assert calls(client, "command|info") == 0


@pytest.mark.parametrize("options", [{}, {"atomic": True}], ids=str)
def test_a_server_may_lose_msetex(client: redis.Redis, options: dict[str, Any]) -> None:
    # As after a failover to an older replica: the client still remembers that the server has MSETEX.
    user: dict[str, Any] = {}
    if has_msetex(client):
        client.execute_command("ACL", "SETUSER", "old", "on", "nopass", "~*", "+@all", "-msetex")
        user = {"username": "old", "password": "any"}
    kwargs = client.connection_pool.connection_kwargs
    with redis.Redis(host=kwargs["host"], port=kwargs["port"], **user) as older:
        capabilities.remember_msetex(older.connection_pool, True)
        report = FastBatch(older).batch_set(ITEMS, ex=HOUR, **options)
        assert (report.written, report.failed) == (len(ITEMS), 0)
        assert FastBatch(older).batch_get(ITEMS) == ITEMS
        assert expires_in_an_hour(older, ITEMS)
        assert capabilities.msetex(older.connection_pool) is False
        assert FastBatch(older).batch_set({"more": 1}, ex=HOUR, **options).written == 1
    if user:
        client.execute_command("ACL", "DELUSER", "old")


def test_a_server_may_forbid_command_info(client: redis.Redis) -> None:
    kwargs = client.connection_pool.connection_kwargs
    client.execute_command("ACL", "SETUSER", "silent", "on", "nopass", "~*", "+@all", "-command")
    with redis.Redis(host=kwargs["host"], port=kwargs["port"], username="silent", password="any") as silent:
        assert FastBatch(silent).batch_set(ITEMS, ex=HOUR).written == len(ITEMS)
        assert expires_in_an_hour(silent, ITEMS)
    client.execute_command("ACL", "DELUSER", "silent")
