"""The drop-in's exceptions, by redis-toolkit's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import redis

from redis_fastbatch.errors import FastBatchError

P = ParamSpec("P")
R = TypeVar("R")


class RedisToolkitError(FastBatchError):
    """Base of the drop-in's errors; also what an error of redis-py becomes, which is then its `__cause__`."""


class SerializationError(RedisToolkitError):
    """A value cannot be written, or reading failed.

    Attributes:
        original_data: the value, where there is one.
        original_exception: what went wrong underneath, if anything was raised.
    """

    def __init__(
        self, message: str, original_data: Any = None, original_exception: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self.original_data = original_data
        self.original_exception = original_exception


class ValidationError(RedisToolkitError):
    """A key or value is longer than RedisOptions allows."""


def wrap_redis_exceptions(func: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function so that redis-py's errors come out of it as RedisToolkitError."""

    @functools.wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return func(*args, **kwargs)
        except redis.RedisError as error:
            raise RedisToolkitError(f"Redis: {error}") from error

    return wrapper
