"""batch_set_table(as_="hash") writes rows as hashes."""

from __future__ import annotations

import datetime
import decimal
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_fastbatch import BatchError, EncodeError, FastBatch
from redis_fastbatch._core.arrow.hashes import HashWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.resp.hashes import HSET
from redis_fastbatch.server import EmbeddedServer
from tiers import examples

pa = pytest.importorskip("pyarrow")

from table_examples import parsed  # noqa: E402


@pytest.fixture
def batch(client: redis.Redis) -> FastBatch:
    return FastBatch(client)


def test_rows_become_hashes(batch: FastBatch) -> None:
    table = pa.table(
        {"id": range(3000), "name": [f"n{i}" for i in range(3000)], "half": [i / 2 for i in range(3000)]}
    )
    report = batch.batch_set_table(table, key="id", prefix="u:", as_="hash")
    assert (report.written, report.failed, report.confirmed_prefix) == (3000, 0, 3000)
    assert batch.client.hgetall("u:2999") == {b"id": b"2999", b"name": b"n2999", b"half": b"1499.5"}
    assert batch.client.ttl("u:1") == -1


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.int8(), -5, b"-5"),
        (pa.uint64(), 2**64 - 1, b"18446744073709551615"),
        (pa.int64(), -(2**63), b"-9223372036854775808"),
        (pa.float64(), 0.1, b"0.1"),
        (pa.float32(), 0.1, repr(struct.unpack("f", struct.pack("f", 0.1))[0]).encode()),
        (pa.float16(), 1.5, b"1.5"),
        (pa.bool_(), True, b"1"),
        (pa.bool_(), False, b"0"),
        (pa.string(), "ä\r\n", "ä\r\n".encode()),
        (pa.string_view(), "a view of many bytes", b"a view of many bytes"),
        (pa.binary(), b"\0\xff", b"\0\xff"),
        (pa.string(), "", b""),
        (pa.date32(), datetime.date(2024, 2, 29), b"2024-02-29"),
        (pa.time64("us"), datetime.time(1, 2, 3), b"01:02:03"),
        (pa.timestamp("s"), datetime.datetime(2024, 1, 2, 3), b"2024-01-02T03:00:00"),
        (
            pa.timestamp("us", "Europe/Berlin"),
            datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.timezone.utc),
            b"2024-01-02T03:00:00+00:00",
        ),
        (pa.duration("ms"), datetime.timedelta(seconds=1.5), b"PT1.5S"),
        (pa.decimal128(10, 2), decimal.Decimal("1.50"), b"1.50"),
        (pa.dictionary(pa.int8(), pa.string()), "word", b"word"),
    ],
)
def test_values_of_every_type_become_text(valkey_client: redis.Redis, kind: Any, value: Any, text: bytes) -> None:
    table = pa.table({"k": ["a"], "value": pa.array([value], kind)})
    FastBatch(valkey_client).batch_set_table(table, key="k", as_="hash", columns=["value"])
    assert valkey_client.hgetall("a") == {b"value": text}
    if isinstance(value, (int, float, str, bytes)) and not isinstance(value, bool) and kind != pa.float32():
        valkey_client.hset("b", "value", value)
        assert valkey_client.hget("b", "value") == text


def texts_of(numbers: list[float]) -> list[bytes]:
    """Return the texts of floats in HSET commands."""
    table = pa.table({"k": range(len(numbers)), "f": pa.array(numbers, pa.float64())})
    writer = HashWriter(ArrowStream(table), HSET, columns=["f"], key=["k"], max_items=10**6, max_bytes=1 << 30)
    chunk = writer.blank()
    writer.fill(chunk)
    rest = bytes(memoryview(chunk))
    found = []
    for _ in numbers:
        end = rest.find(b"*", 1)
        found.append(parsed(rest[: end if end > 0 else None])[3])
        rest = rest[end:]
    return found


def test_floats_are_written_as_repr_writes_them() -> None:
    numbers = [0.0, -0.0, 1.0, 0.1, 0.3, 1e15, 1e16, 1e-4, 1e-5, 123456.789, 5e-324, 1.7976931348623157e308]
    numbers += [1 / 3, 2 / 3, 1e22, 1e23, 999999999999999.9, 99999999999999.5, math.inf, -math.inf, math.nan]
    numbers += [sign * i / 10**k for i in (1, 5, 7, 99, 12345, 999999999) for k in range(16) for sign in (1, -1)]
    assert texts_of(numbers) == [repr(number).encode() for number in numbers]


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(),
            st.decimals(-(10**12), 10**12, places=4).map(float),
            st.integers(-(2**60), 2**60).map(float),
            st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_floats_are_written_as_repr_writes_them(numbers: list[float]) -> None:
    assert texts_of(numbers) == [repr(number).encode() for number in numbers]


