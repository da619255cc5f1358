"""The size limits of RedisOptions for keys and values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.toolkit.codec import LimitedCodec, first_longer_key
from redis_fastbatch._engine.flight import NO_LIMIT
from redis_fastbatch._messages import format_key
from redis_fastbatch.toolkit.exceptions import ValidationError
from redis_fastbatch.toolkit.options import RedisOptions

BATCH_OF_VALUES = 10
"""The largest batch, as a multiple of the largest value."""


def check_key(key: Any, options: RedisOptions) -> None:
    """Raise ValidationError for a key that is too long."""
    if options.enable_validation and len(key) > options.max_key_length:
        raise _key_too_long(key, options)


def check_keys(mapping: Mapping[Any, Any], options: RedisOptions) -> None:
    """Raise ValidationError for the first key that is too long."""
    if options.enable_validation:
        longer = first_longer_key(mapping, _whole(options.max_key_length))
        if longer is not None:
            raise _key_too_long(longer, options)


def check_size(key: Any, data: bytes, options: RedisOptions) -> None:
    """Raise ValidationError for a value that is too large."""
    if options.enable_validation and len(data) > options.max_value_size:
        raise ValidationError(
            f"key {format_key(key)}: the value takes {len(data)} bytes; max_value_size is {options.max_value_size}"
        )


def limited(codec: ValueCodec, options: RedisOptions) -> ValueCodec:
    """Return a codec for one batch that raises ValidationError when a value or their sum is too large."""
    if not options.enable_validation:
        return codec
    limit = options.max_value_size
    return LimitedCodec(codec, _whole(limit), _whole(limit * BATCH_OF_VALUES), ValidationError)


def _key_too_long(key: Any, options: RedisOptions) -> ValidationError:
    return ValidationError(f"a key of {len(key)} characters; max_key_length is {options.max_key_length}")


def _whole(limit: float) -> int:
    """Return a limit as a whole number for the compiled code; redis-toolkit accepts any number."""
    return math.floor(max(-1, min(limit, NO_LIMIT)))
