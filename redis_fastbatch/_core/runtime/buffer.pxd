# cython: language_level=3


cdef class OutputBuffer:
    """The bytes of one message, to which all writers append."""

    cdef char* data
    cdef Py_ssize_t start      # first byte that belongs to the message
    cdef Py_ssize_t end        # one past the last
    cdef Py_ssize_t capacity
    cdef Py_ssize_t exports    # memoryviews that exist: the memory must not move

    cdef int grow(self, Py_ssize_t extra) except -1 nogil
    cdef int append(self, const char* source, Py_ssize_t size) except -1 nogil
    cdef int shrink(self, Py_ssize_t capacity) except -1
    cdef void reset(self, Py_ssize_t headroom) noexcept nogil


cdef inline int reserve(OutputBuffer out, Py_ssize_t extra) except -1 nogil:
    """Make room for `extra` more bytes after `out.end`."""
    if out.capacity - out.end < extra:
        return out.grow(extra)
    return 0


cdef class ReceiveBuffer:
    """Received bytes. `position` moves on as replies are read."""

    cdef char* data
    cdef Py_ssize_t position   # first byte not yet read
    cdef Py_ssize_t end        # one past the last byte received
    cdef Py_ssize_t capacity
    cdef Py_ssize_t exports

    cdef int make_room(self, Py_ssize_t size) except -1
    cdef int make_space(self) except -1
    cdef int shrink(self, Py_ssize_t capacity) except -1
