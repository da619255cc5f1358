# cython: language_level=3
"""Writes a value of an Arrow column as JSON, without the GIL.

The text is that of json.dumps(value, ensure_ascii=False, separators=(",", ":")). Types that JSON does not have are
written as text, as in MessagePack. The functions write at `p` and make room for `room` bytes after what they write.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isfinite
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.bulk cimport Literal, put_literal
from redis_fastbatch._core.arrow.cells cimport (
    dictionary_index,
    find_items,
    is_missing,
    is_text,
    read_float,
    refuse,
)
from redis_fastbatch._core.arrow.columns cimport (
    BINARY,
    BINARY_VIEW,
    BOOL,
    DICTIONARY,
    FIXED_BINARY,
    FIXED_LIST,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    LARGE_BINARY,
    LARGE_LIST,
    LIST,
    MAP,
    NULLS,
    STRUCT,
    TEXT,
    TEXT_VIEW,
    UINT64,
    Column,
)
from redis_fastbatch._core.arrow.map_keys cimport check_keys, fill_word, more_keys
from redis_fastbatch._core.arrow.values cimport make_room, put_plain
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

cdef enum:
    SHORT_ROOM = 8


cdef str json_refusal(Column* c):
    """Return why the column's values cannot be JSON; None if they can."""
    cdef int64_t i
    if c.kind == DICTIONARY:
        return json_refusal(c.dictionary)
    if c.kind in (BINARY, LARGE_BINARY, BINARY_VIEW, FIXED_BINARY):
        return "JSON cannot hold binary values; cast the column to string, or leave it out"
    if c.kind == MAP and not is_text(&c.children[0].children[0]):
        return "the keys of a map must be texts in JSON"
    for i in range(c.n_children):
        reason = json_refusal(&c.children[i])
        if reason is not None:
            return reason
    return None


cdef const char* raw_name(Column* c, Py_ssize_t* size) noexcept nogil:
    """Return the column's name, of which MessagePack's header is left out."""
    cdef unsigned char mark = <unsigned char>c.name[0]
    cdef Py_ssize_t header = 1 if mark < 0xC0 else 2 if mark == 0xD9 else 3 if mark == 0xDA else 5
    size[0] = c.name_size - header
    return c.name + header


cdef bytes json_name(Column* c):
    """Return the column's name as a JSON string."""
    cdef OutputBuffer out = OutputBuffer()
    cdef Py_ssize_t size = 0
    cdef const char* name = raw_name(c, &size)
    cdef char* p = make_room(out, out.data, SHORT_ROOM)
    p = put_string(out, p, name, size, SHORT_ROOM)
    return PyBytes_FromStringAndSize(out.data, p - out.data)


cdef inline bint is_special(unsigned char c) noexcept nogil:
    return c < 0x20 or c == c'"' or c == c'\\'


cdef char* put_string(OutputBuffer out, char* p, const char* text, Py_ssize_t size, Py_ssize_t room) except NULL nogil:
    """Write a string of UTF-8, which is not in `out`."""
    cdef Py_ssize_t i
    cdef char c
    # Six bytes are the most that a byte becomes.
    p = make_room(out, p, 6 * size + 2 + room)
    p[0] = c'"'
    p += 1
    for i in range(size):
        c = text[i]
        if not is_special(<unsigned char>c):
            p[0] = c
            p += 1
        else:
            p = put_escape(p, c)
    p[0] = c'"'
    return p + 1


cdef char* put_escape(char* p, char c) noexcept nogil:
    cdef const char* digits = "0123456789abcdef"
    cdef char letter = 0
    p[0] = c'\\'
    if c == c'"' or c == c'\\':
        letter = c
    elif c == c'\n':
        letter = c'n'
    elif c == c'\r':
        letter = c'r'
    elif c == c'\t':
        letter = c't'
    elif c == 8:
        letter = c'b'
    elif c == 12:
        letter = c'f'
    if letter:
        p[1] = letter
        return p + 2
    memcpy(p + 1, b"u00", 3)
    p[4] = digits[(<unsigned char>c) >> 4]
    p[5] = digits[c & 15]
    return p + 6


