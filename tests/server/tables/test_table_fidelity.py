"""batch_get reads rows that batch_set_table reports as written unchanged; other rows fail with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch import BatchError, EncodeError, FastBatch
from redis_fastbatch.server import EmbeddedServer
from tiers import examples

pa = pytest.importorskip("pyarrow")
ffi = pytest.importorskip("pyarrow.cffi").ffi

TEXTS = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string(), pa.binary_view(): pa.string_view()}
# Truncated, overlong, surrogates, above U+10FFFF, lone continuation bytes: at places where a check of eight bytes
# at a time could overlook them.
NOT_UTF8 = [
    b"\xff",
    b"caf\xe9",
    b"\xc3",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x98",
    b"\x80",
    b"12345678\x80",
    b"\x80" + b"12345678",
    b"x" * 15 + b"\xe2\x82",
    b"x" * 20 + b"\xff" + b"y" * 20,
    "ключ".encode() * 50 + b"\xd0",
    b"x" * 300 + b"\xf8",
]


def text_type(kind: Any) -> Any:
    """Return the type with text in place of bytes."""
    if pa.types.is_map(kind):
        return pa.map_(text_type(kind.key_type), text_type(kind.item_type))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, text_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, text_type(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(text_type(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(text_type(kind.value_type))
    if pa.types.is_list(kind):
        return pa.list_(text_type(kind.value_type))
    return TEXTS.get(kind, kind)


def as_text(array: Any) -> Any:
    """Return the same buffers as an array of text, without a check, as pyarrow's reader of Parquet does."""
    exported = ffi.new("struct ArrowArray*")
    place = int(ffi.cast("uintptr_t", exported))
    array._export_to_c(place)
    return pa.Array._import_from_c(place, text_type(array.type))


def text(values: list[bytes | None], kind: Any = None) -> Any:
    return as_text(pa.array(values, kind or pa.binary()))


class RepeatedKey(Exception):
    """A map has the same key twice."""


def plain(value: Any, kind: Any) -> Any:
    """Return a value of to_pylist() with text in place of bytes."""
    if value is None:
        return None
    if pa.types.is_dictionary(kind):
        return plain(value, kind.value_type)
    if kind in TEXTS:
        return value.decode("utf-8")
    if pa.types.is_map(kind):
        keys = [plain(key, kind.key_type) for key, _ in value]
        values = [plain(item, kind.item_type) for _, item in value]
        made = dict(zip(keys, values, strict=True))
        if len(made) < len(keys):
            raise RepeatedKey
        return made
    if pa.types.is_struct(kind):
        return {field.name: plain(value[field.name], field.type) for field in kind}
    if pa.types.is_nested(kind):
        return [plain(item, kind.value_type) for item in value]
    return value


some_bytes = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.text("aé€😀", max_size=12).map(str.encode),
    st.binary(max_size=20),
    st.builds(lambda before, wrong: before.encode() + wrong, st.text(max_size=9), st.sampled_from(NOT_UTF8)),
)
LEAVES = st.sampled_from(
    [
        *((kind, some_bytes) for kind in TEXTS),
        (pa.dictionary(pa.int8(), pa.binary()), some_bytes),
        (pa.int32(), st.integers(-9, 9)),
    ]
)


def nested(kinds: Any) -> Any:
    def wrap(pair: tuple[Any, Any]) -> Any:
        kind, values = pair
        items = st.one_of(st.none(), values)
        entries = st.lists(st.tuples(some_bytes, items), max_size=4)
        many = st.lists(st.tuples(st.integers(0, 400), items), min_size=17, max_size=30)
        return st.sampled_from(
            [
                (pa.list_(kind), st.lists(items, max_size=4)),
                (pa.large_list(kind), st.lists(items, max_size=4)),
                (pa.list_(kind, 2), st.lists(items, min_size=2, max_size=2)),
                (pa.struct([("x", kind), ("é", pa.int8())]), st.fixed_dictionaries({"x": items, "é": st.just(7)})),
                (pa.map_(pa.binary(), kind), entries),
                (pa.map_(pa.int64(), kind), many),
            ]
        )

    return kinds.flatmap(wrap)


