# cython: language_level=3
"""The columns of record batches as a tree of C structs, made once from a schema and then bound to each batch.

Schemas and batches are checked here. The encoding of rows then needs to check only what differs from row to row:
offsets into texts and lists, and indices of dictionaries.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowSchema
from redis_fastbatch._core.msgpack.format cimport put_str_header
from redis_fastbatch._core.runtime.utf8 cimport is_utf8

from redis_fastbatch.errors import EncodeError

cdef enum:
    MAX_DEPTH = 64          # levels of nested types, which is also the depth of recursion in encoding
    NUMBER_ROOM = 9
    HEADER_ROOM = 5
    TIMESTAMP_ROOM = 15
    TIME_ROOM = 40          # 9999-12-31T23:59:59.999999999
    DURATION_ROOM = 64
    DECIMAL_ROOM = 120      # 76 digits, sign, point, leading zeros, exponent

cdef int64_t WIDEST_BINARY = 1 << 29

# The kinds of column of Arrow's formats without arguments.
cdef dict SIMPLE = {
    b"n": NULLS, b"b": BOOL,
    b"c": INT8, b"s": INT16, b"i": INT32, b"l": INT64,
    b"C": UINT8, b"S": UINT16, b"I": UINT32, b"L": UINT64,
    b"e": FLOAT16, b"f": FLOAT32, b"g": FLOAT64,
    b"u": TEXT, b"U": LARGE_TEXT, b"vu": TEXT_VIEW,
    b"z": BINARY, b"Z": LARGE_BINARY, b"vz": BINARY_VIEW,
    b"tdD": DATE_DAYS, b"tdm": DATE_MILLISECONDS,
    b"+l": LIST, b"+L": LARGE_LIST, b"+s": STRUCT, b"+m": MAP,
}
cdef dict UNITS = {b"s": 1, b"m": 1000, b"u": 1_000_000, b"n": 1_000_000_000}
cdef dict UNSUPPORTED = {
    b"+ud": "a dense union", b"+us": "a sparse union", b"+r": "a run-end encoded column",
    b"+vl": "a list view", b"+vL": "a large list view",
    b"tiM": "an interval of months", b"tiD": "an interval of days and milliseconds",
    b"tin": "an interval of months, days and nanoseconds",
}


cdef int refuse(str path, str found) except -1:
    raise EncodeError(f"column {path!r}: {found} cannot be written; cast the column or leave it out")


cdef char* copy_text(bytes text) except NULL:
    """Return a zero-terminated copy of the text, which the caller frees."""
    cdef Py_ssize_t size = len(text)
    cdef char* copy = <char*>PyMem_RawMalloc(size + 1)
    if copy == NULL:
        raise MemoryError()
    memcpy(copy, <const char*>text, size + 1)
    return copy


cdef Column* new_columns(int64_t count) except NULL:
    cdef Column* columns = <Column*>PyMem_RawCalloc(count if count else 1, sizeof(Column))
    if columns == NULL:
        raise MemoryError()
    return columns


cdef void free_column(Column* c) noexcept:
    """Free the memory that the column owns, but not the struct itself."""
    cdef int64_t i
    PyMem_RawFree(c.name)
    PyMem_RawFree(c.path)
    PyMem_RawFree(c.keys)
    for i in range(c.n_children):
        free_column(&c.children[i])
    PyMem_RawFree(c.children)
    if c.dictionary != NULL:
        free_column(c.dictionary)
        PyMem_RawFree(c.dictionary)


cdef int read_schema(Column* c, ArrowSchema* schema, str path, int depth) except -1:
    """Fill a zeroed column from the schema.

    Raises:
        EncodeError: the type is not supported; the message names the column.
    """
    cdef bytes field = b"" if schema.name == NULL else <bytes>schema.name
    if depth > MAX_DEPTH:
        refuse(path, f"a type nested more than {MAX_DEPTH} levels deep")
    c.path = copy_text(path.encode("utf-8", "replace"))
    read_name(c, field, path)
    if schema.dictionary != NULL:
        read_format(c, schema, path)
        if not INT8 <= c.kind <= UINT64:
            refuse(path, "a dictionary whose indices are not integers")
        c.index_kind = c.kind
        c.kind = DICTIONARY
        c.dictionary = new_columns(1)
        read_schema(c.dictionary, schema.dictionary, path, depth + 1)
        c.room = c.dictionary.room
        return 0
    read_format(c, schema, path)
    read_children(c, schema, path, depth)
    set_room(c)
    return 0


cdef int read_name(Column* c, bytes field, str path) except -1:
    cdef Py_ssize_t size = len(field)
    cdef char* p
    if not is_utf8(field, size):
        raise EncodeError(f"column {path!r}: its name must be UTF-8, found {field!r}; rename the column")
    c.name = <char*>PyMem_RawCalloc(1, size + HEADER_ROOM + SHORT_NAME)
    if c.name == NULL:
        raise MemoryError()
    p = put_str_header(c.name, <unsigned int>size)
    memcpy(p, <const char*>field, size)
    c.name_size = p + size - c.name
    return 0


cdef int read_format(Column* c, ArrowSchema* schema, str path) except -1:
    cdef bytes spec = <bytes>schema.format
    kind, _, arguments = spec.partition(b":")
    known = SIMPLE.get(spec)
    if known is not None:
        c.kind = known
    elif kind == b"d":
        read_decimal(c, arguments, path)
    elif kind == b"w":
        c.kind = FIXED_BINARY
        c.width = positive(arguments, path, WIDEST_BINARY)
    elif kind == b"+w":
        c.kind = FIXED_LIST
        c.width = positive(arguments, path, 1 << 32)
    elif len(kind) == 3 and kind[2:] in UNITS and kind[:2] in (b"tt", b"ts", b"tD"):
        c.unit = UNITS[kind[2:]]
        if kind[:2] == b"tt":
            c.kind = TIME32 if c.unit <= 1000 else TIME64
        elif kind[:2] == b"tD":
            c.kind = DURATION
        else:
            c.kind = TIMESTAMP if arguments else LOCAL_TIMESTAMP
    else:
        refuse(path, UNSUPPORTED.get(kind, f"Arrow's type {spec.decode('latin-1')!r}"))
    return 0


cdef int64_t positive(bytes digits, str path, int64_t most) except -1:
    number = int(digits) if digits.isdigit() else -1
    if not 0 <= number <= most:
        refuse(path, f"a type of size {digits.decode('latin-1')!r}")
    return number


cdef int read_decimal(Column* c, bytes arguments, str path) except -1:
    cdef list parts = arguments.split(b",")
    try:
        numbers = list(map(int, parts))
    except ValueError:
        numbers = []
    bits = numbers[2] if len(numbers) == 3 else 128
    if len(numbers) not in (2, 3) or bits not in (32, 64, 128, 256) or abs(numbers[1]) > 1000:
        refuse(path, f"a decimal of {arguments.decode('latin-1')!r}")
    c.kind = DECIMAL
    c.scale = numbers[1]
    c.width = bits // 8
    return 0


cdef int read_children(Column* c, ArrowSchema* schema, str path, int depth) except -1:
    cdef int64_t expected, i
    if c.kind == STRUCT:
        expected = schema.n_children
        refuse_duplicate_fields(schema, path)
    else:
        expected = 1 if c.kind in (LIST, LARGE_LIST, FIXED_LIST, MAP) else 0
    if schema.n_children != expected:
        raise ValueError(
            f"column {path!r}: the stream's schema must have {expected} children here, found {schema.n_children}"
        )
    if expected:
        c.children = new_columns(expected)
        c.n_children = expected
        for i in range(expected):
            read_schema(&c.children[i], schema.children[i], child_path(c, schema.children[i], path), depth + 1)
    if c.kind == MAP:
        check_entries(&c.children[0], path)
    return 0


cdef str child_path(Column* c, ArrowSchema* child, str path):
    if c.kind == MAP:
        return path
    if c.kind != STRUCT:
        return path + "[]"
    name = b"" if child.name == NULL else <bytes>child.name
    return f"{path}.{name.decode('utf-8', 'replace')}"


cdef int refuse_duplicate_fields(ArrowSchema* schema, str path) except -1:
    cdef int64_t i
    cdef set seen = set()
    for i in range(schema.n_children):
        name = b"" if schema.children[i].name == NULL else <bytes>schema.children[i].name
        if name in seen:
            refuse(path, f"a struct with two fields {name.decode('utf-8', 'replace')!r}")
        seen.add(name)
    return 0


cdef int check_entries(Column* entries, str path) except -1:
    if entries.kind != STRUCT or entries.n_children != 2:
        raise ValueError(f"column {path!r}: the entries of a map must be pairs in the stream's schema")
    if entries.children[0].kind in (LIST, LARGE_LIST, FIXED_LIST, STRUCT, MAP):
        refuse(path, "a map whose keys are nested")
    return 0


cdef int set_room(Column* c) except -1:
    """Set the most bytes that a value takes, without the content of texts and lists."""
    cdef int64_t i
    if c.kind == STRUCT:
        c.room = HEADER_ROOM
        for i in range(c.n_children):
            c.room += c.children[i].name_size + c.children[i].room
    elif c.kind == DECIMAL:
        c.room = DECIMAL_ROOM
    elif c.kind == DURATION:
        c.room = DURATION_ROOM
    elif c.kind == TIMESTAMP:
        c.room = TIMESTAMP_ROOM
    elif c.kind in (DATE_DAYS, DATE_MILLISECONDS, TIME32, TIME64, LOCAL_TIMESTAMP):
        c.room = TIME_ROOM
    else:
        c.room = NUMBER_ROOM
    return 0


cdef int malformed(Column* c, str reason) except -1:
    raise ValueError(f"column {c.path.decode('utf-8', 'replace')!r}: a batch of the stream is invalid: {reason}")


cdef int expected_buffers(Column* c) noexcept:
    if c.kind == NULLS:
        return 0
    if c.kind == STRUCT or c.kind == FIXED_LIST:
        return 1
    if c.kind in (TEXT, LARGE_TEXT, BINARY, LARGE_BINARY):
        return 3
    return 2


cdef int bind(Column* c, ArrowArray* array, int64_t needed) except -1:
    """Bind the column to the array of a batch, whose first `needed` values are read.

    Raises:
        ValueError: the array does not match the schema.
    """
    cdef int64_t last
    if array.release == NULL:
        malformed(c, "expected an array, found one that was released")
    if array.offset < 0 or array.length < needed or array.offset > (<int64_t>1 << 62) - array.length:
        malformed(c, f"expected {needed} values, found {array.length} from offset {array.offset}")
    last = array.offset + array.length
    c.offset = array.offset
    c.length = array.length
    if c.kind in (TEXT_VIEW, BINARY_VIEW):
        bind_view(c, array)
    elif array.n_buffers != expected_buffers(c) and not (c.kind == NULLS and array.n_buffers == 1):
        # polars gives a column of nulls a validity bitmap, as early versions of Arrow did.
        malformed(c, f"expected {expected_buffers(c)} buffers, found {array.n_buffers}")
    c.validity = NULL
    if array.n_buffers and array.null_count != 0 and c.kind != NULLS:
        c.validity = <const uint8_t*>array.buffers[0]
    if array.n_buffers > 1:
        c.data = array.buffers[1]
        if c.data == NULL and array.length:
            malformed(c, "expected a buffer of values, found none")
    if expected_buffers(c) == 3:
        c.text = <const char*>array.buffers[2]
    if array.n_children != c.n_children or (array.dictionary == NULL) != (c.dictionary == NULL):
        malformed(c, "expected the children of the schema, found others")
    bind_children(c, array, last)
    return 0


cdef int bind_view(Column* c, ArrowArray* array) except -1:
    if array.n_buffers < 3:
        malformed(c, f"expected at least 3 buffers, found {array.n_buffers}")
    c.n_view_buffers = array.n_buffers - 3
    c.view_buffers = &array.buffers[2]
    c.view_buffer_sizes = <const int64_t*>array.buffers[array.n_buffers - 1]
    if c.n_view_buffers and c.view_buffer_sizes == NULL:
        malformed(c, "expected the sizes of its buffers, found none")
    return 0


cdef int bind_children(Column* c, ArrowArray* array, int64_t last) except -1:
    cdef int64_t i
    cdef int64_t needed = 0
    if c.kind == STRUCT:
        needed = last
    elif c.kind == FIXED_LIST:
        if c.width and last > (<int64_t>1 << 62) // c.width:
            malformed(c, f"expected fewer than 2**62 items, found {last} lists of {c.width}")
        needed = last * c.width
    for i in range(c.n_children):
        bind(&c.children[i], array.children[i], needed)
    if c.dictionary != NULL:
        bind(c.dictionary, array.dictionary, 0)
    return 0
