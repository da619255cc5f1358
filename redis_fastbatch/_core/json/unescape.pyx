# cython: language_level=3
"""JSON strings with escapes."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from redis_fastbatch._core.json.text cimport plain_end
from redis_fastbatch._core.runtime.utf8 cimport put_code_point

from redis_fastbatch._core.json.unusual import Unusual


cdef inline int hex_digit(unsigned char c) noexcept:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef const char* string_end(const char* p, const char* end) noexcept:
    """Return the closing quote; NULL if there is none, or if the text has a control character."""
    while True:
        p = plain_end(p, end)
        if p >= end or <unsigned char>p[0] < 0x20:
            return NULL
        if p[0] == c'"':
            return p
        if end - p < 2:
            return NULL
        p += 2


cdef int code_unit(const char* p, const char* end) noexcept:
    """Return the number in an escape of four hexadecimal digits; -1 if there is none."""
    cdef int unit = 0
    cdef int digit, i
    if end - p < 6 or p[0] != c'\\' or p[1] != c'u':
        return -1
    for i in range(2, 6):
        digit = hex_digit(<unsigned char>p[i])
        if digit < 0:
            return -1
        unit = (unit << 4) | digit
    return unit


cdef char* put_unicode_escapes(char* target, const char** place, const char* end) noexcept:
    """Write the character of one escape, or of a pair of surrogates, as UTF-8, and move `place` past it.

    Return NULL for other digits and lone surrogates.
    """
    cdef int unit = code_unit(place[0], end)
    cdef int low
    place[0] += 6
    if 0xD800 <= unit <= 0xDBFF:
        low = code_unit(place[0], end)
        if not 0xDC00 <= low <= 0xDFFF:
            return NULL
        place[0] += 6
        return put_code_point(target, 0x10000 + ((<uint32_t>unit & 0x3FF) << 10) + (<uint32_t>low & 0x3FF))
    if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
        return NULL
    if unit < 0x80:
        target[0] = <char>unit
        return target + 1
    return put_code_point(target, <uint32_t>unit)


cdef char simple_escape(char c) noexcept:
    """Return the character of an escape's letter; NUL for an unknown letter."""
    if c == c'n':
        return 0x0A
    if c == c't':
        return 0x09
    if c == c'r':
        return 0x0D
    if c == c'b':
        return 0x08
    if c == c'f':
        return 0x0C
    if c == c'"' or c == c'\\' or c == c'/':
        return c
    return 0


cdef char* put_unescaped(char* target, const char* p, const char* stop) noexcept:
    """Write the text before `stop` as UTF-8, which is never longer; return NULL if it cannot."""
    cdef const char* run
    while True:
        run = plain_end(p, stop)
        memcpy(target, p, run - p)
        target += run - p
        p = run
        if p >= stop:
            return target
        # string_end() has checked that a character follows.
        if p[1] == c'u':
            target = put_unicode_escapes(target, &p, stop)
            if target == NULL:
                return NULL
            continue
        target[0] = simple_escape(p[1])
        if target[0] == 0:
            return NULL
        target += 1
        p += 2


cdef object unescaped(const char** place, const char* end):
    """Return the str that begins at `place` and ends with a quote; move `place` past the quote.

    Raises:
        Unusual: the text is malformed or has lone surrogates.
        UnicodeDecodeError: the text is not UTF-8.
    """
    cdef const char* start = place[0]
    cdef const char* stop = string_end(start, end)
    cdef char* text
    cdef char* behind
    if stop == NULL:
        raise Unusual
    text = <char*>PyMem_Malloc(stop - start)
    if text == NULL:
        raise MemoryError()
    try:
        behind = put_unescaped(text, start, stop)
        if behind == NULL:
            raise Unusual
        value = PyUnicode_DecodeUTF8(text, behind - text, "strict")
    finally:
        PyMem_Free(text)
    place[0] = stop + 1
    return value
