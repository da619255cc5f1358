# cython: language_level=3
"""Memory that grows at its end, for the buffers of columns."""

from cpython.mem cimport PyMem_RawRealloc
from libc.string cimport memset


cdef int grow_memory(Memory* m, Py_ssize_t extra) except -1:
    cdef Py_ssize_t capacity = m.capacity if m.capacity else 64
    cdef char* moved
    while capacity - m.size < extra:
        capacity *= 2
    moved = <char*>PyMem_RawRealloc(m.data, capacity)
    if moved == NULL:
        raise MemoryError()
    m.data = moved
    m.capacity = capacity
    return 0


cdef int append_zeros(Memory* m, Py_ssize_t size) except -1:
    reserve_memory(m, size)
    # Empty memory has the address NULL, which memset() must not get, even for a size of 0.
    if size:
        memset(m.data + m.size, 0, size)
    m.size += size
    return 0
