"""Wrong arguments are refused before anything is sent. The message says what to pass instead."""

from __future__ import annotations

import asyncio
import datetime
import importlib
import re
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from checks import in_use
from redis_fastbatch import AsyncFastBatch, BatchError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")
pd = pytest.importorskip("pandas")
np = pytest.importorskip("numpy")

ROWS = [{"id": 1, "n": 2}, {"id": 3, "n": 4}]


def pairs() -> Iterator[tuple[str, int]]:
    yield "a", 1


async def async_pairs() -> AsyncIterator[tuple[str, int]]:
    yield "a", 1


class AwaitableItems:
    """An awaitable object."""

    def __await__(self) -> Any:
        raise AssertionError("it was awaited")


TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
    "lazy": lambda: pl.DataFrame(ROWS).lazy(),
    "table": lambda: pa.Table.from_pylist(ROWS),
    "record batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "reader": lambda: pa.Table.from_pylist(ROWS).to_reader(),
    "a column named tolist": lambda: pd.DataFrame({"tolist": [1], "to_pylist": [2]}),
}

COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "Series": lambda keys: pd.Series(keys),
    "Index": lambda keys: pd.Index(keys),
    "polars": lambda keys: pl.Series(keys),
    "numpy": lambda keys: np.array(keys),
    "numpy objects": lambda keys: np.array(keys, object),
    "array": lambda keys: pa.array(keys),
    "chunked": lambda keys: pa.chunked_array([keys[:1], keys[1:]]),
    "dictionary": lambda keys: pa.array(keys).dictionary_encode(),
}

NOT_ITEMS: dict[str, tuple[Callable[[], Any], str]] = {
    "coroutine object": (AwaitableItems, "got a test_wrong_arguments.AwaitableItems: await it"),
    "function": (lambda: pairs, "got a function: call it"),
    "method": (lambda: {"a": 1}.items, "got a builtin_function_or_method: call it"),
    "None": (lambda: None, "got None$"),
    "int": (lambda: 5, "got int 5$"),
    "str": (lambda: "ab", "got one str"),
    "bytes": (lambda: b"ab", "got one bytes"),
    "view": (lambda: memoryview(b"ab"), "got one memoryview"),
}


@pytest.fixture
def fast(valkey_client: redis.Redis) -> Iterator[FastBatch]:
    """Return a FastBatch for an empty server, and check that it returns all connections."""
    yield FastBatch(valkey_client)
    assert in_use(valkey_client) == 0


def on_asyncio(server: EmbeddedServer, call: Callable[[AsyncFastBatch], Any]) -> Any:
    """Call a method of AsyncFastBatch, and return its result."""

    async def run() -> Any:
        async with AsyncFastBatch.from_url(server.url) as fast:
            return await call(fast)

    return asyncio.run(run())


async def listed(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


READS: dict[str, Callable[[FastBatch, Any], Any]] = {
    "get": lambda fast, keys: fast.batch_get(keys),
    "workers": lambda fast, keys: fast.batch_get(keys, workers=2),
    "iter": lambda fast, keys: dict(fast.batch_get_iter(keys)),
    "delete": lambda fast, keys: fast.batch_delete(keys),
    "table": lambda fast, keys: fast.batch_get_table(keys),
}

ASYNC_READS: dict[str, Callable[[AsyncFastBatch, Any], Any]] = {
    "get": lambda fast, keys: fast.batch_get(keys),
    "iter": lambda fast, keys: listed(fast.batch_get_iter(keys)),
    "delete": lambda fast, keys: fast.batch_delete(keys),
    "table": lambda fast, keys: fast.batch_get_table(keys),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"atomic": True}, {"progress": print}], ids=str)
