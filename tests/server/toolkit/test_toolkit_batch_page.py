"""Every use in redis-toolkit's documentation of batches, with the drop-in."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from redis_fastbatch.server import EmbeddedServer
from redis_fastbatch.toolkit import RedisConnectionConfig, RedisToolkit, pool_manager

USERS = {
    "user:1001": {"name": "Amina", "score": 95},
    "user:1002": {"name": "Björn", "score": 87},
    "user:1003": {"name": "Chiara", "score": 92},
}


@pytest.fixture
def toolkit(client: redis.Redis) -> RedisToolkit:
    return RedisToolkit(redis=client)


@contextlib.contextmanager
def commands_of(toolkit: RedisToolkit) -> Iterator[Callable[[], int]]:
    """Count the commands that the server executes. Yield a function that returns the count after the context."""

    def processed() -> int:
        return int(toolkit.client.info("stats")["total_commands_processed"])

    before = processed()
    count: list[int] = []
    yield lambda: count[0]
    count.append(processed() - before - 1)


def test_one_by_one_or_as_a_batch_stores_the_same(toolkit: RedisToolkit) -> None:
    values = {f"key:{number}": f"value:{number}" for number in range(2000)}
    with commands_of(toolkit) as singly:
        for name, value in values.items():
            toolkit.setter(name, value)
    stored = toolkit.client.mget(list(values))
    toolkit.client.flushall()
    with commands_of(toolkit) as as_batch:
        toolkit.batch_set(values)
    assert toolkit.client.mget(list(values)) == stored
    assert singly() >= 2000
    assert as_batch() < 20


def test_a_batch_can_expire_in_an_hour(toolkit: RedisToolkit) -> None:
    toolkit.batch_set(USERS)
    assert {toolkit.client.ttl(name) for name in USERS} == {-1}
    toolkit.batch_set(USERS, ex=3600)
    assert all(3590 < toolkit.client.ttl(name) <= 3600 for name in USERS)


def test_missing_keys_are_none(toolkit: RedisToolkit) -> None:
    toolkit.batch_set(USERS)
    found = toolkit.batch_get([*USERS, "user:9999"])
    assert list(found) == [*USERS, "user:9999"]
    assert [f"{value['name']}: {value['score']}" for value in found.values() if value] == [
        "Amina: 95",
        "Björn: 87",
        "Chiara: 92",
    ]
    assert found["user:9999"] is None


def test_a_pipeline_may_have_different_commands(toolkit: RedisToolkit) -> None:
    pipe = toolkit.client.pipeline()
    pipe.set("counter", 0)
    pipe.incr("counter")
    pipe.incr("counter")
    pipe.get("counter")
    assert pipe.execute() == [True, 1, 2, b"2"]
    assert toolkit.getter("counter") == 2


def transfer(pipe: Any, amount: int, interfere: Any = None) -> bool:
    """Move an amount between two accounts if there is enough. Raise WatchError if the balance changes."""
    pipe.watch("account:balance")
    balance = int(pipe.get("account:balance") or 0)
    if interfere is not None:
        interfere()
    pipe.multi()
    if balance < amount:
        pipe.reset()
        return False
    pipe.decrby("account:balance", amount)
    pipe.incrby("account:savings", amount)
    pipe.execute()
    return True


def test_a_watched_transfer_is_executed(toolkit: RedisToolkit) -> None:
    toolkit.client.set("account:balance", 150)
    pipe = toolkit.client.pipeline(transaction=True)
    assert transfer(pipe, 100) is True
    assert transfer(pipe, 100) is False
    assert toolkit.batch_get(["account:balance", "account:savings"]) == {
        "account:balance": 50,
        "account:savings": 100,
    }


def test_a_watched_transfer_fails_if_the_balance_changes(server: EmbeddedServer, toolkit: RedisToolkit) -> None:
    toolkit.client.set("account:balance", 150)
    with server.client() as other:
        pipe = toolkit.client.pipeline(transaction=True)
        with pytest.raises(redis.WatchError):
            transfer(pipe, 100, interfere=lambda: RedisToolkit(redis=other).batch_set({"account:balance": 120}))
    assert toolkit.batch_get(["account:balance", "account:savings"]) == {
        "account:balance": 120,
        "account:savings": None,
    }


class ScoreManager:
    """Adds points to the scores of many users with one read and one write."""

    def __init__(self, toolkit: RedisToolkit) -> None:
        self.toolkit = toolkit

    def update_scores(self, points: dict[str, int]) -> dict[str, Any]:
        users = self.toolkit.batch_get([f"user:{name}" for name in points])
        for name, more in points.items():
            user = users[f"user:{name}"] or {}
            users[f"user:{name}"] = {**user, "score": user.get("score", 0) + more}
        self.toolkit.batch_set(users)
        return users


def test_the_score_manager_updates_many_scores(toolkit: RedisToolkit) -> None:
    toolkit.batch_set(USERS)
    manager = ScoreManager(toolkit)
    updated = manager.update_scores({"1001": 10, "1002": -5, "2000": 20})
    assert updated == {
        "user:1001": {"name": "Amina", "score": 105},
        "user:1002": {"name": "Björn", "score": 82},
        "user:2000": {"score": 20},
    }
    assert toolkit.batch_get(list(updated)) == updated
    assert toolkit.getter("user:1003") == USERS["user:1003"]


def warm_up(toolkit: RedisToolkit, rows: Iterable[dict[str, Any]]) -> int:
    """Put rows into the cache for an hour. Return their number."""
    entries = {f"cache:{row['id']}": row for row in rows}
    toolkit.batch_set(entries, ex=3600)
    return len(entries)


def test_a_cache_can_be_filled(toolkit: RedisToolkit) -> None:
    assert warm_up(toolkit, ({"id": number, "title": f"No. {number}"} for number in range(500))) == 500
    assert toolkit.getter("cache:499") == {"id": 499, "title": "No. 499"}
    assert 3590 < toolkit.client.ttl("cache:0") <= 3600


def test_a_large_data_set_can_be_written_in_parts(toolkit: RedisToolkit) -> None:
    data = {f"row:{number}": {"number": number} for number in range(4500)}
    items = list(data.items())
    for start in range(0, len(items), 1000):
        toolkit.batch_set(dict(items[start : start + 1000]))
    # 0 and 1 inside a dict stay numbers.
    assert toolkit.batch_get(list(data)) == data


def test_batches_may_run_in_threads(server: EmbeddedServer, client: redis.Redis) -> None:
    config = RedisConnectionConfig(server.host, server.port)
    parts = [{f"part:{part}:{number}": [part, number] for number in range(800)} for part in range(8)]

    def store(part: dict[str, Any]) -> None:
        RedisToolkit(config=config).batch_set(part)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(store, parts))
    toolkit = RedisToolkit(config=config)
    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(lambda part: toolkit.batch_get(list(part)), parts)) == parts
    pool_manager.close_all_pools()


def test_single_values_can_be_written_after_a_batch_failed(toolkit: RedisToolkit) -> None:
    batch = {"good": 5, "bad": object(), "also good": 6}
    failed = []
    try:
        toolkit.batch_set(batch)
    except Exception:
        for name, value in batch.items():
            try:
                toolkit.setter(name, value)
            except Exception:
                failed.append(name)
    assert failed == ["bad"]
    assert toolkit.batch_get(list(batch)) == {"good": 5, "bad": None, "also good": 6}


def test_batches_are_logged(toolkit: RedisToolkit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("application")
    started = time.perf_counter()
    toolkit.batch_set(USERS)
    logger.info("%d items in %.3f s", len(USERS), time.perf_counter() - started)
    assert [(record.name, record.getMessage().split(" in ")[0]) for record in caplog.records] == [
        ("redis_fastbatch", "batch_set: 3 keys"),
        ("application", "3 items"),
    ]
