"""The drop-in's retries and serializers."""

from redis_fastbatch.toolkit.utils.retry import simple_retry
from redis_fastbatch.toolkit.utils.serializers import deserialize_value, serialize_value

__all__ = ["deserialize_value", "serialize_value", "simple_retry"]
