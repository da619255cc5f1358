# cython: language_level=3
"""Encodes UTF-8 from the storage of a str, so that the str caches no copy, and checks whether bytes are UTF-8."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum:
    LONGEST_SHORT = 256    # the most bytes that are copied without a call


cdef extern from *:
    """
    #define FASTBATCH_NOT_ASCII 0x8080808080808080ULL
    """
    uint64_t NOT_ASCII "FASTBATCH_NOT_ASCII"    # the bit of each byte that is set if it is not ASCII


cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    uint32_t PyUnicode_READ(int kind, void* text, Py_ssize_t index) noexcept nogil


cdef inline Py_ssize_t high_bits(const unsigned char* text, Py_ssize_t length) noexcept nogil:
    """Return how many bytes are not ASCII. Compilers vectorize this loop, because it has no branches."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    for i in range(length):
        count += text[i] >> 7
    return count


cdef inline Py_ssize_t utf8_size(int kind, const void* text, Py_ssize_t length) noexcept nogil:
    """Return the size of the code points in UTF-8, in bytes; -1 - i if code point i is a surrogate."""
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    cdef uint32_t c
    if kind == 1:
        return length + high_bits(<const unsigned char*>text, length)
    for i in range(length):
        c = (<const uint16_t*>text)[i] if kind == 2 else (<const uint32_t*>text)[i]
        if c < 0x80:
            size += 1
        elif c < 0x800:
            size += 2
        elif c < 0x10000:
            if 0xD800 <= c <= 0xDFFF:
                return -1 - i
            size += 3
        else:
            size += 4
    return size


cdef inline char* put_code_point(char* p, uint32_t c) noexcept nogil:
    if c < 0x80:
        p[0] = <char>c
        return p + 1
    if c < 0x800:
        p[0] = <char>(0xC0 | (c >> 6))
        p[1] = <char>(0x80 | (c & 0x3F))
        return p + 2
    if c < 0x10000:
        p[0] = <char>(0xE0 | (c >> 12))
        p[1] = <char>(0x80 | ((c >> 6) & 0x3F))
        p[2] = <char>(0x80 | (c & 0x3F))
        return p + 3
    p[0] = <char>(0xF0 | (c >> 18))
    p[1] = <char>(0x80 | ((c >> 12) & 0x3F))
    p[2] = <char>(0x80 | ((c >> 6) & 0x3F))
    p[3] = <char>(0x80 | (c & 0x3F))
    return p + 4


