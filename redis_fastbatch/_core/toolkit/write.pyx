# cython: language_level=3
"""Writes redis-toolkit's JSON, in the spelling of `json.dumps(wrapper, ensure_ascii=False)`.

A value becomes {"__type__": <the type's name>, "__data__": <the value>}. Bytes are base64; bytes inside containers
have wrappers of their own. The order of the type checks decides for classes with several bases: outside it is the
toolkit's order, inside containers json's.
"""

from cpython.bytearray cimport PyByteArray_Check
from cpython.bytes cimport PyBytes_Check, PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_Check, PyDict_CheckExact, PyDict_Next, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check, PyFloat_CheckExact
from cpython.list cimport PyList_Check, PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_Check, PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.toolkit.base64 cimport put_base64
from redis_fastbatch._core.json.floats cimport LONGEST_FLOAT, put_float
from redis_fastbatch._core.json.text cimport copy_plain, decimal_width, is_special, put_digits
from redis_fastbatch._core.runtime.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    PyUnicode_KIND,
    PyUnicode_READ,
    put_code_point,
)

from redis_fastbatch._core.json.unusual import Unusual
from redis_fastbatch.errors import EncodeError

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    MAX_DEPTH = 200      # json.dumps handles deeper values and containers that contain themselves
    ESCAPED = 6          # longest form of one character, such as \u001f
    TEXT_BLOCK = 1024

cdef const char* HEX = "0123456789abcdef"


cdef int write_wrapper(object value, OutputBuffer out) except -1:
    """Append the bytes of a whole value.

    Raises:
        EncodeError: the value cannot be written.
        Unusual: plain.py has to decide.
    """
    if PyDict_CheckExact(value):
        put(out, b'{"__type__": "dict", "__data__": ')
    elif PyUnicode_CheckExact(value):
        put(out, b'{"__type__": "str", "__data__": ')
    elif value is None:
        return put(out, b"__NONE__")
    elif value is True or value is False:
        put(out, b'{"__type__": "bool", "__data__": ')
    elif PyBytes_Check(value) or PyByteArray_Check(value):
        # Only inside a container does a bytearray stay one.
        return put_bytes(value, out, b"bytes")
    elif PyLong_CheckExact(value):
        put(out, b'{"__type__": "int", "__data__": ')
    elif PyFloat_CheckExact(value):
        put(out, b'{"__type__": "float", "__data__": ')
    elif PyList_CheckExact(value):
        put(out, b'{"__type__": "list", "__data__": ')
    elif is_json(value):
        put(out, b'{"__type__": ')
        write(type(value).__name__, out, 0)
        put(out, b', "__data__": ')
    else:
        raise Unusual
    write(value, out, 0)
    return put(out, b"}")


cdef inline bint is_json(object value):
    return (
        PyUnicode_Check(value)
        or PyLong_Check(value)
        or PyFloat_Check(value)
        or PyDict_Check(value)
        or PyList_Check(value)
        or PyTuple_Check(value)
    )


