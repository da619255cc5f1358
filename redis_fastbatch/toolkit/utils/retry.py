"""Retry a function that fails, with growing pauses."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import redis

logger = logging.getLogger("redis_fastbatch")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Exceptions = type[Exception] | tuple[type[Exception], ...]

CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError)


def call_with_retry(
    function: Callable[[], T],
    name: str,
    *,
    attempts: int,
    pause: Callable[[int], float],
    exceptions: Exceptions,
    on_retry: Callable[[Exception, int], object] | None = None,
) -> T:
    """Call a function until it succeeds or has failed `attempts` times.

    Args:
        function: what to call.
        name: its name in log lines.
        attempts: calls at most; it is always called once.
        pause: returns the seconds to wait after attempt number 1, 2, ...
        exceptions: retry after these; others are raised at once.
        on_retry: called after each failure that is followed by another attempt.
    """
    attempt = 1
    while True:
        try:
            result = function()
        except exceptions as error:
            if attempt >= attempts:
                logger.error("%s failed after %d attempts: %s", name, attempt, error)
                raise
            seconds = pause(attempt)
            logger.warning("%s failed at attempt %d: %s; trying again in %.2f s", name, attempt, error, seconds)
            if on_retry is not None:
                _call_on_retry(on_retry, error, attempt)
            time.sleep(seconds)
            attempt += 1
        else:
            if attempt > 1:
                logger.info("%s succeeded at attempt %d", name, attempt)
            return result


def _call_on_retry(on_retry: Callable[[Exception, int], object], error: Exception, attempt: int) -> None:
    try:
        on_retry(error, attempt)
    except Exception as failure:
        logger.error("on_retry failed: %s", failure)


@overload
def simple_retry(
    func: F,
    max_retries: int = ...,
    base_delay: float = ...,
    max_delay: float = ...,
    exceptions: tuple[type[Exception], ...] = ...,
) -> F: ...
@overload
def simple_retry(
    func: None = ...,
    max_retries: int = ...,
    base_delay: float = ...,
    max_delay: float = ...,
    exceptions: tuple[type[Exception], ...] = ...,
) -> Callable[[F], F]: ...
def simple_retry(
    func: Any = None,
    max_retries: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 60.0,
    exceptions: tuple[type[Exception], ...] = CONNECTION_ERRORS,
) -> Any:
    """Decorate a function so that it is retried when it fails; works with or without parentheses.

    Args:
        func: the function, when the decorator is used without parentheses.
        max_retries: calls after the first one.
        base_delay: seconds before the second call; the pause doubles each time.
        max_delay: the longest pause, in seconds.
        exceptions: retry after these.
    """

    def pause(attempt: int) -> float:
        return min(base_delay * 2.0 ** (attempt - 1), max_delay)

    def decorator(function: F) -> F:
        return _retrying(function, 1 + max(0, max_retries), pause, exceptions, None)

    return decorator if func is None else decorator(func)


def with_retry(
    max_attempts: int = 3,
    delay: float = 0.1,
    backoff_factor: float = 2,
    exceptions: Exceptions = (redis.RedisError,),
    on_retry: Callable[[Exception, int], object] | None = None,
) -> Callable[[F], F]:
    """Return a decorator that retries a function when it fails.

    Args:
        max_attempts: calls at most, including the first one.
        delay: seconds before the second call.
        backoff_factor: factor of the pause after each attempt.
        exceptions: retry after these.
        on_retry: called as `on_retry(exception, attempt)` before each pause.
    """

    def pause(attempt: int) -> float:
        return float(delay * backoff_factor ** (attempt - 1))

    def decorator(function: F) -> F:
        return _retrying(function, max_attempts, pause, exceptions, on_retry)

    return decorator


def _retrying(
    function: F,
    attempts: int,
    pause: Callable[[int], float],
    exceptions: Exceptions,
    on_retry: Callable[[Exception, int], object] | None,
) -> F:
    name = getattr(function, "__name__", repr(function))

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call_with_retry(
            lambda: function(*args, **kwargs),
            name,
            attempts=attempts,
            pause=pause,
            exceptions=exceptions,
            on_retry=on_retry,
        )

    return cast(F, wrapper)