def test_nulls_are_left_out(batch: FastBatch) -> None:
    table = pa.table(
        {
            "k": ["a", "b", "c"],
            "x": [1, None, None],
            "y": [None, "t", None],
            "z": pa.nulls(3),
            "d": pa.array([None, "w", None]).dictionary_encode(),
        }
    )
    failed: list[Any] = []
    report = batch.batch_set_table(
        table, key="k", as_="hash", columns=["x", "y", "z", "d"], on_error=lambda *failure: failed.append(failure)
    )
    assert (report.written, report.failed) == (2, 1)
    assert batch.client.hgetall("a") == {b"x": b"1"}
    assert batch.client.hgetall("b") == {b"y": b"t", b"d": b"w"}
    assert failed[0][:2] == (2, {})
    assert "row 2: a hash must have at least one field" in str(failed[0][2])


@pytest.mark.parametrize(
    ("expiry", "lowest"), [({"ex": 100}, 90), ({"px": 100_000}, 90), ({"exat": 4_000_000_000}, 10**6)]
)
def test_hashes_expire(batch: FastBatch, expiry: dict[str, int], lowest: int) -> None:
    table = pa.table({"k": range(2000), "v": range(2000)})
    report = batch.batch_set_table(table, key="k", as_="hash", **expiry)
    assert report.written == 2000
    assert all(batch.client.ttl(key) >= lowest for key in (0, 999, 1999))
    batch.batch_set_table(table, key="k", as_="hash", keepttl=True)
    assert batch.client.ttl("0") >= lowest


def test_keys_of_another_type_fail_alone(batch: FastBatch) -> None:
    batch.client.set("1", "a string")
    table = pa.table({"k": range(3), "v": ["x", "y", "z"]})
    for expiry in ({}, {"ex": 100}):
        failed: list[Any] = []
        report = batch.batch_set_table(
            table, key="k", as_="hash", on_error=lambda *failure, to=failed: to.append(failure), **expiry
        )
        assert (report.written, report.failed) == (2, 1)
        assert failed[0][:2] == (1, {b"k": b"1", b"v": b"y"})
        assert isinstance(failed[0][2], redis.ResponseError)
    with pytest.raises(BatchError, match=r"1 of 3 rows were not written: row 1: (WRONGTYPE )?Operation against"):
        batch.batch_set_table(table, key="k", as_="hash")


@pytest.mark.parametrize("expiry", [{"ex": 100}, {"px": 100_000}, {"exat": 1}], ids=str)
def test_keys_that_hset_refuses_do_not_expire(batch: FastBatch, expiry: dict[str, int]) -> None:
    batch.client.set("1", "a string")
    batch.client.rpush("2", "a list")
    table = pa.table({"k": range(4), "v": ["w", "x", "y", "z"]})
    report = batch.batch_set_table(table, key="k", as_="hash", on_error="report", **expiry)
    assert (report.written, report.failed, list(report.failures)) == (2, 2, [1, 2])
    assert (batch.client.get("1"), batch.client.lrange("2", 0, -1)) == (b"a string", [b"a list"])
    assert (batch.client.ttl("1"), batch.client.ttl("2")) == (-1, -1)
    assert all(batch.client.ttl(key) != -1 for key in ("0", "3"))
    alone = batch.batch_set_table(table.slice(1, 2), key="k", as_="hash", on_error="report", **expiry)
    assert (alone.written, alone.failed, batch.client.ttl("1")) == (0, 2, -1)


def test_a_hash_that_is_refused_for_lack_of_memory_does_not_expire(valkey: EmbeddedServer) -> None:
    with valkey.client() as client:
        client.flushdb()
        client.hset("k", "v", "old")
        client.config_set("maxmemory", 1)
        try:
            report = FastBatch(client).batch_set_table(
                pa.table({"k": ["k"], "v": ["new"]}), key="k", as_="hash", ex=100, on_error="report"
            )
        finally:
            client.config_set("maxmemory", 0)
        assert (report.written, report.failed) == (0, 1)
        assert (client.hgetall("k"), client.ttl("k")) == ({b"v": b"old"}, -1)


