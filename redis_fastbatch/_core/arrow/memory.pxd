# cython: language_level=3
"""Memory that grows at its end, for the buffers of columns."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef struct Memory:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity


cdef int grow_memory(Memory* m, Py_ssize_t extra) except -1
cdef int append_zeros(Memory* m, Py_ssize_t size) except -1


cdef inline int reserve_memory(Memory* m, Py_ssize_t extra) except -1:
    if m.capacity - m.size < extra:
        return grow_memory(m, extra)
    return 0


cdef inline int push64(Memory* m, uint64_t word) except -1:
    reserve_memory(m, 8)
    memcpy(m.data + m.size, &word, 8)
    m.size += 8
    return 0


cdef inline int push8(Memory* m, uint8_t byte) except -1:
    reserve_memory(m, 1)
    m.data[m.size] = <char>byte
    m.size += 1
    return 0
