"""The codec msgpack: rows with the same keys, the shapes that it remembers, and the garbage collector."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgpack import ExtType

from msgpack_reference import agree, numbers, same, their_bytes, their_value, values
from redis_fastbatch import DecodeError, MsgpackCodec
from tiers import examples


@pytest.fixture(scope="module")
def codec() -> MsgpackCodec:
    """One codec for all tests of the module, because what it remembers must not affect later values."""
    return MsgpackCodec()


ALPHABET = "abcdef"
row_values = (
    st.none()
    | st.integers(-5, 300)
    | st.sampled_from(["", "x", "New York"])
    | st.floats()
    | st.lists(numbers, max_size=2)
    | st.dictionaries(st.sampled_from(ALPHABET), numbers, max_size=3)
)
row_keys = st.sampled_from([*ALPHABET, "a_long_field_name_of_over_thirty_two_bytes", "é", "", "x" * 70])
shapes = st.lists(row_keys, unique=True, max_size=7)


def add_key(row: dict[Any, Any]) -> None:
    row["added"] = [row]


def drop_key(row: dict[Any, Any]) -> None:
    if row:
        del row[next(iter(row))]


def add_many(row: dict[Any, Any]) -> None:
    row.update({f"many{i}": i for i in range(40)})


def overwrite(row: dict[Any, Any]) -> None:
    for key in row:
        row[key] = "overwritten"


def int_key(row: dict[Any, Any]) -> None:
    row[0] = object()


CHANGES: list[Callable[[dict[Any, Any]], object]] = [
    add_key,
    drop_key,
    add_many,
    overwrite,
    int_key,
    dict.clear,
    dict.popitem,
    dict.copy,
]


@given(data=st.data())
@settings(max_examples=examples(150), deadline=None)
def test_rows_of_the_same_shapes_are_independent(data: st.DataObject) -> None:
    known = data.draw(st.lists(shapes, min_size=1, max_size=3))
    codec = MsgpackCodec()
    rows: list[dict[Any, Any]] = []
    expected: list[dict[Any, Any]] = []
    for _ in range(data.draw(st.integers(5, 40))):
        row = {key: data.draw(row_values) for key in data.draw(st.sampled_from(known))}
        rows.append(codec.loads(their_bytes(row)))
        expected.append(row)
        if data.draw(st.integers(0, 3)) == 0:
            victim = data.draw(st.integers(0, len(rows) - 1))
            change = data.draw(st.sampled_from(CHANGES))
            if rows[victim]:
                change(rows.pop(victim))
                del expected[victim]
    assert same(rows, expected)
    for row in rows:
        row.clear()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("width", [1, 2, 5, 19, 29, 30, 31, 40])
def test_changing_a_row_does_not_change_another(change: Callable[[dict[Any, Any]], object], width: int) -> None:
    codec = MsgpackCodec()
    make = {f"field{i}": i for i in range(width)}
    rows = [codec.loads(their_bytes({**make, "field0": n})) for n in range(50)]
    for row in rows[::3]:
        change(row)
    rows += [codec.loads(their_bytes({**make, "field0": n})) for n in range(50, 100)]
    for n, row in enumerate(rows):
        if n >= 50 or n % 3:
            assert same(row, {**make, "field0": n})


@pytest.mark.parametrize("width", [1, 2, 5, 19, 29, 30, 31, 100, 1000])
def test_rows_are_ordinary_dicts(width: int) -> None:
    codec = MsgpackCodec()
    make = {f"field{i}": i for i in range(width)}
    for _ in range(30):
        row = codec.loads(their_bytes(make))
        assert type(row) is dict
        assert row == make
        assert list(row) == list(make)
        assert list(row.items()) == list(make.items())
        assert list(reversed(row)) == list(reversed(make))
        assert row.copy() == {**row} == dict(row) == make
        assert row | {"more": 1} == {**make, "more": 1}
        assert list({**row, "more": 1}) == [*make, "more"]
        assert row.pop("field0") == 0
        row["field0"] = "again"
        assert list(row) == [*list(make)[1:], "field0"]
        assert len(row) == width


def test_fields_may_be_missing_in_some_rows() -> None:
    codec = MsgpackCodec()
    full = {"id": 1, "name": "n", "tags": ["t"], "size": 2.5}
    for i in range(400):
        row = {key: value for position, (key, value) in enumerate(full.items()) if i >> position & 1}
        row["id"] = i
        if i % 7 == 0:
            row["extra"] = {"nested": row["id"]}
        assert same(codec.loads(their_bytes(row)), row)


def test_the_order_of_the_keys_is_kept() -> None:
    codec = MsgpackCodec()
    for i in range(100):
        for row in ({"a": i, "b": [i], "c": "x"}, {"a": i, "c": "x", "b": [i]}, {"c": 1, "b": 2, "a": 3}):
            assert same(codec.loads(their_bytes(row)), row)


def test_rows_may_contain_rows() -> None:
    codec = MsgpackCodec()
    for i in range(100):
        inner = {"a": {"a": i, "b": [{"a": i, "b": i}]}, "b": 1}
        row = {"a": inner, "b": [{"a": 1, "b": {"a": 2, "b": 3}}] * 3}
        assert same(codec.loads(their_bytes(row)), row)
        assert same(codec.loads(their_bytes([row] * 3)), [row] * 3)


def test_the_last_of_two_equal_keys_wins() -> None:
    codec = MsgpackCodec()
    twice = b"\x83\xa1a\x01\xa1b\x02\xa1a\x03"
    once = b"\x83\xa1a\x01\xa1b\x02\xa1c\x03"
    for data in [twice] * 20 + [once] * 20 + [twice, once] * 20:
        assert agree(codec, data)
    assert codec.loads(twice) == {"a": 3, "b": 2}


def test_keys_of_other_types_than_str_are_read() -> None:
    codec = MsgpackCodec()
    rows: list[dict[Any, Any]] = [{1: "a", "b": 2}, {b"x": 1, "b": 2}, {"b": 2, None: 1}, {1.5: [1], True: 2}]
    for _ in range(30):
        for row in rows:
            assert same(codec.loads(their_bytes(row)), row)


def test_unhashable_keys_are_refused() -> None:
    codec = MsgpackCodec()
    good, bad = their_bytes({"a": 1, "b": 2}), b"\x82\xa1a\x01\x81\x01\x01\x02"
    for _ in range(20):
        assert agree(codec, good)
        assert not agree(codec, bad)
        with pytest.raises(DecodeError, match="expected a hashable key of a map, found dict"):
            codec.loads(bad)
    with pytest.raises(DecodeError, match=r"at byte 1: expected a hashable key of a map, found tuple: .*'dict'"):
        codec.loads(b"\x81\x91\x91\x80\x00")


def test_arrays_in_keys_become_tuples() -> None:
    codec = MsgpackCodec()
    value = {
        (1, 2): [3],
        "nested": {(1, (2, ()), "x"): {(): [[]]}},
        tuple(range(20)): (1,),
    }
    rows: list[dict[Any, Any]] = [value, {"a": [1], "b": [2]}, {(1, 2): [3], "b": [[1]]}]
    for _ in range(30):
        for row in rows:
            assert agree(codec, their_bytes(row))
    assert codec.loads(codec.dumps(value)) == {**value, tuple(range(20)): [1]}


def test_what_ext_hook_returns_in_a_key_is_not_converted() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    key = b"\x81\x91\xd4\x05\x00\x01"
    with pytest.raises(DecodeError, match=r"unhashable|cannot use 'list'"):
        MsgpackCodec(ext_hook=lambda code, data: cycle).loads(key)
    assert MsgpackCodec(ext_hook=lambda code, data: frozenset({code})).loads(key) == {(frozenset({5}),): 1}


def test_a_truncated_row_of_a_known_shape_is_refused() -> None:
    codec = MsgpackCodec()
    data = their_bytes({"id": 5, "name": "some name", "tags": ["a", {"b": 1}], "at": 2.5, "raw": b"abc"})
    for _ in range(20):
        codec.loads(data)
    for size in range(len(data)):
        assert not agree(codec, data[:size])
        # The next row must contain nothing from the truncated one.
        assert agree(codec, data)


@given(place=st.integers(0, 60), byte=st.integers(0, 255))
@settings(max_examples=examples(300), deadline=None)
def test_a_damaged_row_of_a_known_shape_is_read_as_msgpack_reads_it(place: int, byte: int) -> None:
    codec = MsgpackCodec()
    data = their_bytes({"id": 5, "name": "some name", "tags": ["a", {"b": 1}], "at": 2.5, "raw": b"abc"})
    for _ in range(8):
        codec.loads(data)
    damaged = bytearray(data)
    damaged[place % len(data)] = byte
    agree(codec, bytes(damaged))
    assert agree(codec, data)


def test_more_shapes_than_the_codec_remembers_are_read() -> None:
    codec = MsgpackCodec()
    rows = [{f"s{shape}_{i}": i for i in range(1 + shape % 9)} for shape in range(500)]
    for _ in range(12):
        for row in rows:
            assert same(codec.loads(their_bytes(row)), row)


def test_rows_share_their_field_names() -> None:
    rows = decoded_rows({"name_of_a_field": 1}, 100)
    # Up to two: the first rows may have another str than the template of the shape.
    assert len({id(key) for row in rows for key in row}) <= 2


def test_texts_of_every_length_around_the_cached_ones_are_read(codec: MsgpackCodec) -> None:
    words = [letter * size for letter in "abé語" for size in range(20)]
    for _ in range(3):
        for word in words:
            for value in (word, [word], {word: word}, {"k": word}):
                assert same(codec.loads(their_bytes(value)), value)


@given(words=st.lists(st.text(max_size=20) | st.binary(max_size=20), max_size=60))
@settings(deadline=None)
def test_repeated_texts_are_read(codec: MsgpackCodec, words: list[str | bytes]) -> None:
    for value in (words, dict.fromkeys(words), [{"w": word} for word in words]):
        assert same(codec.loads(their_bytes(value)), value)


# -- the garbage collector -----------------------------------------------------------------------


class WeaklyReferenced:
    """An object for weak references, which show whether the object was collected."""


def decoded_rows(row: dict[str, Any], count: int = 30) -> list[dict[str, Any]]:
    """Decode the same row with one codec, `count` times."""
    codec = MsgpackCodec()
    data = their_bytes(row)
    return [codec.loads(data) for _ in range(count)]


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "items": [1, 2]},
        {"items": [], "a": "text"},
        {"inner": {"b": [1]}, "a": 1},
        {"a": 1, "ext": ExtType(1, b"x")},
        {f"f{i}": [i] for i in range(40)},
    ],
    ids=str,
)
def test_the_collector_tracks_rows_with_containers(row: dict[str, Any]) -> None:
    for decoded in decoded_rows(row):
        assert gc.is_tracked(decoded)
        assert all(gc.is_tracked(value) for value in decoded.values() if isinstance(value, list))


@pytest.mark.parametrize(
    "row", [{"a": 1, "items": [1, 2]}, {"a": 1, "b": "text"}, {"inner": {"b": {"c": 1}}}], ids=str
)
def test_rows_in_a_cycle_are_collected(row: dict[str, Any]) -> None:
    gone = []
    for decoded in decoded_rows(row):
        referenced = WeaklyReferenced()
        gone.append(weakref.ref(referenced))
        decoded["self"] = decoded
        decoded["referenced"] = referenced
    del decoded, referenced
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_rows_in_a_cycle_through_an_existing_field_are_collected() -> None:
    gone = []
    for decoded in decoded_rows({"a": 1, "b": "text", "c": None}):
        referenced = WeaklyReferenced()
        gone.append(weakref.ref(referenced))
        decoded["a"], decoded["c"] = decoded, referenced
    del decoded, referenced
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_rows_in_a_cycle_through_nested_lists_are_collected() -> None:
    gone = []
    for decoded in decoded_rows({"a": [[]], "b": {"c": []}}):
        referenced = WeaklyReferenced()
        gone.append(weakref.ref(referenced))
        decoded["a"][0].append(decoded)
        decoded["b"]["c"].extend([decoded, referenced])
    del decoded, referenced
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_values_are_released_with_their_rows() -> None:
    references: list[weakref.ref[WeaklyReferenced]] = []

    def hook(code: int, data: bytes) -> WeaklyReferenced:
        referenced = WeaklyReferenced()
        references.append(weakref.ref(referenced))
        return referenced

    codec = MsgpackCodec(ext_hook=hook)
    data = their_bytes({"a": ExtType(1, b"x"), "b": [ExtType(1, b"y")]})
    rows = [codec.loads(data) for _ in range(50)]
    assert len(references) == 100
    assert all(referenced() is not None for referenced in references)
    rows.clear()
    gc.collect()
    assert not any(referenced() is not None for referenced in references)


def test_a_codec_is_released_with_its_hooks() -> None:
    referenced = WeaklyReferenced()
    codec = MsgpackCodec(default=lambda value, held=referenced: 1, ext_hook=lambda code, data, held=referenced: 1)
    for _ in range(10):
        codec.loads(codec.dumps({"a": [1]}))
    gone = weakref.ref(referenced)
    del codec, referenced
    gc.collect()
    assert gone() is None


@example(rows=[{"a": 1}] * 20)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=4), max_size=30))
@settings(max_examples=examples(60), deadline=None)
def test_the_collector_may_run_at_any_time(rows: list[dict[str, Any]]) -> None:
    codec = MsgpackCodec()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        read = [codec.loads(their_bytes(row)) for row in rows]
        for row in read:
            row["self"] = row
    finally:
        gc.set_threshold(*before)
    for row, original in zip(read, rows, strict=True):
        del row["self"]
        assert same(row, their_value(their_bytes(original)))


def test_threads_may_share_a_codec() -> None:
    codec = MsgpackCodec()
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(2000):
            row = {f"f{number % 3}": i, "shared": [number], "text": f"t{i % 7}"}
            if codec.loads(codec.dumps(row)) != row:
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
