"""What batch_set_table(as_="hash") writes, batch_get_table(as_="hash", schema=) reads as it was, vectors too."""

from __future__ import annotations

import asyncio
import math
import struct
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import AsyncFastBatch, DecodeError, EncodeError, FastBatch, col
from redis_fastbatch.server import EmbeddedServer
from tiers import examples

pa = pytest.importorskip("pyarrow")

from table_examples import EXAMPLES, SCALARS  # noqa: E402

VECTORS = [[1.0, -0.5, 3.25], None, [math.inf, -0.0, 2.0**-20]]
WIDTHS = {pa.float16(): "e", pa.float32(): "f", pa.float64(): "d"}


def floats(kind: Any) -> Any:
    return st.floats(width={"e": 16, "f": 32, "d": 64}[WIDTHS[kind]])


FLAT = SCALARS.flatmap(
    lambda pair: st.sampled_from(
        [pair] * 5 + [(pa.list_(kind, 3), st.lists(floats(kind), min_size=3, max_size=3)) for kind in WIDTHS]
    )
)


@st.composite
def flat_tables(draw: Any) -> Any:
    """Draw tables of columns that a hash can hold, sliced and joined."""
    rows = draw(st.integers(1, 12))
    columns = {"id": pa.array(range(rows), pa.int64())}
    for i in range(draw(st.integers(1, 5))):
        kind, values = draw(FLAT)
        column = draw(st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows))
        columns[f"column {i}"] = pa.array(column, kind)
    table = pa.table(columns)
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table.slice(cut), table.slice(0, cut)])


def plain(table: Any) -> Any:
    """Return a form of a table that is the same for equal values, also for NaN."""
    return [
        (name, repr(column.to_pylist())) for name, column in zip(table.column_names, table.columns, strict=True)
    ]


def read_back(batch: FastBatch, table: Any) -> Any:
    batch.client.flushdb()
    assert batch.batch_set_table(table, key="id", as_="hash").written == table.num_rows
    return batch.batch_get_table(table["id"].to_pylist(), as_="hash", schema=table.schema)


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flat_tables())
def test_any_table_of_flat_columns_comes_back(valkey_client: redis.Redis, table: Any) -> None:
    found = read_back(FastBatch(valkey_client), table)
    assert found.schema == table.schema
    assert plain(found) == plain(table)


@pytest.mark.parametrize(
    ("kind", "values"),
    [pair for pair in EXAMPLES if not pa.types.is_nested(pair[0])],
    ids=lambda value: str(value)[:30],
)
def test_the_limits_of_every_type_come_back(valkey_client: redis.Redis, kind: Any, values: list[Any]) -> None:
    table = pa.table({"id": range(len(values)), "value": pa.array(values, kind)})
    found = read_back(FastBatch(valkey_client), table)
    assert found.schema == table.schema
    assert plain(found) == plain(table)


@pytest.mark.parametrize("kind", WIDTHS, ids=str)
@pytest.mark.parametrize("protocol", [2, 3])
def test_vectors_are_the_bytes_of_their_floats(valkey: EmbeddedServer, kind: Any, protocol: int) -> None:
    table = pa.table({"id": range(3), "v": pa.array(VECTORS, pa.list_(kind, 3))})
    with redis.Redis(host=valkey.host, port=valkey.port, protocol=protocol) as client:
        batch = FastBatch(client)
        assert read_back(batch, table).equals(table)
        assert client.hget("0", "v") == struct.pack(f"<3{WIDTHS[kind]}", *VECTORS[0])
        assert not client.hexists("1", "v")
        batch.batch_execute_table(table.slice(2), ["HSET", "doc:{id}", "v", col("v")])
        assert client.hget("doc:2", "v") == struct.pack(f"<3{WIDTHS[kind]}", *VECTORS[2])


