"""redis-toolkit itself, the library that redis_fastbatch.toolkit replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from typing import Any

from benchmarks.peers.base import DATABASES, LARGEST_VALUE, Peer
from benchmarks.servers import Endpoint

# Its import prints messages about its loggers, which do not belong in the tables. The loggers keep these streams;
# errors reach us as exceptions.
with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
    from redis_toolkit import RedisOptions, RedisToolkit


class Toolkit(Peer):
    """Its batch_set, a MULTI/EXEC pipeline of JSON values, and its batch_get; it has no batch with expiry."""

    name = f"redis-toolkit {version('redis-toolkit')}"
    operations = frozenset({"set", "get"})
    wire = "toolkit"

    def __init__(self, endpoint: Endpoint) -> None:
        options = RedisOptions(
            # Otherwise it logs a line for every batch.
            is_logger_info=False,
            log_level="ERROR",
            # Its validation stays on, as it is by default.
            max_value_size=LARGEST_VALUE,
        )
        self._toolkit = RedisToolkit(redis=endpoint.client(DATABASES[self.wire]), options=options)

    def set(self, items: Mapping[str, Any]) -> None:
        self._toolkit.batch_set(items)

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = self._toolkit.batch_get(keys)
        return found

    def close(self) -> None:
        self._toolkit.cleanup()
