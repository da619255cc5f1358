"""Retrying and serializing, as the drop-in does them."""

from redis_fastbatch.toolkit.utils.retry import simple_retry
from redis_fastbatch.toolkit.utils.serializers import deserialize_value, serialize_value

__all__ = ["deserialize_value", "serialize_value", "simple_retry"]
