"""Offsets, slices and invalid indices of Arrow tables, in buffers of exactly the right length.

AddressSanitizer finds reads beyond the end of a buffer:

    tests/fuzz/sanitized DIRECTORY -m pytest tests/fuzz/test_table_fuzz.py tests/unit/test_table_types.py
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._engine.commands import MSET
from redis_fastbatch.errors import EncodeError
from tiers import examples

pa = pytest.importorskip("pyarrow")
np = pytest.importorskip("numpy")

from table_examples import CODEC, expected, tables, values_of  # noqa: E402


def tight(array: Any) -> Any:
    """Return the same array with each buffer in its own memory of exactly its length."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(tight(array.indices), tight(array.dictionary), safe=False)
    children: list[Any] = []
    if pa.types.is_struct(kind):
        children = [tight(array.field(i)) for i in range(kind.num_fields)]
        # field() has applied the struct's offset.
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        children = [tight(array.values)]
    if pa.types.is_map(kind):
        # pyarrow cannot make a map from buffers.
        return array
    own = len(array.buffers()) - sum(len(child.buffers()) for child in children)
    buffers = [buffer and pa.py_buffer(buffer.to_pybytes()) for buffer in array.buffers()[:own]]
    return pa.Array.from_buffers(kind, len(array), buffers, array.null_count, array.offset, children or None)


def tightened(table: Any) -> Any:
    """Return the table with every chunk of every column tight."""
    columns = [
        pa.chunked_array([tight(chunk) for chunk in column.chunks], column.type) for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_no_byte_beyond_the_buffers_is_read(table: Any) -> None:
    assert values_of(tightened(table)) == expected(table)


def failed_rows(table: Any) -> int:
    """Encode all rows. Return the number of failed rows."""
    writer = TableWriter(
        ArrowStream(table),
        MSET,
        columns=None,
        key=[b"row"],
        tag=b"",
        row_codec=CODEC.loads,
        max_items=5,
        max_bytes=999,
    )
    failed = 0
    while not writer.exhausted:
        chunk = writer.blank()
        writer.fill(chunk)
        assert all(isinstance(error, EncodeError) for _, _, error in writer.failures)
        failed += len(writer.failures)
        writer.failures.clear()
    return failed


NUMBERS = st.one_of(st.integers(-3, 12), st.sampled_from([-(2**31), 2**31 - 1, 2**30, -1]))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=9), st.integers(0, 9))
def test_invalid_offsets_of_lists_fail_their_rows(offsets: list[int], items: int) -> None:
    """Rows with invalid offsets fail, and the others are right."""
    numbers = np.zeros(len(offsets), np.int32)
    values = pa.Array.from_buffers(pa.int64(), items, [None, pa.py_buffer(np.arange(items).tobytes())])
    array = pa.ListArray.from_buffers(
        pa.list_(pa.int64()), len(offsets) - 1, [None, pa.py_buffer(numbers)], children=[values]
    )
    table = pa.table({"l": array})
    numbers[:] = offsets
    right = [0 <= a <= b <= items for a, b in itertools.pairwise(offsets)]
    assert failed_rows(table) == right.count(False)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=9), st.integers(1, 5))
def test_invalid_indices_of_dictionaries_fail_their_rows(indices: list[int], words: int) -> None:
    numbers = np.zeros(len(indices), np.int32)
    array = pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), len(indices), [None, pa.py_buffer(numbers)]), ["w"] * words
    )
    table = pa.table({"d": array})
    numbers[:] = indices
    assert failed_rows(table) == sum(not 0 <= index < words for index in indices)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), st.integers(0, 30))
def test_invalid_views_fail_their_rows(views: list[tuple[int, int, int, int]], size: int) -> None:
    numbers = np.zeros((len(views), 4), np.int32)
    array = pa.Array.from_buffers(
        pa.binary_view(), len(views), [None, pa.py_buffer(numbers), pa.py_buffer(bytes(bytearray(size)))]
    )
    table = pa.table({"v": array})
    numbers[:] = views
    right = [
        0 <= length <= 12 or (length > 12 and piece == 0 and start >= 0 and start + length <= size)
        for length, _, piece, start in views
    ]
    assert failed_rows(table) == right.count(False)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=6))
def test_descending_offsets_of_texts_fail_their_rows(offsets: list[int]) -> None:
    """The interface has no length of a text column's bytes. Only descending offsets can be found."""
    steps = np.array(offsets, np.int64).clip(0, 12).astype(np.int32)
    numbers = np.zeros(len(offsets), np.int32)
    array = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(numbers), pa.py_buffer(b"hello world!"))
    table = pa.table({"t": array})
    numbers[:] = steps
    assert failed_rows(table) == sum(b < a for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63 - 4, 2**62])
def test_batches_with_an_overflowing_offset_are_refused(offset: int) -> None:
    """Offset plus length overflow 64 bits."""
    nanoarrow = pytest.importorskip("nanoarrow")
    column = nanoarrow.c_array([1, 2, 3], nanoarrow.int64())
    kind = nanoarrow.struct({"v": nanoarrow.int64()})
    batch = nanoarrow.c_array_from_buffers(
        kind, 3, [None], offset=offset, children=[column], validation_level="none"
    )
    stream = ArrowStream(nanoarrow.c_array_stream(batch))
    writer = TableWriter(
        stream, MSET, columns=None, key=[b"row"], tag=b"", row_codec=CODEC.loads, max_items=5, max_bytes=999
    )
    writer.fill(writer.blank())
    assert "must match its schema" in str(writer.source_error)
