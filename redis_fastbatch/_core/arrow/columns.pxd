# cython: language_level=3
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowSchema

cdef enum:
    SHORT_NAME = 16     # a name this long or shorter is copied as so many bytes


cdef enum Kind:
    NULLS
    BOOL
    INT8
    INT16
    INT32
    INT64
    UINT8
    UINT16
    UINT32
    UINT64
    FLOAT16
    FLOAT32
    FLOAT64
    TEXT            # 32-bit offsets
    LARGE_TEXT      # 64-bit offsets
    TEXT_VIEW
    BINARY
    LARGE_BINARY
    BINARY_VIEW
    FIXED_BINARY
    DECIMAL
    DATE_DAYS
    DATE_MILLISECONDS
    TIME32
    TIME64
    TIMESTAMP
    LOCAL_TIMESTAMP # without a zone
    DURATION
    LIST
    LARGE_LIST
    FIXED_LIST
    STRUCT
    MAP
    DICTIONARY


cdef struct MapKey:
    uint64_t word           # differs where keys differ, but for bytes behind the first 8
    bint compared           # whether the bytes count too, or the word says it all
    Py_ssize_t begin        # in the buffer that is written
    Py_ssize_t size
    const char* data        # there, once it no longer moves


cdef struct Column:
    # What the schema says.
    int kind
    int index_kind          # of a dictionary-encoded column
    int64_t width           # bytes of a fixed-size value; items of a fixed-size list
    int64_t unit            # ticks a second
    int32_t scale           # of a decimal
    Py_ssize_t room         # bytes that any value takes at most, its texts and lists not counted
    char* name              # the field's name as a MessagePack str, SHORT_NAME bytes at least
    Py_ssize_t name_size
    char* path              # how messages call it, UTF-8
    int64_t n_children
    Column* children
    Column* dictionary
    MapKey* keys            # of the map that is being written
    int64_t keys_capacity
    # What the current batch says.
    int64_t offset
    int64_t length
    const uint8_t* validity # NULL: nothing is null
    const void* data
    const char* text        # what the offsets in `data` point into
    const void** pieces     # of a view column
    const int64_t* piece_sizes
    int64_t n_pieces


cdef inline bint is_null(const Column* c, int64_t at) noexcept nogil:
    """Whether the value at `at`, the column's offset included, is missing."""
    return c.validity != NULL and not (c.validity[at >> 3] >> (at & 7)) & 1


cdef inline char* put_name(char* p, const Column* c) noexcept nogil:
    """Writes the field's name. Up to SHORT_NAME bytes behind it are written over: there has to be room."""
    if c.name_size <= SHORT_NAME:
        memcpy(p, c.name, SHORT_NAME)
    else:
        memcpy(p, c.name, c.name_size)
    return p + c.name_size


cdef int read_schema(Column* c, ArrowSchema* schema, str path, int depth) except -1
cdef int bind(Column* c, ArrowArray* array, int64_t needed) except -1
cdef void free_column(Column* c) noexcept
