"""Any commands over a cluster: each goes to the node that has its key, and replies come in order."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.connection import Connection

from redis_fastbatch import BatchError, EncodeError, FastBatch
from redis_fastbatch._cluster.topology import topology_of
from redis_fastbatch._core.resp.routed import slot_of_key
from servers import Cluster


class PlainConnection(Connection):
    """A connection class that the fast path does not support."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        super().send_packed_command(*arguments, **options)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
def test_replies_come_in_order(cluster: Cluster, protocol: int, decode: bool) -> None:
    cluster.flush()
    with cluster.client(protocol=protocol, decode_responses=decode) as client:
        fast = FastBatch(client)
        report = fast.batch_execute(("SET", f"key:{i}", i) for i in range(10_000))
        assert (report.written, report.failed, report.confirmed_prefix) == (10_000, 0, 10_000)
        found = list(fast.batch_execute_iter(("GET", f"key:{i}") for i in range(10_000)))
        assert found == [str(i) if decode else b"%d" % i for i in range(10_000)]
        fast.batch_execute([("ZADD", "z", 1, "a"), ("HSET", "h", "f", "v")])
        assert client.zscore("z", "a") == 1


def test_a_connection_that_the_fast_path_does_not_know(cluster: Cluster) -> None:
    cluster.flush()
    with redis.RedisCluster.from_url(cluster.url, connection_class=PlainConnection) as client:
        fast = FastBatch(client)
        assert fast.batch_execute(("SET", f"key:{i}", i) for i in range(300)).written == 300
        assert list(fast.batch_execute_iter([("GET", "key:7"), ("GET", "key:8")])) == [b"7", b"8"]


KEYS = [
    (("GET", "k"), ["k"]),
    (("get", b"k"), ["k"]),
    (("DEL", "{t}a", "{t}b"), ["t"]),
    (("MSET", "{t}a", "v", "{t}b", "w"), ["t"]),
    (("OBJECT", "ENCODING", "k"), ["k"]),
    (("OBJECT ENCODING", "k"), ["k"]),
    (("XGROUP CREATE", "s", "g", "$", "MKSTREAM"), ["s"]),
    (("EVAL", "return KEYS[1]", 1, "k", "other"), ["k"]),
    (("ZUNIONSTORE", "{t}d", 2, "{t}a", "{t}b"), ["t"]),
    (("ZUNION", 2, "{t}a", "{t}b"), ["t"]),
    (("XREAD", "COUNT", 1, "STREAMS", "{t}a", "{t}b", 0, 0), ["t"]),
    (("BITOP", "AND", "{t}d", "{t}a"), ["t"]),
    (("RENAME", "{t}set", "{t}b"), ["t"]),
    (("BLPOP", "{t}l", "{t}m", 0.01), ["t"]),
    (("LMPOP", 1, "k2", "LEFT"), ["k2"]),
    (("SORT", "k2"), ["k2"]),
]


@pytest.mark.parametrize(("command", "key"), KEYS, ids=str)
def test_commands_with_keys_in_all_places(
    cluster: Cluster, cluster_client: redis.RedisCluster, command: Any, key: list[str]
) -> None:
    cluster_client.set("{t}set", 1)
    cluster_client.set("k", 1)
    owner = cluster_client.nodes_manager.get_node_from_slot(slot_of_key(key[0], "utf-8", "strict"))
    with redis.Redis(host=owner.host, port=owner.port) as node:
        calls = node.info("commandstats")
        name = f"cmdstat_{command[0].split()[0].decode() if isinstance(command[0], bytes) else command[0]}".lower()
        before = sum(value["calls"] for stat, value in calls.items() if stat.partition("|")[0] == name.split()[0])
        assert FastBatch(cluster_client).batch_execute([command]).written == 1
        calls = node.info("commandstats")
        after = sum(value["calls"] for stat, value in calls.items() if stat.partition("|")[0] == name.split()[0])
    assert after == before + 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("PING",), "PING has no key"),
        (("GET",), "GET has no key"),
        (("FLUSHALL", "ASYNC"), "FLUSHALL has no key"),
        (("EVAL", "return 1", 0), "EVAL has no key"),
        (("MGET", "a", "b"), "MGET has keys of several slots"),
        (("MSET", "a", 1, "b", 2), "MSET has keys of several slots.*'a' is in slot 15495"),
        (("EVAL", "return 1", 2, "a", "b"), "EVAL has keys of several slots"),
        (("EVAL", "return 1", 10**30, "a", "b"), "EVAL has keys of several slots"),
        (("EVAL", "return 1", "x", "a", "b"), "EVAL has no key"),
        (("XREAD", "STREAMS"), "XREAD has no key"),
        (("MULTI",), "MULTI is a part of a transaction"),
        (("SET", "a", None), "argument 2 must be"),
    ],
    ids=repr,
)
def test_commands_that_no_node_carries_out_fail_alone(
    cluster_client: redis.RedisCluster, command: Any, reason: str
) -> None:
    fast = FastBatch(cluster_client)
    with pytest.raises(BatchError, match=rf"1 of 3 commands failed: command 1 \(.*{reason}") as caught:
        fast.batch_execute([("SET", "x", 1), command, ("SET", "y", 1)])
    assert (caught.value.report.written, list(caught.value.report.failures)) == (2, [1])
    found = list(fast.batch_execute_iter([("GET", "x"), command, ("GET", "y")], raise_on_error=False))
    assert (found[0], type(found[1]), found[2]) == (b"1", EncodeError, b"1")


def test_error_replies_are_named(cluster_client: redis.RedisCluster) -> None:
    commands = [("SET", f"key:{i}", "text") for i in range(50)]
    commands += [("INCR", f"key:{i}") for i in range(50)]
    received: list[int] = []
    fast = FastBatch(cluster_client)
    report = fast.batch_execute(commands, on_error=lambda position, *_: received.append(position))
    assert (report.written, report.failed) == (50, 50)
    assert sorted(received) == list(range(50, 100))
    assert report.first_failure().startswith("command 50 (INCR key:0): value is not an integer")
    found = list(fast.batch_execute_iter(commands[40:60], raise_on_error=False))
    assert [type(reply).__name__ for reply in found] == ["bytes"] * 10 + ["ResponseError"] * 10


def test_commands_for_slots_that_have_moved(cluster: Cluster) -> None:
    """MOVED: the client believes in other owners, and its commands arrive all the same, in order."""
    cluster.flush()
    with cluster.client() as client:
        fast = FastBatch(client)
        fast.batch_execute([("SET", "warm", 1)])

        def confuse() -> None:
            router = topology_of(client).router
            for slot in range(16384):
                router.move(slot, 0)

        confuse()
        report = fast.batch_execute(("RPUSH", f"list:{i % 50}", i) for i in range(2000))
        assert (report.written, report.failed) == (2000, 0)
        confuse()
        found = list(fast.batch_execute_iter(("LRANGE", f"list:{i}", 0, -1) for i in range(50)))
        assert found == [[b"%d" % n for n in range(i, 2000, 50)] for i in range(50)]
