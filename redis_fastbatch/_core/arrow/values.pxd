# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef char* put_value(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil
cdef char* put_plain(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil


cdef inline char* make_room(OutputBuffer out, char* p, Py_ssize_t size) except NULL nogil:
    """Make room for `size` bytes at `p`, which is the end of `out`; return where the end is then."""
    if out.capacity - (p - out.data) < size:
        out.end = p - out.data
        out.grow(size)
        return out.data + out.end
    return p
