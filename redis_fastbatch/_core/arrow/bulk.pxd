# cython: language_level=3
"""Writes and reads the bulk strings of the commands that carry rows."""

from redis_fastbatch._core.arrow.values cimport make_room
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.utf8 cimport copy_short


cdef struct Literal:
    const char* data        # in a bytes object that the owner keeps alive
    Py_ssize_t size


cdef Literal literal(bytes given) noexcept
cdef char* close_bulk(OutputBuffer out, char* p, Py_ssize_t header, Py_ssize_t* width) except NULL nogil
cdef const char* after_bulk(const char* p, const char** data, Py_ssize_t* size) noexcept


cdef inline char* put_literal(OutputBuffer out, char* p, Literal* given, Py_ssize_t room) except NULL nogil:
    """Write the literal, and make room for `room` bytes after it."""
    p = make_room(out, p, given.size + room)
    copy_short(p, given.data, given.size)
    return p + given.size
