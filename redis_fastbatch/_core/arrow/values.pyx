# cython: language_level=3
"""Writes a value of an Arrow column as MessagePack or as text, without the GIL.

All functions write at `p`. The caller has made room for Column.room bytes, which is the most that a value takes
without the content of texts and lists. A function that writes more makes room for its bytes, and for `room` bytes
after them, which the caller needs for the rest of the row. So a row of numbers checks the memory once.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawRealloc
from libc.stdint cimport (
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy

from redis_fastbatch._core.arrow.columns cimport (
    BINARY,
    BINARY_VIEW,
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
    INT16,
    INT32,
    INT64,
    LARGE_BINARY,
    LARGE_LIST,
    LARGE_TEXT,
    LIST,
    LOCAL_TIMESTAMP,
    MAP,
    NULLS,
    STRUCT,
    TEXT,
    TEXT_VIEW,
    TIME32,
    TIME64,
    TIMESTAMP,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Column,
    MapKey,
    is_null,
    put_name,
)
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

import msgpack

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import EncodeError

cdef enum:
    HEADER_ROOM = 5
    LONGEST_TEXT = 128      # of the values that are written as text, except texts
    DAY_MILLISECONDS = 86_400_000
    FEW_KEYS = 16           # up to here, each key of a map is compared with each other key

# The years 1 to 9999, which is the range of datetime.
cdef int64_t FIRST_SECOND = -62135596800
cdef int64_t LAST_SECOND = 253402300799
cdef int64_t MAX_LENGTH = 0xFFFFFFFE

cdef dict OTHER_KINDS = {
    BOOL: "bool",
    FLOAT16: "float16 (halffloat)",
    FLOAT32: "float32 (float)",
    FLOAT64: "float64 (double)",
    TIMESTAMP: "a timestamp with a time zone",
    DURATION: "a duration",
    LIST: "a list",
    LARGE_LIST: "a large list",
    FIXED_LIST: "a list of fixed size",
    STRUCT: "a struct",
    MAP: "a map",
}

cdef struct Span:
    const char* data
    int64_t size


cdef int refuse(Column* c, str reason) except -1:
    raise EncodeError(f"column {c.path.decode('utf-8', 'replace')!r}: {reason}")


cdef int out_of_range(Column* c) except -1 nogil:
    with gil:
        return refuse(c, "a date must be in the years 1 to 9999, and a time within 24 hours; found another")


cdef int bad_offset(Column* c) except -1 nogil:
    with gil:
        return refuse(c, "expected valid offsets and indices, found one that points outside its data")


cdef int too_long(Column* c, int64_t size) except -1 nogil:
    with gil:
        return refuse(c, f"the length of a value must fit into 32 bits for MessagePack, found {size}")


cdef int not_utf8(Column* c, const char* text, int64_t size) except -1 nogil:
    with gil:
        found = bytearray(text[:size])
        try:
            found.decode("utf-8")
        except UnicodeDecodeError as error:
            return refuse(
                c,
                f"its text must be UTF-8, found the byte 0x{found[error.start]:02x} at byte {error.start} "
                f"({error.reason}); cast the column to binary to write such bytes",
            )
        return refuse(c, "its text changed while it was written")


cdef int duplicate_key(Column* c, const char* key, Py_ssize_t size) except -1 nogil:
    with gil:
        value = msgpack.unpackb(PyBytes_FromStringAndSize(key, size), timestamp=3)
        return refuse(c, f"a map must have each key once, found the key {format_key(value)} twice")


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


cdef int find_view(Column* c, int64_t at, Span* span) except -1 nogil:
    """Find the bytes of a value in a view column.

    A view has 16 bytes. The first four are the length. Up to 12 bytes of data follow in place. For longer data, a
    prefix, the index of a buffer and an offset into it follow.
    """
    cdef const char* view = <const char*>c.data + at * 16
    cdef int32_t size, buffer_index, start
    memcpy(&size, view, 4)
    span.size = size
    span.data = view + 4
    if size < 0:
        bad_offset(c)
    if size <= 12:
        return 0
    memcpy(&buffer_index, view + 8, 4)
    memcpy(&start, view + 12, 4)
    if buffer_index < 0 or buffer_index >= c.n_view_buffers:
        bad_offset(c)
    if start < 0 or <int64_t>start + size > c.view_buffer_sizes[buffer_index]:
        bad_offset(c)
    span.data = <const char*>c.view_buffers[buffer_index] + start
    return 0


cdef inline int64_t dictionary_index(Column* c, int64_t at) except -1 nogil:
    """Return the index of a value in the dictionary, including the dictionary's offset."""
    cdef int64_t index = read_int(c.data, c.index_kind, at)
    if index < 0 or index >= c.dictionary.length:
        bad_offset(c)
    return index + c.dictionary.offset


