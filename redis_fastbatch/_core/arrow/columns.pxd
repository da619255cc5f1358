# cython: language_level=3
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowSchema

cdef enum:
    SHORT_NAME = 16     # shorter names are copied as this many bytes, which is quicker


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
    uint64_t word           # equal keys have equal words; different keys mostly have different ones
    bint compared           # the bytes are compared too, not only the word
    Py_ssize_t begin        # offset in the buffer that is written
    Py_ssize_t size
    const char* data        # address in that buffer, once it no longer moves


cdef struct Column:
    # From the schema.
    int kind
    int index_kind          # of a dictionary-encoded column
    int64_t width           # bytes of a fixed-size value, or items of a fixed-size list
    int64_t unit            # ticks per second
    int32_t scale           # of a decimal
    Py_ssize_t room         # most bytes of a value, without the content of texts and lists
    char* name              # the field's name as a MessagePack str, padded to SHORT_NAME bytes
    Py_ssize_t name_size
    char* path              # the column's name in messages, UTF-8
    int64_t n_children
    Column* children
    Column* dictionary
    MapKey* keys            # of the map that is written now
    int64_t keys_capacity
    # From the current batch.
    int64_t offset
    int64_t length
    const uint8_t* validity # NULL if no value is null
    const void* data
    const char* text        # the bytes that the offsets in `data` point to
    const void** view_buffers   # the variadic buffers of a view column
    const int64_t* view_buffer_sizes
    int64_t n_view_buffers


cdef inline bint is_null(const Column* c, int64_t at) noexcept nogil:
    """Return whether the value at `at` is null. `at` includes the column's offset."""
    return c.validity != NULL and not (c.validity[at >> 3] >> (at & 7)) & 1


cdef inline char* put_name(char* p, const Column* c) noexcept nogil:
    """Write the field's name. At least SHORT_NAME bytes are written, so the buffer must have as many."""
    if c.name_size <= SHORT_NAME:
        memcpy(p, c.name, SHORT_NAME)
    else:
        memcpy(p, c.name, c.name_size)
    return p + c.name_size


cdef int read_schema(Column* c, ArrowSchema* schema, str path, int depth) except -1
cdef int bind(Column* c, ArrowArray* array, int64_t needed) except -1
cdef void free_column(Column* c) noexcept