def test_a_table_is_refused_as_items(fast: FastBatch, table: str, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"^items must be .* got a table \(.*batch_set_table\(\)"):
        fast.batch_set(TABLES[table](), **options)
    assert fast.client.dbsize() == 0


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_refused_as_items_on_asyncio(valkey: EmbeddedServer, table: str) -> None:
    with pytest.raises(TypeError, match=r"^items must be .* got a table \(.*batch_set_table\(\)"):
        on_asyncio(valkey, lambda fast: fast.batch_set(TABLES[table]()))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_refused_as_items(fast: FastBatch, column: str) -> None:
    with pytest.raises(TypeError, match=r"^items must be .* got one column .*zip\(keys, values\)"):
        fast.batch_set(COLUMNS[column](["ab", "cd"]))
    assert fast.client.dbsize() == 0


@pytest.mark.parametrize("what", NOT_ITEMS)
def test_other_objects_are_refused_as_items(fast: FastBatch, valkey: EmbeddedServer, what: str) -> None:
    make, message = NOT_ITEMS[what]
    with pytest.raises(TypeError, match=f"^items must be .*{message}"):
        fast.batch_set(make())
    with pytest.raises(TypeError, match=f"^items must be .*{message}"):
        on_asyncio(valkey, lambda fast: fast.batch_set(make()))
    assert fast.client.dbsize() == 0


def test_an_async_iterator_is_refused_by_fastbatch(fast: FastBatch) -> None:
    with pytest.raises(TypeError, match=r"\(async_generator\): AsyncFastBatch\.batch_set\(\) takes it"):
        fast.batch_set(async_pairs())
    for call, method in [
        (fast.batch_get, "batch_get"),
        (fast.batch_delete, "batch_delete"),
        (fast.batch_get_table, "batch_get_table"),
        (lambda keys: list(fast.batch_get_iter(keys)), "batch_get_iter"),
    ]:
        with pytest.raises(TypeError, match=rf"\(async_generator\): AsyncFastBatch\.{method}\(\) takes it"):
            call(async_pairs())


def test_a_coroutine_is_refused_as_items(fast: FastBatch, valkey: EmbeddedServer) -> None:
    async def items() -> dict[str, int]:
        return {"a": 1}

    for call in (fast.batch_set, lambda some: on_asyncio(valkey, lambda fast: fast.batch_set(some))):
        coroutine = items()
        with pytest.raises(TypeError, match="got a coroutine: await it, and pass its result"):
            call(coroutine)
        coroutine.close()


Pair = namedtuple("Pair", "key value")

ITEMS: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"a": 1, "b": 2},
    "dict_items": lambda: {"a": 1, "b": 2}.items(),
    "zip": lambda: zip("ab", [1, 2], strict=True),
    "map": lambda: map(tuple, [["a", 1], ["b", 2]]),
    "generator": lambda: ((key, ord(key) - 96) for key in "ab"),
    "items of a Series": lambda: pd.Series([1, 2], ["a", "b"]).items(),
    "itertuples": lambda: pd.DataFrame({"key": ["a", "b"], "value": [1, 2]}).itertuples(index=False),
    "rows of polars": lambda: pl.DataFrame({"key": ["a", "b"], "value": [1, 2]}).iter_rows(),
    "named tuples": lambda: [Pair("a", 1), Pair("b", 2)],
    "lists": lambda: [["a", 1], ["b", 2]],
    "a set of tuples": lambda: {("a", 1), ("b", 2)},
    "swapped by enumerate": lambda: ((key, n) for n, key in enumerate("ab", 1)),
}


@pytest.mark.parametrize("items", ITEMS)
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"atomic": True}], ids=str)
def test_items_may_be_any_iterable_of_pairs(fast: FastBatch, items: str, options: dict[str, Any]) -> None:
    assert fast.batch_set(ITEMS[items](), **options).written == 2
    assert fast.batch_get(["a", "b"]) == {"a": 1, "b": 2}


MISTAKEN_PAIRS: dict[str, tuple[Any, str]] = {
    "rows": (ROWS, "got dict {'id': 1, 'n': 2}; for rows that are dicts, pass pairs"),
    "sets": ([{1, 2}], "got set {1, 2}"),
    "texts of two": (["ab", "cd"], "got str 'ab'"),
    "bytes of two": ([b"ab"], "got bytes b'ab'"),
    "triples": ([("a", 1, 60)], "got tuple of 3 ('a', 1, 60)"),
    "one pair": (("ab", "cd"), "got str 'ab'"),
    "rows of numpy": ([np.array([1, 2])], "got ndarray array([1, 2])"),
    "iterators": ([iter("ab")], "got str_"),
}