@st.composite
def byte_columns(draw: Any) -> Any:
    kind, values = draw(st.recursive(LEAVES, nested, max_leaves=3))
    drawn = draw(st.lists(st.one_of(st.none(), values), max_size=8))
    # The drawn values are returned too, because pyarrow may abort the process when it reads invalid ones.
    return pa.array(drawn, kind), drawn


@pytest.fixture(scope="module")
def module_batch(valkey: EmbeddedServer) -> Any:
    with FastBatch.from_url(valkey.url) as batch:
        yield batch


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(byte_columns(), byte_columns(), st.integers(0, 2))
def test_any_bytes_in_a_text_column_are_written_or_fail(
    module_batch: FastBatch, first: Any, second: Any, start: int
) -> None:
    columns = [first[1], second[1]]
    rows = min(map(len, columns))
    arrays = [first[0].slice(0, rows), second[0].slice(0, rows)]
    table = pa.table([pa.array(range(rows)), *map(as_text, arrays)], names=["id", "a", "b"]).slice(start)
    good, bad = {}, set()
    for row in range(start, rows):
        try:
            values = [plain(drawn[row], array.type) for drawn, array in zip(columns, arrays, strict=True)]
            good[f"row:{row}"] = {"id": row, "a": values[0], "b": values[1]}
        except (UnicodeDecodeError, RepeatedKey):
            bad.add(row - start)
    module_batch.client.flushall()
    report = module_batch.batch_set_table(table, key="id", prefix="row:", on_error="report")
    assert (report.written, set(report.failures)) == (len(good), bad)
    for row, error in report.failures.items():
        assert isinstance(error, EncodeError)
        assert str(error).startswith((f"row {row}: column 'a", f"row {row}: column 'b"))
    keys = [f"row:{row}" for row in range(start, rows)]
    assert module_batch.batch_get(keys) == dict.fromkeys(keys) | good


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(some_bytes, max_size=8), st.sampled_from(list(TEXTS)), st.sampled_from(["k", "p:{k}", "{k}:{k}"]))
def test_any_bytes_as_keys_are_written_or_fail(
    module_batch: FastBatch, keys: list[bytes], kind: Any, template: str
) -> None:
    table = pa.table({"k": text(keys, kind), "n": range(len(keys))})
    good = {}
    for n, key in enumerate(keys):
        try:
            if key:
                good[template.format(k=key.decode()) if "{" in template else key.decode()] = {"n": n}
        except UnicodeDecodeError:
            continue
    module_batch.client.flushall()
    report = module_batch.batch_set_table(table, key=template, columns=["n"], on_error="report")
    assert report.written + report.failed == len(keys)
    assert module_batch.client.dbsize() == len(good)
    assert module_batch.batch_get(list(good)) == good
    assert all(f"row {row}: " in str(error) and "'k'" in str(error) for row, error in report.failures.items())


@pytest.fixture
def batch(valkey_client: Any) -> FastBatch:
    return FastBatch(valkey_client)


@pytest.mark.parametrize("wrong", NOT_UTF8)
def test_the_error_names_the_invalid_byte(batch: FastBatch, wrong: bytes) -> None:
    table = pa.table({"id": [1, 2, 3], "name": text([b"a", wrong, "é".encode()])})
    with pytest.raises(UnicodeDecodeError) as decoded:
        wrong.decode()
    place = decoded.value.start
    message = (
        rf"row 1: column 'name': its text must be UTF-8, found the byte 0x{wrong[place]:02x} at byte {place} \("
    )
    with pytest.raises(BatchError, match=rf"^1 of 3 rows were not written: {message}"):
        batch.batch_set_table(table, key="id")
    assert batch.batch_get([1, 2, 3]) == {1: {"id": 1, "name": "a"}, 2: None, 3: {"id": 3, "name": "é"}}


