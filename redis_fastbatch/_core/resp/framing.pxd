# cython: language_level=3
"""The headers and bulk strings of RESP, without the GIL."""

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.runtime.utf8 cimport copy_short

cdef enum:
    # The default of proto-max-bulk-len: for a longer argument the server closes the connection.
    MAX_BULK = 536870912


cdef inline Py_ssize_t digits(Py_ssize_t number) noexcept nogil:
    cdef Py_ssize_t count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


cdef inline char* put_header(char* p, char mark, Py_ssize_t number, Py_ssize_t width) noexcept nogil:
    """Write `mark`, a number of `width` digits and CRLF. Return the place after them."""
    cdef char* q = p + width
    p[0] = mark
    while q > p:
        q[0] = <char>(c'0' + number % 10)
        number //= 10
        q -= 1
    p[width + 1] = c'\r'
    p[width + 2] = c'\n'
    return p + width + 3


cdef inline int append_bulk(OutputBuffer out, const char* data, Py_ssize_t size) except -1 nogil:
    """Append a bulk string. The caller has checked that it is not longer than MAX_BULK."""
    cdef char* p
    reserve(out, size + 32)
    p = put_header(out.data + out.end, c'$', size, digits(size))
    copy_short(p, data, size)
    p[size] = c'\r'
    p[size + 1] = c'\n'
    out.end = p + size + 2 - out.data
    return 0
