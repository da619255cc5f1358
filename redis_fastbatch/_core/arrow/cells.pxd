# cython: language_level=3
"""Finds the values of an Arrow column in its buffers, without the GIL.

In all functions `at` is the index of a value, and includes the column's offset.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.columns cimport (
    BINARY,
    FIXED_BINARY,
    FIXED_LIST,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    LARGE_BINARY,
    LARGE_LIST,
    LARGE_TEXT,
    TEXT,
    UINT16,
    UINT32,
    UINT64,
    Column,
)

cdef struct Span:
    const char* data
    int64_t size


cdef int refuse(Column* c, str reason) except -1
cdef int out_of_range(Column* c) except -1 nogil
cdef int bad_offset(Column* c) except -1 nogil
cdef int too_long(Column* c, int64_t size) except -1 nogil
cdef int not_utf8(Column* c, const char* text, int64_t size) except -1 nogil
cdef int find_view(Column* c, int64_t at, Span* span) except -1 nogil
cdef bint is_missing(Column* c, int64_t at) except -1 nogil
cdef object raw_value(Column* c, int64_t at)
cdef int64_t read_time(Column* c, int64_t at) noexcept nogil
cdef bint is_flat(Column* c) noexcept nogil
cdef bint is_vector(Column* c) noexcept nogil
cdef int refuse_vector(Column* c) except -1 nogil
cdef bint is_plain(Column* c) noexcept nogil
cdef str kind_name(Column* c)
cdef bint is_text(Column* c) noexcept nogil


cdef inline bint is_too_long(int64_t size) noexcept nogil:
    """Return whether MessagePack has no length for a text, binary, list or map of this size."""
    return size > <int64_t>0xFFFFFFFE


cdef inline int64_t read_int(const void* data, int kind, int64_t at) noexcept nogil:
    """Return the integer at `at`; a uint64 as the int64 with the same bits."""
    if kind == INT64 or kind == UINT64:
        return (<const int64_t*>data)[at]
    if kind == INT32:
        return (<const int32_t*>data)[at]
    if kind == INT16:
        return (<const int16_t*>data)[at]
    if kind == INT8:
        return (<const int8_t*>data)[at]
    if kind == UINT32:
        return (<const uint32_t*>data)[at]
    if kind == UINT16:
        return (<const uint16_t*>data)[at]
    return (<const uint8_t*>data)[at]


cdef inline double read_half(const void* data, int64_t at) noexcept nogil:
    cdef uint16_t half = (<const uint16_t*>data)[at]
    cdef uint64_t fraction = half & 0x3FF
    cdef int exponent = (half >> 10) & 0x1F
    cdef uint64_t bits = <uint64_t>(half >> 15) << 63
    cdef double value
    if exponent == 0:
        # Zero or subnormal: the fraction is in units of 2**-24.
        value = <double>fraction * 5.9604644775390625e-08
        return -value if half >> 15 else value
    bits |= fraction << 42
    bits |= <uint64_t>(0x7FF if exponent == 0x1F else exponent + 1008) << 52
    memcpy(&value, &bits, 8)
    return value


cdef inline double read_float(Column* c, int64_t at) noexcept nogil:
    if c.kind == FLOAT64:
        return (<const double*>c.data)[at]
    if c.kind == FLOAT32:
        return (<const float*>c.data)[at]
    return read_half(c.data, at)


cdef inline int find_bytes(Column* c, int64_t at, Span* span) except -1 nogil:
    """Find the bytes of a text or binary value."""
    cdef int64_t start, stop
    if c.kind == TEXT or c.kind == BINARY:
        start = (<const int32_t*>c.data)[at]
        stop = (<const int32_t*>c.data)[at + 1]
    elif c.kind == LARGE_TEXT or c.kind == LARGE_BINARY:
        start = (<const int64_t*>c.data)[at]
        stop = (<const int64_t*>c.data)[at + 1]
    elif c.kind == FIXED_BINARY:
        span.data = <const char*>c.data + at * c.width
        span.size = c.width
        return 0
    else:
        return find_view(c, at, span)
    if start < 0 or stop < start or (c.text == NULL and stop > start):
        bad_offset(c)
    span.data = c.text + start
    span.size = stop - start
    return 0


cdef inline int64_t dictionary_index(Column* c, int64_t at) except -1 nogil:
    """Return the index of a value in the dictionary, including the dictionary's offset."""
    cdef int64_t index = read_int(c.data, c.index_kind, at)
    if index < 0 or index >= c.dictionary.length:
        bad_offset(c)
    return index + c.dictionary.offset


cdef inline int find_items(Column* c, int64_t at, int64_t* start, int64_t* stop) except -1 nogil:
    """Find the items of a list or the entries of a map. The child's offset is not included."""
    if c.kind == FIXED_LIST:
        start[0] = at * c.width
        stop[0] = start[0] + c.width
    elif c.kind == LARGE_LIST:
        start[0] = (<const int64_t*>c.data)[at]
        stop[0] = (<const int64_t*>c.data)[at + 1]
    else:
        start[0] = (<const int32_t*>c.data)[at]
        stop[0] = (<const int32_t*>c.data)[at + 1]
    if start[0] < 0 or stop[0] < start[0] or stop[0] > c.children[0].length:
        bad_offset(c)
    if is_too_long(stop[0] - start[0]):
        too_long(c, stop[0] - start[0])
    return 0
