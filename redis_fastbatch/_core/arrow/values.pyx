# cython: language_level=3
"""Writes a value of an Arrow column as MessagePack or as text, without the GIL.

All functions write at `p`. The caller has made room for Column.room bytes, which is the most that a value takes
without the content of texts and lists. A function that writes more makes room for its bytes, and for `room` bytes
after them, which the caller needs for the rest of the row. So a row of numbers checks the memory once.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.cells cimport (
    Span,
    dictionary_index,
    find_bytes,
    find_items,
    is_too_long,
    not_utf8,
    out_of_range,
    read_float,
    read_half,
    read_int,
    refuse_vector,
    too_long,
)
from redis_fastbatch._core.arrow.columns cimport (
    BOOL,
    DATE_DAYS,
    DATE_MILLISECONDS,
    DECIMAL,
    DICTIONARY,
    DURATION,
    FIXED_BINARY,
    FIXED_LIST,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT64,
    MAP,
    NULLS,
    STRUCT,
    TEXT,
    TEXT_VIEW,
    TIME32,
    TIME64,
    TIMESTAMP,
    UINT32,
    UINT64,
    Column,
    is_null,
    put_name,
)
from redis_fastbatch._core.arrow.map_keys cimport check_keys, fill_word, more_keys
from redis_fastbatch._core.arrow.text cimport (
    GIGA,
    floor_div,
    floor_mod,
    put_date,
    put_decimal,
    put_duration,
    put_local_timestamp,
    put_time_of_day,
)
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.runtime.floats cimport put_float
from redis_fastbatch._core.msgpack.format cimport (
    put_array_header,
    put_bin_header,
    put_bool,
    put_double,
    put_int,
    put_map_header,
    put_nil,
    put_str_header,
    put_timestamp,
    put_uint,
)
from redis_fastbatch._core.runtime.utf8 cimport copy_ascii, copy_short, is_utf8

cdef enum:
    HEADER_ROOM = 5
    LONGEST_TEXT = 128      # of the values that are written as text, except texts
    DAY_MILLISECONDS = 86_400_000

# The years 1 to 9999, which is the range of datetime.
cdef int64_t FIRST_SECOND = -62135596800
cdef int64_t LAST_SECOND = 253402300799


cdef char* put_value(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write the value at `at` as MessagePack. `at` includes the column's offset."""
    if is_null(c, at):
        return put_nil(p)
    if c.kind == INT64:
        return put_int(p, (<const int64_t*>c.data)[at])
    if c.kind == FLOAT64:
        return put_double(p, (<const double*>c.data)[at])
    if INT8 <= c.kind <= UINT32:
        return put_int(p, read_int(c.data, c.kind, at))
    if TEXT <= c.kind <= FIXED_BINARY:
        return put_bytes(out, p, c, at, room)
    if c.kind == BOOL:
        return put_bool(p, ((<const uint8_t*>c.data)[at >> 3] >> (at & 7)) & 1)
    if c.kind == UINT64:
        return put_uint(p, (<const uint64_t*>c.data)[at])
    if c.kind == FLOAT32:
        return put_double(p, (<const float*>c.data)[at])
    if c.kind == FLOAT16:
        return put_double(p, read_half(c.data, at))
    if c.kind == NULLS:
        return put_nil(p)
    if c.kind == TIMESTAMP:
        return put_utc_timestamp(p, c, (<const int64_t*>c.data)[at])
    if DECIMAL <= c.kind <= DURATION:
        return put_as_text(p, c, at)
    if c.kind == DICTIONARY:
        return put_value(out, p, c.dictionary, dictionary_index(c, at), room)
    if c.kind == STRUCT:
        return put_struct(out, p, c, at, room)
    if c.kind == MAP:
        return put_map(out, p, c, at, room)
    return put_list(out, p, c, at, room)


