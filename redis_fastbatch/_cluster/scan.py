"""Iterates over the keys of all masters of a cluster at the same time.

redis-py's scan_iter() asks one node after the other. Here each node has a SCAN under way while the keys of others
are used. A node gets its next SCAN when the keys of its last one are taken, so memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any


def scan(client: Any, **options: Any) -> Iterator[Any]:
    """Yield the keys of a cluster's masters.

    Args:
        client: a redis.RedisCluster.
        options: arguments of its scan().
    """
    masters = client.get_primaries()
    with ThreadPoolExecutor(len(masters), "redis-fastbatch-scan") as threads:

        def ask(node: Any, cursor: int) -> None:
            running[threads.submit(client.scan, cursor, target_nodes=node, **options)] = node

        running: dict[Future[Any], Any] = {}
        try:
            for node in masters:
                ask(node, 0)
            while running:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    cursors, keys = done.result()
                    node = running.pop(done)
                    yield from keys
                    if cursor := cursors[node.name]:
                        ask(node, cursor)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


async def scan_async(client: Any, **options: Any) -> AsyncIterator[Any]:
    """Yield the keys of a cluster's masters.

    Args:
        client: a redis.asyncio.RedisCluster.
        options: arguments of its scan().
    """
    await client.initialize()
    running: dict[asyncio.Future[Any], Any] = {}

    def ask(node: Any, cursor: int) -> None:
        running[asyncio.ensure_future(client.scan(cursor, target_nodes=node, **options))] = node

    try:
        for node in client.get_primaries():
            ask(node, 0)
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for answered in done:
                cursors, keys = answered.result()
                node = running.pop(answered)
                for key in keys:
                    yield key
                if cursor := cursors[node.name]:
                    ask(node, cursor)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
