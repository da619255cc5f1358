# cython: language_level=3
"""Checks that the keys of a map in an Arrow column differ, for readers that make a dict of it."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawRealloc
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy

from redis_fastbatch._core.arrow.cells cimport dictionary_index, read_float, refuse
from redis_fastbatch._core.arrow.columns cimport (
    DICTIONARY,
    FLOAT16,
    FLOAT64,
    TIMESTAMP,
    Column,
    MapKey,
    is_null,
)
from redis_fastbatch._core.arrow.text cimport GIGA, floor_div

import json

import msgpack

from redis_fastbatch._messages import format_key

cdef enum:
    FEW_KEYS = 16       # up to here, each key of a map is compared with each other key


cdef int duplicate_key(Column* c, const char* key, Py_ssize_t size) except -1 nogil:
    with gil:
        written = PyBytes_FromStringAndSize(key, size)
        # In MessagePack a quotation mark is an int, and stands alone.
        is_json = size > 1 and key[0] == c'"'
        value = json.loads(written) if is_json else msgpack.unpackb(written, timestamp=3)
        return refuse(c, f"a map must have each key once, found the key {format_key(value)} twice")


cdef int more_keys(Column* c, int64_t count) except -1 nogil:
    cdef int64_t capacity = count if count > 2 * c.keys_capacity else 2 * c.keys_capacity
    cdef MapKey* moved = <MapKey*>PyMem_RawRealloc(c.keys, capacity * sizeof(MapKey))
    if moved == NULL:
        with gil:
            raise MemoryError()
    c.keys = moved
    c.keys_capacity = capacity
    return 0


cdef int fill_word(MapKey* found, Column* c, int64_t at, const char* written) except -1 nogil:
    """Set the word by which keys are compared: a number's value in Python, or the first bytes of another key."""
    cdef double number
    while c.kind == DICTIONARY and not is_null(c, at):
        at = dictionary_index(c, at)
        c = c.dictionary
    found.word = 0
    found.compared = True
    if FLOAT16 <= c.kind <= FLOAT64 and not is_null(c, at):
        # Adding 0.0 makes both zeros 0.0. Each NaN differs from all floats, so its position is its word.
        number = read_float(c, at) + 0.0
        memcpy(&found.word, &number, 8)
        found.compared = number != number
        if found.compared:
            found.word = <uint64_t>at
    elif c.kind == TIMESTAMP and not is_null(c, at):
        # Readers get a datetime, which has only microseconds.
        found.word = <uint64_t>(<const int64_t*>c.data)[at]
        if c.unit == GIGA:
            found.word = <uint64_t>floor_div(<int64_t>found.word, 1000)
        found.compared = False
    else:
        memcpy(&found.word, written, found.size if found.size < 8 else 8)
    return 0


cdef int compare_keys(const void* a, const void* b) noexcept nogil:
    """Compare two keys for qsort(); return 0 if they are equal."""
    cdef const MapKey* one = <const MapKey*>a
    cdef const MapKey* other = <const MapKey*>b
    if one.word != other.word:
        return -1 if one.word < other.word else 1
    if one.compared != other.compared:
        return -1 if one.compared else 1
    if not one.compared:
        return 0
    if one.size != other.size:
        return -1 if one.size < other.size else 1
    return memcmp(one.data, other.data, one.size)


cdef int check_keys(Column* c, const char* data, int64_t count) except -1 nogil:
    cdef MapKey* keys = c.keys
    cdef int64_t i, j
    for i in range(count):
        keys[i].data = data + keys[i].begin
    if count > FEW_KEYS:
        qsort(keys, count, sizeof(MapKey), compare_keys)
        for i in range(1, count):
            if compare_keys(&keys[i - 1], &keys[i]) == 0:
                duplicate_key(c, keys[i].data, keys[i].size)
        return 0
    for i in range(1, count):
        for j in range(i):
            if keys[i].word == keys[j].word and compare_keys(&keys[i], &keys[j]) == 0:
                duplicate_key(c, keys[i].data, keys[i].size)
    return 0
