# cython: language_level=3
"""Scans JSON strings eight bytes at a time."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(_MSC_VER)
    #include <intrin.h>
    static __inline int fastbatch_low_byte(uint64_t mask)
    {
        unsigned long index;
        _BitScanForward64(&index, mask);
        return (int)(index >> 3);
    }
    #else
    static inline int fastbatch_low_byte(uint64_t mask) { return __builtin_ctzll(mask) >> 3; }
    #endif

    /* Eight bytes, the first of them lowest. */
    static inline uint64_t fastbatch_load8(const char *p)
    {
        uint64_t word;
        memcpy(&word, p, 8);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
    #endif
        return word;
    }

    #define FASTBATCH_ONES 0x0101010101010101ULL
    #define FASTBATCH_TOPS 0x8080808080808080ULL

    /* Marks the bytes that a JSON string must escape: quote, backslash and control characters. Only the lowest
       mark is certain: a borrow may set one above it. */
    static inline uint64_t fastbatch_special(uint64_t word)
    {
        uint64_t quote = word ^ (FASTBATCH_ONES * 0x22);
        uint64_t slash = word ^ (FASTBATCH_ONES * 0x5C);
        return (((quote - FASTBATCH_ONES) & ~quote) | ((slash - FASTBATCH_ONES) & ~slash)
                | ((word - FASTBATCH_ONES * 0x20) & ~word)) & FASTBATCH_TOPS;
    }
    """
    int low_byte "fastbatch_low_byte" (uint64_t mask) noexcept nogil
    uint64_t load8 "fastbatch_load8" (const char* p) noexcept nogil
    uint64_t special "fastbatch_special" (uint64_t word) noexcept nogil


cdef inline bint is_special(unsigned char c) noexcept nogil:
    return c < 0x20 or c == c'"' or c == c'\\'


cdef inline const char* plain_end(const char* p, const char* end) noexcept nogil:
    """Return the end of the bytes that need no escape in a JSON string."""
    cdef uint64_t marks
    while end - p >= 8:
        marks = special(load8(p))
        if marks:
            return p + low_byte(marks)
        p += 8
    while p < end and not is_special(<unsigned char>p[0]):
        p += 1
    return p


cdef inline bint is_plain_ascii(uint64_t word) noexcept nogil:
    """Return whether eight bytes are ASCII that needs no escape in a JSON string."""
    return not (special(word) | (word & <uint64_t>0x8080808080808080))


cdef inline Py_ssize_t copy_plain(char* target, const char* text, Py_ssize_t size) noexcept nogil:
    """Copy ASCII up to the first byte that needs an escape; return how many bytes that were.

    Up to `size` bytes of `target` may be written.
    """
    cdef Py_ssize_t i = 0
    cdef uint64_t word, marks
    cdef uint32_t head, tail
    if size >= 8:
        while i + 8 <= size:
            marks = special(load8(text + i))
            memcpy(target + i, text + i, 8)
            if marks:
                return i + low_byte(marks)
            i += 8
        if i < size:
            # The last eight bytes; some of them were checked before.
            marks = special(load8(text + size - 8))
            memcpy(target + size - 8, text + size - 8, 8)
            return size - 8 + low_byte(marks) if marks else size
        return size
    if size >= 4:
        memcpy(&head, text, 4)
        memcpy(&tail, text + size - 4, 4)
        word = <uint64_t>head | (<uint64_t>tail << 32)
        if not special(word):
            memcpy(target, &head, 4)
            memcpy(target + size - 4, &tail, 4)
            return size
    while i < size and not is_special(<unsigned char>text[i]):
        target[i] = text[i]
        i += 1
    return i


cdef inline Py_ssize_t decimal_width(uint64_t number) noexcept nogil:
    cdef Py_ssize_t width = 1
    while number >= 10000:
        number //= 10000
        width += 4
    if number >= 1000:
        return width + 3
    if number >= 100:
        return width + 2
    return width + 1 if number >= 10 else width


cdef inline void put_digits(char* p, uint64_t number, Py_ssize_t width) noexcept nogil:
    """Write the lowest `width` decimal digits."""
    while width > 0:
        width -= 1
        p[width] = <char>(c'0' + number % 10)
        number //= 10
