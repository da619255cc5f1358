# cython: language_level=3
"""Reads the numbers of MessagePack, whose first byte is the highest."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline uint16_t big16(const uint8_t* p) noexcept nogil:
    return (<uint16_t>p[0] << 8) | p[1]


cdef inline uint32_t big32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t big64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>big32(p) << 32) | big32(p + 4)
