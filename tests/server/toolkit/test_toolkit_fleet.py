"""redis-toolkit and the drop-in work on the same data, and programs run unchanged with the drop-in."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels import label
from redis_fastbatch.server import EmbeddedServer
from redis_fastbatch.toolkit import RedisOptions, RedisToolkit, pool_manager, serialize_value
from tiers import examples
from toolkit_reference import outcome, same, toolkit_module

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": 42,
    "zero": 0,
    "one": 1,
    "large": 2**80,
    "float": 0.1 + 0.2,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "text": 'Größe "日本"\n\u2028',
    "empty": "",
    "bytes": bytes(range(256)),
    "list": [1, [2.5, None], {"a": True}],
    "tuple": (1, "two", b"three"),
    "dict": {"a": {"b": [b"raw", bytearray(b"x")]}, 1: 2, None: 3},
    "rows": [{"id": number, "name": f"n{number}"} for number in range(20)],
}


def theirs_on(client: redis.Redis) -> Any:
    options = toolkit_module("options").RedisOptions(is_logger_info=False, log_level="ERROR")
    return toolkit_module().RedisToolkit(redis=client, options=options)


@pytest.fixture
def fleet(client: redis.Redis) -> tuple[Any, RedisToolkit]:
    return theirs_on(client), RedisToolkit(redis=client)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "shift_jis", "utf-16"])
def test_both_use_the_same_keys_in_every_encoding(server: EmbeddedServer, encoding: str) -> None:
    with server.client(encoding=encoding) as client:
        client.flushall()
        toolkits = theirs_on(client), RedisToolkit(redis=client)
        for writer, reader in (toolkits, toolkits[::-1]):
            writer.batch_set({"é": 2})
            writer.setter("ü", 3)
            assert reader.batch_get(["é", "ü"]) == {"é": 2, "ü": 3}
            assert (reader.getter("é"), reader.getter("ü")) == (2, 3)
            assert reader.deleter("é") is True
            assert client.keys() == ["ü".encode()]


class Text(str):
    """A subclass of str."""


def refusals(toolkit: Any, value: Any, *options: Any) -> list[Any]:
    """Return what setter() and batch_set() raise for a value, or None if they write it."""
    setter = outcome(lambda value: toolkit.setter("k", value, *options), value)
    batch_set = outcome(lambda value: toolkit.batch_set({"a": 1, "k": value}, *options), value)
    return [setter[1], batch_set[1]]


@pytest.mark.parametrize(
    "value",
    [[{1}], {"a": object()}, {b"a": 1}, {(1, 2): 3}, "\ud800", ["\ud83d\ude00"], [Text("\udfff")]],
    ids=label,
)
def test_both_refuse_a_value_for_the_same_reason(fleet: tuple[Any, RedisToolkit], value: Any) -> None:
    errors = [error for toolkit in fleet for error in refusals(toolkit, value)]
    assert {type(error).__name__ for error in errors} == {"SerializationError"}
    assert len({type(error.original_exception) for error in errors}) == 1


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"max_value_size": 35.5}, False),
        ({"max_value_size": 34.5}, True),
        ({"max_value_size": 2**70}, False),
        ({"max_value_size": float("inf")}, False),
        ({"max_key_length": 1.5}, False),
        ({"max_key_length": 0.5}, True),
        ({"max_key_length": 2**70}, False),
        ({"max_key_length": -1}, True),
    ],
    ids=str,
)
def test_both_apply_limits_in_the_same_way(
    fleet: tuple[Any, RedisToolkit], limits: dict[str, Any], refused: bool
) -> None:
    value = 12
    assert len(serialize_value(value)) == 35
    theirs, ours = fleet
    for toolkit, kind in ((theirs, toolkit_module("options").RedisOptions), (ours, RedisOptions)):
        results = {
            type(error).__name__ for error in refusals(toolkit, value, kind(is_logger_info=False, **limits))
        }
        assert results == {"ValidationError" if refused else "NoneType"}


def test_each_reads_what_the_other_wrote(fleet: tuple[Any, RedisToolkit]) -> None:
    for writer, reader in (fleet, fleet[::-1]):
        for name, value in VALUES.items():
            writer.setter(name, value)
        singly = {name: reader.getter(name) for name in VALUES}
        assert same(singly, {name: writer.getter(name) for name in VALUES})
        writer.client.flushall()
        writer.batch_set(VALUES)
        assert same(reader.batch_get([*VALUES, "missing"]), writer.batch_get([*VALUES, "missing"]))
        assert same(reader.batch_get(list(VALUES)), singly)


def test_both_store_the_same_bytes(fleet: tuple[Any, RedisToolkit]) -> None:
    stored = []
    for writer in fleet:
        writer.batch_set(VALUES)
        stored.append(writer.client.mget(list(VALUES)))
    assert stored[0] == stored[1]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=10),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
            max_leaves=8,
        ),
        min_size=1,
    )
)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_read_any_batch_of_each_other(fleet: tuple[Any, RedisToolkit], batch: dict[str, Any]) -> None:
    theirs, ours = fleet
    for writer, reader in ((theirs, ours), (ours, theirs)):
        writer.batch_set(batch)
        assert same(reader.batch_get(list(batch)), writer.batch_get(list(batch)))


def test_both_publish_the_same_messages(client: redis.Redis, server: EmbeddedServer) -> None:
    theirs, ours = theirs_on(client), RedisToolkit(redis=client)
    with server.client() as listener:
        pubsub = listener.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("channel")
        pubsub.get_message(timeout=5)
        received = []
        for publisher in (theirs, ours):
            publisher.publisher("channel", {"x": (1, b"2")})
            received.append(next(message for message in pubsub.listen())["data"])
        pubsub.close()
    assert received[0] == received[1]


def test_toolkit_msgpack_reads_values_of_the_toolkit(client: redis.Redis) -> None:
    """A new program reads both formats and writes MessagePack."""
    theirs = theirs_on(client)
    new = RedisToolkit(redis=client, codec="toolkit-msgpack")
    theirs.batch_set(VALUES)
    assert same(new.batch_get(list(VALUES)), theirs.batch_get(list(VALUES)))
    client.set("counter", 5)
    client.incr("counter")
    assert new.getter("counter") == 6
    small = {name: value for name, value in VALUES.items() if name not in ("tuple", "dict")}
    new.batch_set(small)
    assert same(new.batch_get(list(small)), small)


CACHE = '''
from redis_toolkit import RedisConnectionConfig, RedisOptions, RedisToolkit
from redis_toolkit.exceptions import SerializationError, ValidationError
from redis_toolkit.utils.retry import with_retry


def main(host, port):
    """A cache in front of a slow function."""
    options = RedisOptions(is_logger_info=False, log_level="ERROR", max_value_size=2000)
    options.validate()
    seen, loads = [], []

    @with_retry(max_attempts=3, delay=0.001, exceptions=(OSError,))
    def load(number):
        loads.append(number)
        if loads.count(number) == 1 and number == 3:
            raise OSError("slow disk")
        return {"id": number, "body": b"x" * number, "tags": ("a", number)}

    with RedisToolkit(config=RedisConnectionConfig(host=host, port=port), options=options) as cache:
        for number in (1, 2, 3, 2, 1):
            key = f"page:{number}"
            page = cache.getter(key)
            if page is None:
                page = load(number)
                cache.setter(key, page)
            seen.append(sorted(page))
        cache.batch_set({f"page:{number}": load(number) for number in range(10, 20)})
        found = cache.batch_get([f"page:{number}" for number in range(1, 22)])
        seen.append([(key, value and value["body"]) for key, value in found.items()])
        for bad in ("x" * 3000, {1, 2}):
            try:
                cache.setter("bad", bad)
            except (SerializationError, ValidationError) as error:
                seen.append(type(error).__name__)
        seen.append([cache.deleter("page:1"), cache.deleter("page:1"), cache.health_check()])
    return seen, loads
'''

SCORE_BOARD = '''
from redis_toolkit import RedisOptions, RedisToolkit, serialize_value
from redis_toolkit.options import RedisConnectionConfig
from redis_toolkit.pool_manager import pool_manager


def main(host, port):
    """Players' records, and their order in a sorted set."""
    options = RedisOptions(is_logger_info=False, log_level="ERROR")
    board = RedisToolkit(config=RedisConnectionConfig(host=host, port=port), options=options)
    names = ["ann", "bob", "eve", "dan"]
    board.batch_set({f"player:{name}": {"name": name, "points": 0, "games": []} for name in names})
    rounds = [{"ann": 3, "bob": 1}, {"eve": 7, "ann": 2}, {"bob": 9, "eve": 1}]
    for number, points in enumerate(rounds):
        keys = [f"player:{name}" for name in points]
        players = board.batch_get(keys)
        for name, won in points.items():
            player = players[f"player:{name}"]
            player["points"] += won
            player["games"].append((number, won))
        board.batch_set(players)
        with board.client.pipeline() as pipe:
            for name, won in points.items():
                pipe.zincrby("order", won, name)
            pipe.incr("rounds")
            pipe.execute()
    result = [
        board.client.zrevrange("order", 0, -1, withscores=True),
        board.batch_get([f"player:{name}" for name in [*names, "nobody"]]),
        board.getter("rounds"),
        serialize_value(board.getter("player:eve")),
    ]
    board.cleanup()
    pool_manager.close_all_pools()
    return result