cdef char* put_bytes(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Span span
    find_bytes(c, at, &span)
    if is_too_long(span.size):
        too_long(c, span.size)
    p = make_room(out, p, span.size + HEADER_ROOM + room)
    if c.kind <= TEXT_VIEW:
        p = put_str_header(p, <uint32_t>span.size)
        return put_text(p, c, &span)
    p = put_bin_header(p, <uint32_t>span.size)
    copy_short(p, span.data, span.size)
    return p + span.size


cdef inline char* put_text(char* p, Column* c, Span* span) except NULL nogil:
    """Write the bytes of a text, and check that they are UTF-8.

    Arrow's format requires UTF-8, but not every producer checks it: pyarrow's reader of Parquet does not. Such a
    row could not be read again.
    """
    # Check the bytes that were written, because those of the column can change meanwhile.
    if not copy_ascii(p, span.data, span.size) and not is_utf8(p, span.size):
        not_utf8(c, p, span.size)
    return p + span.size


cdef char* put_as_text(char* p, Column* c, int64_t at) except NULL nogil:
    """Write a value for which MessagePack has no type as a str."""
    cdef char[LONGEST_TEXT] text
    cdef Py_ssize_t size = make_text(text, c, at)
    p = put_str_header(p, <uint32_t>size)
    memcpy(p, text, size)
    return p + size


cdef char* put_struct(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Column* child
    cdef int64_t i
    p = make_room(out, p, c.room + room)
    p = put_map_header(p, <uint32_t>c.n_children)
    for i in range(c.n_children):
        child = &c.children[i]
        p = put_value(out, put_name(p, child), child, at + child.offset, c.room + room)
    return p


cdef char* put_list(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Column* item = c.children
    cdef int64_t start = 0
    cdef int64_t stop = 0
    cdef int64_t i
    find_items(c, at, &start, &stop)
    p = put_array_header(p, <uint32_t>(stop - start))
    for i in range(start + item.offset, stop + item.offset):
        p = make_room(out, p, item.room + room)
        p = put_value(out, p, item, i, item.room + room)
    return make_room(out, p, room)


cdef char* put_map(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write a map, and check that its keys differ: a dict would keep only one of two equal keys."""
    cdef Column* item = c.children
    cdef Column* key = &item.children[0]
    cdef Column* value = &item.children[1]
    cdef int64_t start = 0
    cdef int64_t stop = 0
    cdef int64_t count, i
    cdef Py_ssize_t begin
    find_items(c, at, &start, &stop)
    count = stop - start
    if count > c.keys_capacity:
        more_keys(c, count)
    p = put_map_header(p, <uint32_t>count)
    start += item.offset
    for i in range(count):
        p = make_room(out, p, item.room + room)
        begin = p - out.data
        p = put_value(out, p, key, start + i + key.offset, item.room + room)
        c.keys[i].begin = begin
        c.keys[i].size = p - out.data - begin
        fill_word(&c.keys[i], key, start + i + key.offset, out.data + begin)
        p = put_value(out, p, value, start + i + value.offset, item.room + room)
    p = make_room(out, p, room)
    if count > 1:
        check_keys(c, out.data, count)
    return p


cdef char* put_plain(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write a value as text. It must be is_flat() and not null.

    Ints and floats are as redis-py writes them, bools are 1 and 0, dates and times are in ISO 8601. A vector is the
    bytes of its floats.
    """
    cdef Span span
    cdef int64_t number
    if TEXT <= c.kind <= FIXED_BINARY:
        find_bytes(c, at, &span)
        p = make_room(out, p, span.size + room)
        if c.kind <= TEXT_VIEW:
            return put_text(p, c, &span)
        copy_short(p, span.data, span.size)
        return p + span.size
    p = make_room(out, p, LONGEST_TEXT + room)
    if c.kind == DICTIONARY:
        return put_plain(out, p, c.dictionary, dictionary_index(c, at), room)
    if c.kind == UINT64:
        return put_decimal_int(p, (<const uint64_t*>c.data)[at], False)
    if INT8 <= c.kind <= UINT32:
        number = read_int(c.data, c.kind, at)
        return put_decimal_int(p, <uint64_t>0 - <uint64_t>number if number < 0 else <uint64_t>number, number < 0)
    if c.kind == BOOL:
        p[0] = <char>(c'0' + (((<const uint8_t*>c.data)[at >> 3] >> (at & 7)) & 1))
        return p + 1
    if FLOAT16 <= c.kind <= FLOAT64:
        return put_float(p, read_float(c, at))
    if c.kind == FIXED_LIST:
        return put_vector(out, p, c, at, room)
    p += make_text(p, c, at)
    if c.kind == TIMESTAMP:
        memcpy(p, b"+00:00", 6)
        p += 6
    return p


cdef char* put_vector(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write the floats of a vector as vector search reads them: their bytes, one after the other."""
    cdef Column* item = c.children
    cdef Py_ssize_t width = 2 if item.kind == FLOAT16 else 4 if item.kind == FLOAT32 else 8
    cdef int64_t start = 0
    cdef int64_t stop = 0
    cdef int64_t i
    find_items(c, at, &start, &stop)
    if item.validity != NULL:
        for i in range(start + item.offset, stop + item.offset):
            if is_null(item, i):
                refuse_vector(c)
    p = make_room(out, p, (stop - start) * width + room)
    if stop > start:
        memcpy(p, <const char*>item.data + (start + item.offset) * width, (stop - start) * width)
    return p + (stop - start) * width


cdef char* put_utc_timestamp(char* p, Column* c, int64_t ticks) except NULL nogil:
    cdef int64_t seconds = floor_div(ticks, c.unit)
    if seconds < FIRST_SECOND or seconds > LAST_SECOND:
        out_of_range(c)
    return put_timestamp(p, seconds, <uint32_t>(floor_mod(ticks, c.unit) * (GIGA // c.unit)))


cdef Py_ssize_t make_text(char* text, Column* c, int64_t at) except -1 nogil:
    cdef const void* data = c.data
    cdef char* end
    if c.kind == DECIMAL:
        end = put_decimal(text, <const uint8_t*>data + at * c.width, <int>c.width, c.scale)
    elif c.kind == DATE_DAYS:
        end = put_date(text, (<const int32_t*>data)[at])
    elif c.kind == DATE_MILLISECONDS:
        end = put_date(text, floor_div((<const int64_t*>data)[at], DAY_MILLISECONDS))
    elif c.kind == TIME32:
        end = put_time_of_day(text, (<const int32_t*>data)[at], c.unit)
    elif c.kind == TIME64:
        end = put_time_of_day(text, (<const int64_t*>data)[at], c.unit)
    elif c.kind == DURATION:
        end = put_duration(text, (<const int64_t*>data)[at], c.unit)
    else:
        end = put_local_timestamp(text, (<const int64_t*>data)[at], c.unit)
    if end == NULL:
        out_of_range(c)
    return end - text
