"""batch_set_table(codec="json"): the rows of a table as JSON objects."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import pytest
import redis

from redis_fastbatch import BatchError, EncodeError, FastBatch, JsonCodec

pa = pytest.importorskip("pyarrow")

COLUMNS: dict[str, Any] = {
    "id": pa.array([1, 2, 3], pa.int64()),
    "text": pa.array(["näme", 'q"uo\\te\n\x01', None]),
    "float": pa.array([1.5, -0.0, 1e300]),
    "small": pa.array([0.1, None, 2.0], pa.float32()),
    "flag": pa.array([True, False, None]),
    "large": pa.array([2**64 - 1, 0, 7], pa.uint64()),
    "list": pa.array([[1, 2], [], None], pa.list_(pa.int16())),
    "struct": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None]),
    "map": pa.array([[("k", 1), ("l", 2)], [], None], pa.map_(pa.string(), pa.int32())),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "null": pa.nulls(3),
    'na"me': pa.array([1, 2, 3], pa.int8()),
}
PLAIN = pa.table(COLUMNS)


def test_rows_are_the_bytes_of_the_codec_json(valkey_client: redis.Redis) -> None:
    for fb in (FastBatch(valkey_client, codec="json"), FastBatch(valkey_client)):
        valkey_client.flushall()
        assert fb.batch_set_table(PLAIN, key="id", prefix="row:", codec="json").written == 3
        rows = PLAIN.to_pylist(maps_as_pydicts="strict")
        for row in rows:
            row["small"] = None if row["small"] is None else pytest.approx(row["small"])
        reader = FastBatch(valkey_client, codec="json")
        assert reader.batch_get(["row:1", "row:2", "row:3"]) == {f"row:{row['id']}": row for row in rows}


def test_the_type_of_a_codec_is_ignored(valkey_client: redis.Redis) -> None:
    pytest.importorskip("msgspec")
    whole = PLAIN.drop_columns(["small"])
    codec = JsonCodec(type=dict[str, int], default=str)
    FastBatch(valkey_client).batch_set_table(whole, key="id", codec=codec)
    for row in whole.to_pylist(maps_as_pydicts="strict"):
        assert valkey_client.get(str(row["id"])) == JsonCodec().dumps(row)


def test_what_json_lacks_is_text_and_comes_back_by_a_schema(valkey_client: redis.Redis) -> None:
    zone = datetime.timezone.utc
    table = pa.table(
        {
            "id": ["a", "b"],
            "day": [datetime.date(2024, 2, 29), None],
            "at": pa.array([datetime.datetime(2024, 2, 29, 12, tzinfo=zone)] * 2, pa.timestamp("us", "UTC")),
            "local": [datetime.datetime(2024, 2, 29, 12, 0, 0, 5), None],
            "span": pa.array([datetime.timedelta(days=1, seconds=2), None], pa.duration("us")),
            "money": [decimal.Decimal("1.10"), decimal.Decimal("-2.00")],
        }
    )
    fb = FastBatch(valkey_client, codec="json")
    assert fb.batch_set_table(table, key="id").written == 2
    assert json.loads(valkey_client.get("a") or b"") == {
        "id": "a",
        "day": "2024-02-29",
        "at": "2024-02-29T12:00:00+00:00",
        "local": "2024-02-29T12:00:00.000005",
        "span": "P1DT2S",
        "money": "1.10",
    }
    rest = table.drop_columns(["at"])
    assert fb.batch_get_table(["a", "b"], schema=rest.schema) == rest


def test_rows_that_cannot_be_json_fail_alone(valkey_client: redis.Redis) -> None:
    fb = FastBatch(valkey_client, codec="json")
    pairs = pa.array([[("k", 1)], [("k", 1), ("k", 2)], [("k", 3)], []], pa.map_(pa.string(), pa.int32()))
    broken = pa.Array.from_buffers(
        pa.string(), 4, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0"), pa.py_buffer(b"abc\xff")]
    )
    table = pa.table({"id": [0, 1, 2, 3], "x": [1.0, 2.0, float("nan"), 4.0], "map": pairs, "text": broken})
    failed: dict[int, tuple[Any, str]] = {}
    report = fb.batch_set_table(
        table, key="id", on_error=lambda row, value, error: failed.update({row: (value, str(error))})
    )
    assert (report.written, report.failed) == (1, 3)
    assert "a map must have each key once, found the key 'k' twice" in failed[1][1]
    assert "JSON has no NaN" in failed[2][1]
    assert "UTF-8" in failed[3][1]
    assert failed[2][0]["text"] == "c"
    assert failed[3][0] == {"id": 3, "x": 4.0, "map": {}, "text": b"\xff"}
    assert fb.batch_get(["0"]) == {"0": {"id": 0, "x": 1.0, "map": {"k": 1}, "text": "a"}}
    many = pa.array([[(f"k{n}", n) for n in range(40)] + [("k7", 0)]], pa.map_(pa.string(), pa.int32()))
    with pytest.raises(BatchError, match="found the key 'k7' twice"):
        fb.batch_set_table(pa.table({"id": [1], "map": many}), key="id")


def test_columns_that_json_lacks_are_refused_before_anything_is_sent(valkey_client: redis.Redis) -> None:
    fb = FastBatch(valkey_client, codec="json")
    for column in (pa.array([b"\xff"]), pa.array([[(1, 1)]], pa.map_(pa.int32(), pa.int32()))):
        with pytest.raises(EncodeError, match=r"column 'data': .*JSON"):
            fb.batch_set_table(pa.table({"id": [1], "data": column}), key="id")
        fb.batch_set_table(pa.table({"id": [1], "data": column}), key="id", columns=["id"])
    assert fb.batch_get(["1"]) == {"1": {"id": 1}}


def test_options_clusters_and_refused_rows(valkey_client: redis.Redis, cluster_client: redis.RedisCluster) -> None:
    table = pa.table({"id": range(2500), "name": [f"n{n}" for n in range(2500)]})
    expected = {f"{n}": {"id": n, "name": f"n{n}"} for n in range(2500)}
    for client in (valkey_client, cluster_client):
        fb = FastBatch(client, codec="json")
        assert fb.batch_set_table(table, key="id", ex=60).written == 2500
        assert fb.batch_get(expected) == expected
        assert fb.batch_set_table(table, key="id", nx=True).skipped == 2500
    failed: list[Any] = []
    valkey_client.config_set("maxmemory", "1")
    try:
        fb = FastBatch(valkey_client, codec="json")
        some = table.slice(0, 2)
        fb.batch_set_table(some, key="id", on_error=lambda row, value, error: failed.append((row, value)))
    finally:
        valkey_client.config_set("maxmemory", "0")
    assert failed == [(0, {"id": 0, "name": "n0"}), (1, {"id": 1, "name": "n1"})]
