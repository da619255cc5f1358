# cython: language_level=3
"""Exports built columns through the Arrow C data interface, without a copy of the values.

Every exported array owns its buffers. They are freed without Python, because an importer may release an array from
any thread.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowSchema
from redis_fastbatch._core.arrow.builder cimport (
    BINARIES,
    BLANK,
    BOOLS,
    FLOATS,
    INSTANTS,
    INTS,
    LISTS,
    MAPS,
    STRUCTS,
    TEXTS,
    UINTS,
    ColumnBuilder,
)
from redis_fastbatch._core.arrow.memory cimport Memory
from redis_fastbatch._core.arrow.rows_builder cimport RowsBuilder

cdef enum:
    NULLABLE = 2

cdef const char* SCHEMA_CAPSULE = b"arrow_schema"
cdef const char* ARRAY_CAPSULE = b"arrow_array"

cdef dict FORMATS = {BLANK: b"n", BOOLS: b"b", INTS: b"l", UINTS: b"L", FLOATS: b"g", STRUCTS: b"+s", MAPS: b"+m"}
cdef dict UNITS = {1: b"s", 1000: b"m", 1_000_000: b"u", 1_000_000_000: b"n"}

cdef struct Buffers:
    const void* owned[3]


cdef void release_schema(ArrowSchema* schema) noexcept nogil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            PyMem_RawFree(schema.children[i])
    PyMem_RawFree(schema.children)
    # The format and the name share one allocation.
    PyMem_RawFree(schema.private_data)
    schema.release = NULL


cdef void release_array(ArrowArray* array) noexcept nogil:
    cdef Buffers* buffers = <Buffers*>array.private_data
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            PyMem_RawFree(array.children[i])
    PyMem_RawFree(array.children)
    for i in range(3):
        PyMem_RawFree(<void*>buffers.owned[i])
    PyMem_RawFree(buffers)
    array.release = NULL


cdef void* allocate_zeroed(size_t size) except NULL:
    """Return zeroed memory."""
    cdef void* memory = PyMem_RawCalloc(1, size if size else 1)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef void free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, SCHEMA_CAPSULE)
    if schema.release != NULL:
        schema.release(schema)
    PyMem_RawFree(schema)


cdef void free_array_capsule(object capsule) noexcept:
    cdef ArrowArray* array = <ArrowArray*>PyCapsule_GetPointer(capsule, ARRAY_CAPSULE)
    if array.release != NULL:
        array.release(array)
    PyMem_RawFree(array)


cdef bint is_long(ColumnBuilder column) noexcept:
    """Return whether the offsets need 64 bits."""
    cdef int64_t last
    memcpy(&last, column.offsets.data + column.offsets.size - 8, 8)
    return last > INT32_MAX


cdef bytes format_of(ColumnBuilder column):
    if column.shape == TEXTS:
        return b"U" if is_long(column) else b"u"
    if column.shape == BINARIES:
        return b"Z" if is_long(column) else b"z"
    if column.shape == LISTS:
        return b"+L" if is_long(column) else b"+l"
    if column.shape == INSTANTS:
        return b"ts%b:UTC" % UNITS[column.unit]
    return FORMATS[column.shape]


cdef int export_schema(ColumnBuilder column, bytes name, ArrowSchema* schema) except -1:
    """Fill a zeroed schema. After a failure the caller releases it."""
    cdef bytes spec = format_of(column)
    cdef char* text
    schema.release = release_schema
    schema.flags = NULLABLE
    text = <char*>allocate_zeroed(len(spec) + len(name) + 2)
    schema.private_data = text
    memcpy(text, <const char*>spec, len(spec))
    memcpy(text + len(spec) + 1, <const char*>name, len(name))
    schema.format = text
    schema.name = text + len(spec) + 1
    if column.shape == MAPS:
        schema_children(schema, 1)
        export_entries_schema(column, schema.children[0])
    elif column.shape == LISTS:
        schema_children(schema, 1)
        # items_of() makes the column of items if no list had an item.
        export_schema(items_of(column), b"item", schema.children[0])
    elif column.shape == STRUCTS:
        schema_children(schema, len(column.children))
        for i, child in enumerate(column.children):
            export_schema(child, name_of(child), schema.children[<int64_t>i])
    return 0


cdef ColumnBuilder items_of(ColumnBuilder column):
    if not column.children:
        column.children = [ColumnBuilder(column.name)]
    return column.children[0]


cdef bytes name_of(ColumnBuilder column):
    return column.name.encode("utf-8", "surrogateescape")


cdef int schema_children(ArrowSchema* schema, int64_t count) except -1:
    cdef int64_t i
    schema.children = <ArrowSchema**>allocate_zeroed(count * sizeof(ArrowSchema*))
    schema.n_children = count
    for i in range(count):
        schema.children[i] = <ArrowSchema*>allocate_zeroed(sizeof(ArrowSchema))
    return 0


cdef int export_entries_schema(ColumnBuilder column, ArrowSchema* entries) except -1:
    cdef char* text = <char*>allocate_zeroed(16)
    entries.release = release_schema
    entries.private_data = text
    memcpy(text, b"+s\0entries", 10)
    entries.format = text
    entries.name = text + 3
    schema_children(entries, 2)
    export_schema(column.children[0], b"key", entries.children[0])
    export_schema(column.children[1], b"value", entries.children[1])
    entries.children[0].flags = 0
    return 0


cdef int array_children(ArrowArray* array, int64_t count) except -1:
    cdef int64_t i
    array.children = <ArrowArray**>allocate_zeroed(count * sizeof(ArrowArray*))
    array.n_children = count
    for i in range(count):
        array.children[i] = <ArrowArray*>allocate_zeroed(sizeof(ArrowArray))
    return 0


cdef Buffers* begin_array(ArrowArray* array, int64_t length, int64_t nulls) except NULL:
    cdef Buffers* buffers = <Buffers*>allocate_zeroed(sizeof(Buffers))
    array.private_data = buffers
    array.buffers = buffers.owned
    array.release = release_array
    array.length = length
    array.null_count = nulls
    return buffers


cdef int export_array(ColumnBuilder column, ArrowArray* array) except -1:
    """Fill a zeroed array, which takes over the column's buffers. After a failure the caller releases it."""
    cdef Buffers* buffers = begin_array(array, column.length, column.nulls)
    if column.shape == BLANK:
        return 0
    array.n_buffers = 1
    if column.nulls:
        buffers.owned[0] = pack_bits(&column.valid, column.length)
    if column.shape == STRUCTS:
        array_children(array, len(column.children))
        for i, child in enumerate(column.children):
            export_array(child, array.children[<int64_t>i])
        return 0
    array.n_buffers = 2
    if column.shape == BOOLS:
        buffers.owned[1] = pack_bits(&column.values, column.length)
    elif column.shape == LISTS or column.shape == MAPS:
        buffers.owned[1] = take_offsets(column)
        array_children(array, 1)
        if column.shape == LISTS:
            export_array(items_of(column), array.children[0])
        else:
            export_entries(column, array.children[0])
    elif column.shape == TEXTS or column.shape == BINARIES:
        array.n_buffers = 3
        buffers.owned[1] = take_offsets(column)
        buffers.owned[2] = take_buffer(&column.values)
    else:
        buffers.owned[1] = take_buffer(&column.values)
    return 0