cdef inline char* put_latin1(char* p, const unsigned char* text, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    while i < length:
        if length - i >= 8:
            memcpy(&word, text + i, 8)
            if not word & NOT_ASCII:
                memcpy(p, &word, 8)
                p += 8
                i += 8
                continue
        p = put_code_point(p, text[i])
        i += 1
    return p


cdef inline char* put_utf8(char* p, int kind, const void* text, Py_ssize_t length) noexcept nogil:
    """Write the bytes that utf8_size() counted. Return the place after them."""
    cdef Py_ssize_t i
    if kind == 1:
        return put_latin1(p, <const unsigned char*>text, length)
    for i in range(length):
        if kind == 2:
            p = put_code_point(p, (<const uint16_t*>text)[i])
        else:
            p = put_code_point(p, (<const uint32_t*>text)[i])
    return p


cdef inline bint is_ascii(const char* p, Py_ssize_t size) noexcept nogil:
    cdef const char* last
    cdef uint64_t word
    cdef uint32_t head, tail
    if size >= 8:
        last = p + size - 8
        while p < last:
            memcpy(&word, p, 8)
            if word & NOT_ASCII:
                return False
            p += 8
        memcpy(&word, last, 8)
        return not word & NOT_ASCII
    if size >= 4:
        memcpy(&head, p, 4)
        memcpy(&tail, p + size - 4, 4)
        return not (head | tail) & <uint32_t>0x80808080
    while size > 0:
        size -= 1
        if p[size] & 0x80:
            return False
    return True


cdef extern from *:
    """
    typedef struct { char bytes[16]; } fastbatch_block;
    """
    ctypedef struct fastbatch_block:
        char bytes[16]


cdef inline void copy_short(char* target, const char* source, Py_ssize_t size) noexcept nogil:
    """Copy the few bytes of a field: up to 32 by two overlapping moves, without a call of memcpy()."""
    cdef uint64_t head, tail
    cdef unsigned int head4, tail4
    cdef fastbatch_block head16, tail16
    if 8 <= size <= 16:
        memcpy(&head, source, 8)
        memcpy(&tail, source + size - 8, 8)
        memcpy(target, &head, 8)
        memcpy(target + size - 8, &tail, 8)
    elif 4 <= size < 8:
        memcpy(&head4, source, 4)
        memcpy(&tail4, source + size - 4, 4)
        memcpy(target, &head4, 4)
        memcpy(target + size - 4, &tail4, 4)
    elif size > 32:
        memcpy(target, source, size)
    elif size > 16:
        memcpy(&head16, source, 16)
        memcpy(&tail16, source + size - 16, 16)
        memcpy(target, &head16, 16)
        memcpy(target + size - 16, &tail16, 16)
    else:
        while size > 0:
            size -= 1
            target[size] = source[size]


cdef inline bint copy_ascii(char* target, const char* source, Py_ssize_t size) noexcept nogil:
    """Copy as copy_short() does. Return whether all of the bytes are ASCII."""
    cdef uint64_t head, tail
    cdef uint32_t head4, tail4
    cdef char seen = 0
    if 8 <= size <= 16:
        memcpy(&head, source, 8)
        memcpy(&tail, source + size - 8, 8)
        memcpy(target, &head, 8)
        memcpy(target + size - 8, &tail, 8)
        return not (head | tail) & NOT_ASCII
    if 4 <= size < 8:
        memcpy(&head4, source, 4)
        memcpy(&tail4, source + size - 4, 4)
        memcpy(target, &head4, 4)
        memcpy(target + size - 4, &tail4, 4)
        return not (head4 | tail4) & <uint32_t>0x80808080
    if size > 16:
        copy_short(target, source, size)
        return is_ascii(target, size)
    while size > 0:
        size -= 1
        seen |= source[size]
        target[size] = source[size]
    return not seen & 0x80


cdef bint is_utf8(const char* text, Py_ssize_t size) noexcept nogil


cdef inline void copy_blocks(char* target, const char* source, Py_ssize_t size) noexcept nogil:
    """Copy more than 16 bytes. Where a compiler knows that the size is small it turns memcpy() into `rep movs`,
    which takes longer to start than this whole loop."""
    cdef uint64_t first, second
    if size > LONGEST_SHORT:
        memcpy(target, source, size)
        return
    while size > 16:
        memcpy(&first, source, 8)
        memcpy(&second, source + 8, 8)
        memcpy(target, &first, 8)
        memcpy(target + 8, &second, 8)
        target += 16
        source += 16
        size -= 16
    memcpy(&first, source + size - 16, 8)
    memcpy(&second, source + size - 8, 8)
    memcpy(target + size - 16, &first, 8)
    memcpy(target + size - 8, &second, 8)


cdef inline bint same_bytes(const char* a, const char* b, Py_ssize_t size) noexcept nogil:
    """Return whether the few bytes of two field names are equal."""
    cdef uint64_t a8, b8
    cdef unsigned int a4, b4
    while size > 8:
        memcpy(&a8, a, 8)
        memcpy(&b8, b, 8)
        if a8 != b8:
            return False
        a += 8
        b += 8
        size -= 8
    if size >= 4:
        memcpy(&a4, a, 4)
        memcpy(&b4, b, 4)
        if a4 != b4:
            return False
        memcpy(&a4, a + size - 4, 4)
        memcpy(&b4, b + size - 4, 4)
        return a4 == b4
    while size > 0:
        size -= 1
        if a[size] != b[size]:
            return False
    return True
