"""Hash slots of keys are those of the server and of redis-py."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from redis_fastbatch import EncodeError
from redis_fastbatch._core.resp.routed import slot_of_key
from redis_fastbatch._core.resp.slots import key_slot
from servers import Cluster

KEYS = [
    b"",
    b"a",
    b"ab",
    b"123456789",
    b"{user1000}.following",
    b"foo{}{bar}",
    b"foo{{bar}}zap",
    b"foo{bar}{zap}",
    b"{}",
    b"{a",
    b"a}",
    b"}{a}",
    b"\x00\xff{\x00}\xff",
    "schlüssel".encode(),
    bytes(range(256)),
    b"x" * 10_000,
]


def test_slots_are_those_of_the_server(cluster: Cluster) -> None:
    with cluster.masters[0].client() as client:
        for key in KEYS:
            assert key_slot(key) == client.execute_command("CLUSTER", "KEYSLOT", key), key
        for n in range(2000):
            key = b"{%d}:key:%d" % (n, n) if n % 2 else b"key:%d" % n
            assert key_slot(key) == client.execute_command("CLUSTER", "KEYSLOT", key), key


@given(st.lists(st.sampled_from([b"{", b"}", b"a", b"bc", b"\xff"]), max_size=8).map(b"".join))
def test_slots_are_those_of_redis_py(key: bytes) -> None:
    assert key_slot(key) == redis.crc.key_slot(key)


def test_slots_of_str_bytes_and_int_keys() -> None:
    assert slot_of_key("a", "utf-8", "strict") == slot_of_key(b"a", "utf-8", "strict") == key_slot(b"a")
    assert slot_of_key("ä", "latin-1", "strict") == key_slot(b"\xe4")
    assert slot_of_key(12, "utf-8", "strict") == key_slot(b"12")
    with pytest.raises(EncodeError):
        slot_of_key(None, "utf-8", "strict")
