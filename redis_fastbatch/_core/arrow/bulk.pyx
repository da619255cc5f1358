# cython: language_level=3
"""Writes and reads the bulk strings of the commands that carry rows."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memmove

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

from redis_fastbatch.errors import EncodeError

cdef Py_ssize_t MAX_BULK = 512 * 1024 * 1024


cdef inline Py_ssize_t digits(Py_ssize_t number) noexcept nogil:
    cdef Py_ssize_t count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


cdef int refuse_size(Py_ssize_t size) except -1 nogil:
    with gil:
        raise EncodeError(f"a key or value must have at most {MAX_BULK:,} bytes in Redis, found {size:,}")


cdef Literal literal(bytes given) noexcept:
    cdef Literal made
    made.data = PyBytes_AS_STRING(given)
    made.size = PyBytes_GET_SIZE(given)
    return made


cdef char* close_bulk(OutputBuffer out, char* p, Py_ssize_t header, Py_ssize_t* width) except NULL nogil:
    """Finish a bulk string: write its header, for which width[0] digits are free, at `header`, and its CRLF."""
    cdef char* start = out.data + header
    cdef Py_ssize_t size = p - start - width[0] - 3
    cdef Py_ssize_t actual
    cdef char* q
    if size > MAX_BULK:
        refuse_size(size)
    actual = digits(size)
    if actual != width[0]:
        memmove(start + actual + 3, start + width[0] + 3, size)
        p += actual - width[0]
        width[0] = actual
    start[0] = c'$'
    q = start + actual
    start[actual + 1] = c'\r'
    start[actual + 2] = c'\n'
    p[0] = c'\r'
    p[1] = c'\n'
    while q > start:
        q[0] = <char>(c'0' + size % 10)
        size //= 10
        q -= 1
    return p + 2


cdef const char* after_bulk(const char* p, const char** data, Py_ssize_t* size) noexcept:
    """Return the position after a bulk string that this module wrote; set where its bytes are."""
    size[0] = 0
    p += 1
    while p[0] != c'\r':
        size[0] = size[0] * 10 + (p[0] - c'0')
        p += 1
    data[0] = p + 2
    return p + 2 + size[0] + 2