def test_invalid_bytes_are_found_anywhere_in_a_long_text(batch: FastBatch) -> None:
    """Long texts are checked in two halves. A character may cross the middle."""
    texts = []
    for whole in ("é" * 20, "€" * 15 + "a", "aé€😀" * 5, "x" * 33 + "😀", "😀" * 17):
        data = whole.encode()
        texts += [data, *(data[:i] + data[i + 1 :] for i in range(len(data)))]
        texts += [
            data[:i] + wrong + data[i:] for i in range(len(data)) for wrong in (b"\x80", b"\xff", b"\xf0", b"a")
        ]
        texts += [data[:i] for i in range(len(data))]
    wrong = {i for i, data in enumerate(texts) if data.decode("utf-8", "replace").encode() != data}
    failed = set()
    table = pa.table({"id": range(len(texts)), "t": text(texts)})
    report = batch.batch_set_table(table, key="id", on_error=lambda row, *_: failed.add(row))
    assert failed == wrong
    assert report.written == len(texts) - len(wrong) > 20


def test_on_error_gets_failed_rows_with_their_bytes(batch: FastBatch) -> None:
    failed = []
    table = pa.table({"id": [1, 2], "name": text([b"\xff", b"b"]), "tags": as_text(pa.array([[b"a"], [b"\xfe"]]))})

    def take(number: int, row: Any, error: Exception) -> None:
        failed.append((number, row, "column 'tags[]'" in str(error)))

    batch.batch_set_table(table, key="id", on_error=take)
    assert failed == [
        (0, {"id": 1, "name": b"\xff", "tags": ["a"]}, False),
        (1, {"id": 2, "name": "b", "tags": None}, True),
    ]


def test_only_rows_with_an_invalid_dictionary_entry_fail(batch: FastBatch) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array([b"a", b"\xff", "é".encode()]))
    table = pa.table({"id": range(4), "word": as_text(words)})
    assert set(batch.batch_set_table(table, key="id", on_error="report").failures) == {1}
    assert batch.batch_get([0, 2, 3]) == {
        0: {"id": 0, "word": "a"}, 2: {"id": 2, "word": "é"}, 3: {"id": 3, "word": "a"}
    }  # fmt: skip


def test_invalid_text_fails_a_hash(batch: FastBatch) -> None:
    failed = []
    table = pa.table({"id": [1, 2], "name": text([b"\xff", "é".encode()])})
    batch.batch_set_table(table, key="id", as_="hash", on_error=lambda *entry: failed.append(entry))
    assert [(number, row) for number, row, _ in failed] == [(0, {b"id": b"1", b"name": b"\xff"})]
    assert "row 0: column 'name': its text must be UTF-8" in str(failed[0][2])
    assert batch.client.hgetall("2") == {b"id": b"2", b"name": "é".encode()}
    assert not batch.client.exists("1")


