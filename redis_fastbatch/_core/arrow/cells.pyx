# cython: language_level=3
"""Finds the values of an Arrow column that few columns have, says what a column holds, and refuses what is wrong."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.columns cimport (
    BOOL,
    DATE_DAYS,
    DECIMAL,
    DICTIONARY,
    DURATION,
    FIXED_BINARY,
    FIXED_LIST,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT32,
    INT64,
    LARGE_LIST,
    LIST,
    LOCAL_TIMESTAMP,
    MAP,
    NULLS,
    STRUCT,
    TEXT,
    TEXT_VIEW,
    TIME32,
    TIMESTAMP,
    UINT64,
    Column,
    is_null,
)

from redis_fastbatch.errors import EncodeError

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


cdef bint is_missing(Column* c, int64_t at) except -1 nogil:
    """Return whether the value at `at` is null, in the column or in its dictionary."""
    if c.kind == NULLS or is_null(c, at):
        return True
    if c.kind == DICTIONARY:
        return is_missing(c.dictionary, dictionary_index(c, at))
    return False


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
        return read_time(c, at)
    return None


cdef int64_t read_time(Column* c, int64_t at) noexcept nogil:
    """Return Arrow's number of a date, time, timestamp or duration."""
    return read_int(c.data, INT32 if c.kind == DATE_DAYS or c.kind == TIME32 else INT64, at)


cdef bint is_flat(Column* c) noexcept nogil:
    """Return whether put_plain() can write the values that are not null."""
    if c.kind == DICTIONARY:
        return is_flat(c.dictionary)
    return is_vector(c) or c.kind not in (LIST, LARGE_LIST, FIXED_LIST, STRUCT, MAP)


cdef bint is_vector(Column* c) noexcept nogil:
    """Return whether the values are vectors: a fixed number of floats."""
    return c.kind == FIXED_LIST and FLOAT16 <= c.children[0].kind <= FLOAT64


cdef int refuse_vector(Column* c) except -1 nogil:
    with gil:
        return refuse(c, "a vector must not have nulls, found one that has")


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
