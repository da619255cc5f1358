"""The drop-in's exceptions, with redis-toolkit's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import redis

from redis_fastbatch.errors import FastBatchError

P = ParamSpec("P")
R = TypeVar("R")


class RedisToolkitError(FastBatchError):
    """Base of the drop-in's errors. An error of redis-py becomes its `__cause__`."""


class SerializationError(RedisToolkitError):
    """A value cannot be written, or reading failed.

    Attributes:
        original_data: the value, if there is one.
        original_exception: the exception that caused the failure, if any.
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
    """Decorate a function so that it raises redis-py's errors as RedisToolkitError."""

    @functools.wraps(func)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return func(*args, **kwargs)
        except redis.RedisError as error:
            raise RedisToolkitError(f"Redis: {error}") from error

    return wrapper