def test_names_that_are_not_utf8_are_refused() -> None:
    nanoarrow = pytest.importorskip("nanoarrow")
    from redis_fastbatch._core.arrow.rows import TableWriter
    from redis_fastbatch._core.arrow.stream import ArrowStream
    from redis_fastbatch._engine.commands import MSET

    schema = nanoarrow.c_schema(nanoarrow.struct({"xy": nanoarrow.int64()}))
    # Write the name into the C struct, because nanoarrow only accepts valid names.
    import ctypes

    name = ctypes.cast(schema.child(0)._addr() + 8, ctypes.POINTER(ctypes.c_void_p))[0]
    assert name is not None
    ctypes.memmove(name, b"x\xff", 2)
    array = nanoarrow.c_array_from_buffers(
        schema, 1, [None], children=[nanoarrow.c_array([5], nanoarrow.int64())], validation_level="none"
    )
    layout = {"columns": None, "key": [b"k"], "tag": b"", "row_codec": None, "max_items": 5, "max_bytes": 99}
    with pytest.raises(EncodeError, match=r"its name must be UTF-8, found b'x\\xff'; rename"):
        TableWriter(ArrowStream(nanoarrow.c_array_stream(array)), MSET, **layout)


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("template", ["id", "order:{id}", "{id}:{n}"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_rows_with_an_empty_id_fail(batch: FastBatch, kind: Any, template: str, as_: Any) -> None:
    """Otherwise all rows without an id would share the key `order:`."""
    table = pa.table({"id": pa.array(["a", "", "b", ""], kind), "n": [1, 2, 3, 4]})
    report = batch.batch_set_table(table, key=template, as_=as_, on_error="report")
    assert (report.written, set(report.failures)) == (2, {1, 3})
    assert str(report.failures[3]) == ("row 3: the key column 'id' is empty: rows without an id would share a key")
    assert batch.client.dbsize() == 2


NAN = float("nan")


@pytest.mark.parametrize("padding", [0, 40])
@pytest.mark.parametrize(
    ("kind", "keys", "key_text"),
    [
        (pa.string(), ["a", "b", "a"], "'a'"),
        (pa.string(), ["", ""], "''"),
        (pa.string_view(), ["a longer key", "a longer key than", "a longer key"], "'a longer key'"),
        (pa.binary(), [b"\xff", b"\xff"], "b'\\xff'"),
        (pa.int64(), [2**60, 1, 2**60], str(2**60)),
        (pa.bool_(), [True, False, True], "True"),
        (pa.float64(), [0.0, 1.0, -0.0], "0.0"),
        (pa.float32(), [1.5, 1.5], "1.5"),
        (pa.timestamp("ns", "UTC"), [1001, 5000, 1999], "1970"),
        (pa.timestamp("s", "UTC"), [1, 1], "1970"),
        (pa.timestamp("ns"), [1001, 1001], "'1970"),
        (pa.date32(), [1, 1], "'1970-01-02'"),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "a"], "'a'"),
    ],
)
def test_a_map_with_a_repeated_key_fails(
    batch: FastBatch, kind: Any, keys: list[Any], key_text: str, padding: int
) -> None:
    """A dict would have only one of the two values."""
    every = keys if kind == pa.bool_() else keys + padding_keys(kind, padding)
    first = keys[: len(keys) - 1]
    flat = pa.array(every + first, kind)
    maps = pa.MapArray.from_arrays([0, len(every), len(flat)], flat, pa.array(range(len(flat))))
    report = batch.batch_set_table(pa.table({"id": [0, 1], "m": maps}), key="id", on_error="report")
    assert (report.written, list(report.failures)) == (1, [0])
    assert str(report.failures[0]).startswith("row 0: column 'm': a map must have each key once, found the key ")
    assert key_text in str(report.failures[0])
    assert len(batch.batch_get([1])[1]["m"]) == len(first)


def padding_keys(kind: Any, count: int) -> list[Any]:
    """Return other keys, to make a map large."""
    if pa.types.is_floating(kind):
        return [n + 0.25 for n in range(count)]
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or kind == pa.string_view():
        return [f"padding {n}" for n in range(count)]
    if pa.types.is_binary(kind):
        return [b"padding %d" % n for n in range(count)]
    return [10_000_000 * (n + 7) for n in range(count)] if kind.bit_width == 64 else list(range(7, 7 + count))


@pytest.mark.parametrize("count", [2, 40])
def test_maps_keep_keys_that_are_not_equal(batch: FastBatch, count: int) -> None:
    floats = pa.MapArray.from_arrays([0, count], pa.array([NAN] * count), pa.array(range(count)))
    near = [b"the same eight" + b"%d" % n for n in range(count - 1)] + [b"the same"]
    texts = pa.MapArray.from_arrays([0, count], text(near), pa.array(range(count)))
    batch.batch_set_table(pa.table({"id": [0], "f": floats, "t": texts}), key="id")
    row = batch.batch_get([0])[0]
    assert list(row["f"].values()) == list(range(count))
    assert row["t"] == {key.decode(): n for n, key in enumerate(near)}