cdef int export_entries(ColumnBuilder column, ArrowArray* entries) except -1:
    begin_array(entries, (<ColumnBuilder>column.children[0]).length, 0)
    entries.n_buffers = 1
    array_children(entries, 2)
    export_array(column.children[0], entries.children[0])
    export_array(column.children[1], entries.children[1])
    return 0


cdef void* take_buffer(Memory* memory) except NULL:
    """Return the buffer and pass its ownership to the caller. Even an empty buffer has an address."""
    cdef void* data = memory.data
    if data == NULL:
        return allocate_zeroed(1)
    memset(memory, 0, sizeof(Memory))
    return data


cdef void* take_offsets(ColumnBuilder column) except NULL:
    """Return the offsets and pass their ownership to the caller. They get 32 bits each if they fit."""
    cdef bint keep = is_long(column) and column.shape != MAPS
    cdef Py_ssize_t count = column.offsets.size // 8
    cdef char* data
    cdef int64_t wide
    cdef int32_t narrow
    cdef Py_ssize_t i
    if column.shape == MAPS and is_long(column):
        raise OverflowError(f"field {column.name!r}: expected fewer than 2**31 map entries; read fewer keys")
    data = <char*>take_buffer(&column.offsets)
    if not keep:
        # This works in place, because a 32-bit offset is never written after the 64-bit one that is read next.
        for i in range(count):
            memcpy(&wide, data + 8 * i, 8)
            narrow = <int32_t>wide
            memcpy(data + 4 * i, &narrow, 4)
    return data


cdef void* pack_bits(Memory* memory, int64_t count) except NULL:
    cdef uint8_t* bits = <uint8_t*>allocate_zeroed((count + 7) // 8)
    cdef int64_t i
    for i in range(count):
        bits[i >> 3] |= <uint8_t>((memory.data[i] & 1) << (i & 7))
    return bits


cdef class ExportedRows:
    """The rows of a RowsBuilder as an Arrow record batch. `__arrow_c_array__()` can be called once."""

    cdef RowsBuilder rows

    def __init__(self, RowsBuilder rows):
        self.rows = rows

    def __arrow_c_array__(self, requested_schema=None):
        """Return capsules of the schema and of the batch, which takes over the builder's buffers."""
        cdef ArrowSchema* schema
        cdef ArrowArray* array
        cdef ColumnBuilder root
        if self.rows is None:
            raise ValueError("rows can be exported once, and these were exported before")
        root = self.rows.root
        self.rows = None
        schema = <ArrowSchema*>allocate_zeroed(sizeof(ArrowSchema))
        schema_capsule = PyCapsule_New(schema, SCHEMA_CAPSULE, free_schema_capsule)
        array = <ArrowArray*>allocate_zeroed(sizeof(ArrowArray))
        array_capsule = PyCapsule_New(array, ARRAY_CAPSULE, free_array_capsule)
        export_schema(root, b"", schema)
        export_array(root, array)
        return schema_capsule, array_capsule
