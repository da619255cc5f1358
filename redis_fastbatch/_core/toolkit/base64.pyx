# cython: language_level=3
"""Base64 (RFC 4648, section 4), the form of bytes in the toolkit's JSON."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve

cdef const char* ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

cdef enum:
    NO_DIGIT = 0xFF

cdef unsigned char[256] DIGITS


cdef void fill_digits() noexcept:
    cdef int i
    for i in range(256):
        DIGITS[i] = NO_DIGIT
    for i in range(64):
        DIGITS[<unsigned char>ALPHABET[i]] = i


fill_digits()


cdef int put_base64(OutputBuffer out, const unsigned char* data, Py_ssize_t size) except -1:
    """Write the text of `size` bytes, padded."""
    cdef const unsigned char* end = data + size
    cdef uint32_t bits
    cdef char* p
    reserve(out, (size + 2) // 3 * 4)
    p = out.data + out.end
    while end - data >= 3:
        bits = (<uint32_t>data[0] << 16) | (<uint32_t>data[1] << 8) | data[2]
        p[0] = ALPHABET[bits >> 18]
        p[1] = ALPHABET[(bits >> 12) & 63]
        p[2] = ALPHABET[(bits >> 6) & 63]
        p[3] = ALPHABET[bits & 63]
        data += 3
        p += 4
    if data < end:
        bits = <uint32_t>data[0] << 16
        if end - data == 2:
            bits |= <uint32_t>data[1] << 8
        p[0] = ALPHABET[bits >> 18]
        p[1] = ALPHABET[(bits >> 12) & 63]
        p[2] = ALPHABET[(bits >> 6) & 63] if end - data == 2 else c'='
        p[3] = c'='
        p += 4
    out.end = p - out.data
    return 0


cdef object take_base64(const char* text, Py_ssize_t size):
    """Return the bytes of a padded text without foreign characters; None for any other text."""
    cdef const unsigned char* p = <const unsigned char*>text
    cdef const unsigned char* end = p + size
    cdef Py_ssize_t padding = 0
    cdef uint32_t a, b, c, d
    cdef uint32_t wrong = 0
    cdef unsigned char* target
    if size % 4:
        return None
    if size and end[-1] == c'=':
        padding = 2 if end[-2] == c'=' else 1
    made = PyBytes_FromStringAndSize(NULL, size // 4 * 3 - padding)
    target = <unsigned char*>PyBytes_AS_STRING(made)
    if padding:
        end -= 4
    while p < end:
        a, b, c, d = DIGITS[p[0]], DIGITS[p[1]], DIGITS[p[2]], DIGITS[p[3]]
        wrong |= a | b | c | d
        a = (a << 18) | (b << 12) | (c << 6) | d
        target[0] = <unsigned char>(a >> 16)
        target[1] = <unsigned char>(a >> 8)
        target[2] = <unsigned char>a
        p += 4
        target += 3
    if padding:
        a, b = DIGITS[p[0]], DIGITS[p[1]]
        c = DIGITS[p[2]] if padding == 1 else 0
        wrong |= a | b | c
        a = (a << 18) | (b << 12) | (c << 6)
        target[0] = <unsigned char>(a >> 16)
        if padding == 1:
            target[1] = <unsigned char>(a >> 8)
    # A digit is below 64, so a set top bit means that some byte was not a digit.
    return None if wrong & 0x80 else made
