"""The client that a toolkit makes when it is given none."""

from __future__ import annotations

from redis import Redis
from redis.client import Pipeline

from redis_fastbatch._transports.redispy.pipeline import FastPipeline


class ToolkitRedis(Redis):
    """A redis.Redis whose pipelines are packed, sent and read by redis_fastbatch."""

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline, as FastBatch.pipeline() does."""
        return FastPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