cdef inline int put(OutputBuffer out, bytes text) except -1:
    reserve(out, PyBytes_GET_SIZE(text))
    memcpy(out.data + out.end, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    out.end += PyBytes_GET_SIZE(text)
    return 0


cdef int write(object value, OutputBuffer out, int depth) except -1:
    """Append a value inside the wrapper."""
    if PyUnicode_CheckExact(value):
        return put_str(value, out)
    if PyLong_CheckExact(value):
        return put_int(value, out)
    if PyFloat_CheckExact(value):
        return put_double(PyFloat_AS_DOUBLE(value), out)
    if value is None:
        return put(out, b"null")
    if value is True:
        return put(out, b"true")
    if value is False:
        return put(out, b"false")
    if depth >= MAX_DEPTH:
        raise Unusual
    if PyDict_CheckExact(value):
        return put_dict(<dict>value, out, depth + 1)
    if PyList_CheckExact(value):
        return put_list(<list>value, out, depth + 1)
    if PyTuple_CheckExact(value):
        return put_tuple(<tuple>value, out, depth + 1)
    return write_other(value, out, depth)


cdef int write_other(object value, OutputBuffer out, int depth) except -1:
    """Append a value of a less common type: a subclass, or bytes."""
    if PyUnicode_Check(value):
        return put_str(value, out)
    if PyLong_Check(value):
        return put_int(value, out)
    if PyFloat_Check(value):
        return put_double(PyFloat_AS_DOUBLE(value), out)
    if PyList_Check(value) or PyTuple_Check(value):
        return put_tuple(tuple(value), out, depth + 1)
    if PyDict_Check(value):
        return put_pairs(value, out, depth + 1)
    if PyBytes_Check(value):
        return put_bytes(value, out, b"bytes")
    if PyByteArray_Check(value):
        return put_bytes(value, out, b"bytearray")
    unwritable(f"the toolkit's JSON has no type for {type(value).__name__}")


cdef inline int put_str(object text, OutputBuffer out) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef Py_ssize_t done = 0
    cdef char* p
    reserve(out, length + 2)
    p = out.data + out.end
    p[0] = c'"'
    if PyUnicode_IS_COMPACT_ASCII(text):
        done = copy_plain(p + 1, <const char*>PyUnicode_DATA(text), length)
        if done == length:
            p[length + 1] = c'"'
            out.end += length + 2
            return 0
    out.end += 1 + done
    put_characters(text, done, out)
    return put(out, b'"')


cdef int put_characters(object text, Py_ssize_t i, OutputBuffer out) except -1:
    """Append the text from character `i` on, escaped where needed."""
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t stop
    cdef uint32_t c
    cdef char* p
    while i < length:
        stop = min(i + TEXT_BLOCK, length)
        reserve(out, (stop - i) * ESCAPED)
        p = out.data + out.end
        while i < stop:
            c = PyUnicode_READ(kind, data, i)
            if c < 0x80:
                if is_special(c):
                    p = put_escape(p, c)
                else:
                    p[0] = <char>c
                    p += 1
            elif 0xD800 <= c <= 0xDFFF:
                surrogate(text, i)
            else:
                p = put_code_point(p, c)
            i += 1
        out.end = p - out.data
    return 0


cdef char* put_escape(char* p, uint32_t c) noexcept:
    p[0] = c'\\'
    if c == c'"' or c == c'\\':
        p[1] = <char>c
    elif c == 0x0A:
        p[1] = c'n'
    elif c == 0x0D:
        p[1] = c'r'
    elif c == 0x09:
        p[1] = c't'
    elif c == 0x0C:
        p[1] = c'f'
    elif c == 0x08:
        p[1] = c'b'
    else:
        p[1] = c'u'
        p[2] = c'0'
        p[3] = c'0'
        p[4] = HEX[c >> 4]
        p[5] = HEX[c & 15]
        return p + 6
    return p + 2


cdef inline int put_int(object number, OutputBuffer out) except -1:
    cdef int overflow
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    cdef uint64_t size
    cdef Py_ssize_t width
    if overflow:
        return put_large(number, out)
    reserve(out, 24)
    size = <uint64_t>value
    if value < 0:
        size = 0 - size
        out.data[out.end] = c'-'
        out.end += 1
    width = decimal_width(size)
    put_digits(out.data + out.end, size, width)
    out.end += width
    return 0


cdef int put_large(object number, OutputBuffer out) except -1:
    try:
        text = int.__repr__(number).encode()
    except ValueError as error:
        # Python limits the digits that it writes: see sys.set_int_max_str_digits().
        raise EncodeError(f"an int of {number.bit_length()} bits: {error}") from error
    return put(out, text)


cdef inline int put_double(double number, OutputBuffer out) except -1:
    reserve(out, LONGEST_FLOAT)
    out.end = put_float(out.data + out.end, number) - out.data
    return 0


cdef int put_bytes(object value, OutputBuffer out, bytes name) except -1:
    cdef Py_buffer view
    put(out, b'{"__type__": "')
    put(out, name)
    put(out, b'", "__data__": "')
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        put_base64(out, <const unsigned char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return put(out, b'"}')


cdef int put_key(object key, OutputBuffer out) except -1:
    """Append a dict's key, which is always a string in JSON, and the colon."""
    if PyUnicode_Check(key):
        put_str(key, out)
    else:
        put(out, b'"')
        if PyFloat_Check(key):
            put_double(PyFloat_AS_DOUBLE(key), out)
        elif key is True:
            put(out, b"true")
        elif key is False:
            put(out, b"false")
        elif key is None:
            put(out, b"null")
        elif PyLong_Check(key):
            put_int(key, out)
        else:
            unwritable(f"a key of a dict must be str, int, float, bool or None for JSON, got {type(key).__name__}")
        put(out, b'"')
    return put(out, b": ")


cdef int unwritable(str reason) except -1:
    """Refuse a value with the TypeError that json.dumps() and the toolkit raise as the cause."""
    raise EncodeError(reason) from TypeError(reason)


cdef int surrogate(object text, Py_ssize_t place) except -1:
    """Refuse a text with the error that str.encode() and the toolkit raise as the cause."""
    raise EncodeError(
        f"a str holds the surrogate {text[place]!r} at index {place}, not UTF-8"
    ) from UnicodeEncodeError("utf-8", text, place, place + 1, "surrogates not allowed")


cdef int changed_size(str what) except -1:
    raise EncodeError(f"{what} changed size while it was encoded")


cdef inline int put_opening(OutputBuffer out, char opening, bint first) except -1:
    """Append the opening bracket before the first item, a comma before any other."""
    reserve(out, 2)
    if first:
        out.data[out.end] = opening
        out.end += 1
    else:
        out.data[out.end] = c','
        out.data[out.end + 1] = c' '
        out.end += 2
    return 0


cdef int put_dict(dict mapping, OutputBuffer out, int depth) except -1:
    cdef Py_ssize_t count = PyDict_Size(mapping)
    cdef Py_ssize_t written = 0
    cdef Py_ssize_t position = 0
    cdef PyObject* next_key
    cdef PyObject* next_value
    cdef object key, value
    if count == 0:
        return put(out, b"{}")
    while PyDict_Next(mapping, &position, &next_key, &next_value):
        key = <object>next_key
        value = <object>next_value
        put_opening(out, c'{', written == 0)
        put_key(key, out)
        write(value, out, depth)
        written += 1
        if PyDict_Size(mapping) != count:
            break
    if written != count or PyDict_Size(mapping) != count:
        changed_size("a dict")
    return put(out, b"}")


cdef int put_pairs(object mapping, OutputBuffer out, int depth) except -1:
    """Append a dict of a subclass from its items(). It is empty if dict says so: json checks that first."""
    cdef Py_ssize_t written = 0
    if PyDict_Size(mapping) == 0:
        return put(out, b"{}")
    for item in list(mapping.items()):
        if not PyTuple_Check(item) or PyTuple_GET_SIZE(item) != 2:
            raise EncodeError(f"items() of {type(mapping).__name__} must return pairs")
        put_opening(out, c'{', written == 0)
        put_key(<object>PyTuple_GET_ITEM(item, 0), out)
        write(<object>PyTuple_GET_ITEM(item, 1), out, depth)
        written += 1
    return put(out, b"}" if written else b"{}")


cdef int put_list(list items, OutputBuffer out, int depth) except -1:
    cdef Py_ssize_t count = PyList_GET_SIZE(items)
    cdef Py_ssize_t i
    cdef object item
    if count == 0:
        return put(out, b"[]")
    for i in range(count):
        if PyList_GET_SIZE(items) != count:
            changed_size("a list")
        item = <object>PyList_GET_ITEM(items, i)
        put_opening(out, c'[', i == 0)
        write(item, out, depth)
    if PyList_GET_SIZE(items) != count:
        changed_size("a list")
    return put(out, b"]")


cdef int put_tuple(tuple items, OutputBuffer out, int depth) except -1:
    cdef Py_ssize_t count = PyTuple_GET_SIZE(items)
    cdef Py_ssize_t i
    if count == 0:
        return put(out, b"[]")
    for i in range(count):
        put_opening(out, c'[', i == 0)
        write(<object>PyTuple_GET_ITEM(items, i), out, depth)
    return put(out, b"]")