@pytest.mark.parametrize("what", MISTAKEN_PAIRS)
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"atomic": True}, {"nx": True}, {"ex": 9}], ids=str)
def test_other_iterables_of_two_are_refused_as_pairs(fast: FastBatch, what: str, options: dict[str, Any]) -> None:
    items, found = MISTAKEN_PAIRS[what]
    with pytest.raises(TypeError, match=re.escape("expected (key, value) as a tuple or list of two, " + found)):
        fast.batch_set(items, **options)
    assert fast.client.dbsize() == 0


def test_other_iterables_of_two_are_refused_as_pairs_on_asyncio(valkey: EmbeddedServer) -> None:
    async def rows() -> AsyncIterator[Any]:
        for row in ROWS:
            yield row

    for items in (ROWS, rows()):
        with pytest.raises(TypeError, match=r"as a tuple or list of two, got dict"):
            on_asyncio(valkey, lambda fast, items=items: fast.batch_set(items))


@pytest.mark.parametrize("atomic", [False, True])
def test_other_iterables_of_two_are_refused_as_pairs_over_a_cluster(
    cluster: Cluster, cluster_client: redis.RedisCluster, atomic: bool
) -> None:
    for items in (ROWS, ["ab", "ab"], [{"a", "b"}]):
        with pytest.raises(TypeError, match="as a tuple or list of two"):
            FastBatch(cluster_client).batch_set(items, atomic=atomic)
    assert all(not node.dbsize() for node in masters(cluster_client))


def masters(client: redis.RedisCluster) -> list[Any]:
    return [client.get_redis_connection(node) for node in client.get_primaries()]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_refused_as_keys(fast: FastBatch, read: str, table: str) -> None:
    with pytest.raises(TypeError, match=r"^keys must be .* got a table \(.* pass a column of it"):
        READS[read](fast, TABLES[table]())


@pytest.mark.parametrize("read", ASYNC_READS)
def test_a_table_is_refused_as_keys_on_asyncio(valkey: EmbeddedServer, read: str) -> None:
    with pytest.raises(TypeError, match=r"^keys must be .* got a table \(.* pass a column of it"):
        on_asyncio(valkey, lambda fast: ASYNC_READS[read](fast, TABLES["pandas"]()))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "keys",
    ["text", b"bytes", bytearray(b"x"), memoryview(b"x"), None, 5, pairs],
    ids=lambda keys: type(keys).__name__,
)
def test_other_objects_are_refused_as_keys(fast: FastBatch, valkey: EmbeddedServer, read: str, keys: Any) -> None:
    with pytest.raises(TypeError, match=r"^keys must be an iterable of keys, got "):
        READS[read](fast, keys)
    if read in ASYNC_READS:
        with pytest.raises(TypeError, match=r"^keys must be an iterable of keys, got "):
            on_asyncio(valkey, lambda fast: ASYNC_READS[read](fast, keys))


@pytest.mark.parametrize("column", COLUMNS)
def test_keys_may_be_a_column(fast: FastBatch, valkey: EmbeddedServer, column: str) -> None:
    fast.batch_set({"a": {"n": 1}, "b": {"n": 2}})
    expected = {"a": {"n": 1}, "b": {"n": 2}}

    def keys() -> Any:
        return COLUMNS[column](["a", "b"])

    for found in (
        fast.batch_get(keys()),
        fast.batch_get(keys(), workers=2),
        dict(fast.batch_get_iter(keys())),
        on_asyncio(valkey, lambda fast: fast.batch_get(keys())),
        dict(on_asyncio(valkey, lambda fast: listed(fast.batch_get_iter(keys())))),
    ):
        assert found == expected
        assert [type(key) for key in found] == [str, str]
    assert fast.batch_get_table(keys())["n"].to_pylist() == [1, 2]
    assert on_asyncio(valkey, lambda fast: fast.batch_get_table(keys()))["n"].to_pylist() == [1, 2]
    assert fast.batch_delete(keys()) == 2


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_of_keys_that_are_numbers(fast: FastBatch, column: str) -> None:
    fast.batch_set({7: "seven", 8: "eight"})
    found = fast.batch_get(COLUMNS[column]([7, 8]))
    assert found == {7: "seven", 8: "eight"}
    assert [type(key) for key in found] == [int, int]


