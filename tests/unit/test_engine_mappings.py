"""Flights that write mappings as hashes, fed with bytes in memory: of a single server, and over a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError, InvalidResponse

from flights import CODEC, HIGH, KEYS, LOST, LOW, Driver, moved, outcome, two_nodes
from redis_fastbatch._cluster.hashes import ClusterHashWrite
from redis_fastbatch._core.resp.hashes import HSET, MappingChunk, MappingWriter, RoutedMappingWriter, counts
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import Event
from redis_fastbatch._engine.hashes import HashFlight, expire_command, hset_command
from redis_fastbatch._transports.redispy import reply_reader

ITEMS = {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}
EX = SetOptions(ex=10)


def flight_of(options: SetOptions, items: Any = ITEMS, size: int = 10) -> HashFlight:
    writer = MappingWriter(items, hset_command(options), None, max_items=size, max_bytes=32 * 1024)
    return HashFlight(writer, expire_command(options), outcome())


def cluster_of(keys: list[str], options: SetOptions) -> tuple[ClusterHashWrite, list[Driver]]:
    topology = two_nodes()
    items = {key: {"x": 1, "of": key} for key in keys}
    hset = hset_command(options)
    writer = RoutedMappingWriter(items, hset, None, topology.router, max_items=100, max_bytes=64 * 1024)
    batch = ClusterHashWrite(writer, topology, expire_command(options), outcome(), max_outage=30.0)
    return batch, [Driver(node) for node in batch.nodes]


def test_the_bytes_of_a_hash() -> None:
    driver = Driver(flight_of(SetOptions(), {b"k": {"a": 1, b"b": 2.5}, 7: {"ä": "x"}}))
    assert driver.send() == (
        b"*6\r\n$4\r\nHSET\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n"
        b"*4\r\n$4\r\nHSET\r\n$1\r\n7\r\n$2\r\n\xc3\xa4\r\n$1\r\nx\r\n"
    )


def test_values_of_a_codec_have_headers_of_any_width() -> None:
    fields = {"a": "x" * 5, "b": "y" * 500, "c": "z"}
    writer = MappingWriter({"k": fields}, HSET, CODEC, max_items=10, max_bytes=32 * 1024)
    driver = Driver(HashFlight(writer, None, outcome()))
    words = driver.send().split(b"\r\n")
    assert words[0] == b"*8"
    assert [words[i] for i in (8, 12, 16)] == [CODEC.dumps(value) for value in fields.values()]
    assert [words[i] for i in (7, 11, 15)] == [b"$6", b"$503", b"$2"]


@pytest.mark.parametrize("options", [SetOptions(), EX], ids=["lasting", "expiring"])
def test_an_item_that_cannot_be_encoded_leaves_no_bytes(options: SetOptions) -> None:
    flight = flight_of(options, {"a": {"x": 1}, "bad": {"x": 1, "y": None}, "b": {"x": 1}})
    driver = Driver(flight)
    assert driver.send_all() == ([b"HSET"] * 2, Event.NEED_REPLIES)
    assert list(flight.report.failures) == ["bad"]


def test_expire_follows_the_hashes_that_were_written() -> None:
    flight = flight_of(EX)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b":1\r\n-WRONGTYPE no hash\r\n:0\r\n")
    assert (flight.report.written, flight.report.failed, flight.confirmed_prefix()) == (0, 1, 0)
    assert driver.send() == (
        b"*3\r\n$6\r\nEXPIRE\r\n$1\r\na\r\n$2\r\n10\r\n*3\r\n$6\r\nEXPIRE\r\n$1\r\nc\r\n$2\r\n10\r\n"
    )
    driver.receive(b":1\r\n-NOPERM no\r\n")
    report = flight.report
    assert (flight.poll(), report.written, sorted(report.failures)) == (Event.DONE, 1, ["b", "c"])
    assert flight.confirmed_prefix() == 3


def test_an_abort_counts_each_hash_once() -> None:
    flight = flight_of(EX)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(b":1\r\n-WRONGTYPE no hash\r\n:0\r\n")
    driver.send(whole=False)
    flight.abort(ConnectionError("gone"))
    report = flight.report
    assert (report.written, sorted(report.failures), report.confirmed_prefix) == (0, ["a", "b", "c"], 0)
    assert str(report.failures["a"]).startswith("HSET was carried out; EXPIRE: outcome unknown")
    assert "WRONGTYPE" in str(report.failures["b"])


@pytest.mark.parametrize(
    "reply", [b"+OK\r\n", b":3\r\n", b":-1\r\n", b"$1\r\n2\r\n", b":99999999999999999999\r\n"]
)
def test_an_impossible_reply_is_an_error(reply: bytes) -> None:
    driver = Driver(flight_of(SetOptions()))
    driver.send_all()
    with pytest.raises(InvalidResponse):
        driver.receive(reply + b":1\r\n" * 2)
    batch, (low, _) = cluster_of(LOW, SetOptions())
    low.send_all()
    with pytest.raises(InvalidResponse):
        low.receive(reply)
    assert batch.outcome.report.total == 0


def test_spare_chunks_forget_how_many_fields_they_had() -> None:
    writer = MappingWriter(
        {"a": {str(i): i for i in range(9)}, "b": {"x": 1}}, HSET, None, max_items=1, max_bytes=100
    )
    chunk: Any = writer.blank()
    writer.fill(chunk)
    assert isinstance(chunk, MappingChunk)
    assert chunk.most_fields == 9
    writer.fill(chunk)
    assert chunk.most_fields == 1


def test_counts_arrive_in_pieces() -> None:
    data = b":1\r\n:0\r\n-ERR x\r\n>1\r\n+push\r\n:2\r\n:5\r\n$1\r\nx\r\n"
    reader, others, done = reply_reader(0), list[Any](), 0
    for i in range(len(data)):
        reader.feed(data[i : i + 1])
        done += counts(reader, 10 - done, done, others, 2)
    assert done == 6
    assert [index for index, _ in others] == [2, 4, 5]
    assert isinstance(others[0][1], ErrorReply)
    assert [reply for _, reply in others[1:]] == [5, b"x"]
    assert reader.pushes == [[b"push"]]


def test_over_a_cluster_each_node_gets_its_expires() -> None:
    batch, (low, high) = cluster_of(KEYS, EX)
    assert low.send_all()[0] == [b"HSET"] * len(LOW)
    assert high.send_all()[0] == [b"HSET"] * len(HIGH)
    low.receive(b":2\r\n" * len(LOW))
    assert low.send_all()[0] == [b"EXPIRE"] * len(LOW)
    high.receive(b"-WRONGTYPE no\r\n" + b":0\r\n" * (len(HIGH) - 1))
    assert high.send_all()[0] == [b"EXPIRE"] * (len(HIGH) - 1)
    assert batch.confirmed_prefix() == 0
    low.receive(b":1\r\n" * len(LOW))
    high.receive(b":1\r\n" * (len(HIGH) - 1))
    report = batch.outcome.report
    assert batch.done
    assert (report.written, list(report.failures)) == (len(KEYS) - 1, HIGH[:1])


def test_moved_hashes_and_moved_expires_go_to_their_new_node() -> None:
    batch, (low, high) = cluster_of(LOW, EX)
    low.send_all()
    low.receive(b":2\r\n" + moved(LOW[1], 7001) + b":2\r\n" * (len(LOW) - 2))
    assert high.send().startswith(b"*6\r\n$4\r\nHSET\r\n")
    high.receive(b":2\r\n")
    assert LOW[1].encode() in high.send()
    high.receive(b":1\r\n")
    assert low.send_all()[0] == [b"EXPIRE"] * (len(LOW) - 1)
    low.receive(moved(LOW[0], 7001) + b":1\r\n" * (len(LOW) - 2))
    sent = high.send()
    assert sent.startswith(b"*3\r\n$6\r\nEXPIRE\r\n")
    assert LOW[0].encode() in sent
    high.receive(b":1\r\n")
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_a_hash_of_a_moving_slot_is_sent_after_asking() -> None:
    batch, (low, high) = cluster_of(LOW, EX)
    low.send_all()
    low.receive(moved(LOW[0], 7001, b"ASK") + b":2\r\n" * (len(LOW) - 1))
    assert high.send_all()[0] == [b"ASKING", b"HSET"]
    high.receive(b"+OK\r\n:2\r\n")
    assert high.send_all()[0] == [b"EXPIRE"]
    high.receive(moved(LOW[0], 7000))
    assert low.send_all()[0] == [b"EXPIRE"] * len(LOW)
    low.receive(b":1\r\n" * (len(LOW) - 1) + moved(LOW[0], 7001, b"ASK"))
    assert high.send_all()[0] == [b"ASKING", b"EXPIRE"]
    high.receive(b"+OK\r\n:1\r\n")
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_a_lost_node_gets_hashes_and_expires_again() -> None:
    batch, (low, _) = cluster_of(LOW, EX)
    low.send_all()
    low.receive(b":2\r\n")
    batch.lost(low.flight, LOST)
    low.flight.held_until = 0.0
    batch.revive()
    again = Driver(low.flight)
    words = again.send_all()[0]
    assert sorted(words) == [b"EXPIRE"] + [b"HSET"] * (len(LOW) - 1)
    replies = {b"EXPIRE": b":1\r\n", b"HSET": b":0\r\n"}
    again.receive(b"".join(replies[word] for word in words))
    assert again.send_all()[0] == [b"EXPIRE"] * (len(LOW) - 1)
    again.receive(b":1\r\n" * (len(LOW) - 1))
    assert batch.done
    assert batch.outcome.report.written == len(LOW)


def test_an_abort_over_a_cluster_counts_each_hash_once() -> None:
    batch, (low, high) = cluster_of(KEYS, EX)
    low.send_all()
    high.send_all()
    low.receive(b"-WRONGTYPE no\r\n:2\r\n")
    high.receive(b":2\r\n" * len(HIGH))
    batch.abort(LOST)
    report = batch.outcome.report
    assert (report.written, sorted(report.failures), report.confirmed_prefix) == (0, sorted(KEYS), 0)
    assert "WRONGTYPE" in str(report.failures[LOW[0]])
    assert str(report.failures[LOW[1]]).startswith("HSET was carried out; EXPIRE: not sent")
    assert str(report.failures[LOW[2]]).startswith("outcome unknown")
    assert str(report.failures[HIGH[0]]).startswith("HSET was carried out; EXPIRE: not sent")
