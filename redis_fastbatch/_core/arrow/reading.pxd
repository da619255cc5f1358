# cython: language_level=3
"""Reads from MessagePack bytes, with checks of their length."""

from libc.stdint cimport uint8_t

from redis_fastbatch._core.msgpack.bigendian cimport big16, big32


cdef struct Reading:
    const uint8_t* begin
    const uint8_t* p
    const uint8_t* end


cdef int fail(Reading* r, str reason) except -1
cdef bytes take_name(Reading* r)
cdef int skip(Reading* r, int depth) except -1


cdef inline int need(Reading* r, Py_ssize_t size) except -1:
    if r.end - r.p < size:
        fail(r, f"expected {size} more bytes, found {r.end - r.p}")
    return 0


cdef inline Py_ssize_t take_length(Reading* r, int width) except -1:
    """Read a big-endian length of 1, 2 or 4 bytes."""
    cdef const uint8_t* p = r.p
    need(r, width)
    r.p += width
    if width == 1:
        return p[0]
    return big16(p) if width == 2 else big32(p)