def test_keys_may_be_a_column_over_a_cluster(cluster_client: redis.RedisCluster) -> None:
    fast = FastBatch(cluster_client)
    fast.batch_set({"a": 1, "b": 2})
    assert fast.batch_get(pd.Series(["a", "b"])) == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match="got a table"):
        fast.batch_get(pa.table({"key": ["a"]}))
    assert fast.batch_delete(pa.array(["a", "b"])) == 2


def test_an_array_without_dimensions_is_refused_as_keys(fast: FastBatch) -> None:
    with pytest.raises(TypeError, match=r"got one value \(numpy\.ndarray\): pass \['a'\]"):
        fast.batch_get(np.array("a"))


EXPIRIES: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"ex": datetime.timedelta(milliseconds=500)},
        ValueError,
        "ex must be at least 1 second, got timedelta 0:00:00.500000: px takes milliseconds",
    ),
    ({"px": datetime.timedelta(microseconds=5)}, ValueError, "px must be at least 1 millisecond, got timedelta"),
    ({"ex": datetime.timedelta(0)}, ValueError, "ex must be positive and fit into 64 bits, got timedelta 0:00:00"),
    ({"ex": -5}, ValueError, "ex must be positive and fit into 64 bits, got -5"),
    ({"ex": 0.5}, TypeError, "ex must be an int or a datetime.timedelta, got float 0.5: px takes milliseconds"),
    ({"ex": datetime.datetime(2030, 1, 1)}, TypeError, "exat takes a point in time"),
    ({"pxat": datetime.timedelta(days=1)}, TypeError, "px takes a timedelta from now"),
]


@pytest.mark.parametrize(("options", "kind", "message"), EXPIRIES, ids=str)
def test_an_invalid_expiry_is_refused_with_advice(
    fast: FastBatch, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        fast.batch_set({"a": 1}, **options)
    with pytest.raises(kind, match=re.escape(message)):
        fast.batch_set_table(pa.table({"id": [1]}), key="id", **options)
    assert fast.client.dbsize() == 0


def test_an_expiry_as_text_is_refused_except_as_the_name_of_a_column(fast: FastBatch) -> None:
    with pytest.raises(TypeError, match=r"ex must be an int or a datetime\.timedelta, got str '60'"):
        fast.batch_set({"a": 1}, ex="60")  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="column '60': there is no such column"):
        fast.batch_set_table(pa.table({"id": [1]}), key="id", ex="60")
    assert fast.client.dbsize() == 0


def test_valkey_py_is_refused_with_advice() -> None:
    valkey = pytest.importorskip("valkey")
    with pytest.raises(TypeError, match=r"not valkey\.client\.Valkey: redis\.Redis connects to Valkey too$"):
        FastBatch(valkey.Valkey())
    with pytest.raises(TypeError, match=r"not valkey\..*: redis\.asyncio\.Redis connects to Valkey too$"):
        AsyncFastBatch(importlib.import_module("valkey.asyncio").Valkey())


def test_classes_and_wrong_urls_are_refused_as_clients(valkey_client: redis.Redis) -> None:
    with pytest.raises(TypeError, match=r"FastBatch takes a client, not its class: call Redis\(\)"):
        FastBatch(redis.Redis)  # type: ignore[arg-type]
    for url in (None, valkey_client):
        for kind in (FastBatch, AsyncFastBatch):
            with pytest.raises(TypeError, match=r"the URL must be a str such as \"redis://"):
                kind.from_url(url)
    with pytest.raises(TypeError, match=r"^codec must be a name or have dumps\(\) and loads\(\), got int$"):
        FastBatch(valkey_client, 5)  # type: ignore[arg-type]