cdef bint is_missing(Column* c, int64_t at) except -1 nogil:
    """Return whether the value at `at` is null, in the column or in its dictionary."""
    if c.kind == NULLS or is_null(c, at):
        return True
    if c.kind == DICTIONARY:
        return is_missing(c.dictionary, dictionary_index(c, at))
    return False


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
    if span.size > MAX_LENGTH:
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


cdef char* put_utc_timestamp(char* p, Column* c, int64_t ticks) except NULL nogil:
    cdef int64_t seconds = floor_div(ticks, c.unit)
    if seconds < FIRST_SECOND or seconds > LAST_SECOND:
        out_of_range(c)
    return put_timestamp(p, seconds, <uint32_t>(floor_mod(ticks, c.unit) * (GIGA // c.unit)))


cdef char* put_as_text(char* p, Column* c, int64_t at) except NULL nogil:
    """Write a value for which MessagePack has no type as a str."""
    cdef char[LONGEST_TEXT] text
    cdef Py_ssize_t size = make_text(text, c, at)
    p = put_str_header(p, <uint32_t>size)
    memcpy(p, text, size)
    return p + size


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


cdef object raw_value(Column* c, int64_t at):
    """Return Arrow's form of a value that cannot be written.

    This is the number of a date, time or duration, or the bytes of a text; None for other types.
    """
    cdef Span span
    if is_null(c, at):
        return None
    if c.kind == DICTIONARY:
        return raw_value(c.dictionary, dictionary_index(c, at))
    if TEXT <= c.kind <= TEXT_VIEW:
        find_bytes(c, at, &span)
        return PyBytes_FromStringAndSize(span.data, span.size)
    if DECIMAL < c.kind <= DURATION:
        return read_int(c.data, INT32 if c.kind == DATE_DAYS or c.kind == TIME32 else INT64, at)
    return None


cdef char* put_struct(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Column* child
    cdef int64_t i
    p = make_room(out, p, c.room + room)
    p = put_map_header(p, <uint32_t>c.n_children)
    for i in range(c.n_children):
        child = &c.children[i]
        p = put_value(out, put_name(p, child), child, at + child.offset, c.room + room)
    return p


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
    if stop[0] - start[0] > MAX_LENGTH:
        too_long(c, stop[0] - start[0])
    return 0


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


cdef bint is_flat(Column* c) noexcept nogil:
    """Return whether put_plain() can write the values that are not null."""
    if c.kind == DICTIONARY:
        return is_flat(c.dictionary)
    return c.kind not in (LIST, LARGE_LIST, FIXED_LIST, STRUCT, MAP)


cdef bint is_plain(Column* c) noexcept nogil:
    """Return whether the values can be part of a key."""
    if c.kind == DICTIONARY:
        return is_plain(c.dictionary)
    return c.kind == NULLS or INT8 <= c.kind <= UINT64 or TEXT <= c.kind <= FIXED_BINARY or (
        DECIMAL <= c.kind <= LOCAL_TIMESTAMP and c.kind != TIMESTAMP
    )


cdef str kind_name(Column* c):
    """Return the name in messages of the type of a column that is not is_plain()."""
    if c.kind == DICTIONARY:
        return f"a dictionary of {kind_name(c.dictionary)}"
    return OTHER_KINDS.get(c.kind, "another type")


cdef bint is_text(Column* c) noexcept nogil:
    """Return whether the values are texts, which are UTF-8."""
    if c.kind == DICTIONARY:
        return is_text(c.dictionary)
    return TEXT <= c.kind <= TEXT_VIEW


cdef char* put_plain(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write a value as text. It must be is_flat() and not null.

    Ints and floats are as redis-py writes them, bools are 1 and 0, dates and times are in ISO 8601.
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
    p += make_text(p, c, at)
    if c.kind == TIMESTAMP:
        memcpy(p, b"+00:00", 6)
        p += 6
    return p


cdef inline double read_float(Column* c, int64_t at) noexcept nogil:
    if c.kind == FLOAT64:
        return (<const double*>c.data)[at]
    if c.kind == FLOAT32:
        return (<const float*>c.data)[at]
    return read_half(c.data, at)
