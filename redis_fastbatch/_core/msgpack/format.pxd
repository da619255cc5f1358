# cython: language_level=3
"""Writes the formats of MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) without the GIL.

Every function writes at `p`, in the shortest format that holds the value, and returns the position after it. The
caller must reserve the bytes before: at most 9 for a scalar, 5 for a header, 6 for the header of an extension.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline char* put_u8(char* p, int marker, unsigned int value) noexcept nogil:
    p[0] = <char>marker
    p[1] = <char>value
    return p + 2


cdef inline char* put_u16(char* p, int marker, uint16_t value) noexcept nogil:
    p[0] = <char>marker
    p[1] = <char>(value >> 8)
    p[2] = <char>value
    return p + 3


cdef inline char* put_big32(char* p, uint32_t value) noexcept nogil:
    p[0] = <char>(value >> 24)
    p[1] = <char>(value >> 16)
    p[2] = <char>(value >> 8)
    p[3] = <char>value
    return p + 4


cdef inline char* put_big64(char* p, uint64_t value) noexcept nogil:
    return put_big32(put_big32(p, <uint32_t>(value >> 32)), <uint32_t>value)


cdef inline char* put_u32(char* p, int marker, uint32_t value) noexcept nogil:
    p[0] = <char>marker
    return put_big32(p + 1, value)


cdef inline char* put_u64(char* p, int marker, uint64_t value) noexcept nogil:
    p[0] = <char>marker
    return put_big64(p + 1, value)


cdef inline char* put_nil(char* p) noexcept nogil:
    p[0] = <char>0xC0
    return p + 1


cdef inline char* put_bool(char* p, bint value) noexcept nogil:
    p[0] = <char>(0xC3 if value else 0xC2)
    return p + 1


cdef inline char* put_uint(char* p, uint64_t value) noexcept nogil:
    if value < 0x80:
        p[0] = <char>value
        return p + 1
    if value <= 0xFF:
        return put_u8(p, 0xCC, <unsigned int>value)
    if value <= 0xFFFF:
        return put_u16(p, 0xCD, <uint16_t>value)
    if value <= <uint64_t>0xFFFFFFFF:
        return put_u32(p, 0xCE, <uint32_t>value)
    return put_u64(p, 0xCF, value)


cdef inline char* put_int(char* p, int64_t value) noexcept nogil:
    if value >= 0:
        return put_uint(p, <uint64_t>value)
    if value >= -32:
        p[0] = <char>value
        return p + 1
    if value >= -0x80:
        return put_u8(p, 0xD0, <unsigned int>value)
    if value >= -0x8000:
        return put_u16(p, 0xD1, <uint16_t>value)
    if value >= -<int64_t>0x80000000:
        return put_u32(p, 0xD2, <uint32_t>value)
    return put_u64(p, 0xD3, <uint64_t>value)


cdef inline char* put_double(char* p, double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return put_u64(p, 0xCB, bits)


cdef inline char* put_str_header(char* p, uint32_t size) noexcept nogil:
    if size < 32:
        p[0] = <char>(0xA0 | size)
        return p + 1
    if size <= 0xFF:
        return put_u8(p, 0xD9, size)
    if size <= 0xFFFF:
        return put_u16(p, 0xDA, <uint16_t>size)
    return put_u32(p, 0xDB, size)


cdef inline char* put_bin_header(char* p, uint32_t size) noexcept nogil:
    if size <= 0xFF:
        return put_u8(p, 0xC4, size)
    if size <= 0xFFFF:
        return put_u16(p, 0xC5, <uint16_t>size)
    return put_u32(p, 0xC6, size)


cdef inline char* put_array_header(char* p, uint32_t count) noexcept nogil:
    if count < 16:
        p[0] = <char>(0x90 | count)
        return p + 1
    if count <= 0xFFFF:
        return put_u16(p, 0xDC, <uint16_t>count)
    return put_u32(p, 0xDD, count)


cdef inline char* put_map_header(char* p, uint32_t count) noexcept nogil:
    if count < 16:
        p[0] = <char>(0x80 | count)
        return p + 1
    if count <= 0xFFFF:
        return put_u16(p, 0xDE, <uint16_t>count)
    return put_u32(p, 0xDF, count)


cdef inline char* put_ext_header(char* p, int code, uint32_t size) noexcept nogil:
    if size == 1:
        p[0] = <char>0xD4
    elif size == 2:
        p[0] = <char>0xD5
    elif size == 4:
        p[0] = <char>0xD6
    elif size == 8:
        p[0] = <char>0xD7
    elif size == 16:
        p[0] = <char>0xD8
    else:
        if size <= 0xFF:
            p = put_u8(p, 0xC7, size)
        elif size <= 0xFFFF:
            p = put_u16(p, 0xC8, <uint16_t>size)
        else:
            p = put_u32(p, 0xC9, size)
        p[0] = <char>code
        return p + 1
    p[1] = <char>code
    return p + 2


cdef inline char* put_timestamp(char* p, int64_t seconds, uint32_t nanoseconds) noexcept nogil:
    """Write the timestamp extension (type -1), at most 15 bytes."""
    if seconds < 0 or seconds >> 34:
        p = put_ext_header(p, -1, 12)
        return put_big64(put_big32(p, nanoseconds), <uint64_t>seconds)
    if nanoseconds or seconds > <int64_t>0xFFFFFFFF:
        return put_big64(put_ext_header(p, -1, 8), (<uint64_t>nanoseconds << 34) | <uint64_t>seconds)
    return put_big32(put_ext_header(p, -1, 4), <uint32_t>seconds)
