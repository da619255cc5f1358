"""Flights that read hashes, fed with bytes in memory: of a single server, and over a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import BusyLoadingError, ConnectionError, InvalidResponse

from flights import CODEC, KEYS, LOST, LOW, Driver, moved, two_nodes, writer
from redis_fastbatch import DecodeError
from redis_fastbatch._cluster.hash_read import ClusterHashRead
from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._core.arrow.export import ExportedRows
from redis_fastbatch._core.arrow.hash_columns import HashColumns
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.resp.encoder import Command
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._core.resp.routed import RoutedWriter
from redis_fastbatch._engine.flight import Event
from redis_fastbatch._engine.hash_read import HashReadFlight, HashReadOutcome
from redis_fastbatch._engine.options import ReadOptions
from redis_fastbatch._transports.redispy import reply_reader

pyarrow = pytest.importorskip("pyarrow")

HGETALL = Command(b"HGETALL", many=False, with_values=False)
HMGET = Command(b"HMGET", many=False, with_values=False, tail=(b"a", b"b"))
AB = [("a", b"a"), ("b", b"b")]

FLAT = b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n"
MAP = b"%2" + FLAT[2:]
VALUES = b"*2\r\n$1\r\n1\r\n$3\r\n2.5\r\n"
ROW = {"a": 1, "b": 2.5}
TYPES = {"a": int, "b": float}


def flight_of(keys: Any, rows: HashRows, command: Command = HGETALL, **options: Any) -> HashReadFlight:
    outcome = HashReadOutcome(CODEC, on_error=options.get("on_error", "raise"))
    out: Any = [] if options.pop("pairs", False) else {}
    flight = HashReadFlight(writer(keys, command), rows, out, outcome, ReadOptions(**options))
    return flight


def read_in_pieces(data: bytes, step: int, rows: HashRows, count: int) -> tuple[list[Any], list[Any]]:
    reader, out, failures, done = reply_reader(0), list[Any](), list[Any](), 0
    keys = [f"k{i}" for i in range(count)]
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        done = rows.read(reader, keys, done, None, out, failures)
    assert done == count
    assert reader.finished()
    return [row for _, row in out], failures


@pytest.mark.parametrize("reply", [FLAT, MAP], ids=["RESP2", "RESP3"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_replies_arrive_in_pieces(reply: bytes, step: int) -> None:
    missing = b"*0\r\n" if reply is FLAT else b"%0\r\n"
    other = b"*2\r\n$1\r\nc\r\n$1\r\nx\r\n"
    data = reply * 7 + missing + other + reply * 2 + b"-WRONGTYPE no\r\n>1\r\n+push\r\n|1\r\n+a\r\n+b\r\n" + reply
    rows, failures = read_in_pieces(data, step, HashRows(TYPES), 13)
    assert rows == [*[ROW] * 7, None, {"c": b"x"}, ROW, ROW, None, ROW]
    [(key, found, error)] = failures
    assert (key, found) == ("k11", None)
    assert isinstance(error, ErrorReply)


@pytest.mark.parametrize("null", [b"$-1\r\n", b"_\r\n"], ids=["RESP2", "RESP3"])
@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_missing_fields_are_none(null: bytes, step: int) -> None:
    data = VALUES + b"*2\r\n" + null * 2 + b"*2\r\n" + null + b"$1\r\n4\r\n" + VALUES
    rows, failures = read_in_pieces(data, step, HashRows(TYPES, fields=AB), 4)
    assert (rows, failures) == ([ROW, None, {"a": None, "b": 4.0}, ROW], [])


@pytest.mark.parametrize("step", [1, 4, 10_000])
def test_a_value_that_does_not_fit_leaves_the_others(step: int) -> None:
    data = FLAT + FLAT.replace(b"2.5", b"abc") + FLAT
    rows, failures = read_in_pieces(data, step, HashRows(TYPES), 3)
    assert rows == [ROW, None, ROW]
    [(key, found, error)] = failures
    assert (key, found, error.key, error.field) == ("k1", b"abc", "k1", "b")


BROKEN = [
    b"+OK\r\n",
    b":5\r\n",
    b"$1\r\nx\r\n",
    b"*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n",
    b"*-1\r\n",
    b"%-2\r\n",
    b"*2\r\n:1\r\n:2\r\n",
    b"*2\r\n$-1\r\n$1\r\nx\r\n",
    b"*2\r\n$1\r\na\r\n$-1\r\n",
    b"*2\r\n$1\r\na\r\n$-7\r\n",
    b"*2\r\n$1\r\na\r\n_x\r\n",
    b"*2\r\n$1\r\na\r\n$2\r\nabcd\r\n",
    b"*2\r\n$1\r\na\r\n*0\r\n",
    b"~2\r\n$1\r\na\r\n$1\r\nb\r\n",
]


@pytest.mark.parametrize("data", BROKEN)
@pytest.mark.parametrize("step", [1, 10_000])
def test_other_replies_are_refused(data: bytes, step: int) -> None:
    with pytest.raises(InvalidResponse):
        read_in_pieces(data, step, HashRows(), 1)
    if not data.startswith(b"*2\r\n$"):
        with pytest.raises(InvalidResponse):
            read_in_pieces(data, step, HashRows(fields=AB), 1)


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_value_longer_than_the_limit_ends_the_reading(step: int) -> None:
    reader = reply_reader(5)
    data = b"*2\r\n$1\r\na\r\n$6\r\nabcdef\r\n"
    with pytest.raises(DecodeError, match=r"key 'k'.*a value of 6 bytes: max_value_size is 5"):  # noqa: PT012
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
            HashRows().read(reader, ["k"], 0, None, {}, [])


def test_no_more_hashes_are_read_than_asked_for() -> None:
    reader, out = reply_reader(0), dict[str, Any]()
    reader.feed(FLAT * 3)
    assert HashRows(TYPES).read(reader, ["x", "y", "z"], 0, None, out, [], 2) == 2
    assert out == {"x": ROW, "y": ROW}


def test_each_key_is_a_command() -> None:
    flight = flight_of(["x", "y", "z"], HashRows(TYPES), default=0)
    driver = Driver(flight)
    assert driver.send_all() == ([b"HGETALL"] * 3, Event.NEED_REPLIES)
    driver.receive(FLAT + b"*0\r\n")
    driver.receive(MAP)
    assert flight.poll() is Event.DONE
    assert flight._out == {"x": ROW, "y": 0, "z": ROW}


def test_hmget_has_its_fields() -> None:
    driver = Driver(flight_of(["x"], HashRows(fields=AB), HMGET))
    assert driver.send() == b"*4\r\n$5\r\nHMGET\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\nb\r\n"


def test_a_lost_connection_reads_all_of_a_chunk_again() -> None:
    flight = flight_of(["x", "y"], HashRows(TYPES), pairs=True)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(FLAT)
    assert flight.connection_lost()
    again = Driver(flight)
    assert again.send_all() == ([b"HGETALL"] * 2, Event.NEED_REPLIES)
    again.receive(FLAT * 2)
    assert flight._out == [("x", ROW), ("y", ROW)]


def test_a_loading_server_is_waited_for() -> None:
    flight = flight_of(["x", "y"], HashRows(TYPES))
    driver = Driver(flight)
    driver.send_all()
    with pytest.raises(BusyLoadingError):
        driver.receive(FLAT + b"-LOADING the dataset\r\n")
    assert flight.connection_lost()
    again = Driver(flight)
    again.send_all()
    again.receive(FLAT * 2)
    assert flight._out == {"x": ROW, "y": ROW}


@pytest.mark.parametrize(("line", "goes_on"), [(b"-WRONGTYPE no\r\n", True), (b"-NOPERM no\r\n", False)])
def test_only_keys_of_another_type_are_tolerated(line: bytes, goes_on: bool) -> None:
    flight = flight_of(["x", "y"], HashRows(TYPES), on_error="report", default=0)
    driver = Driver(flight)
    driver.send_all()
    driver.receive(line + FLAT)
    assert (flight.outcome.error is None, flight.outcome.failed) == (goes_on, 1)
    assert flight._out == {"x": 0, "y": ROW}
    if not goes_on:
        assert str(flight.outcome.error).startswith("key 'x': NOPERM")


def cluster_of(keys: list[str], pairs: list[Any] | None = None) -> tuple[ClusterHashRead, list[Driver], Any]:
    topology, found, order = two_nodes(), dict[str, Any](), None if pairs is None else list[Any]()
    encoder = RoutedWriter(
        keys, HGETALL, CODEC, topology.router, max_items=1000, max_bytes=64 * 1024, found=found, order=order
    )
    batch = ClusterHashRead(
        encoder,
        topology,
        HashRows(TYPES),
        found,
        HashReadOutcome(CODEC),
        ReadOptions(),
        max_outage=30.0,
        pairs=pairs,
        order=order,
    )
    return batch, [Driver(node) for node in batch.nodes], found


def test_over_a_cluster_each_node_reads_its_keys() -> None:
    pairs: list[Any] = []
    batch, (low, high), found = cluster_of(KEYS, pairs)
    assert low.send_all()[0] == [b"HGETALL"] * len(LOW)
    high.send_all()
    low.receive(FLAT * len(LOW))
    high.receive(MAP * (len(KEYS) - len(LOW)))
    assert batch.done
    batch.completed()
    assert found == dict.fromkeys(KEYS, ROW)
    assert pairs == [(key, ROW) for key in KEYS]


def test_moved_and_asked_keys_are_read_elsewhere() -> None:
    batch, (low, high), found = cluster_of(LOW)
    low.send_all()
    low.receive(moved(LOW[0], 7001) + moved(LOW[1], 7001, b"ASK") + FLAT * (len(LOW) - 2))
    assert high.send_all()[0] == [b"HGETALL", b"ASKING", b"HGETALL"]
    for byte in FLAT + b"+OK\r\n" + FLAT:
        high.receive(bytes([byte]))
    assert batch.done
    assert found == dict.fromkeys(LOW, ROW)


def test_errors_after_asking_name_their_key() -> None:
    batch, (low, high), _ = cluster_of(LOW[:3])
    low.send_all()
    low.receive(b"".join(moved(key, 7001, b"ASK") for key in LOW[:3]))
    high.send_all()
    high.receive(b"+OK\r\n-WRONGTYPE no\r\n+OK\r\n" + FLAT + b"+OK\r\n" + FLAT.replace(b"2.5", b"abc"))
    assert batch.done
    assert str(batch.outcome.error).startswith(("key 'key:", "key "))
    assert batch.outcome.failed == 2


def test_a_lost_node_reads_its_keys_again() -> None:
    batch, (low, _), found = cluster_of(LOW)
    low.send_all()
    low.receive(FLAT)
    batch.lost(low.flight, LOST)
    low.flight.held_until = 0.0
    batch.revive()
    again = Driver(low.flight)
    assert len(again.send_all()[0]) == len(LOW)
    again.receive(FLAT * len(LOW))
    assert batch.done
    assert found == dict.fromkeys(LOW, ROW)


def test_an_abort_forgets_everything() -> None:
    flight = flight_of(["x"], HashRows())
    Driver(flight).send_all()
    flight.abort(ConnectionError("gone"))
    assert not flight.in_flight


def columns_in_pieces(data: bytes, step: int, wanted: bool, count: int) -> tuple[Any, list[Any]]:
    builders = [ColumnBuilder("a", "int"), ColumnBuilder("b", "float64")] if wanted else None
    columns = HashColumns(RowsBuilder(builders), wanted=wanted)
    reader, out, failures, done = reply_reader(0), list[Any](), list[Any](), 0
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        done = columns.read(reader, [f"k{i}" for i in range(count)], done, None, out, failures)
    assert done == count
    assert reader.finished()
    rows = pyarrow.record_batch(ExportedRows(columns.builder)).to_pylist()
    return [None if row is None else rows[row] for _, row in out], failures


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_columns_are_read_in_pieces(step: int) -> None:
    texts = {"a": "1", "b": "2.5"}
    rows, failures = columns_in_pieces(FLAT + b"*0\r\n" + MAP + b"-WRONGTYPE no\r\n" + FLAT, step, False, 5)
    assert rows == [texts, None, texts, None, texts]
    assert [failure[0] for failure in failures] == ["k3"]
    nulls = b"*2\r\n_\r\n$-1\r\n"
    rows, failures = columns_in_pieces(VALUES + nulls + VALUES, step, True, 3)
    assert (rows, failures) == ([ROW, {"a": None, "b": None}, ROW], [])


@pytest.mark.parametrize("step", [1, 10_000])
def test_no_rows_are_taken_after_one_that_does_not_fit(step: int) -> None:
    columns = HashColumns(RowsBuilder([ColumnBuilder("a", "int"), ColumnBuilder("b", "int")]), wanted=True)
    reader, out, failures, done = reply_reader(0), list[Any](), list[Any](), 0
    data = VALUES + b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        done = columns.read(reader, ["x", "y"], done, None, out, failures)
    assert out == [("x", None), ("y", None)]
    [(key, _, error)] = failures
    assert str(error) == "key 'x', field 'b', at byte 0: an integer of 64 bits was expected, found b'2.5'"
    assert key == "x"


@pytest.mark.parametrize("data", BROKEN)
@pytest.mark.parametrize("wanted", [False, True])
def test_columns_refuse_other_replies(data: bytes, wanted: bool) -> None:
    if wanted and data.startswith(b"*2\r\n$"):
        return
    with pytest.raises(InvalidResponse):
        columns_in_pieces(data, 10_000, wanted, 1)
