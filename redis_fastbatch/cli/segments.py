"""The keys of a server or a cluster in segments, and how far all before them are settled.

A cursor of SCAN is valid in any connection to the process that gave it. So the state of a run is the cursor of
each node, under the node's run id, before which all keys are settled. A node that has started again has a new run
id, and its keys are read from the beginning.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis_fastbatch.client import FastBatch

SEGMENT_KEYS = 5000
SCAN_COUNT = 1000
DONE = -1
MOST_SCANS = 200
"""The most SCAN commands for a segment, where few keys match."""


@dataclass
class Segment:
    """Some keys of one node.

    Attributes:
        node: the run id of the node.
        keys: the keys, each once.
        cursor: the cursor of SCAN after them; DONE at the end.
        failed: keys that failed, with the reasons.
    """

    node: str
    keys: list[bytes]
    cursor: int
    settled: bool = False
    failed: list[tuple[bytes, Exception]] = field(default_factory=list)


class _Node:
    def __init__(self, connection: Any, cursor: int) -> None:
        self.connection = connection
        self.cursor = cursor
        self.given: deque[Segment] = deque()


class KeySegments:
    """Hands out the keys in segments, from each node in turn. Several threads can take segments.

    Args:
        batch: the client of the server or cluster.
        match, type: which keys.
        state: that of an earlier run: from a node's run id to its cursor.
        size: about how many keys a segment has.

    Attributes:
        on_settled: called with each segment that is settled, in the order of its node, and with the new state.
    """

    def __init__(
        self,
        batch: FastBatch,
        match: str | None,
        type: str | None,
        state: dict[str, int],
        size: int = SEGMENT_KEYS,
    ) -> None:
        self._options = {"match": match, "count": SCAN_COUNT, "_type": type}
        self.on_settled: Callable[[Segment, dict[str, int]], None] | None = None
        self._size = size
        self._lock = threading.Lock()
        self._stopped = False
        self._nodes: dict[str, _Node] = {}
        self._state: dict[str, int] = {}
        for connection in _nodes_of(batch):
            run_id = connection.info("server")["run_id"]
            self._state[run_id] = state.get(run_id, 0)
            self._nodes[run_id] = _Node(connection, self._state[run_id])
        self._waiting = deque(run_id for run_id, cursor in self._state.items() if cursor != DONE)

    @property
    def state(self) -> dict[str, int]:
        """The cursor of each node, by its run id."""
        return dict(self._state)

    def take(self) -> Segment | None:
        """Return the next segment; None at the end."""
        with self._lock:
            if self._stopped or not self._waiting:
                return None
            run_id = self._waiting.popleft()
            node = self._nodes[run_id]
            keys: dict[bytes, None] = {}
            for _ in range(MOST_SCANS):
                node.cursor, found = node.connection.scan(node.cursor, **self._options)
                keys.update(dict.fromkeys(found))
                if node.cursor == 0 or len(keys) >= self._size:
                    break
            segment = Segment(run_id, list(keys), node.cursor or DONE)
            node.given.append(segment)
            if node.cursor:
                self._waiting.append(run_id)
            return segment

    def settle(self, segment: Segment) -> None:
        """Note that all keys of a segment are settled."""
        with self._lock:
            segment.settled = True
            given = self._nodes[segment.node].given
            while given and given[0].settled:
                first = given.popleft()
                self._state[first.node] = first.cursor
                if self.on_settled is not None:
                    self.on_settled(first, self.state)

    def stop(self) -> None:
        """Hand out no further segment."""
        self._stopped = True


def _nodes_of(batch: FastBatch) -> list[Any]:
    client: Any = batch.client
    if not hasattr(client, "get_primaries"):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]
