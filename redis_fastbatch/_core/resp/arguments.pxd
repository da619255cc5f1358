# cython: language_level=3
"""Appends the usual arguments of commands to a buffer, as redis-py packs them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport uint64_t

from redis_fastbatch._core.resp.framing cimport MAX_BULK, append_bulk, digits, put_header
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.runtime.floats cimport put_float
from redis_fastbatch._core.runtime.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    PyUnicode_KIND,
    put_utf8,
    utf8_size,
)

cdef enum:
    ARGUMENT_HEADER = 32    # room for the header of an argument and the CRLF after it
    NUMBER_ROOM = 64


cdef inline bint append_argument(OutputBuffer out, object argument) except -1:
    """Append a str as UTF-8, bytes, an int of 64 bits or a float.

    Return False for any other argument: of another type or a subclass, a larger int, text with a surrogate, or one
    that is longer than Redis takes. Then nothing is appended.
    """
    cdef char[NUMBER_ROOM] text
    cdef char* end
    cdef uint64_t size
    cdef long long number
    cdef int overflow = 0
    if PyUnicode_CheckExact(argument):
        return append_text(out, argument)
    if PyBytes_CheckExact(argument):
        if PyBytes_GET_SIZE(argument) > MAX_BULK:
            return False
        append_bulk(out, PyBytes_AS_STRING(argument), PyBytes_GET_SIZE(argument))
        return True
    if PyLong_CheckExact(argument):
        number = PyLong_AsLongLongAndOverflow(argument, &overflow)
        if overflow:
            return False
        # The absolute value of the least number is not a long long.
        size = <uint64_t>number
        end = put_decimal_int(text, 0 - size if number < 0 else size, number < 0)
    elif PyFloat_CheckExact(argument):
        end = put_float(text, PyFloat_AS_DOUBLE(argument))
    else:
        return False
    append_bulk(out, text, end - text)
    return True


cdef inline bint append_text(OutputBuffer out, object text) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef Py_ssize_t size = length
    cdef int kind
    cdef char* p
    if PyUnicode_IS_COMPACT_ASCII(text) and length <= MAX_BULK:
        append_bulk(out, <const char*>PyUnicode_DATA(text), length)
        return True
    kind = PyUnicode_KIND(text)
    size = utf8_size(kind, PyUnicode_DATA(text), length)
    if not 0 <= size <= MAX_BULK:
        return False
    reserve(out, size + ARGUMENT_HEADER)
    p = put_header(out.data + out.end, c'$', size, digits(size))
    p = put_utf8(p, kind, PyUnicode_DATA(text), length)
    p[0] = c'\r'
    p[1] = c'\n'
    out.end = p + 2 - out.data
    return True
