# cython: language_level=3
"""Writes integers in decimal, without the GIL. Every function writes at `p` and returns the position after it."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef inline char* put_digits(char* p, uint64_t number, int width) noexcept nogil:
    """Write the number in exactly `width` digits."""
    cdef int i = width
    while i > 0:
        i -= 1
        p[i] = <char>(c'0' + number % 10)
        number //= 10
    return p + width


cdef inline char* put_decimal_int(char* p, uint64_t magnitude, bint negative) noexcept nogil:
    """Write the number without leading zeros."""
    cdef char[20] digits
    cdef int size = 0
    if negative:
        p[0] = c'-'
        p += 1
    while True:
        size += 1
        digits[20 - size] = <char>(c'0' + magnitude % 10)
        magnitude //= 10
        if magnitude == 0:
            break
    memcpy(p, digits + 20 - size, size)
    return p + size
