"""Queues the most frequent commands of pipelines: the same ones as redis-py's methods queue, in fewer calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

Command = tuple[tuple[Any, ...], dict[str, Any]]


def _theirs(parent: Any) -> Any:
    """Return redis-py's pipeline, as which a super() object of QuickCommands acts."""
    return parent


_DICT_OR_NONE = (dict, type(None))


class QuickCommands:
    """Methods of a pipeline that queue a command directly, where redis-py's call several others.

    Each handles the usual arguments, and leaves all others to redis-py's method. While a pipeline watches keys,
    all commands are redis-py's.
    """

    # Attributes of redis-py's pipeline. A subclass of this class is a subclass of that too.
    watching: Any
    explicit_transaction: Any
    command_stack: Any
    immediate_execute_command: Any

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        if (self.watching or args[0] == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **kwargs)
        self.command_stack.append((args, kwargs))
        return self

    def get(self, name: Any) -> Any:
        if self.watching:
            return _theirs(super()).get(name)
        self.command_stack.append((("GET", name), {"keys": [name]}))
        return self

    def set(self, name: Any, value: Any, ex: Any = None, *args: Any, **kwargs: Any) -> Any:
        if self.watching or args or kwargs:
            return _theirs(super()).set(name, value, ex, *args, **kwargs)
        if ex is None:
            self.command_stack.append((("SET", name, value), {}))
        elif type(ex) is int:
            self.command_stack.append((("SET", name, value, "EX", ex), {}))
        else:
            return _theirs(super()).set(name, value, ex)
        return self

    def incrby(self, name: Any, amount: Any = 1) -> Any:
        if self.watching:
            return _theirs(super()).incrby(name, amount)
        self.command_stack.append((("INCRBY", name, amount), {}))
        return self

    incr = incrby

    def expire(self, name: Any, time: Any, *args: Any, **kwargs: Any) -> Any:
        if self.watching or args or kwargs or type(time) is not int:
            return _theirs(super()).expire(name, time, *args, **kwargs)
        self.command_stack.append((("EXPIRE", name, time), {}))
        return self

    def hset(self, name: Any, key: Any = None, value: Any = None, mapping: Any = None, items: Any = None) -> Any:
        if self.watching or items or (key is None) is not bool(mapping) or type(mapping) not in _DICT_OR_NONE:
            return _theirs(super()).hset(name, key, value, mapping, items)
        if key is None:
            self.command_stack.append((("HSET", name, *chain.from_iterable(mapping.items())), {}))
        else:
            self.command_stack.append((("HSET", name, key, value), {}))
        return self

    def hgetall(self, name: Any) -> Any:
        if self.watching:
            return _theirs(super()).hgetall(name)
        self.command_stack.append((("HGETALL", name), {"keys": [name]}))
        return self

    def sadd(self, name: Any, *values: Any) -> Any:
        if self.watching:
            return _theirs(super()).sadd(name, *values)
        self.command_stack.append((("SADD", name, *values), {}))
        return self

    def zadd(self, name: Any, mapping: Any, *args: Any, **kwargs: Any) -> Any:
        if self.watching or args or kwargs or type(mapping) is not dict or not mapping:
            return _theirs(super()).zadd(name, mapping, *args, **kwargs)
        if len(mapping) == 1:
            ((member, score),) = mapping.items()
            self.command_stack.append((("ZADD", name, score, member), {}))
        else:
            pieces = chain.from_iterable((score, member) for member, score in mapping.items())
            self.command_stack.append((("ZADD", name, *pieces), {}))
        return self


_EXAMPLES: dict[str, Iterable[tuple[Any, ...]]] = {
    "get": [("k",)],
    "set": [("k", "v"), ("k", "v", 60)],
    "incrby": [("k",), ("k", 2)],
    "incr": [("k",), ("k", 2)],
    "expire": [("k", 60)],
    "hset": [("k", None, None, {"f": 1, "g": 2}), ("k", "f", 1), ("k", "f", None)],
    "hgetall": [("k",)],
    "sadd": [("k", "a", "b")],
    "zadd": [("k", {"a": 1}), ("k", {"a": 1, "b": 2.5})],
}


class _Recorder:
    """Stands for a pipeline, and records what is queued."""

    watching = False
    explicit_transaction = False

    def __init__(self) -> None:
        self.command_stack: list[Command] = []

    def execute_command(self, *args: Any, **kwargs: Any) -> None:
        self.command_stack.append((args, kwargs))


def keep_exact(pipeline: type[Any], theirs: type[Any]) -> None:
    """Restore redis-py's method where ours would queue something different.

    Another version of redis-py may do so.

    Args:
        pipeline: a subclass of QuickCommands and `theirs`.
        theirs: redis-py's pipeline.
    """
    for name, examples in _EXAMPLES.items():
        own, original = getattr(pipeline, name), getattr(theirs, name)
        if any(_queued(own, each) != _queued(original, each) for each in examples):
            setattr(pipeline, name, original)


def _queued(method: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Command]:
    recorder = _Recorder()
    method(recorder, *arguments)
    return recorder.command_stack