cdef char* put_quoted(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write a value of put_plain() as a string."""
    cdef Py_ssize_t start, size, extra, i
    cdef char* text
    p = make_room(out, p, SHORT_ROOM)
    p[0] = c'"'
    start = p + 1 - out.data
    p = put_plain(out, p + 1, c, at, SHORT_ROOM)
    size = p - out.data - start
    extra = 0
    text = out.data + start
    for i in range(size):
        if is_special(<unsigned char>text[i]):
            extra += 5
    p = make_room(out, p, extra + 1 + room)
    if extra:
        p = escape_in_place(out.data + start, size, extra)
    p[0] = c'"'
    return p + 1


cdef char* escape_in_place(char* text, Py_ssize_t size, Py_ssize_t extra) noexcept nogil:
    """Escape a text, after which `extra` bytes are free. Return where it ends then."""
    cdef Py_ssize_t i
    cdef char* q = text
    cdef char* moved = text + extra
    for i in range(size - 1, -1, -1):
        moved[i] = text[i]
    for i in range(size):
        if is_special(<unsigned char>moved[i]):
            q = put_escape(q, moved[i])
        else:
            q[0] = moved[i]
            q += 1
    return q


cdef char* put_json(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    """Write the value at `at`, which includes the column's offset. json_refusal() has no reason against it."""
    if c.kind == NULLS or is_missing(c, at):
        p = make_room(out, p, 4 + room)
        memcpy(p, b"null", 4)
        return p + 4
    if c.kind == DICTIONARY:
        return put_json(out, p, c.dictionary, dictionary_index(c, at), room)
    if INT8 <= c.kind <= UINT64:
        return put_plain(out, p, c, at, room)
    if FLOAT16 <= c.kind <= FLOAT64:
        if not isfinite(read_float(c, at)):
            with gil:
                refuse(c, "JSON has no NaN and no infinities")
        return put_plain(out, p, c, at, room)
    if c.kind == BOOL:
        return put_bool(out, p, c, at, room)
    if c.kind == STRUCT:
        return put_struct(out, p, c, at, room)
    if c.kind == MAP:
        return put_map(out, p, c, at, room)
    if c.kind in (LIST, LARGE_LIST, FIXED_LIST):
        return put_list(out, p, c, at, room)
    return put_quoted(out, p, c, at, room)


cdef char* put_json_fields(
    OutputBuffer out, char* p, Column* columns, Literal* names, Py_ssize_t count, int64_t at
) except NULL nogil:
    """Write an object of the columns' values in the row `at`. There is room for a byte at `p`.

    Each name is JSON, with its colon, and from the second one on with the comma before it.
    """
    cdef Py_ssize_t i
    p[0] = c'{'
    p += 1
    for i in range(count):
        p = put_literal(out, p, &names[i], SHORT_ROOM)
        p = put_json(out, p, &columns[i], at + columns[i].offset, SHORT_ROOM)
    p[0] = c'}'
    return p + 1


cdef char* put_bool(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    p = put_plain(out, p, c, at, SHORT_ROOM + room)
    if (p - 1)[0] == c'1':
        memcpy(p - 1, b"true", 4)
        return p + 3
    memcpy(p - 1, b"false", 5)
    return p + 4


cdef char* put_struct(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Column* child
    cdef const char* name
    cdef Py_ssize_t size = 0
    cdef int64_t i
    p = make_room(out, p, SHORT_ROOM)
    p[0] = c'{'
    p += 1
    for i in range(c.n_children):
        child = &c.children[i]
        if i:
            p[0] = c','
            p += 1
        name = raw_name(child, &size)
        p = put_string(out, p, name, size, SHORT_ROOM)
        p[0] = c':'
        p = put_json(out, p + 1, child, at + child.offset, SHORT_ROOM)
    p[0] = c'}'
    return make_room(out, p + 1, room)


cdef char* put_map(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
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
    start += item.offset
    p = make_room(out, p, SHORT_ROOM)
    p[0] = c'{'
    p += 1
    for i in range(count):
        if i:
            p[0] = c','
            p += 1
        if is_missing(key, start + i + key.offset):
            with gil:
                refuse(c, "a key of a map is null")
        begin = p - out.data
        p = put_json(out, p, key, start + i + key.offset, SHORT_ROOM)
        c.keys[i].begin = begin
        c.keys[i].size = p - out.data - begin
        fill_word(&c.keys[i], key, start + i + key.offset, out.data + begin)
        p[0] = c':'
        p = put_json(out, p + 1, value, start + i + value.offset, SHORT_ROOM)
    p[0] = c'}'
    p = make_room(out, p + 1, room)
    if count > 1:
        check_keys(c, out.data, count)
    return p


cdef char* put_list(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil:
    cdef Column* item = c.children
    cdef int64_t start = 0
    cdef int64_t stop = 0
    cdef int64_t i
    find_items(c, at, &start, &stop)
    p = make_room(out, p, SHORT_ROOM)
    p[0] = c'['
    p += 1
    for i in range(start + item.offset, stop + item.offset):
        if i > start + item.offset:
            p[0] = c','
            p += 1
        p = put_json(out, p, item, i, SHORT_ROOM)
    p[0] = c']'
    return make_room(out, p + 1, room)
