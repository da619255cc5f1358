"""A drop-in for redis-toolkit 0.4.0: replace `redis_toolkit` by `redis_fastbatch.toolkit` in the imports.

See docs/drop-in.md for what is the same, what is better and what is left out.
"""

from redis_fastbatch._version import __version__
from redis_fastbatch.toolkit.core import RedisToolkit
from redis_fastbatch.toolkit.exceptions import RedisToolkitError, SerializationError, ValidationError
from redis_fastbatch.toolkit.options import DEFAULT_OPTIONS, RedisConnectionConfig, RedisOptions
from redis_fastbatch.toolkit.pool_manager import pool_manager
from redis_fastbatch.toolkit.utils import deserialize_value, serialize_value, simple_retry

__all__ = [
    "DEFAULT_OPTIONS",
    "RedisConnectionConfig",
    "RedisOptions",
    "RedisToolkit",
    "RedisToolkitError",
    "SerializationError",
    "ValidationError",
    "__version__",
    "deserialize_value",
    "pool_manager",
    "serialize_value",
    "simple_retry",
]
