"""The exceptions of failed reads and writes, with redis-toolkit's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import DecodeError, EncodeError
from redis_fastbatch.report import BatchReport
from redis_fastbatch.toolkit.exceptions import RedisToolkitError, SerializationError, ValidationError


def original(error: Exception) -> BaseException:
    """Return the exception that made the codec raise its error."""
    return error.__cause__ or error if isinstance(error, DecodeError) else error


def not_serialized(error: Exception, key: Any, value: Any) -> SerializationError:
    """Return the exception for a value that the codec cannot write."""
    reason = error.reason if isinstance(error, EncodeError) else f"{type(error).__name__}: {error}"
    return SerializationError(f"key {format_key(key)}: {reason}", value, error.__cause__ or error)


def batch_failure(report: BatchReport, mapping: Mapping[str, Any]) -> RedisToolkitError:
    """Return the exception for a batch with failed items: that of the first, which made the others fail."""
    key, error = next(iter(report.failures.items()))
    made: RedisToolkitError
    if isinstance(error, ValidationError):
        made = ValidationError(f"key {format_key(key)}: {error}")
    elif isinstance(error, EncodeError):
        made = not_serialized(error, key, mapping.get(key))
    else:
        made = RedisToolkitError(f"{report.failed} keys could not be written: {error}")
    made.__cause__ = error
    return made