'''

WORKER = '''
import threading
import time

from redis_toolkit import RedisConnectionConfig, RedisOptions, RedisToolkit


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def main(host, port):
    """Receive jobs on a channel, store their results, and announce them on another channel."""
    config = RedisConnectionConfig(host=host, port=port)
    options = RedisOptions(is_logger_info=False, log_level="ERROR", subscriber_stop_timeout=3)
    announced = []
    finished = threading.Event()

    def work(channel, job):
        if job["kind"] == "stop":
            finished.set()
            return
        worker.setter(f"result:{job['id']}", {"sum": sum(job["numbers"]), "data": job["data"]})
        worker.publisher("done", job["id"])

    worker = RedisToolkit(config=config, channels=["jobs"], message_handler=work, options=options)
    boss = RedisToolkit(config=config, options=options)
    boss.subscribe_dynamic("done", lambda channel, number: announced.append((channel, number)))
    numbers = boss.client.pubsub_numsub
    until(lambda: [count for _, count in numbers("jobs", "done")] == [1, 1])
    boss.publisher("jobs", {"kind": "broken"})
    for number in range(5):
        boss.publisher("jobs", {"kind": "add", "id": number, "numbers": [number, 10], "data": b"raw"})
    boss.publisher("jobs", {"kind": "stop"})
    until(finished.is_set)
    until(lambda: len(announced) == 5)
    results = boss.batch_get([f"result:{number}" for number in range(5)])
    stats = boss.get_subscription_stats()
    boss.unsubscribe_dynamic("done")
    ended = list(boss.get_expired_channels())
    worker.cleanup()
    boss.cleanup()
    return announced, results, stats["total_messages"], ended, worker.sub_thread.is_alive()
'''


@pytest.mark.parametrize("program", [CACHE, SCORE_BOARD, WORKER], ids=["cache", "score board", "pub/sub worker"])
def test_a_program_gives_the_same_results_with_only_its_import_changed(
    program: str, server: EmbeddedServer, client: redis.Redis
) -> None:
    toolkit_module()
    results = []
    for source in (program, program.replace("redis_toolkit", "redis_fastbatch.toolkit")):
        client.flushall()
        names: dict[str, Any] = {}
        # The toolkit's logger keeps the stream that is current when it is made.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            exec(compile(source, "<program>", "exec"), names)
            results.append(names["main"](server.host, server.port))
    pool_manager.close_all_pools()
    toolkit_module("pool_manager").pool_manager.close_all_pools()
    assert same(results[0], results[1])
