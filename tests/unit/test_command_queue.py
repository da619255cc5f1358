"""PackedCommands and CommandQueue: the bytes that redis-py packs, and the callbacks that it calls."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from redis_fastbatch._core.resp.queue import CommandQueue, PackedCommands
from tiers import examples

SYNC = redis.Connection()
ASYNC = redis.asyncio.Connection()


class Color(enum.IntEnum):
    """An int that repr() writes otherwise."""

    RED = 1


class Word(str):
    """A str of another class."""


arguments = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.integers(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 0, -1]),
    st.floats(),
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(memoryview),
    st.sampled_from([True, None, Color.RED, Word("word"), 1j, "\ud800"]),
)
names = st.one_of(
    st.sampled_from(["GET", "CONFIG GET", b"SET", b"CONFIG  SET", "", " ", "FÜR", "a\tb", b"a\tb", b""]),
    st.just(Word("GET")),
    st.text(max_size=10),
)


def packed_by(connection: Any, command: tuple[Any, ...]) -> bytes | type[Exception]:
    try:
        return b"".join(map(bytes, connection.pack_command(*command)))
    except Exception as error:
        return type(error)


def packed(connection: Any, commands: Iterable[tuple[Any, ...]]) -> bytes:
    buffer = PackedCommands(connection.pack_command)
    for command in commands:
        buffer.pack(command)
    return bytes(memoryview(buffer))


@pytest.mark.parametrize("connection", [SYNC, ASYNC], ids=["sync", "asyncio"])
@given(st.tuples(names, st.lists(arguments, max_size=6)).map(lambda drawn: (drawn[0], *drawn[1])))
@settings(max_examples=examples(1000), deadline=None)
def test_packed_as_redis_py_does(connection: Any, command: tuple[Any, ...]) -> None:
    wanted = packed_by(connection, command)
    if isinstance(wanted, bytes):
        assert packed(connection, [command]) == wanted
    else:
        with pytest.raises(wanted):
            packed(connection, [command])


def test_commands_follow_each_other() -> None:
    commands: list[tuple[Any, ...]] = [("SET", "a", 1), ("CONFIG GET", "x"), (b"SET", b"b", 2.5), ("S", "ü")]
    assert packed(SYNC, commands) == b"".join(SYNC.pack_commands(commands))


def test_many_large_arguments() -> None:
    commands: list[tuple[Any, ...]] = [("SET", f"k{i}", bytes(i * 100)) for i in range(200)]
    assert packed(SYNC, commands) == b"".join(SYNC.pack_commands(commands))


def queue_of(commands: list[Any], callbacks: dict[Any, Any] | None = None) -> CommandQueue:
    return CommandQueue(commands, (callbacks or {}).get, NEVER_DECODE, EMPTY_RESPONSE)


def test_each_callback_is_looked_up_once() -> None:
    asked: list[Any] = []
    CommandQueue([(("GET", i), {}) for i in range(5)], asked.append, NEVER_DECODE, EMPTY_RESPONSE)
    assert asked == ["GET"]


def test_callbacks_get_the_options() -> None:
    got: list[Any] = []
    queue = queue_of(
        [
            (("A", "k"), {}),
            (("A", "k"), {"keys": ["k"]}),
            (("A", "k"), {"keys": ["k"], "extra": 1}),
            (("A", "k"), {NEVER_DECODE: []}),
            (("B", "k"), {"extra": 1}),
        ],
        {"A": lambda reply, **options: got.append((reply, options)) or len(got)},
    )
    replies: list[Any] = [b"1", b"2", b"3", b"4", b"5"]
    assert queue.call_back(replies, frozenset({"keys", NEVER_DECODE}), ()) == []
    assert replies == [1, 2, 3, 4, b"5"]
    assert got == [(b"1", {}), (b"2", {}), (b"3", {"extra": 1}), (b"4", {})]
    assert queue.undecoded == {3}


def test_errors_have_no_callback() -> None:
    error = ValueError()
    replies: list[Any] = [error]
    queue_of([(("A",), {})], {"A": str}).call_back(replies, frozenset(), ())
    assert replies == [error]


def test_an_exception_of_a_callback() -> None:
    def fail(reply: object) -> None:
        raise ValueError(reply)

    queue = queue_of([(("A",), {}), (("B",), {})], {"A": fail})
    replies: list[Any] = [b"1", b"2"]
    with pytest.raises(ValueError, match="1"):
        queue.call_back(replies, frozenset(), ())
    assert not queue.caught
    queue.call_back(replies, frozenset(), ValueError)
    assert isinstance(replies[0], ValueError)
    assert replies[1] == b"2"
    assert queue.caught


def test_a_callback_may_change_the_commands() -> None:
    commands: list[Any] = [(("A",), {})] * 3
    queue = queue_of(commands, {"A": lambda reply: commands.clear()})
    replies: list[Any] = [1, 2, 3]
    queue.call_back(replies, frozenset(), ())
    assert replies == [None] * 3


def test_what_is_to_be_awaited_is_named() -> None:
    queue = queue_of([(("A",), {}), (("B",), {}), (("A",), {})], {"A": lambda reply: object(), "B": str})
    assert queue.call_back([1, 2, 3], frozenset(), (), lambda value: True) == [0, 2]


@pytest.mark.parametrize(
    "command",
    [
        (("A",), {EMPTY_RESPONSE: None}),
        [("A",), {}],
        (["A"], {}),
        (("A",), None),
        ((), {}),
        (("A",), {}, 1),
    ],
)
def test_what_redis_py_has_to_send(command: Any) -> None:
    assert not queue_of([(("A",), {}), command]).regular


def test_the_usual_commands_are_regular() -> None:
    queue = queue_of([(("A",), {}), (("B", 1), {"keys": [1]}), (("C",), {"x": 1, "y": 2})])
    assert queue.regular
    assert queue.undecoded is None