SCHEMAS: dict[str, Callable[[], Any]] = {
    "schema": lambda: pa.schema({"id": pa.int64(), "name": pa.string()}),
    "dict of types": lambda: {"id": pa.int64(), "name": pa.string()},
    "dict of names": lambda: {"id": "int64", "name": "string"},
    "pairs": lambda: [("id", "int64"), ("name", pa.string())],
    "fields": lambda: [pa.field("id", pa.int64()), pa.field("name", pa.string())],
    "polars": lambda: pl.Schema({"id": pl.Int64, "name": pl.String}),
    "schema of a polars frame": lambda: pl.DataFrame({"id": [1], "name": ["a"]}).schema,
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_may_have_any_of_these_forms(fast: FastBatch, valkey: EmbeddedServer, schema: str) -> None:
    fast.batch_set({"r1": {"id": 1, "name": "Ada", "more": 2}})
    for table in (
        fast.batch_get_table(["r1", "r2"], schema=SCHEMAS[schema]()),
        on_asyncio(valkey, lambda fast: fast.batch_get_table(["r1", "r2"], schema=SCHEMAS[schema]())),
    ):
        assert table.to_pylist() == [{"id": 1, "name": "Ada"}, {"id": None, "name": None}]
        assert table.schema.field("id").type == pa.int64()


NOT_SCHEMAS: dict[str, tuple[Any, str]] = {
    "names": (["id", "name"], "a list holds pyarrow.Field or (name, type), not str 'id'"),
    "name": ("id", "got str"),
    "python types": ({"id": int}, "column 'id' needs an Arrow type or its name, such as \"int64\", not int"),
    "polars types": ({"id": pl.Int64}, "column 'id' needs an Arrow type or its name"),
    "unknown name": ({"id": "integer"}, "No type alias for integer"),
    "a table": (pa.table({"id": [1]}), "got Table"),
    "a type": (pa.int64(), "got DataType"),
    "number": (5, "got int"),
}


@pytest.mark.parametrize("what", NOT_SCHEMAS)
def test_other_objects_are_refused_as_schema(fast: FastBatch, what: str) -> None:
    schema, message = NOT_SCHEMAS[what]
    with pytest.raises(TypeError, match=r"^schema must be a pyarrow\.Schema, a dict .*" + re.escape(message)):
        fast.batch_get_table(["r1"], schema=schema)


def test_the_error_of_several_failures_names_the_first_key(fast: FastBatch) -> None:
    with pytest.raises(BatchError) as caught:
        fast.batch_set({f"k{n}": {1} for n in range(5)})
    assert re.match(
        r"5 of 5 items were not written; the first: key 'k0': MessagePack has no type for set", str(caught.value)
    )
    assert "and 4 more" not in str(caught.value)


def test_the_error_says_that_the_server_is_a_node_of_a_cluster(
    cluster: Cluster, cluster_client: redis.RedisCluster
) -> None:
    """redis-py removes the word MOVED from the error, so the package restores it."""
    host, _, port = cluster_client.get_primaries()[0].name.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        fast = FastBatch(client)
        advice = r"; this server is a node of a cluster: use a redis\.RedisCluster client, or from_url"
        items = {f"k{n}": n for n in range(100)}
        for options in ({}, {"ex": 9}, {"nx": True}, {"atomic": True}):
            with pytest.raises(BatchError, match=advice) as caught:
                fast.batch_set(items, **options)
            if "nx" in options:
                assert re.search(r"items were not written; the first: key 'k\d+': MOVED \d+ ", str(caught.value))
        report = fast.batch_set(items, nx=True, on_error="report")
        assert re.search(r"key 'k\d+': MOVED \d+ ", report.first_failure())
        assert "MOVED" in report._repr_html_()
        with pytest.raises(BatchError, match=advice):
            fast.batch_set_table(pa.table({"id": list(range(100))}), key="id")
        for read in READS.values():
            with pytest.raises(redis.ResponseError) as refused:
                read(fast, [f"k{n}" for n in range(100)])
            if hasattr(refused.value, "__notes__"):
                assert "this server is a node of a cluster" in refused.value.__notes__[0]
    cluster.flush()