def test_rows_whose_expiry_is_refused_fail(valkey: EmbeddedServer) -> None:
    table = pa.table({"k": range(3000), "v": ["x" * 100] * 3000})
    rules = ["on", "nopass", "~*", "+@all", "-expire"]
    with valkey.client() as admin:
        admin.flushdb()
        admin.execute_command("ACL", "SETUSER", "undying", *rules)
        admin.set("7", "a string")
        try:
            with valkey.client(username="undying", password="any") as client:
                failed: list[Any] = []
                report = FastBatch(client).batch_set_table(
                    table, key="k", as_="hash", ex=100, on_error=lambda *failure: failed.append(failure)
                )
        finally:
            admin.execute_command("ACL", "DELUSER", "undying")
        assert (report.written, report.failed, report.confirmed_prefix) == (0, 3000, 3000)
        failed.sort(key=lambda failure: failure[0])
        assert [number for number, _, _ in failed] == list(range(3000))
        assert failed[5][1] == {b"k": b"5", b"v": b"x" * 100}
        assert isinstance(failed[5][2], redis.exceptions.NoPermissionError)
        assert "wrong kind of value" in str(failed[7][2])
        assert admin.ttl("5") == -1


def test_hashes_of_a_slow_source_get_their_expiry_before_it_goes_on(valkey: EmbeddedServer) -> None:
    expiries: list[int] = []
    with valkey.client() as client, valkey.client() as other:
        other.flushdb()

        def batches() -> Iterator[Any]:
            for i in range(4):
                time.sleep(0.06)
                expiries.extend(other.ttl(str(number)) for number in range(1000 * i))
                yield pa.record_batch({"k": range(1000 * i, 1000 * (i + 1))})

        reader = pa.RecordBatchReader.from_batches(pa.schema([("k", pa.int64())]), batches())
        report = FastBatch(client).batch_set_table(reader, key="k", as_="hash", ex=100)
        assert report.written == 4000
        assert max(expiries) == 100
        assert -1 not in expiries


@pytest.mark.parametrize("retries", [1, 0])
def test_a_lost_connection_sends_hset_or_expire_again(valkey: EmbeddedServer, retries: int) -> None:
    table = pa.table({"k": range(2000), "v": ["x" * 500] * 2000})
    losses = [500, 1500]
    retry = Retry(NoBackoff(), retries)
    with valkey.client(retry=retry, client_name="lost") as client, valkey.client() as admin:
        admin.flushdb()
        admin.set("7", "a string")

        def lose(done: int, _: int | None) -> None:
            if losses and done >= losses[0]:
                del losses[0]
                for each in admin.client_list():
                    if each["name"] == "lost":
                        admin.client_kill_filter(_id=each["id"])

        try:
            report = FastBatch(client).batch_set_table(
                table, key="k", as_="hash", ex=100, chunk_size=50, on_error="report", progress=lose
            )
        except redis.ConnectionError as error:
            report = error.report  # type: ignore[attr-defined]
        hashes = {int(key) for key in admin.scan_iter(_type="hash", count=1000)}
        expiring = {key for key in hashes if admin.ttl(str(key)) > 0}
        assert (admin.get("7"), admin.ttl("7")) == (b"a string", -1)
        if retries:
            assert (report.written, report.failed, len(expiring)) == (1999, 1, 1999)
        else:
            assert 0 < report.written < 1999
            assert report.written <= len(expiring)
            assert {
                row for row, error in report.failures.items() if "HSET was carried out" in str(error)
            } <= hashes


def test_rows_with_null_keys_fail(batch: FastBatch) -> None:
    table = pa.table({"k": ["a", None], "v": [1, 2]})
    failed: list[Any] = []
    batch.batch_set_table(table, key="k", as_="hash", on_error=lambda *failure: failed.append(failure))
    assert failed[0][:2] == (1, {b"v": b"2"})


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_nested_columns_are_refused(batch: FastBatch, value: Any) -> None:
    table = pa.table({"k": [1], "bad": [value]})
    with pytest.raises(EncodeError, match="column 'bad': a hash cannot hold nested values"):
        batch.batch_set_table(table, key="k", as_="hash")
    batch.batch_set_table(table, key="k", as_="hash", columns=["k"])


def test_conditions_are_refused_for_hashes(batch: FastBatch) -> None:
    table = pa.table({"k": [1]})
    for options in ({"nx": True}, {"xx": True}):
        with pytest.raises(ValueError, match="HSET has no conditions"):
            batch.batch_set_table(table, key="k", as_="hash", **options)
    with pytest.raises(ValueError, match='as_ must be "value" or "hash"'):
        batch.batch_set_table(table, key="k", as_="list")
