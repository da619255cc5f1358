"""Commands for pipelines, and their outcomes: redis-py's pipeline has to have the same ones as ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A method of a pipeline, with its arguments."""


def call(method: str, *arguments: Any, **options: Any) -> Call:
    """Return a Call."""
    return method, arguments, options


EVERYTHING: list[Call] = [
    call("set", "text", "first"),
    call("get", "text"),
    call("get", "missing"),
    call("set", "text", "second", ex=100),
    call("set", "text", b"\x00\xff", nx=True),
    call("set", "text", "third", get=True),
    call("set", "number", 12),
    call("incr", "number"),
    call("incrby", "number", -5),
    call("incrbyfloat", "number", 0.5),
    call("incr", "text"),
    call("mset", {"a": 1, "b": 2.5}),
    call("mget", "a", "b", "missing"),
    call("append", "text", "ü"),
    call("expire", "a", 100),
    call("ttl", "a"),
    call("hset", "hash", mapping={"name": "amina", "score": 5}),
    call("hset", "hash", "city", "oslo"),
    call("hset", "hash", items=["x", 1, "y", 2]),
    call("hget", "hash", "name"),
    call("hmget", "hash", ["name", "nothing"]),
    call("hgetall", "hash"),
    call("hgetall", "missing"),
    call("hincrbyfloat", "hash", "score", 1.5),
    call("hget", "text", "field"),
    call("rpush", "list", "a", "b", "c"),
    call("lrange", "list", 0, -1),
    call("lpop", "list"),
    call("sadd", "set", "a"),
    call("smembers", "set"),
    call("sismember", "set", "a"),
    call("zadd", "board", {"amina": 5, "bela": 7.25}),
    call("zadd", "board", {"amina": 6}, ch=True),
    call("zadd", "board", {"amina": 1}, incr=True),
    call("zscore", "board", "bela"),
    call("zrange", "board", 0, -1, withscores=True),
    call("zincrby", "board", 2, "bela"),
    call("geoadd", "places", (13.361389, 38.115556, "palermo")),
    call("geopos", "places", "palermo", "nowhere"),
    call("xadd", "stream", {"f": "v"}, id="1-1"),
    call("xrange", "stream"),
    call("config_get", "maxmemory"),
    call("echo", "hello"),
    call("ping"),
    call("type", "hash"),
    call("object", "encoding", "number"),
    call("exists", "a", "b"),
    call("delete", "a", "b"),
    call("eval", "return {1, 'two', {3, false}, redis.error_reply('ERR four')}", 0),
    call("execute_command", "SET", "raw", memoryview(b"bytes")),
    call("execute_command", b"GET", "raw"),
    call("execute_command", "config get", "maxmemory"),
    call("execute_command", "NOSUCH", "command"),
    call("execute_command", "GET"),
    call("dump", "text"),
    call("bitfield_ro", "number", "u8", 0),
    call("scan", 0, match="number"),
    call("execute_command", "COMMAND INFO", "get", "hset"),
    call("lcs", "text", "raw", idx=True),
]
"""Commands of every kind: all kinds of replies, with and without response callbacks, and errors."""

_keys = st.sampled_from(["a", "b", "c", b"\xff"])
_values = st.one_of(st.text(max_size=5), st.binary(max_size=5), st.integers(-9, 2**70), st.floats(-1e9, 1e9))
_fields = st.dictionaries(st.text(max_size=3), _values, max_size=3)

calls: st.SearchStrategy[Call] = st.one_of(
    st.builds(call, st.sampled_from(["get", "hgetall", "incr", "lrange", "type", "ttl", "smembers"]), _keys),
    st.builds(call, st.just("set"), _keys, _values),
    st.builds(call, st.just("set"), _keys, _values, ex=st.sampled_from([None, 100, 0, "9", 1.5])),
    st.builds(call, st.just("incrby"), _keys, st.integers(-5, 5)),
    st.builds(call, st.just("expire"), _keys, st.integers(-1, 100)),
    st.builds(call, st.just("hset"), _keys, mapping=_fields),
    st.builds(call, st.just("hset"), _keys, st.text(max_size=2), _values),
    st.builds(call, st.just("sadd"), _keys, _values, _values),
    st.builds(call, st.just("zadd"), _keys, st.dictionaries(_values, st.integers(0, 9), max_size=2)),
    st.builds(call, st.just("rpush"), _keys, _values),
    st.builds(call, st.just("delete"), _keys, _keys),
    st.builds(call, st.just("execute_command"), st.sampled_from(["GET", "get", "STRLEN", "NOSUCH"]), _keys),
)


def queue(pipe: Any, some: Sequence[Call]) -> None:
    """Queue commands."""
    for method, arguments, options in some:
        getattr(pipe, method)(*arguments, **options)


def outcome(run: Callable[[], Any]) -> Any:
    """Return what a call returns or raises, in a form that == compares with the types of all parts."""
    try:
        return described(run())
    except Exception as error:
        return "raised", described(error)


def described(value: Any) -> Any:
    """Return a value with its type, and those of its parts."""
    if isinstance(value, Exception):
        return type(value), described(value.args)
    if isinstance(value, (list, tuple)):
        return type(value), [described(each) for each in value]
    if isinstance(value, dict):
        return type(value), [(described(key), described(each)) for key, each in value.items()]
    return type(value), repr(value)