def test_vectors_are_read_from_the_middle_of_a_table(valkey_client: redis.Redis) -> None:
    vectors = pa.array(
        [[float(row), row / 2] if row % 7 else None for row in range(3000)], pa.list_(pa.float32(), 2)
    )
    table = pa.table({"id": range(3000), "v": vectors})
    assert read_back(FastBatch(valkey_client), table.slice(1234, 1500)).equals(table.slice(1234, 1500))


def test_vectors_of_extension_types_and_of_polars_come_back(valkey_client: redis.Redis) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), [2, 2])
    storage = pa.array([[1.0, 2.0, 3.0, 4.0], None], pa.list_(pa.float32(), 4))
    table = pa.table({"id": range(2), "v": kind.wrap_array(storage)})
    batch = FastBatch(valkey_client)
    assert read_back(batch, table).equals(table)

    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(
        {"id": [0, 1], "v": [[1.5, 2.5], [3.0, 4.0]]}, schema_overrides={"v": pl.Array(pl.Float32, 2)}
    )
    batch.batch_set_table(frame, key="id", as_="hash")
    found = batch.batch_get_table([0, 1], as_="hash", schema=frame.schema)
    assert pl.from_arrow(found).equals(frame)


@pytest.mark.parametrize("where", ["valkey_client", "cluster_client"])
def test_clusters_and_asyncio_write_and_read_vectors(request: pytest.FixtureRequest, where: str) -> None:
    client: Any = request.getfixturevalue(where)
    table = pa.table(
        {"id": range(200), "v": pa.array([[row, 1] for row in range(200)], pa.list_(pa.float32(), 2))}
    )
    batch = FastBatch(client)
    batch.batch_set_table(table, key="id", as_="hash")
    assert batch.batch_get_table(range(200), as_="hash", schema=table.schema).equals(table)
    if where == "cluster_client":
        return

    async def main() -> Any:
        server = request.getfixturevalue("valkey")
        async with AsyncFastBatch.from_url(server.url) as asynchronous:
            await asynchronous.batch_set_table(table, key="id", prefix="a:", as_="hash")
            keys = [f"a:{row}" for row in range(200)]
            return await asynchronous.batch_get_table(keys, as_="hash", schema=table.schema)

    assert asyncio.run(main()).equals(table)


def test_a_vector_with_nulls_fails_alone(valkey_client: redis.Redis) -> None:
    vectors = pa.array([[1.0, 2.0], [1.0, None], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    failed: list[Any] = []
    report = FastBatch(valkey_client).batch_set_table(
        pa.table({"id": range(3), "v": vectors}),
        key="id",
        as_="hash",
        on_error=lambda *failure: failed.append(failure),
    )
    assert (report.written, [failure[:2] for failure in failed]) == (2, [(1, {b"id": b"1", b"v": None})])
    assert str(failed[0][2]) == "row 1: column 'v': a vector must not have nulls, found one that has"


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_a_vector_of_another_length_names_its_key_and_field(valkey_client: redis.Redis, data: bytes) -> None:
    valkey_client.hset("good", "v", b"12345678")
    valkey_client.hset("bad", "v", data)
    with pytest.raises(DecodeError, match=f"8 bytes were expected, found {len(data)}") as caught:
        FastBatch(valkey_client).batch_get_table(
            ["good", "bad"], as_="hash", schema={"v": pa.list_(pa.float32(), 2)}
        )
    assert str(caught.value).startswith("key 'bad', ")
    assert "field 'v'" in str(caught.value)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.int8(), 2), pa.list_(pa.string(), 2)], ids=str
)
def test_other_lists_are_refused_both_ways(valkey_client: redis.Redis, kind: Any) -> None:
    batch = FastBatch(valkey_client)
    with pytest.raises(EncodeError, match="column 'v': a hash cannot hold nested values, except vectors"):
        batch.batch_set_table(pa.table({"id": [1], "v": pa.array([None], kind)}), key="id", as_="hash")
    with pytest.raises(TypeError, match="column 'v': a hash holds no nested values except vectors"):
        batch.batch_get_table(["a"], as_="hash", schema={"v": kind})
